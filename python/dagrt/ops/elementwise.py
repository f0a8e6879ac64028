"""Pointwise ops by Keras's names: arithmetic, comparisons, logic, mathematical functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dagrt import _config, _core
from dagrt.ops.core import as_tensor, is_float, owned, public, result_type
from dagrt.ops.raw import emit
from dagrt.tensor import Tensor


def _pair(x1: Any, x2: Any, dtype: str) -> tuple[Any, Any]:
    return as_tensor(x1, dtype), as_tensor(x2, dtype)


def _binary(op: str, name: str, doc: str, floating: bool = False, numbers: bool = False) -> Callable:
    def fn(x1: Any, x2: Any) -> Any:
        if isinstance(x1, (int, _core.Dim)) and isinstance(x2, (int, _core.Dim)) and not isinstance(x1, bool):
            x1 = as_tensor(x1, "int32")
        if type(x1) is type(x2) and isinstance(x1, Tensor) and x1.dtype == x2.dtype == "float32":
            return emit(op, x1, x2)
        dtype = result_type(x1, x2)
        if dtype == "bool" and op == "multiply":
            return emit("logical_and", *_pair(x1, x2, dtype))
        if floating and not is_float(dtype):
            dtype = _config.floatx()
        if numbers and dtype == "bool":
            dtype = "int32"
        return emit(op, *_pair(x1, x2, dtype))

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = f"{doc}\n\nArgs:\n    x1, x2: tensors or numbers.\n"
    return public(fn)


add = _binary("add", "add", "x1 + x2, broadcast; booleans: or.")
subtract = _binary("subtract", "subtract", "x1 - x2, broadcast.", numbers=True)
multiply = _binary("multiply", "multiply", "x1 * x2, broadcast; booleans: and.")
divide = _binary("divide", "divide", "x1 / x2 in floating point, broadcast.", floating=True)
true_divide = _binary("divide", "true_divide", "x1 / x2 in floating point, broadcast.", floating=True)
floor_divide = _binary(
    "floor_divide", "floor_divide", "x1 // x2, rounded down; integer division by zero is an error.", numbers=True
)
mod = _binary("mod", "mod", "x1 % x2 with the sign of x2; by an integer zero it is an error.", numbers=True)
remainder = mod
power = _binary("power", "power", "x1 to the power x2, broadcast.", numbers=True)
maximum = _binary("maximum", "maximum", "The larger of two, broadcast; NaN wins.")
minimum = _binary("minimum", "minimum", "The smaller of two, broadcast; NaN wins.")
arctan2 = _binary("arctan2", "arctan2", "Angle of the point (x2, x1), in radians.", floating=True)
equal = _binary("equal", "equal", "x1 == x2, a bool tensor.")
not_equal = _binary("not_equal", "not_equal", "x1 != x2, a bool tensor.")
less = _binary("less", "less", "x1 < x2, a bool tensor.")
less_equal = _binary("less_equal", "less_equal", "x1 <= x2, a bool tensor.")
greater = _binary("greater", "greater", "x1 > x2, a bool tensor.")
greater_equal = _binary("greater_equal", "greater_equal", "x1 >= x2, a bool tensor.")


def _logical(op: str) -> Callable:
    def fn(x1: Any, x2: Any) -> Any:
        return emit(op, as_bool(x1), as_bool(x2))

    fn.__name__ = fn.__qualname__ = op
    what = op.removeprefix("logical_").capitalize()
    fn.__doc__ = (
        f"{what} of two conditions; numbers count as true where they are not zero.\n\nArgs:\n    x1, x2: tensors.\n"
    )
    return public(fn)


def as_bool(x: Any) -> Any:
    t = as_tensor(x)
    return t if t.dtype == "bool" else emit("cast", t, dtype="bool")


logical_and = _logical("logical_and")
logical_or = _logical("logical_or")
logical_xor = _logical("logical_xor")


@public
def logical_not(x: Any) -> Any:
    """True where x is false (or zero).

    Args:
        x: tensor.
    """
    return emit("logical_not", as_bool(x))


@public
def bitwise_and(x: Any, y: Any) -> Any:
    """Bits set in both integers.

    Args:
        x: integer or bool tensor.
        y: likewise.
    """
    return emit("bitwise_and", *_pair(x, y, result_type(x, y)))


@public
def bitwise_or(x: Any, y: Any) -> Any:
    """Bits set in either integer.

    Args:
        x: integer or bool tensor.
        y: likewise.
    """
    return emit("bitwise_or", *_pair(x, y, result_type(x, y)))


@public
def bitwise_xor(x: Any, y: Any) -> Any:
    """Bits set in one of two integers.

    Args:
        x: integer or bool tensor.
        y: likewise.
    """
    return emit("bitwise_xor", *_pair(x, y, result_type(x, y)))


@public
def bitwise_not(x: Any) -> Any:
    """All bits flipped; of booleans, not.

    Args:
        x: integer or bool tensor.
    """
    x = as_tensor(x)
    if x.dtype == "bool":
        return emit("logical_not", x)
    if x.dtype == "uint8":
        return emit("subtract", as_tensor(255, "uint8"), x)
    return emit("subtract", as_tensor(-1, x.dtype), x)


def _unary(op: str, name: str, doc: str, floating: bool = True) -> Callable:
    def fn(x: Any) -> Any:
        x = as_tensor(x)
        if x.dtype == "bool" and not floating:  # as numbers 0 and 1; absolute value and sign stay what they are
            if name in ("absolute", "sign"):
                return emit("logical_or", x, x)
            x = as_tensor(x, "int32")
        if floating and not is_float(x.dtype):
            x = as_tensor(x, _config.floatx())
        return emit(op, x)

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = f"{doc}\n\nArgs:\n    x: tensor.\n"
    return public(fn)


negative = _unary("negative", "negative", "-x.", floating=False)
absolute = _unary("abs", "absolute", "|x|.", floating=False)
sign = _unary("sign", "sign", "-1, 0 or 1.", floating=False)
square = _unary("square", "square", "x².", floating=False)
exp = _unary("exp", "exp", "e to the power x.")
expm1 = _unary("expm1", "expm1", "exp(x) - 1, exact near 0.")
log = _unary("log", "log", "Natural logarithm; -inf at 0, NaN below.")
log1p = _unary("log1p", "log1p", "log(1 + x), exact near 0.")
sqrt = _unary("sqrt", "sqrt", "Square root; NaN below 0.")
rsqrt = _unary("rsqrt", "rsqrt", "1 / sqrt(x).")
reciprocal = _unary("reciprocal", "reciprocal", "1 / x.")
sin = _unary("sin", "sin", "Sine of radians.")
cos = _unary("cos", "cos", "Cosine of radians.")
tan = _unary("tan", "tan", "Tangent of radians.")
arcsin = _unary("arcsin", "arcsin", "Inverse sine, in radians.")
arccos = _unary("arccos", "arccos", "Inverse cosine, in radians.")
arctan = _unary("arctan", "arctan", "Inverse tangent, in radians.")
sinh = _unary("sinh", "sinh", "Hyperbolic sine.")
cosh = _unary("cosh", "cosh", "Hyperbolic cosine.")
arcsinh = _unary("arcsinh", "arcsinh", "Inverse hyperbolic sine.")
arccosh = _unary("arccosh", "arccosh", "Inverse hyperbolic cosine.")
arctanh = _unary("arctanh", "arctanh", "Inverse hyperbolic tangent.")
tanh = _unary("tanh", "tanh", "Hyperbolic tangent.")
erf = _unary("erf", "erf", "Gauss's error function.")
floor = _unary("floor", "floor", "Rounded down.")
ceil = _unary("ceil", "ceil", "Rounded up.")
isnan = _unary("isnan", "isnan", "True where x is NaN.")
isinf = _unary("isinf", "isinf", "True where x is infinite.")
isfinite = _unary("isfinite", "isfinite", "True where x is a finite number.")


abs = absolute


@public
def log2(x: Any) -> Any:
    """Logarithm to base 2.

    Args:
        x: tensor.
    """
    return log(x) * (1.0 / math.log(2.0))


@public
def log10(x: Any) -> Any:
    """Logarithm to base 10.

    Args:
        x: tensor.
    """
    return log(x) * (1.0 / math.log(10.0))


@public
def round(x: Any, decimals: int = 0) -> Any:
    """Rounded to so many decimals, halves to even.

    Args:
        x: tensor.
        decimals: places behind the point.
    """
    given, x = x, as_tensor(x)
    if not is_float(x.dtype):
        return owned(x, given)
    if decimals == 0:
        return emit("round", x)
    scale = 10.0**decimals
    return emit("round", x * scale) / scale


@public
def logaddexp(x1: Any, x2: Any) -> Any:
    """log(exp(x1) + exp(x2)), stable.

    Args:
        x1: tensor or number.
        x2: tensor or number.
    """
    high = maximum(x1, x2)
    return high + log1p(exp(-absolute(subtract(x1, x2))))


@public
def clip(x: Any, x_min: Any, x_max: Any) -> Any:
    """x limited to [x_min, x_max].

    Args:
        x: tensor.
        x_min: lower bound.
        x_max: upper bound; it wins where they cross.
    """
    x = as_tensor(x)
    dtype = result_type(x, x_min, x_max)
    return emit("minimum", emit("maximum", as_tensor(x, dtype), as_tensor(x_min, dtype)), as_tensor(x_max, dtype))


@public
def where(condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """x1 where the condition holds, else x2; broadcast.

    Args:
        condition: bool tensor.
        x1: value where it holds.
        x2: value where it does not.

    Raises:
        GraphError: the condition alone: how many places hold would be a size taken from data.
    """
    if x1 is None or x2 is None:
        raise _core.GraphError("where(condition) alone has a result whose size depends on data; give x1 and x2")
    dtype = result_type(x1, x2)
    return emit("select", as_bool(condition), as_tensor(x1, dtype), as_tensor(x2, dtype))


@public
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """With lists: the first choice whose condition holds. With one condition and two values: as `where`.

    Args:
        condlist: conditions; the first that holds decides.
        choicelist: a value for each.
        default: value where none holds.
    """
    if not isinstance(condlist, (list, tuple)):
        return where(condlist, choicelist, default)
    result = default
    for c, x in zip(reversed(condlist), reversed(choicelist)):
        result = where(c, x, result)
    return result


@public
def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """NaN and infinities replaced by numbers.

    Args:
        x: tensor.
        nan: in place of NaN.
        posinf: in place of inf; the largest float by default.
        neginf: in place of -inf; the smallest float by default.
    """
    x = as_tensor(x)
    big = 3.4028235e38
    x = where(isnan(x), nan, x)
    x = where(equal(x, math.inf), big if posinf is None else posinf, x)
    return where(equal(x, -math.inf), -big if neginf is None else neginf, x)


# --- activations ---------------------------------------------------------------------------------------------------


@public
def relu(x: Any) -> Any:
    """max(x, 0).

    Args:
        x: tensor.
    """
    return emit("relu", as_tensor(x)) if is_float(result_type(x)) else maximum(x, 0)


@public
def relu6(x: Any) -> Any:
    """min(max(x, 0), 6). Its gradient is 0 at both kinks.

    Args:
        x: tensor.
    """
    return emit("relu6", as_tensor(x)) if is_float(result_type(x)) else clip(x, 0, 6)


sigmoid = _unary("sigmoid", "sigmoid", "1 / (1 + exp(-x)).")
softplus = _unary("softplus", "softplus", "log(1 + exp(x)), stable.")


@public
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x above 0, negative_slope * x below.

    Args:
        x: tensor.
        negative_slope: slope below 0.
    """
    x = as_tensor(x)
    return where(greater(x, 0), x, multiply(x, float(negative_slope)))


