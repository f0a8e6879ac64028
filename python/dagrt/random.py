"""Random numbers from a counter-based generator (Philox 4x32-10): same seed, same numbers, on any number of threads.

Reference: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from dagrt import _config, tracing
from dagrt.ops.core import as_tensor, is_float, owned, public, standard_dtype, unwrap_sizes
from dagrt.ops.elementwise import floor, less, log, sqrt
from dagrt.ops.raw import emit
from dagrt.ops.reductions import argmax, argsort
from dagrt.ops.shapes import zeros_like
from dagrt.tensor import Tensor
from dagrt.variable import Variable

_global: list[SeedGenerator | None] = [None]
_lock = threading.Lock()


class SeedGenerator:
    """A seed and a counter: each run of a program, and each eager draw, gets numbers of its own.

    Args:
        seed: integer; a fresh one by default (the same ones after `set_random_seed`).
        name: by default "seed_generator", numbered.

    Raises:
        ValueError: a seed that is no integer.

    Example:
        >>> import dagrt
        >>> g = dagrt.random.SeedGenerator(1)
        >>> a, b = dagrt.random.uniform((2,), seed=g), dagrt.random.uniform((2,), seed=g)
        >>> bool((a != b).numpy().all())
        True
    """

    def __init__(self, seed: int | None = None, name: str | None = None, **kwargs: Any) -> None:
        if seed is None:
            seed = _config.make_seed()
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise ValueError(f"SeedGenerator: the seed must be an integer, got {seed!r}")
        self.seed = int(seed)
        self.name = name or _config.unique_name("seed_generator")
        with tracing.path_scope(self.name):
            self.state = Variable(np.array([self.seed, 0], "int64"), trainable=False, name="seed_generator_state")

    def next(self, ordered: bool = True) -> Any:
        """A new pair (seed, counter), for use as a seed.

        Args:
            ordered: kept for Keras's sake.
        """
        state = self.state.value
        self.state.assign(state + np.array([0, 1], "int64"))
        return state

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SeedGenerator:
        return cls(**config)


def global_seed_generator() -> SeedGenerator:
    """The generator behind draws without a seed."""
    with _lock:
        if _global[0] is None:
            with tracing.outside():
                _global[0] = SeedGenerator()
        return _global[0]


def _forget_global_generator() -> None:
    _global[0] = None


def _state_and_stream(seed: Any) -> tuple[Any, int]:
    """What a random op takes: (seed, counter), and which draw of its owner in this trace it is."""
    if seed is None:
        seed = global_seed_generator()
    trace = tracing.current_trace()
    if isinstance(seed, SeedGenerator):
        if trace is None:
            with _lock:  # or two threads would draw the same numbers
                now = seed.state._core.read()
                seed.state._core.assign(now + np.array([0, 1], "int64"))
            return as_tensor(now), 0
        key = id(seed.state._core)
        stream = trace.streams.get(key, 0)
        trace.streams[key] = stream + 1
        trace.keep.append(seed)
        if stream == 0:
            begin = trace.read(seed.state)
            trace.random_states[key] = begin
            if trace.scope is trace.main:
                trace.assign(seed.state, begin + np.array([0, 1], "int64"))
            else:
                scope, trace.scope = trace.scope, trace.main
                try:
                    trace.assign(seed.state, begin + np.array([0, 1], "int64"))
                finally:
                    trace.scope = scope
        return trace.random_states[key], stream
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        return as_tensor(np.array([int(seed), 0], "int64")), 0
    if isinstance(seed, (Tensor, Variable)):
        return as_tensor(seed, "int64"), 0
    raise ValueError(f"seed must be an integer, a SeedGenerator or None, got {seed!r}")


def _draw(op: str, shape: Any, seed: Any) -> Any:
    state, stream = _state_and_stream(seed)
    trace = tracing.current_trace()
    step = None
    if trace is not None and trace.scope is not trace.main:
        step = trace.scope.step()
    inputs = [state] if step is None else [state, step]
    return emit(op, *inputs, shape=unwrap_sizes(shape), stream=stream)


def _finished(x: Any, dtype: Any) -> Any:
    name = standard_dtype(dtype)
    return x if name == "float32" else as_tensor(x, name)


def normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Numbers from the normal distribution.

    Args:
        shape: sizes; ints or Dims (`ops.shape(x)[0]`).
        mean, stddev: mean and standard deviation.
        dtype: floating; float32 by default.
        seed: integer (the same numbers each time), SeedGenerator, or None.

    Example:
        >>> import dagrt as keras
        >>> keras.random.normal((2, 3)).shape
        (2, 3)
    """
    x = _draw("random_normal", shape, seed)
    return _finished(_scaled(x, stddev, mean), dtype)


