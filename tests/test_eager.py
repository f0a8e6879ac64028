"""Ops on arrays: tensors, variables, operators, random numbers, and what an op may cost."""

from __future__ import annotations

import operator
import threading
import time
from typing import Any

import dagrt as keras
import numpy as np
import pytest
from dagrt import _core, ops
from dagrt.ops import raw

A = np.array([[1.5, -2.0, 3.0], [0.5, 4.0, -1.0]], "float32")
B = np.array([2.0, -3.0, 0.5], "float32")
I = np.array([7, -7, 4], "int32")
J = np.array([2, 3, -3], "int32")
P = np.array([True, True, False])
Q = np.array([True, False, False])

BINARY = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
]


def kinds(x: np.ndarray) -> list[Any]:
    return [ops.convert_to_tensor(x), keras.Variable(x)]


@pytest.mark.parametrize("op", [*BINARY, operator.pow], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("x", "y"), [(A, B), (I, J), (A, np.float32(2)), (np.float32(3), B)], ids=["floats", "ints", "left", "right"]
)
def test_binary_operators_as_numpy(op: Any, x: np.ndarray, y: np.ndarray) -> None:
    if op is operator.pow:
        x, y = np.abs(x), np.abs(y)
    with np.errstate(all="ignore"):
        want = op(x, y)
    if want.dtype == np.float64:
        want = want.astype("float32")
    for left in [*kinds(x), x]:
        for right in kinds(y):
            for a, b in ((left, right), (right, left)) if left is x else ((left, right),):
                got = op(a, b)
                with np.errstate(all="ignore"):
                    expected = want if a is left else op(y, x)
                assert isinstance(got, keras.Tensor), "arrays and NumPy scalars give way to tensors"
                np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("op", BINARY, ids=lambda f: f.__name__)
def test_operators_with_python_numbers_on_both_sides(op: Any) -> None:
    for x in (A, np.abs(I)):
        for number in (3, 2.5):
            for t in kinds(x):
                np.testing.assert_allclose(op(t, number).numpy(), op(x, number), rtol=1e-5)
                np.testing.assert_allclose(op(number, t).numpy(), op(number, x), rtol=1e-5)


def test_logical_and_bitwise_operators() -> None:
    for op in (operator.and_, operator.or_, operator.xor):
        for x, y in ((P, Q), (I, J)):
            for t in kinds(x):
                np.testing.assert_array_equal(op(t, y).numpy(), op(x, y))
                np.testing.assert_array_equal(op(y.tolist()[0], t).numpy(), op(y.tolist()[0], x))
                np.testing.assert_array_equal(op(t, ops.convert_to_tensor(y)).numpy(), op(x, y))
    for x in (P, I, np.array([0, 200], "uint8")):
        np.testing.assert_array_equal((~ops.convert_to_tensor(x)).numpy(), ~x)


def test_unary_operators_matmul_and_indexing() -> None:
    for t in kinds(A):
        np.testing.assert_array_equal((-t).numpy(), -A)
        np.testing.assert_array_equal(abs(t).numpy(), abs(A))
        np.testing.assert_array_equal(round(t).numpy(), np.round(A))
        np.testing.assert_array_equal((t @ B).numpy(), A @ B)
        np.testing.assert_allclose((A.T @ t).numpy(), A.T @ A)
        for key in (
            0,
            -1,
            (0, 1),
            (slice(None), 1),
            (slice(None, None, -1),),
            (slice(0, 1), slice(None, None, 2)),
            None,
            (..., 0),
            (slice(None), None, slice(1, None)),
            (slice(None), [0, 2]),
            (np.array([1, 0]),),
            (slice(1, 0),),
        ):
            np.testing.assert_array_equal(t[key].numpy(), A[key])
    with pytest.raises(IndexError, match="index 2 is out of range for axis 0 of size 2"):
        ops.convert_to_tensor(A)[2]
    with pytest.raises(IndexError, match="too many indices"):
        ops.convert_to_tensor(A)[0, 0, 0]
    with pytest.raises(keras.GraphError, match=r"x\[mask\]"):
        ops.convert_to_tensor(B)[P]


def test_tensors_act_as_numbers_and_arrays() -> None:
    t = ops.convert_to_tensor(A)
    assert (t.shape, t.ndim, t.size, t.dtype, len(t)) == ((2, 3), 2, 6, "float32", 2)
    assert np.asarray(t).dtype == np.float32 and np.asarray(t, "float64").dtype == np.float64
    np.testing.assert_array_equal(np.from_dlpack(t), A)
    np.testing.assert_array_equal([row.numpy() for row in t], A)
    np.testing.assert_array_equal(t.T.numpy(), A.T)
    np.testing.assert_array_equal(t.reshape(3, -1).numpy(), A.reshape(3, 2))
    assert t.astype("int32").tolist() == A.astype("int32").tolist()
    one = ops.convert_to_tensor(2.5)
    assert (float(one), int(one), bool(one), one.item(), f"{one:.1f}") == (2.5, 2, True, 2.5, "2.5")
    assert [10, 20, 30][ops.convert_to_tensor(1)] == 20
    assert "shape=(2, 3)" in repr(t) and {t: 1}[t] == 1 and (t == None) is False  # noqa: E711
    with pytest.raises(TypeError, match="without axes"):
        len(one)


