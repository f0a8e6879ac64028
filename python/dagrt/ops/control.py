"""scan: the one loop of a program. What Keras's other control flow becomes is said in the errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dagrt import _core, tracing, tree
from dagrt.ops.core import as_tensor, public
from dagrt.ops.shapes import flip, stack
from dagrt.tensor import KerasTensor, Tensor, TracedTensor, _user_line
from dagrt.variable import Variable


@public
def scan(f: Callable, init: Any, xs: Any = None, length: Any = None, reverse: bool = False, unroll: Any = 1) -> Any:
    """A loop over the first axis that carries values along.

    Args:
        f: (carry, x) -> (new carry, y), with the carry's structure, shapes and dtypes unchanged; traced once. It may use
            tensors and Variables from outside, but assigns none.
        init: the first carry, in any nesting.
        xs: tensors that are taken apart along axis 0, in any nesting; None with `length`.
        length: number of steps where there are no xs; an int or a Dim.
        reverse: go from the last element to the first; y stays beside its x.
        unroll: Keras's, without effect.

    Returns:
        (last carry, ys stacked along axis 0).

    Raises:
        GraphError: a carry that changes its type, or a Variable assigned in f.

    Example:
        >>> import dagrt
        >>> carry, ys = dagrt.ops.scan(lambda c, x: (c + x, c), 0.0, dagrt.ops.arange(4, dtype="float32"))
        >>> float(carry), ys.numpy()
        (6.0, array([0., 0., 1., 3.], dtype=float32))
    """
    if xs is None and length is None:
        raise ValueError("scan: give xs, or length")
    trace = tracing.current_trace()
    if trace is None:
        flat_init = [as_tensor(t) for t in tree.flatten(init)]
        flat_xs = [as_tensor(t) for t in tree.flatten(xs)] if xs is not None else []

        def whole(*arrays: Any) -> Any:
            carry = tree.pack_sequence_as(init, arrays[: len(flat_init)])
            elements = tree.pack_sequence_as(xs, arrays[len(flat_init) :]) if xs is not None else None
            return scan(f, carry, elements, length, reverse)

        return tracing.run_fresh(whole, (*flat_init, *flat_xs), {})
    return _traced_scan(trace, f, init, xs, length, reverse)


def _traced_scan(trace: Any, f: Callable, init: Any, xs: Any, length: Any, reverse: bool) -> Any:
    carries = [_value(trace, t) for t in tree.flatten(init)]
    sequences = [_value(trace, t) for t in tree.flatten(xs)] if xs is not None else []
    sizes = {t.dims[0] for t in sequences if t.dims and isinstance(t.dims[0], int)}
    if isinstance(length, (int, np.integer)) and sequences:
        sizes.add(int(length))
    if any(not t.dims for t in sequences) or len(sizes) > 1:
        came = ", ".join(str(t.shape) for t in sequences)
        raise ValueError(
            f"scan: expected xs with one size of axis 0{'' if length is None else f', length={length}'}; got {came}"
        )
    outer = trace.scope
    body = tracing._Scope(trace, f"scan_{len(trace.bodies)}", outer)
    trace.bodies.append(body)
    inner_carries = [body.add_input(f"carry {i}", t.dtype, t.dims) for i, t in enumerate(carries)]
    elements = [body.add_input(f"element {i}", t.dtype, t.dims[1:]) for i, t in enumerate(sequences)]
    trace.scope = body
    try:
        carry, y = f(
            tree.pack_sequence_as(init, inner_carries),
            tree.pack_sequence_as(xs, elements) if xs is not None else None,
        )
        # A Python number takes the carry's type; a tensor of another type must not be cast unseen.
        ends = [
            body.local(_value(trace, t) if isinstance(t, (Tensor, Variable)) else as_tensor(t, c.dtype))
            for t, c in zip(_flat_like(init, carry), carries)
        ]
        ys = [body.local(as_tensor(t)) for t in tree.flatten(y) if t is not None]
    finally:
        trace.scope = outer
    for i, (t, c) in enumerate(zip(ends, carries)):
        if (
            t.dtype != c.dtype
            or len(t.dims) != len(c.dims)
            or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(t.dims, c.dims))
        ):
            raise _core.GraphError(
                f"scan: carry {i} begins as {c.dtype} of shape {c.shape} and becomes {t.dtype} of shape {t.shape}; it must "
                "keep its type (ops.cast the first carry, or the new one)"
            )
    body.outputs = [*ends, *ys]
    captured = list(body.captured.values())
    for k, (_, inner) in enumerate(captured):
        body.inputs.append((f"captured {k}", inner))
    body.inputs.append(("step", body.step()))
    steps = length if length is not None else sequences[0].dims[0]
    if isinstance(steps, np.integer):
        steps = int(steps)
    attrs = {
        "body": body.name,
        "carries": len(carries),
        "sequences": len(sequences),
        "reverse": bool(reverse),
        "length": steps if not sequences else -1,
    }
    inputs = [outer.local(t) for t in [*carries, *sequences, *(t for t, _ in captured)]]
    types = [(t.dtype, t.dims) for t in carries] + [(t.dtype, (steps, *t.dims)) for t in ys]
    outputs = trace._add(outer, "scan", inputs, types, attrs)
    last = tree.pack_sequence_as(init, outputs[: len(carries)])
    rest = iter(outputs[len(carries) :])
    return last, tree.map_structure(lambda t: None if t is None else next(rest), y)


def _flat_like(init: Any, carry: Any) -> list[Any]:
    try:
        tree.assert_same_structure(init, carry)
    except ValueError as e:
        raise _core.GraphError(f"scan: the carry must keep its structure. {e}") from None
    return tree.flatten(carry)


def _value(trace: Any, t: Any) -> TracedTensor:
    if isinstance(t, Variable):
        return t.value
    return as_tensor(t)


@public
def associative_scan(f: Callable, elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """f applied along axis 0, one after the other, all results kept.

    Args:
        f: (a, b) -> the two combined.
        elems: tensors, in any nesting.
        reverse: from the last to the first.
        axis: 0; there is no other.

    Raises:
        ValueError: another axis.
    """
    if axis != 0:
        raise ValueError("associative_scan: axis must be 0")
    flat = [as_tensor(t) for t in tree.flatten(elems)]
    elems = tree.pack_sequence_as(elems, [flip(t, 0) if reverse else t for t in flat])
    first = tree.map_structure(lambda t: t[0], elems)
    rest = tree.map_structure(lambda t: t[1:], elems)

    def step(carry: Any, x: Any) -> Any:
        y = f(carry, x)
        return y, y

    _, ys = scan(step, first, rest)
    joined = tree.map_structure(lambda a, b: _join(a, b), first, ys)
    return tree.map_structure(lambda t: flip(t, 0), joined) if reverse else joined


def _join(first: Any, ys: Any) -> Any:
    from dagrt.ops.shapes import concatenate

    return concatenate([stack([first]), ys], axis=0)


@public
def map(f: Callable, xs: Any) -> Any:
    """f of each element along axis 0, stacked.

    Args:
        f: of one element.
        xs: tensors, in any nesting.
    """
    return scan(lambda carry, x: (carry, f(x)), np.float32(0), xs)[1]


@public
def vectorized_map(function: Callable, elements: Any) -> Any:
    """As `map`.

    Args:
        function: of one element.
        elements: tensors, in any nesting.
    """
    return map(function, elements)


def cond(pred: Any, true_fn: Callable, false_fn: Callable) -> Any:
    """One of two functions, by a condition whose value is known now.

    Args:
        pred: the condition.
        true_fn: function without arguments, called where it holds.
        false_fn: likewise, where it does not.

    Raises:
        GraphError: a condition that is known only when the program runs: programs have no branches.
    """
    if isinstance(pred, (TracedTensor, KerasTensor)) or (isinstance(pred, Variable) and tracing.in_trace()):
        raise _core.GraphError(
            f"ops.cond: the condition has no value while tracing, and a program has no branches{_user_line()}; compute both "
            "results and choose with ops.where, or assign with `variable.assign(x, when=condition)`"
        )
    return true_fn() if bool(pred) else false_fn()


def while_loop(cond: Callable, body: Callable, loop_vars: Any, maximum_iterations: int | None = None) -> Any:
    """Not available: its length depends on data.

    Args:
        cond: Keras's.
        body: Keras's.
        loop_vars: Keras's.
        maximum_iterations: Keras's.

    Raises:
        GraphError: always.
    """
    raise _core.GraphError(
        f"ops.while_loop: a program has no loop whose length depends on data{_user_line()}; use ops.scan with a length, and "
        "ops.where inside it"
    )


def fori_loop(lower: int, upper: Any, body_fun: Callable, init_val: Any) -> Any:
    """body_fun(i, value) for i from lower to upper - 1.

    Args:
        lower: first i.
        upper: int or Dim; the last i is one less.
        body_fun: (i, value) -> the next value, of the same type.
        init_val: the first value, in any nesting.
    """

    def step(carry: Any, _: Any) -> Any:
        i, value = carry
        return (i + 1, body_fun(i, value)), None

    (_, value), _ = scan(step, (as_tensor(lower, "int32"), init_val), None, length=upper - lower)
    return value
