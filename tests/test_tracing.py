"""Tracing: what a traced function promises, from sizes and state to gradients, scan and error messages."""

from __future__ import annotations

import inspect
import threading
import warnings
from typing import Any

import dagrt as keras
import numpy as np
import pytest
from dagrt import ops, tracing
from dagrt.tracing import InputSpec

RNG = [np.random.default_rng(0)]


@pytest.fixture(autouse=True)
def same_data_in_any_order() -> None:
    RNG[0] = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG[0].normal(size=shape).astype("float32")


def close(got: Any, want: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(got), want, rtol=tolerance, atol=tolerance)


def line_of(fn: Any, text: str) -> int:
    lines, first = inspect.getsourcelines(fn)
    return first + next(i for i, s in enumerate(lines) if text in s)


# --- sizes ---------------------------------------------------------------------------------------------------------


def test_one_trace_serves_batches_and_lengths() -> None:
    traces = []
    w = keras.Variable(floats(4, 3))

    @keras.function(input_signature=[InputSpec((None, None, 4))])
    def f(x: Any) -> Any:
        traces.append(1)
        loss = ops.mean(ops.square(ops.tanh(x @ w)))
        flat = ops.reshape(x, (ops.shape(x)[0] * ops.shape(x)[1], 4))
        return loss, ops.gradients(loss, w), ops.sum(flat, axis=0), ops.shape(x)[1] * 2

    for batch in (1, 7, 32):
        for length in (5, 11):
            x = floats(batch, length, 4)
            t = np.tanh(x @ w.numpy())
            slope = 2 * t * (1 - t * t) / t.size
            loss, dw, total, twice = f(x)
            close(loss, np.mean(t * t))
            close(dw, np.einsum("bti,btj->ij", x, slope))
            close(total, x.sum((0, 1)), 1e-4)
            assert int(twice) == 2 * length
    assert len(traces) == 1


@pytest.mark.parametrize("batches", [(5, 5), (5, 1), (1, 5), (1, 1)])
def test_sizes_that_vary_broadcast_as_numbers_do(batches: tuple[int, int]) -> None:
    @keras.function(input_signature=[InputSpec((None, 8)), InputSpec((None, 8))])
    def f(a: Any, b: Any) -> Any:
        y = a + b
        return y, ops.gradients(ops.sum(y * y), [a, b])

    a, b = floats(batches[0], 8), floats(batches[1], 8)
    y, (da, db) = f(a, b)
    slope = 2 * (a + b)
    close(y, a + b)
    close(da, slope if len(a) == len(slope) else slope.sum(0, keepdims=True))
    close(db, slope if len(b) == len(slope) else slope.sum(0, keepdims=True))


def test_a_size_is_not_a_number() -> None:
    signature = [InputSpec((None, 3))]
    for use in (
        lambda n: int(n),
        lambda n: bool(n),
        lambda n: n > 3,
        lambda n: list(range(n)),
        lambda n: [0] * n,
        lambda n: float(n),
    ):
        with pytest.raises(keras.GraphError, match=r"x0\.0 is not known while tracing"):
            keras.function(lambda x, use=use: use(ops.shape(x)[0]) and x, input_signature=signature)(floats(2, 3))
    with pytest.raises(TypeError, match=r"ops\.shape"):
        keras.function(lambda x: x * len(x), input_signature=signature)(floats(2, 3))


