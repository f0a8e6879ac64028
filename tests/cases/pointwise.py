"""Pointwise ops: every functor, broadcasting in all forms, dtypes, ties, NaN and infinities, faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cases import Arg, Case

erf = np.vectorize(math.erf, otypes=[float])
NAN, INF = float("nan"), float("inf")
SPECIAL = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e-20, -1e-20, 3e38, -3e38, 0.5, 2.5, -2.5, 88.0, -88.0, 100.0, -100.0]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def softplus(x: Any) -> Any:
    return np.logaddexp(x, 0)


# name, reference, low, high, kinks
UNARY: list[tuple[str, Callable, float, float, tuple[float, ...]]] = [
    ("negative", np.negative, -2, 2, ()),
    ("abs", np.abs, -2, 2, (0,)),
    ("sign", np.sign, -2, 2, (0,)),
    ("square", np.square, -2, 2, ()),
    ("exp", np.exp, -5, 5, ()),
    ("expm1", np.expm1, -3, 3, ()),
    ("log", np.log, 0.1, 9, ()),
    ("log1p", np.log1p, -0.8, 9, ()),
    ("sqrt", np.sqrt, 0.1, 9, ()),
    ("rsqrt", lambda x: 1 / np.sqrt(x), 0.1, 9, ()),
    ("reciprocal", lambda x: 1 / x, 0.3, 3, ()),
    ("sin", np.sin, -7, 7, ()),
    ("cos", np.cos, -7, 7, ()),
    ("tan", np.tan, -1.2, 1.2, ()),
    ("arcsin", np.arcsin, -0.9, 0.9, ()),
    ("arccos", np.arccos, -0.9, 0.9, ()),
    ("arctan", np.arctan, -3, 3, ()),
    ("sinh", np.sinh, -3, 3, ()),
    ("cosh", np.cosh, -3, 3, ()),
    ("arcsinh", np.arcsinh, -3, 3, ()),
    ("arccosh", np.arccosh, 1.2, 5, ()),
    ("arctanh", np.arctanh, -0.9, 0.9, ()),
    ("tanh", np.tanh, -4, 4, ()),
    ("sigmoid", sigmoid, -6, 6, ()),
    ("erf", erf, -3, 3, ()),
    ("softplus", softplus, -6, 6, ()),
    ("relu", lambda x: np.maximum(x, 0), -2, 2, (0,)),
    ("relu6", lambda x: np.minimum(np.maximum(x, 0), 6), -3, 9, (0, 6)),
    ("floor", np.floor, -4, 4, (-3, -2, -1, 0, 1, 2, 3)),
    ("ceil", np.ceil, -4, 4, (-3, -2, -1, 0, 1, 2, 3)),
    ("round", np.round, -4, 4, (-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5)),
]
SIZES = [(), (1,), (0,), (15,), (16,), (17,), (33,), (7, 13), (2, 0, 3), (3, 1, 5)]

CASES: list[Case] = []
for name, f, low, high, kinks in UNARY:
    CASES.append(Case(name, [Arg((37,), low=low, high=high, avoid=kinks)], f, tolerance=4))
    CASES.append(Case(name, [Arg((3, 1031), low=low, high=high, avoid=kinks)], f, tolerance=4))
    # Where the function is undefined the C library's answer is NaN, as is ours.
    ordinary = [x for x in SPECIAL if not (name in ("sin", "cos", "tan", "sinh", "cosh", "square") and abs(x) > 1e30)]
    ordinary = [
        x for x in ordinary if not (name in ("exp", "expm1", "sinh", "cosh") and abs(x) > 80 and math.isfinite(x))
    ]
    if name in ("reciprocal", "rsqrt"):
        ordinary = [x for x in ordinary if not (x != 0 and abs(x) < 1e-10)]
    CASES.append(Case(name, [Arg(values=ordinary)], f, tolerance=4, grad=(), name=f"{name}-special"))
    for size in SIZES if name in ("exp", "relu") else []:
        CASES.append(Case(name, [Arg(size, low=low, high=high, avoid=kinks)], f, tolerance=4))
    CASES.append(
        Case(
            name,
            [Arg(values=np.linspace(low, high, 21), dtype="float16")],
            f,
            tolerance=4096,
            grad=(),
            name=f"{name}-half",
        )
    )

CASES += [
    Case("exp", [Arg((999,), low=-80, high=80)], np.exp, tolerance=4, grad=(), name="exp-wide"),
    Case("exp", [Arg((999,), low=-80, high=0)], lambda x: np.exp(x), tolerance=4, grad=(), name="exp-small"),
    Case("expm1", [Arg((999,), low=-1e-3, high=1e-3)], np.expm1, tolerance=4, name="expm1-tiny"),
    Case("log1p", [Arg((999,), low=-1e-3, high=1e-3)], np.log1p, tolerance=4, name="log1p-tiny"),
    Case("log", [Arg((999,), low=0.99, high=1.01)], np.log, tolerance=4, name="log-near-one"),
    Case("log", [Arg((999,), low=1e-30, high=1e30)], np.log, tolerance=4, grad=(), name="log-wide"),
    Case("tanh", [Arg((999,), low=-1e-2, high=1e-2)], np.tanh, tolerance=4, name="tanh-tiny"),
    Case("sin", [Arg((999,), low=-1e4, high=1e4)], np.sin, tolerance=4, grad=(), name="sin-far"),
    Case("cos", [Arg((999,), low=-1e4, high=1e4)], np.cos, tolerance=4, grad=(), name="cos-far"),
    Case("sin", [Arg((999,), low=-1e7, high=1e7)], np.sin, tolerance=4, grad=(), name="sin-farther"),
    Case("erf", [Arg((999,), low=-1e-2, high=1e-2)], erf, tolerance=4, name="erf-tiny"),
    Case("round", [Arg(values=[0.5, 1.5, 2.5, -0.5, -1.5, 8388607.5, 1e9])], np.round, grad=(), name="round-ties"),
    Case("relu", [Arg(values=[0.0, -0.0, 1.0, -1.0])], lambda x: np.maximum(x, 0), grad=(), name="relu-zero"),
    Case(
        "relu6", [Arg(values=[0.0, -0.0, 5.9999995, 6.0, 7.0])], lambda x: np.clip(x, 0, 6), grad=(), name="relu6-kinks"
    ),
]


def through(digits: int, least: int, most: float) -> Callable:
    """Floats of so many binary digits, from 2^least on with all of them; to nearest, ties to even."""

    def f(x: Any) -> Any:
        x = np.asarray(x, "float64")
        finite = np.where(np.isfinite(x), x, 0)
        unit = np.exp2(np.maximum(np.frexp(finite)[1], least + 1) - digits)
        y = np.where(np.isfinite(x), np.round(finite / unit) * unit, x)
        return np.where(np.abs(y) > most, np.sign(x) * np.inf, y)

    return f


HARD_HALVES = [
    0.0,
    -0.0,
    1.0,
    1.00390625,
    1.01171875,
    1.005,
    -1.015,
    3.38e38,
    3.4e38,
    65504,
    65519.9,
    65520,
    -7e4,
    6.1e-5,
]
HARD_HALVES += [
    6.097e-5,
    2.98e-8,
    2.99e-8,
    8.9407e-8,
    -1e-7,
    1e-30,
    1.1754944e-38,
    5.0e-38,
    INF,
    -INF,
    NAN,
    2049,
    2051,
    257,
]
for name, f in (("bfloat16", through(8, -126, float.fromhex("0x1.fep127"))), ("float16", through(11, -14, 65504.0))):
    CASES += [
        Case(f"round_{name}", [Arg((3, 1031), low=-9, high=9)], f, tolerance=0, grad=()),
        Case(f"round_{name}", [Arg((2, 0, 3))], f, tolerance=0, grad=()),
        Case(f"round_{name}", [Arg(values=HARD_HALVES)], f, tolerance=0, grad=(), name=f"round_{name}-hard"),
    ]
for name in ("negative", "abs", "sign", "square"):
    g = dict((n, r) for n, r, *_ in UNARY)[name]
    for dtype, low in (("int32", -100), ("int64", -100), ("uint8", 0)):
        CASES.append(
            Case(
                name,
                [Arg((33,), dtype, low, 100)],
                lambda x, g=g, dtype=dtype: g(x).astype(dtype),
                name=f"{name}-{dtype}",
            )
        )


def mod(a: Any, b: Any) -> Any:
    return np.mod(a, b)


BINARY: list[tuple[str, Callable, Arg, Arg]] = [
    ("add", np.add, Arg(), Arg()),
    ("subtract", np.subtract, Arg(), Arg()),
    ("multiply", np.multiply, Arg(), Arg()),
    ("divide", np.divide, Arg(), Arg(low=0.3)),
    ("maximum", np.maximum, Arg(), Arg()),
    ("minimum", np.minimum, Arg(), Arg()),
    ("power", np.power, Arg(low=0.2), Arg()),
    ("arctan2", np.arctan2, Arg(low=0.3), Arg()),
]
PAIRS = [
    ((37,), (37,)), ((), (5,)), ((5,), ()), ((4, 1), (1, 7)), ((3, 5), (5,)), ((2, 3, 4), (3, 1)),
    ((1,), (3, 1, 5)), ((6, 300), (300,)), ((6, 300), (6, 1)), ((0, 3), (3,)), ((50, 3), (3,)), ((2, 1, 3, 1), (5, 1, 4)),
]  # fmt: skip
for name, f, a, b in BINARY:
    for left, right in PAIRS if name in ("add", "multiply", "divide", "power") else PAIRS[:5]:
        CASES.append(
            Case(name, [Arg(left, low=a.low, high=a.high), Arg(right, low=b.low, high=b.high)], f, tolerance=4)
        )
    CASES.append(
        Case(
            name,
            [Arg(values=[1.5, -2, 0.25, 3], dtype="float16"), Arg(values=[0.5, 2, 4, 1], dtype="float16")],
            f,
            tolerance=4096,
            grad=(),
            name=f"{name}-half",
        )
    )
for name, f in [("floor_divide", np.floor_divide), ("mod", mod)]:
    CASES += [
        Case(name, [Arg((40,), low=0.2, high=5), Arg((40,), low=7, high=9)], f, tolerance=8),
        Case(name, [Arg((3, 40), low=-50, high=50), Arg((40,), low=0.5, high=3)], f, tolerance=8, grad=()),
        Case(
            name,
            [Arg(values=[7.0, -7, 7, -7, 6, -6]), Arg(values=[3.0, 3, -3, -3, 3, -3])],
            f,
            grad=(),
            name=f"{name}-signs",
        ),
        Case(
            name,
            [Arg(values=[7, -7, 7, -7, 6, -6, -1], dtype="int32"), Arg(values=[3, 3, -3, -3, 3, -3, 5], dtype="int32")],
            f,
            name=f"{name}-int-signs",
        ),
        Case(name, [Arg((30,), "int64", -99, 99), Arg((), "int64", 7, 8)], f, name=f"{name}-int64-scalar"),
        Case(name, [Arg((30,), "uint8", 0, 255), Arg((30,), "uint8", 1, 255)], f, name=f"{name}-uint8"),
        Case(
            name,
            [Arg(values=[1, 2, 3], dtype="int32"), Arg(values=[1, 0, 2], dtype="int32")],
            f,
            fault="other than 0",
            name=f"{name}-by-zero",
        ),
    ]
for name, f in [
    ("add", np.add),
    ("subtract", np.subtract),
    ("multiply", np.multiply),
    ("maximum", np.maximum),
    ("minimum", np.minimum),
]:
    CASES += [
        Case(name, [Arg((33,), "int32", -2**31, 2**31 - 1), Arg((33,), "int32", -2**31, 2**31 - 1)], f, name=f"{name}-int32-wraps"),
        Case(name, [Arg((4, 9), "uint8", 0, 255), Arg((9,), "uint8", 0, 255)], f, name=f"{name}-uint8-wraps"),
        Case(name, [Arg((20,), "int64", -2**40, 2**40), Arg((), "int64", -9, 9)], f, name=f"{name}-int64"),
    ]  # fmt: skip
CASES += [
    Case("add", [Arg((33,), "bool"), Arg((33,), "bool")], np.logical_or, name="add-bool"),
    Case("maximum", [Arg((33,), "bool"), Arg((), "bool")], np.logical_or, name="maximum-bool"),
    Case("minimum", [Arg((33,), "bool"), Arg((33,), "bool")], np.logical_and, name="minimum-bool"),
    Case("maximum", [Arg(values=[NAN, 1, NAN, -INF]), Arg(values=[1, NAN, NAN, INF])], np.maximum, grad=(), name="maximum-nan"),
    Case("minimum", [Arg(values=[NAN, 1, NAN, -INF]), Arg(values=[1, NAN, NAN, INF])], np.minimum, grad=(), name="minimum-nan"),
    Case("maximum", [Arg(values=[1.0, 2.0, 3.0]), Arg(values=[1.0, 2.0, 3.0])],  # halves: what central differences give
         np.maximum, name="maximum-ties"),
    Case("divide", [Arg(values=[1.0, -1, 0, INF]), Arg(values=[0.0, 0, 0, INF])], np.divide, grad=(), name="divide-by-zero"),
    Case("power", [Arg(values=[2, 3, -2, 5, 0, 7], dtype="int32"), Arg(values=[10, 0, 3, 1, 0, 2], dtype="int32")],
         lambda a, b: a**b, name="power-int"),
    Case("power", [Arg(values=[0.0, 0.0, 2.0]), Arg(values=[2.0, 3.0, 2.0])], np.power, grad=(0,), name="power-of-zero"),
    Case("power", [Arg((50,)), Arg(values=2.0)], np.power, grad=(0,), name="power-square"),
]  # fmt: skip
for name, f in [
    ("equal", np.equal),
    ("not_equal", np.not_equal),
    ("less", np.less),
    ("less_equal", np.less_equal),
    ("greater", np.greater),
    ("greater_equal", np.greater_equal),
]:
    CASES += [
        Case(name, [Arg(values=[1.0, 2, NAN, INF, -0.0, 3]), Arg(values=[1.0, 3, NAN, INF, 0.0, NAN])], f, name=f"{name}-nan"),
        Case(name, [Arg((7, 37)), Arg((37,))], f),
        Case(name, [Arg((500,)), Arg()], f),
        Case(name, [Arg(), Arg((17,))], f),
        Case(name, [Arg((40,), "int32", 0, 3), Arg((40,), "int32", 0, 3)], f, name=f"{name}-int32"),
        Case(name, [Arg((40,), "int64", 0, 3), Arg((), "int64", 1, 2)], f, name=f"{name}-int64"),
        Case(name, [Arg((40,), "uint8", 0, 3), Arg((40,), "uint8", 0, 3)], f, name=f"{name}-uint8"),
        Case(name, [Arg((40,), "bool"), Arg((40,), "bool")], f, name=f"{name}-bool"),
    ]  # fmt: skip
for name, f in [("logical_and", np.logical_and), ("logical_or", np.logical_or), ("logical_xor", np.logical_xor)]:
    CASES += [
        Case(name, [Arg((5, 33), "bool"), Arg((33,), "bool")], f),
        Case(name, [Arg((9,), "bool"), Arg((), "bool")], f),
    ]
for name, f in [("bitwise_and", np.bitwise_and), ("bitwise_or", np.bitwise_or), ("bitwise_xor", np.bitwise_xor)]:
    CASES += [
        Case(name, [Arg((33,), "int32", -99, 99), Arg((33,), "int32", -99, 99)], f),
        Case(name, [Arg((33,), "uint8", 0, 255), Arg((), "uint8", 15, 16)], f, name=f"{name}-uint8"),
        Case(name, [Arg((33,), "int64", -99, 99), Arg((33,), "int64", -99, 99)], f, name=f"{name}-int64"),
        Case(name, [Arg((33,), "bool"), Arg((33,), "bool")], f, name=f"{name}-bool"),
    ]
for name, f in [("isnan", np.isnan), ("isinf", np.isinf), ("isfinite", np.isfinite)]:
    CASES += [Case(name, [Arg(values=SPECIAL)], f), Case(name, [Arg((0,))], f)]
CASES += [
    Case("logical_not", [Arg((33,), "bool")], np.logical_not),
    Case("stop_gradient", [Arg((33,))], lambda x: x, grad=()),
    Case("stop_gradient", [Arg((33,), "int64", -9, 9)], lambda x: x, name="stop_gradient-int64"),
]

# select
for shapes in [((33,), (33,), (33,)), ((33,), (), (33,)), ((33,), (33,), ()), ((33,), (), ()), ((), (33,), (33,)),
               ((4, 1), (1, 7), (7,)), ((5, 300), (300,), ()), ((5, 1), (5, 300), ()), ((0,), (0,), ()), ((50, 3), (3,), (50, 3))]:  # fmt: skip
    CASES.append(Case("select", [Arg(shapes[0], "bool"), Arg(shapes[1]), Arg(shapes[2])], np.where, tolerance=0))
for dtype in ("int32", "int64", "uint8", "bool"):
    CASES.append(
        Case(
            "select",
            [Arg((33,), "bool"), Arg((33,), dtype, 0, 99), Arg((), dtype, 0, 99)],
            np.where,
            name=f"select-{dtype}",
        )
    )
CASES.append(
    Case(
        "select",
        [Arg(values=[True, False], dtype="bool"), Arg(values=[1.0, NAN]), Arg(values=[NAN, 2.0])],
        np.where,
        grad=(),
        name="select-hides-nan",
    )
)


# cast
def saturate(x: Any, dtype: str) -> Any:
    info = np.iinfo(dtype)
    x = np.where(np.isnan(x), 0, np.trunc(x))
    low, high = x <= info.min, x >= info.max
    y = np.where(low | high, 0, x).astype(dtype)
    return np.where(low, np.array(info.min, dtype), np.where(high, np.array(info.max, dtype), y))


HARD = [0.0, 1.9, -1.9, 255.5, 256.0, -1.0, 3e9, -3e9, 1e19, -1e19, NAN, INF, -INF, 2147483520.0, 0.5, -0.5, 17.0]
for dtype in ("int32", "int64", "uint8"):
    CASES.append(
        Case("cast", [Arg(values=HARD)], lambda x, d=dtype: saturate(x, d), {"dtype": dtype}, name=f"cast-{dtype}")
    )
    CASES.append(
        Case(
            "cast",
            [Arg((33,), dtype, 0, 200)],
            lambda x: x.astype("float64"),
            {"dtype": "float32"},
            name=f"cast-{dtype}-float",
        )
    )
    CASES.append(
        Case("cast", [Arg((33,), dtype, 0, 3)], lambda x: x != 0, {"dtype": "bool"}, name=f"cast-{dtype}-bool")
    )
    CASES.append(
        Case("cast", [Arg((33,), "bool")], lambda x, d=dtype: x.astype(d), {"dtype": dtype}, name=f"cast-bool-{dtype}")
    )
CASES += [
    Case("cast", [Arg(values=HARD)], lambda x: x != 0, {"dtype": "bool"}, name="cast-bool"),
    Case("cast", [Arg((33,), "int64", -(2**40), 2**40)], lambda x: x.astype("int32"), {"dtype": "int32"}, name="cast-wraps"),
    Case("cast", [Arg((33,), "int32", -999, 999)], lambda x: x.astype("uint8"), {"dtype": "uint8"}, name="cast-wraps-uint8"),
    Case("cast", [Arg((33,))], lambda x: x, {"dtype": "float32"}, tolerance=0),
    Case("cast", [Arg((5, 7), "bool")], lambda x: x.astype("float64"), {"dtype": "float32"}, name="cast-bool-float"),
    Case("cast", [Arg((33,))], lambda x: x, {"dtype": "float16"}, tolerance=4096, grad=(), name="cast-half"),
    Case("cast", [Arg(values=[1.5, 65504.0, 6e-8, NAN, INF, -0.0], dtype="float16")], lambda x: x, {"dtype": "float32"},
         tolerance=0, grad=(), name="cast-from-half"),
    Case("cast", [Arg((0,))], lambda x: x.astype("int32"), {"dtype": "int32"}, name="cast-empty"),
]  # fmt: skip