@public
def elu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, alpha * (exp(x) - 1) below.

    Args:
        x: tensor.
        alpha: what it falls to below 0, negated.
    """
    x = as_tensor(x)
    return where(greater(x, 0), x, float(alpha) * expm1(minimum(x, 0.0)))


@public
def selu(x: Any) -> Any:
    """Scaled elu (Klambauer et al., 2017).

    Args:
        x: tensor.
    """
    return 1.0507009873554805 * elu(x, 1.6732632423543772)


@public
def celu(x: Any, alpha: float = 1.0) -> Any:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1)).

    Args:
        x: tensor.
        alpha: what it falls to below 0, negated.
    """
    x = as_tensor(x)
    return maximum(x, 0.0) + float(alpha) * expm1(minimum(x, 0.0) / float(alpha))


@public
def gelu(x: Any, approximate: bool = True) -> Any:
    """x times the normal distribution's cumulative probability (Hendrycks and Gimpel, 2016).

    Args:
        x: tensor.
        approximate: by tanh instead of erf.
    """
    x = as_tensor(x)
    if approximate:
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1.0 + tanh(inner))
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


@public
def silu(x: Any) -> Any:
    """x * sigmoid(x).

    Args:
        x: tensor.
    """
    x = as_tensor(x)
    return x * sigmoid(x)