def _scaled(x: Any, factor: Any, shift: Any) -> Any:
    if not (isinstance(factor, (int, float)) and factor == 1):
        x = x * factor
    return x if isinstance(shift, (int, float)) and shift == 0 else x + shift


def uniform(shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """Numbers in [minval, maxval), evenly spread.

    Args:
        shape: sizes; ints or Dims.
        minval, maxval: bounds.
        dtype: float32 by default; an integer dtype gives `randint`.
        seed: integer (the same numbers each time), SeedGenerator, or None.

    Example:
        >>> import dagrt as keras
        >>> bool(keras.random.uniform((100,), 2.0, 3.0).numpy().min() >= 2.0)
        True
    """
    name = standard_dtype(dtype)
    if not is_float(name):
        return randint(shape, minval, maxval, name, seed)
    return _finished(_scaled(_draw("random_uniform", shape, seed), maxval - minval, minval), name)


def randint(shape: Any, minval: int, maxval: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """Integers from minval to maxval - 1, evenly spread.

    Args:
        shape: sizes; ints or Dims.
        minval, maxval: bounds; at most 2²⁴ apart for every integer to be reached.
        dtype: int32 by default.
        seed: integer (the same numbers each time), SeedGenerator, or None.

    Example:
        >>> import dagrt as keras
        >>> sorted(set(keras.random.randint((100,), 3, 6, seed=1).numpy().tolist()))
        [3, 4, 5]
    """
    x = _draw("random_uniform", shape, seed)
    span = float(maxval - minval)
    whole = emit("minimum", floor(x * span), as_tensor(np.float32(span - 1)))
    return as_tensor(as_tensor(whole, "int32") + int(minval), standard_dtype(dtype))


def truncated_normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    """The normal distribution within two standard deviations, by its inverse.

    Args:
        shape: sizes; ints or Dims.
        mean, stddev: mean and standard deviation of the whole distribution.
        dtype: floating; float32 by default.
        seed: integer (the same numbers each time), SeedGenerator, or None.

    Example:
        >>> import dagrt as keras
        >>> bool(abs(keras.random.truncated_normal((100,)).numpy()).max() <= 2.0)
        True
    """
    u = _draw("random_uniform", shape, seed)
    edge = math.erf(2.0 / math.sqrt(2.0))
    p = (u * 2.0 - 1.0) * edge  # erf(z / sqrt 2) of the result z
    z = _erfinv(p) * math.sqrt(2.0)
    z = emit("maximum", emit("minimum", z, as_tensor(np.float32(2.0))), as_tensor(np.float32(-2.0)))
    return _finished(_scaled(z, stddev, mean), dtype)


def _erfinv(x: Any) -> Any:
    """Inverse error function: Giles's polynomials, "Approximating the erfinv function" (2010), single precision."""
    from dagrt.ops.elementwise import where

    w = -log((1.0 - x) * (1.0 + x))
    small, large = w - 2.5, sqrt(emit("maximum", w, as_tensor(np.float32(0.0)))) - 3.0
    p: Any = 2.81022636e-08
    for c in (
        3.43273939e-07,
        -3.5233877e-06,
        -4.39150654e-06,
        0.00021858087,
        -0.00125372503,
        -0.00417768164,
        0.246640727,
        1.50140941,
    ):
        p = small * p + c
    q: Any = -0.000200214257
    for c in (
        0.000100950558,
        0.00134934322,
        -0.00367342844,
        0.00573950773,
        -0.0076224613,
        0.00943887047,
        1.00167406,
        2.83297682,
    ):
        q = large * q + c
    return where(less(w, 5.0), p, q) * x


def bernoulli(shape: Any, p: Any = 0.5, dtype: Any = None, seed: Any = None) -> Any:
    """1 with probability p, else 0.

    Args:
        shape: sizes; ints or Dims.
        p: probability; number, or tensor that broadcasts to the shape.
        dtype: float32 by default.
        seed: integer (the same numbers each time), SeedGenerator, or None.

    Example:
        >>> import dagrt as keras
        >>> keras.random.bernoulli((3,), p=1.0).numpy()
        array([1., 1., 1.], dtype=float32)
    """
    return as_tensor(less(_draw("random_uniform", shape, seed), p), standard_dtype(dtype))


def binomial(shape: Any, counts: int, probabilities: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Number of successes among `counts` trials, each drawn.

    Args:
        shape: sizes; ints or Dims.
        counts: number of trials, an int.
        probabilities: of success; number, or tensor that broadcasts to the shape.
        dtype: float32 by default.
        seed: integer (the same numbers each time), SeedGenerator, or None.

    Example:
        >>> import dagrt as keras
        >>> keras.random.binomial((2,), counts=5, probabilities=1.0).numpy()
        array([5., 5.], dtype=float32)
    """
    from dagrt.ops.reductions import sum as total

    sizes = unwrap_sizes(shape)
    return _finished(total(bernoulli([*sizes, int(counts)], as_tensor(probabilities)[..., None], seed=seed), -1), dtype)


@public
def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """Elements set to 0 with probability `rate`, the others divided by 1 - rate.

    Args:
        inputs: tensor.
        rate: probability, 0 to 1.
        noise_shape: sizes of the random choice, broadcast to the inputs; None in it for the input's own size.
        seed: integer (the same numbers each time), SeedGenerator, or None.

    Raises:
        ValueError: a rate outside 0 to 1.

    Example:
        >>> import dagrt as keras
        >>> keras.random.dropout(keras.ops.ones((2,)), rate=1.0).numpy()
        array([0., 0.], dtype=float32)
    """
    x = as_tensor(inputs)
    if not 0 <= rate <= 1:
        raise ValueError(f"dropout: rate must be in [0, 1], got {rate}")
    if rate == 0:
        return owned(x, inputs)
    if rate == 1:
        return zeros_like(x)
    shape = list(x.dims) if noise_shape is None else [d if n is None else n for n, d in zip(noise_shape, x.dims)]
    keep = emit("greater_equal", _draw("random_uniform", shape, seed), as_tensor(np.float32(rate)))
    return emit("select", keep, x * (1.0 / (1.0 - rate)), as_tensor(0.0, x.dtype))


def categorical(logits: Any, num_samples: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """Class numbers drawn by unnormalised log-probabilities, by Gumbel's trick.

    Args:
        logits: (..., classes).
        num_samples: draws from each row.
        dtype: int32 by default.
        seed: integer (the same numbers each time), SeedGenerator, or None.

    Returns:
        (..., num_samples).

    Example:
        >>> import dagrt as keras
        >>> keras.random.categorical([[0.0, 100.0]], num_samples=3).numpy()
        array([[1, 1, 1]], dtype=int32)
    """
    x = as_tensor(logits)
    u = _draw("random_uniform", [*x.dims[:-1], int(num_samples), x.dims[-1]], seed)
    gumbel = -log(-log(emit("maximum", u, as_tensor(np.float32(1e-20)))))
    return as_tensor(argmax(x[..., None, :] + gumbel, axis=-1), standard_dtype(dtype))


def shuffle(x: Any, axis: int = 0, seed: Any = None) -> Any:
    """Slices along an axis in random order.

    Args:
        x: tensor.
        axis: the axis.
        seed: integer (the same order each time), SeedGenerator, or None.

    Example:
        >>> import dagrt as keras
        >>> sorted(keras.random.shuffle([1, 2, 3]).numpy().tolist())
        [1, 2, 3]
    """
    from dagrt.ops.shapes import take

    x = as_tensor(x)
    order = argsort(_draw("random_uniform", [x.dims[axis]], seed))
    return take(x, order, axis=axis)