def test_tensors_have_numbers_of_their_own() -> None:
    for make in (
        ops.convert_to_tensor,
        lambda a: ops.cast(a, "float32"),
        lambda a: keras.Variable(a).value,
        ops.stop_gradient,
        lambda a: ops.reshape(a, (2,)),
        lambda a: keras.random.dropout(a, 0.0),
    ):
        a = np.ones(2, "float32")
        t = make(a)
        a[0] = 9
        assert t.numpy().tolist() == [1.0, 1.0]
        t.numpy()[0] = 7
        assert t.numpy().tolist() == [1.0, 1.0]
    i = np.ones(2, "int32")
    t = ops.round(i)
    i[0] = 9
    assert t.numpy().tolist() == [1, 1]


def test_arrays_of_other_types_are_converted() -> None:
    for given, got in (
        ("float64", "float32"),
        ("int8", "int32"),
        ("int16", "int32"),
        ("uint16", "int32"),
        ("uint32", "int64"),
        ("int64", "int64"),
        ("uint8", "uint8"),
        ("bool", "bool"),
        ("float16", "float16"),
    ):
        assert ops.convert_to_tensor(np.ones(2, given)).dtype == got
        assert ops.add(np.ones(2, given), np.ones(2, given)).dtype == got
    assert [ops.convert_to_tensor(v).dtype for v in (1, 1.0, True, [1, 2], 2**40)] == [
        "int32",
        "float32",
        "bool",
        "int32",
        "int64",
    ]
    strided = np.arange(12, dtype="float64").reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(ops.add(strided, 0).numpy(), strided)
    with pytest.raises(TypeError, match="Expected numbers, got an array of"):
        ops.convert_to_tensor(["a"])
    with pytest.raises(TypeError, match="float64"):
        ops.zeros((2,), dtype="float64")


# --- variables -----------------------------------------------------------------------------------------------------


def test_variable_holds_casts_and_checks() -> None:
    v = keras.Variable([[1, 2], [3, 4]], dtype="float32", name="table", trainable=False)
    assert (v.shape, v.dtype, v.ndim, v.size, v.name, v.path, v.trainable) == (
        (2, 2),
        "float32",
        2,
        4,
        "table",
        "table",
        False,
    )
    assert v.assign(np.ones((2, 2), "int32")).numpy().tolist() == [[1.0, 1.0], [1.0, 1.0]]
    v.assign_add(1.0)
    v.assign_sub([[0.5, 0.5], [0.5, 0.5]])
    assert v.numpy().tolist() == [[1.5, 1.5], [1.5, 1.5]]
    v.numpy()[:] = 0
    assert v.numpy().sum() == 6 and np.asarray(v).sum() == 6 and float(ops.sum(v)) == 6
    with pytest.raises(ValueError, match=r"table: assign expected shape \(2, 2\), got \(3,\)"):
        v.assign([1.0, 2.0, 3.0])
    assert keras.Variable("ones", shape=(3,)).numpy().tolist() == [1.0, 1.0, 1.0]
    assert keras.Variable(lambda shape, dtype: np.full(shape, 2), shape=(1,), dtype="int32").numpy().tolist() == [2]
    for bad, message in (
        (lambda: keras.Variable(lambda shape, dtype: 0), "needs `shape`"),
        (lambda: keras.Variable([1.0], shape=(2,)), r"expected \(2,\)"),
        (lambda: keras.Variable(1.0, name="a/b"), "must not contain"),
        (lambda: keras.Variable(1.0, sharing=1), "sharing"),
    ):
        with pytest.raises(ValueError, match=message):
            bad()


# --- random --------------------------------------------------------------------------------------------------------

N = 20_000
DRAWS = {
    "normal": (lambda seed: keras.random.normal((N,), 1.0, 2.0, seed=seed), 1.0, 2.0),
    "uniform": (lambda seed: keras.random.uniform((N,), -1.0, 3.0, seed=seed), 1.0, 4 / 12**0.5),
    "truncated_normal": (lambda seed: keras.random.truncated_normal((N,), 0.0, 1.0, seed=seed), 0.0, 0.8796),
    "randint": (lambda seed: keras.random.randint((N,), -2, 8, seed=seed), 2.5, 99**0.5 / 12**0.5),
    "bernoulli": (lambda seed: keras.random.bernoulli((N,), 0.3, seed=seed), 0.3, 0.21**0.5),
    "binomial": (lambda seed: keras.random.binomial((N,), 10, 0.2, seed=seed), 2.0, 1.6**0.5),
    "dropout": (lambda seed: keras.random.dropout(np.ones(N), 0.25, seed=seed), 1.0, (1 / 0.75 - 1) ** 0.5),
}