swish = silu


@public
def softsign(x: Any) -> Any:
    """x / (1 + |x|).

    Args:
        x: tensor.
    """
    x = as_tensor(x)
    return x / (1.0 + absolute(x))


@public
def hard_sigmoid(x: Any) -> Any:
    """relu6(x + 3) / 6.

    Args:
        x: tensor.
    """
    return relu6(as_tensor(x) + 3.0) / 6.0


@public
def hard_silu(x: Any) -> Any:
    """x * hard_sigmoid(x).

    Args:
        x: tensor.
    """
    x = as_tensor(x)
    return x * hard_sigmoid(x)


hard_swish = hard_silu


@public
def hard_tanh(x: Any) -> Any:
    """x limited to [-1, 1].

    Args:
        x: tensor.
    """
    return clip(x, -1.0, 1.0)


@public
def log_sigmoid(x: Any) -> Any:
    """log(sigmoid(x)), stable.

    Args:
        x: tensor.
    """
    return -softplus(-as_tensor(x))


@public
def tanh_shrink(x: Any) -> Any:
    """x - tanh(x).

    Args:
        x: tensor.
    """
    x = as_tensor(x)
    return x - tanh(x)


@public
def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x where |x| > threshold, else 0.

    Args:
        x: tensor.
        threshold: below which |x| becomes 0.
    """
    x = as_tensor(x)
    return where(greater(absolute(x), threshold), x, 0.0)


@public
def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x moved towards 0 by threshold.

    Args:
        x: tensor.
        threshold: by which |x| shrinks.
    """
    x = as_tensor(x)
    return where(greater(x, threshold), x - threshold, where(less(x, -threshold), x + threshold, 0.0))