def test_sizes_in_arithmetic_are_scalars_of_the_program() -> None:
    @keras.function(input_signature=[InputSpec((None, None))])
    def f(x: Any) -> Any:
        n, m = ops.shape(x)
        one = ops.sum(x) * 0 + 1
        return one * (n * m), one * (n + 2 * m - 1), one * ((n * 7) // m), one * (n % 3), one / n

    for n, m in ((4, 5), (1, 3), (9, 2)):
        got = [float(v) for v in f(floats(n, m))]
        close(got, [n * m, n + 2 * m - 1, n * 7 // m, n % 3, 1 / n])


def test_a_mean_over_varying_sizes_needs_no_array_of_that_size() -> None:
    traced = tracing.trace_to_module(ops.mean, (InputSpec((None, None, 64)),))
    program = traced.compile()
    assert program.memory([(64, 500, 64)])["arena_bytes"] < 64 * 500 * 64 * 4 / 10
    x = floats(6, 5, 64)
    close(program.run([x])[0], x.mean())
    assert program.output_types([(6, 5, 64)]) == [("float32", ())]
    assert program.module_json == traced.module_json


def test_sizes_taken_from_data_are_refused() -> None:
    for f in (
        lambda x: ops.zeros((ops.sum(x),)),
        lambda x: ops.reshape(x, ops.cast(x, "int32")),
        lambda x: ops.where(x > 0),
    ):
        with pytest.raises(keras.GraphError, match="data"):
            keras.function(f)(np.ones(3, "float32"))


def test_sampling_sized_by_the_batch() -> None:
    generator = keras.random.SeedGenerator(5)

    @keras.function(input_signature=[InputSpec((None, 4))])
    def f(x: Any) -> Any:
        return x * 0 + keras.random.normal(ops.shape(x), seed=generator), keras.random.uniform(
            (ops.shape(x)[0],), seed=generator
        )

    first, second = f(np.zeros((300, 4))), f(np.zeros((300, 4)))
    assert first[0].shape == (300, 4) and first[1].shape == (300,)
    assert not np.array_equal(first[0], second[0])
    assert generator.state.numpy().tolist() == [5, 2], "one step for each run, however many draws"
    assert abs(float(ops.std(first[0])) - 1) < 0.1 and abs(float(ops.mean(first[1])) - 0.5) < 0.1


# --- keys ----------------------------------------------------------------------------------------------------------


def test_arguments_that_are_equal_but_differ_in_type_are_traced_apart() -> None:
    f = keras.function(lambda x, k: x * k)
    x = np.array([1, 2], "int32")
    assert [f(x, k).dtype for k in (1, 1.0, True, 1.0, 1)] == ["int32", "float32", "int32", "float32", "int32"]
    g = keras.function(lambda x, k: x / k)
    assert [float(g(np.float32(1), k)) for k in (0.0, -0.0)] == [np.inf, -np.inf]


def test_arguments_without_hash_are_told_apart_for_as_long_as_programs_live() -> None:
    class Setting:
        __hash__ = None  # type: ignore[assignment]

        def __init__(self, n: int) -> None:
            self.n = n

    f = keras.function(lambda x, setting: x * setting.n)
    assert [float(f(np.float32(1), Setting(n))) for n in range(40)] == list(range(40))


def test_traces_by_structure_dtype_shape_and_training() -> None:
    traces = []

    @keras.function
    def f(x: Any, scale: float = 1.0) -> Any:
        traces.append(1)
        return {"y": tuple(v * scale for v in x.values()), "training": tracing.current_training()}

    a, b = floats(2), floats(2)
    out = f({"b": b, "a": a})
    close(out["y"][0], b)
    assert out["training"] is None
    for call, count in (
        (lambda: f({"b": a, "a": b}), 1),
        (lambda: f({"a": a}), 2),
        (lambda: f({"a": floats(3)}), 3),
        (lambda: f({"a": a}, 2.0), 4),
        (lambda: f({"a": a.astype("int32")}), 5),
        (lambda: f({"a": a.astype("float64")}), 5),
    ):
        call()
        assert len(traces) == count
    with tracing.training_scope(True):
        assert f({"a": a})["training"] is True
    assert len(traces) == 6


def test_input_signature_is_checked() -> None:
    f = keras.function(lambda x: x, input_signature=[InputSpec((None, 3))])
    assert f(np.ones((2, 3), "int32")).dtype == "float32"
    with pytest.raises(ValueError, match=r"argument 0: expected shape \(None, 3\), got \(2, 4\)"):
        f(floats(2, 4))
    with pytest.raises(ValueError, match="1 positional arrays, got 2"):
        f(floats(2, 3), floats(2, 3))


def test_nested_functions_are_inlined() -> None:
    inner = keras.function(lambda x: x * x)
    v = keras.Variable(3.0)
    outer = keras.function(lambda: ops.gradients(inner(v), v))
    assert float(outer()) == 6.0


def test_methods_are_functions_of_their_own_object() -> None:
    class Scaled:
        def __init__(self, k: float) -> None:
            self.k = k

        @keras.function
        def times(self, x: Any) -> Any:
            return x * self.k

    a, b = Scaled(2.0), Scaled(3.0)
    assert (float(a.times(np.float32(1))), float(b.times(np.float32(1)))) == (2.0, 3.0)


# --- state ---------------------------------------------------------------------------------------------------------


def test_assignments_are_seen_later_and_stored_once() -> None:
    v = keras.Variable(1.0)

    @keras.function
    def f() -> Any:
        first = v.value
        v.assign_add(1.0)
        second = v * 10.0
        v.assign(v * 2.0)
        return first, second, v.value

    version = v._core.version
    assert [float(x) for x in f()] == [1.0, 20.0, 4.0]
    assert float(v) == 4.0 and v._core.version == version + 1


def test_assignment_under_a_condition() -> None:
    v = keras.Variable([1.0, 1.0])

    @keras.function
    def f(x: Any) -> None:
        v.assign(x, when=ops.all(ops.isfinite(x)))

    f(np.array([2.0, 3.0]))
    assert v.numpy().tolist() == [2.0, 3.0]
    f(np.array([np.nan, 3.0]))
    assert v.numpy().tolist() == [2.0, 3.0]
    v.assign([5.0, 5.0], when=False)
    assert v.numpy().tolist() == [2.0, 3.0]


def test_store_guard_stops_all_stores() -> None:
    a, b = keras.Variable(0.0), keras.Variable(0.0)

    @keras.function
    def f(x: Any) -> Any:
        a.assign(x)
        b.assign(x + 1.0)
        tracing.store_guard(ops.isfinite(x))
        tracing.store_guard(x < 10.0)
        return a.value

    for x, stored in ((3.0, 3.0), (np.nan, 3.0), (11.0, 3.0), (4.0, 4.0)):
        assert np.array_equal(float(f(np.float32(x))), x, equal_nan=True)
        assert (float(a), float(b)) == (stored, stored + 1)


def test_two_updates_in_one_step_read_what_the_first_one_wrote() -> None:
    critic, maker = keras.Variable([1.0, -2.0]), keras.Variable(0.5)
    real = np.array([3.0, 1.0], "float32")

    @keras.function
    def step(noise: Any) -> Any:
        first = ops.sum(critic * (maker * noise - real))
        critic.assign_sub(0.1 * ops.gradients(first, critic))
        second = -ops.sum(critic * (maker * noise))
        maker.assign_sub(0.1 * ops.gradients(second, maker))
        return first, second

    noise = np.array([2.0, 5.0], "float32")
    c0 = critic.numpy()
    c1 = c0 - 0.1 * (0.5 * noise - real)
    first, second = step(noise)
    close(first, c0 @ (0.5 * noise - real))
    close(second, -c1 @ (0.5 * noise))
    close(critic.numpy(), c1)
    close(maker.numpy(), 0.5 + 0.1 * c1 @ noise)


def test_a_bad_index_in_the_second_half_changes_nothing() -> None:
    table, counter = keras.Variable(floats(4, 2)), keras.Variable(0, dtype="int32")
    generator = keras.random.SeedGenerator(1)

    @keras.function
    def step(ids: Any) -> Any:
        counter.assign_add(1)
        noise = keras.random.normal((2,), seed=generator)
        table.assign(table * 2.0 + noise)
        return ops.sum(ops.take(table, ids, axis=0)), noise

    before = [v.numpy() for v in (table, counter, generator.state)]
    with pytest.raises(IndexError, match=r"0\.\.3, got 4 at position 1"):
        step(np.array([1, 4]))
    for v, kept in zip((table, counter, generator.state), before):
        np.testing.assert_array_equal(v.numpy(), kept)
    _, noise = step(np.array([1, 3]))
    assert int(counter) == 1 and generator.state.numpy().tolist() == [1, 1]
    close(noise, keras.random.normal((2,), seed=keras.random.SeedGenerator(1)))


def test_variables_are_made_in_the_first_trace_only() -> None:
    made: list[Any] = []

    @keras.function
    def once(x: Any) -> Any:
        if not made:
            made.append(keras.Variable(lambda shape, dtype: np.full(shape, 7.0), shape=(2,), name="late"))
        return x * made[0]

    assert once(np.ones(2)).numpy().tolist() == [7.0, 7.0]
    assert made[0].numpy().tolist() == [7.0, 7.0]
    assert once(np.ones((3, 2))).shape == (3, 2)
    always = keras.function(lambda x: x * keras.Variable(1.0, name="again"))
    always(np.ones(2))
    with pytest.raises(keras.GraphError, match="again was created in a later trace"):
        always(np.ones(3))


def test_variables_stay_live_and_large_arrays_become_constants() -> None:
    v, table = keras.Variable(2.0), floats(50, 3)
    f = keras.function(lambda ids: v * ops.take(table, ids, axis=0))
    close(f(np.array([4, 9])), 2 * table[[4, 9]])
    v.assign(5.0)
    close(f(np.array([4, 9])), 5 * table[[4, 9]])
    traced = tracing.trace_to_module(lambda ids: ops.take(table, ids, axis=0) + 1.0, (InputSpec((None,), "int32"),))
    assert [c.shape for c in traced.constants] == [(50, 3)]


def test_shape_inference_of_symbolic_calls_records_no_assignment() -> None:
    class Counting(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x: Any) -> Any:
            self.calls.assign_add(1.0)
            return x + self.calls

    layer = Counting()
    x = keras.Input((2,))
    y = layer(x)
    assert float(layer.calls) == 0.0
    assert keras.Model(x, y)(np.zeros((1, 2))).numpy().tolist() == [[1.0, 1.0]]


def test_sizes_in_a_functional_model_are_those_of_the_run() -> None:
    x = keras.Input((None, 4))
    n, t, _ = ops.shape(x)
    rows = ops.reshape(x, (n * t, 4))
    model = keras.Model(x, [rows, x[:, : t // 2], ops.broadcast_to(ops.mean(x), (1,))])
    for batch, length in ((2, 3), (1, 6)):
        a, b, c = model.predict_on_batch(np.ones((batch, length, 4), "float32"))
        assert (a.shape, b.shape, c.shape) == ((batch * length, 4), (batch, length // 2, 4), (1,))
    z = keras.Input((4,))
    with pytest.raises(keras.GraphError, match=r"belongs to none of the tensors.*test_tracing"):
        ops.reshape(z, (t, 4))


# --- gradients -----------------------------------------------------------------------------------------------------


def test_gradient_with_respect_to_two_values_of_a_variable_is_refused() -> None:
    v = keras.Variable(2.0, name="twice")

    def f() -> Any:
        before = v * 3.0
        v.assign(v + 1.0)
        return ops.gradients(before * v, v)

    with pytest.raises(keras.GraphError, match="two values of twice"):
        keras.function(f)()


def test_gradient_before_an_assignment_is_of_the_value_that_was_read() -> None:
    v = keras.Variable(2.0)

    @keras.function
    def f() -> Any:
        loss = v * v * v
        v.assign(10.0)
        return ops.gradients(loss, v), v.value

    assert [float(x) for x in f()] == [12.0, 10.0]


def test_gradient_of_what_the_loss_does_not_read_is_zero_with_one_warning() -> None:
    used, a, b = keras.Variable(2.0), keras.Variable([1.0, 2.0], name="idle"), keras.Variable(1.0, name="lazy")
    f = keras.function(lambda: ops.gradients(used * used, [used, a, b]))
    with pytest.warns(UserWarning, match="does not depend on idle, lazy") as caught:
        got = f()
    assert len(caught) == 1
    assert [np.asarray(g).tolist() for g in got] == [4.0, [0.0, 0.0], 0.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f()  # traced, warned: done


def test_second_derivatives() -> None:
    v = keras.Variable([0.3, -1.2, 2.0])

    @keras.function
    def f() -> Any:
        (slope,) = ops.gradients(ops.sum(ops.tanh(v) * v * v), [v])
        return slope, ops.gradients(ops.sum(slope * slope), v)

    x = v.numpy().astype("float64")

    def first(x: np.ndarray) -> np.ndarray:
        t = np.tanh(x)
        return (1 - t * t) * x * x + 2 * t * x

    slope, second = f()
    close(slope, first(x))
    h = 1e-5
    close(second, 2 * first(x) * (first(x + h) - first(x - h)) / (2 * h), 1e-4)


def test_gradient_penalty_through_matmul_softmax_and_reductions() -> None:
    w, x = keras.Variable(floats(3, 4)), floats(5, 3)

    def penalty(x: Any) -> Any:
        p = ops.softmax(x @ w)
        y = ops.logsumexp(x @ w, axis=-1) + ops.sum(p * p, axis=-1)
        (dx,) = ops.gradients(ops.sum(y), [x])
        return ops.sum(ops.square(dx))

    def reference(w: np.ndarray) -> float:
        e = np.exp(x.astype("float64") @ w)
        p = e / e.sum(-1, keepdims=True)
        dz = p + 2 * p * (p - (p * p).sum(-1, keepdims=True))
        return float(((dz @ w.T) ** 2).sum())

    value, gradient = keras.value_and_grad(penalty, w)(x)
    at = w.numpy().astype("float64")
    close(value, reference(at))
    numeric = np.zeros(at.shape)
    for k in np.ndindex(at.shape):
        h = np.zeros(at.shape)
        h[k] = 1e-6
        numeric[k] = (reference(at + h) - reference(at - h)) / 2e-6
    close(gradient, numeric, 1e-4)


def test_stop_gradient_and_branches_by_where() -> None:
    x = np.array([-1.0, 0.0, 4.0], "float32")

    @keras.function
    def f(x: Any) -> Any:
        safe = ops.where(x > 0, ops.sqrt(ops.where(x > 0, x, 1.0)), 0.0)
        return ops.gradients(ops.sum(safe) + ops.sum(ops.stop_gradient(x) * x), [x])

    close(f(x)[0], [-1.0, 0.0, 4.0 + 0.25])


def test_gradients_outside_a_trace_and_of_no_scalar() -> None:
    with pytest.raises(keras.GraphError, match="value_and_grad"):
        ops.gradients(ops.sum(np.ones(2)), [])
    with pytest.raises(keras.GraphError, match=r"float scalar, got float32 of shape \(2,\)"):
        keras.function(lambda x: ops.gradients(x, [x]))(np.ones(2))
    with pytest.raises(keras.GraphError, match="float scalar, got int32"):
        keras.function(lambda x: ops.gradients(ops.sum(x), [x]))(np.ones(2, "int32"))


def test_value_and_grad_runs_python_each_time_and_compiles_once() -> None:
    w, factor, calls = keras.Variable(3.0), [2.0], []

    def fn(x: Any) -> Any:
        calls.append(1)
        return w * w * x * factor[0], {"calls": len(calls)}

    vg = keras.value_and_grad(fn, {"w": w}, has_aux=True)
    (value, aux), grads = vg(np.float32(1))
    assert (float(value), aux, float(grads["w"])) == (18.0, {"calls": 1}, 12.0)
    programs = len(tracing._fresh_programs)
    assert vg(np.float32(1))[0][1] == {"calls": 2}
    assert len(tracing._fresh_programs) == programs
    factor[0] = 1.0
    assert float(vg(np.float32(1))[0][0]) == 9.0


# --- scan ----------------------------------------------------------------------------------------------------------


def rnn_numpy(x: np.ndarray, w: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, float]:
    h = np.zeros((x.shape[1], u.shape[0]))
    hs = []
    for step in x:
        h = np.tanh(step @ w + h @ u)
        hs.append(h)
    return np.array(hs), float((np.array(hs) ** 2).sum())


@pytest.mark.parametrize("length", [1, 6])
def test_scan_and_its_gradient_against_numpy(length: int) -> None:
    w, u = keras.Variable(floats(3, 4) * 0.5), keras.Variable(floats(4, 4) * 0.5)

    @keras.function(input_signature=[InputSpec((None, None, 3))])
    def f(x: Any) -> Any:
        def body(h: Any, step: Any) -> Any:
            h = ops.tanh(step @ w + h @ u)
            return h, h

        last, hs = ops.scan(body, ops.zeros((ops.shape(x)[1], 4)), x)
        loss = ops.sum(ops.square(hs))
        return last, hs, ops.gradients(loss, [x, w, u])

    arrays = [floats(length, 2, 3), w.numpy(), u.numpy()]
    last, hs, grads = f(arrays[0])
    want, _ = rnn_numpy(*(a.astype("float64") for a in arrays))
    close(hs, want)
    close(last, want[-1])
    for i, g in enumerate(grads):
        doubles = [a.astype("float64") for a in arrays]
        numeric = np.zeros(doubles[i].shape)
        for at in np.ndindex(numeric.shape):
            ends = []
            for sign in (1, -1):
                moved = [d.copy() for d in doubles]
                moved[i][at] += sign * 1e-5
                ends.append(rnn_numpy(*moved)[1])
            numeric[at] = (ends[0] - ends[1]) / 2e-5
        close(g, numeric, 1e-4)


def test_scan_of_structures_reversed_and_by_length() -> None:
    xs = {"a": floats(4, 2), "b": floats(4)}

    def body(carry: Any, x: Any) -> Any:
        total, count = carry
        total = total + x["a"] * x["b"]
        return (total, count + 1), {"sum": total, "none": None}

    (total, count), ys = ops.scan(body, (np.zeros(2, "float32"), 0), xs, reverse=True)
    parts = (xs["a"] * xs["b"][:, None])[::-1]
    close(total, parts.sum(0))
    close(ys["sum"], np.cumsum(parts, 0)[::-1])
    assert int(count) == 4 and count.dtype == "int32" and ys["none"] is None

    powers = keras.function(
        lambda x: ops.scan(lambda c, _: (c * 2.0, c), 1.0, length=ops.shape(x)[0]), input_signature=[InputSpec((None,))]
    )
    for n in (3, 5):
        last, ys = powers(np.zeros(n))
        assert float(last) == 2.0**n and ys.numpy().tolist() == [2.0**i for i in range(n)]


def test_scan_within_scan_reads_both_outsides() -> None:
    v = keras.Variable(2.0)

    @keras.function
    def f(x: Any, k: Any) -> Any:
        def row(total: Any, r: Any) -> Any:
            inner, _ = ops.scan(lambda c, e: (c + e * v * k, None), 0.0, r)
            return total + inner * v, inner

        total, inners = ops.scan(row, 0.0, x)
        return total, inners, ops.gradients(total, [v, x, k])

    x = floats(3, 4)
    total, inners, (dv, dx, dk) = f(x, np.float32(3))
    close(total, 12 * x.sum(), 1e-4)
    close(inners, 6 * x.sum(1), 1e-4)
    close(dv, 12 * x.sum(), 1e-4)
    close(dx, np.full(x.shape, 12.0))
    close(dk, 4 * x.sum(), 1e-4)


def test_scan_reads_what_was_assigned_before_it() -> None:
    v = keras.Variable(1.0)

    @keras.function
    def f(x: Any) -> Any:
        v.assign(v * 10.0)
        total, _ = ops.scan(lambda c, e: (c + e * v, None), 0.0, x)
        return total, ops.gradients(total, v)

    total, dv = f(np.array([1.0, 2.0]))
    assert (float(total), float(dv), float(v)) == (30.0, 3.0, 10.0)


def test_random_numbers_in_a_scan_differ_from_step_to_step_and_keep_to_the_seed() -> None:
    def draws(seed: int) -> np.ndarray:
        generator = keras.random.SeedGenerator(seed)
        f = keras.function(
            lambda: ops.scan(lambda c, _: (c, keras.random.uniform((3,), seed=generator)), 0.0, length=4)[1]
        )
        got = np.concatenate([f().numpy(), f().numpy()])
        assert generator.state.numpy().tolist() == [seed, 2]
        return got

    a = draws(1)
    assert len(np.unique(a)) == a.size
    np.testing.assert_array_equal(a, draws(1))
    assert not np.array_equal(a, draws(2))


def test_scan_refuses_what_would_go_wrong_unseen() -> None:
    x, v = np.ones((3, 2), "float32"), keras.Variable(0.0, name="inside")
    with pytest.raises(keras.GraphError, match="inside was assigned inside the body of a scan; carry"):
        ops.scan(lambda c, e: (v.assign(c), None), 0.0, x)
    with pytest.raises(keras.GraphError, match=r"carry 0 begins as int32 .* becomes float32"):
        ops.scan(lambda c, e: (c + ops.sum(e), None), 0, x)
    with pytest.raises(keras.GraphError, match=r"shape \(\) and becomes float32 of shape \(2,\)"):
        ops.scan(lambda c, e: (c + e, None), 0.0, x)
    with pytest.raises(keras.GraphError, match="keep its structure"):
        ops.scan(lambda c, e: ((c, c), None), 0.0, x)
    with pytest.raises(ValueError, match="one size of axis 0"):
        ops.scan(lambda c, e: (c, None), 0.0, [x, x[:2]])
    with pytest.raises(ValueError, match="length=4"):
        ops.scan(lambda c, e: (c, None), 0.0, x, length=4)
    with pytest.raises(ValueError, match="xs, or length"):
        ops.scan(lambda c, e: (c, None), 0.0)


# --- messages ------------------------------------------------------------------------------------------------------


def decides(x: Any) -> Any:
    if ops.sum(x) > 0:
        return x
    return -x


def loops(x: Any) -> Any:
    while ops.sum(x) < 10:
        x = x * 2
    return x


def numbers(x: Any) -> Any:
    return x * float(ops.sum(x))


def arrays(x: Any) -> Any:
    return np.log(x)


@pytest.mark.parametrize(
    ("fn", "text", "remedy"),
    [
        (decides, "if ops", "ops.where"),
        (loops, "while ops", "ops.where"),
        (numbers, "float(", "dagrt.ops"),
        (arrays, "np.log", "dagrt.ops"),
    ],
)
def test_python_on_values_names_the_line_and_the_remedy(fn: Any, text: str, remedy: str) -> None:
    with pytest.raises(keras.GraphError) as e:
        keras.function(fn)(np.ones(2, "float32"))
    assert f"{__file__}:{line_of(fn, text)}" in str(e.value) and remedy in str(e.value)


def test_other_control_flow_says_what_to_use() -> None:
    with pytest.raises(keras.GraphError, match=r"ops\.where.*when=condition"):
        keras.function(lambda x: ops.cond(ops.sum(x) > 0, lambda: x, lambda: -x))(np.ones(2))
    with pytest.raises(keras.GraphError, match=r"ops\.scan with a length"):
        ops.while_loop(lambda i: i < 3, lambda i: i + 1, 0)
    assert float(ops.cond(ops.convert_to_tensor(True), lambda: 1.0, lambda: 2.0)) == 1.0


def test_values_of_a_trace_stay_in_it() -> None:
    kept: list[Any] = []
    keras.function(lambda x: kept.append(x * 2.0))(np.ones(2))
    with pytest.raises(keras.GraphError, match="outside of it; return it"):
        ops.add(kept[0], 1.0)
    with pytest.raises(keras.GraphError, match="used in another"):
        keras.function(lambda x: x + kept[0])(np.ones(2))
    with pytest.raises(keras.GraphError, match="KerasTensor was used inside a traced function"):
        keras.function(lambda x: ops.raw.emit("add", x, keras.Input((2,))))(np.ones(2))


def test_a_failed_trace_leaves_no_context() -> None:
    with pytest.raises(keras.GraphError):
        keras.function(decides)(np.ones(2, "float32"))
    assert not tracing.in_trace() and tracing.current_path() == "" and tracing.current_training() is None
    assert (ops.ones(2) + 1).numpy().tolist() == [2.0, 2.0]


# --- threads -------------------------------------------------------------------------------------------------------


def test_threads_trace_one_function_at_once() -> None:
    traces, results, failures = [], {}, []
    v = keras.Variable(2.0)

    @keras.function
    def f(x: Any) -> Any:
        traces.append(1)
        return ops.sum(x) * v

    barrier = threading.Barrier(6)

    def work(k: int) -> None:
        try:
            barrier.wait()
            for n in range(1, 8):
                results[k, n] = float(f(np.full(n, float(k), "float32")))
                keras.value_and_grad(lambda: v * v, v)()
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert all(value == 2.0 * n * k for (k, n), value in results.items())
    assert len(traces) == 7, "one trace for each shape"


def test_activations_of_pointwise_ops_are_made_again_in_backward_instead_of_kept() -> None:
    """Per layer one array of the activation's input beside its gradients, not also its parts and its result."""
    weights = [keras.Variable(np.eye(64, dtype="float32")) for _ in range(8)]

    def loss(x: Any) -> Any:
        for w in weights:
            x = keras.activations.gelu(ops.matmul(x, w))
        return ops.sum(x)

    step = keras.function(lambda x: keras.value_and_grad(loss, weights)(x))
    x = floats(512, 64)
    value, gradients = step(x)
    program = next(iter(step._programs.values()))
    assert program.memory([(512, 64)])["arena_bytes"] < (8 + 5) * x.nbytes
    first = x
    for _ in weights:  # weights are identities
        first = np.asarray(keras.activations.gelu(first))
    close(value, first.sum(), 1e-5)
    for g in gradients:
        assert np.isfinite(np.asarray(g)).all()