@pytest.mark.parametrize("name", DRAWS)
def test_distributions(name: str) -> None:
    draw, mean, deviation = DRAWS[name]
    x = draw(3).numpy().astype("float64")
    assert abs(x.mean() - mean) < 5 * deviation / N**0.5
    assert abs(x.std() - deviation) < 0.03 * deviation
    np.testing.assert_array_equal(draw(3), x)
    assert not np.array_equal(draw(4), x)
    generator = keras.random.SeedGenerator(3)
    np.testing.assert_array_equal(draw(generator), x)
    assert not np.array_equal(draw(generator), x)
    assert generator.state.numpy().tolist() == [3, 2]
    np.testing.assert_array_equal(np.asarray(keras.function(lambda: draw(keras.random.SeedGenerator(3)))()), x)


def test_ranges_of_distributions() -> None:
    u = keras.random.uniform((N,), seed=1).numpy()
    assert u.min() >= 0 and u.max() < 1
    i = keras.random.randint((N,), -2, 8, seed=1)
    assert i.dtype == "int32" and set(i.numpy().tolist()) == set(range(-2, 8))
    assert np.abs(keras.random.truncated_normal((N,), seed=1).numpy()).max() <= 2
    assert set(np.unique(keras.random.dropout(np.ones(N), 0.5, seed=1)).tolist()) == {0.0, 2.0}
    assert (
        np.ptp(keras.random.dropout(np.ones((4, 5)), 0.5, noise_shape=(None, 1), seed=1).numpy(), axis=1).tolist()
        == [0.0] * 4
    )
    assert keras.random.dropout(np.full(3, np.inf), 1.0).numpy().tolist() == [0.0] * 3
    x = keras.random.shuffle(np.arange(50), seed=1).numpy()
    assert sorted(x) == list(range(50)) and x.tolist() != list(range(50))
    c = keras.random.categorical(np.log([[0.2, 0.0 + 1e-30, 0.8]] * 2), 5000, seed=1).numpy()
    assert c.shape == (2, 5000) and abs((c == 2).mean() - 0.8) < 0.03 and not (c == 1).any()
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], got 1.5"):
        keras.random.dropout(np.ones(2), 1.5)
    with pytest.raises(ValueError, match="seed must be an integer, a SeedGenerator or None"):
        keras.random.normal((2,), seed="a")


def test_set_random_seed_repeats_what_follows() -> None:
    def some() -> list[Any]:
        keras.utils.set_random_seed(11)
        return [
            keras.random.normal((3,)).numpy(),
            keras.random.uniform((2,)).numpy(),
            keras.random.SeedGenerator().seed,
        ]

    first, again = some(), some()
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(keras.random.normal((3,)), keras.random.normal((3,)))


def test_threads_never_draw_the_same_numbers() -> None:
    generator, drawn, lock = keras.random.SeedGenerator(1), [], threading.Lock()

    def work() -> None:
        for _ in range(100):
            x = keras.random.uniform((2,), seed=generator).numpy().tobytes()
            with lock:
                drawn.append(x)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(drawn)) == 400


# --- programs of one op --------------------------------------------------------------------------------------------


def test_an_op_is_compiled_once_for_its_types_and_attributes() -> None:
    x = np.ones((5, 11), "float32")
    before = len(raw._programs)
    for _ in range(3):
        raw.emit("reduce_sum", x, axes=[1], keepdims=False)
    assert len(raw._programs) <= before + 1
    raw.emit("reduce_sum", x, axes=[0], keepdims=False)
    raw.emit("reduce_sum", x.astype("int32"), axes=[1], keepdims=False)
    assert len(raw._programs) == min(before + 3, raw._CAPACITY)


def test_errors_of_ops_are_builtins_a_user_would_catch() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)|\[2, 3\]|2, 3"):
        ops.add(A, np.ones((2, 4)))
    with pytest.raises(IndexError, match="got 9 at position 1"):
        ops.take(A, ops.convert_to_tensor([0, 9]), axis=0)
    with pytest.raises(ValueError, match="zero"):
        ops.floor_divide(I, ops.convert_to_tensor([1, 0, 1]))
    with pytest.raises(keras.GraphError, match="a size that varies"):
        ops.zeros((_core.Dim.symbol("n"), 2))
    assert issubclass(keras.GraphError, ValueError) and issubclass(keras.DataError, IndexError)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["add", "add number", "relu", "sum", "reshape", "slice", "matmul", "variable"])
def test_an_op_costs_at_most_20_microseconds(name: str) -> None:
    x, v = ops.ones((8, 8)), keras.Variable(np.ones((8, 8), "float32"))
    call = {
        "add": lambda: x + x,
        "add number": lambda: x + 1.0,
        "relu": lambda: ops.relu(x),
        "sum": lambda: ops.sum(x),
        "reshape": lambda: ops.reshape(x, (64,)),
        "slice": lambda: x[0],
        "matmul": lambda: x @ x,
        "variable": lambda: v + x,
    }[name]
    for _ in range(100):
        call()
    best = np.inf
    for _ in range(600):  # short blocks: a busy machine leaves some of them alone
        start = time.perf_counter()
        for _ in range(10):
            call()
        best = min(best, (time.perf_counter() - start) / 10)
    assert best < 20e-6, f"{best * 1e6:.1f} microseconds"