@public
def squareplus(x: Any, b: float = 4) -> Any:
    """(x + sqrt(x² + b)) / 2.

    Args:
        x: tensor.
        b: how round the bend is.
    """
    x = as_tensor(x)
    return (x + sqrt(x * x + float(b))) / 2.0


@public
def threshold(x: Any, threshold: float, default_value: float) -> Any:
    """x above the threshold, else the default value.

    Args:
        x: tensor.
        threshold: x up to it is replaced.
        default_value: the replacement.
    """
    x = as_tensor(x)
    return where(greater(x, threshold), x, default_value)


@public
def sparse_plus(x: Any) -> Any:
    """0 below -1, (x + 1)² / 4 up to 1, x above.

    Args:
        x: tensor.
    """
    x = as_tensor(x)
    return where(less_equal(x, -1.0), 0.0, where(less(x, 1.0), 0.25 * square(x + 1.0), x))


@public
def sparse_sigmoid(x: Any) -> Any:
    """(x + 1) / 2 limited to [0, 1].

    Args:
        x: tensor.
    """
    return clip(0.5 * (as_tensor(x) + 1.0), 0.0, 1.0)


@public
def mish(x: Any) -> Any:
    """x * tanh(softplus(x)).

    Args:
        x: tensor.
    """
    x = as_tensor(x)
    return x * tanh(softplus(x))


@public
def glu(x: Any, axis: int = -1) -> Any:
    """The first half times the sigmoid of the second.

    Args:
        x: tensor.
        axis: axis that is halved: a * sigmoid(b).
    """
    from dagrt.ops.shapes import split

    a, b = split(x, 2, axis=axis)
    return a * sigmoid(b)


@public
def exponential(x: Any) -> Any:
    """e to the power x.

    Args:
        x: tensor.
    """
    return exp(x)
