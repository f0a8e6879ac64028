"""Initial values of weights. Random ones draw from dagrt's generator: same seed, same weights."""

from __future__ import annotations

import difflib
import math
from typing import Any

import numpy as np

from dagrt import _config, ops, random
from dagrt.tensor import Tensor


class Initializer:
    """A function of (shape, dtype) that gives a tensor. Subclasses write `__call__`, and `get_config` for files.

    Example:
        >>> import dagrt as keras
        >>> class Twos(keras.initializers.Initializer):
        ...     def __call__(self, shape, dtype=None):
        ...         return keras.ops.full(shape, 2.0, dtype)
        >>> Twos()((2,)).numpy()
        array([2., 2.], dtype=float32)
    """

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(shape, dtype)")

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)

    def clone(self) -> Any:
        return type(self).from_config(self.get_config())


class Zeros(Initializer):
    """All zeros.

    Example:
        >>> import dagrt as keras
        >>> keras.initializers.Zeros()((2,)).numpy()
        array([0., 0.], dtype=float32)
    """

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return ops.zeros(shape, dtype)


class Ones(Initializer):
    """All ones.

    Example:
        >>> import dagrt as keras
        >>> keras.initializers.Ones()((2,)).numpy()
        array([1., 1.], dtype=float32)
    """

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return ops.ones(shape, dtype)


class Constant(Initializer):
    """One number everywhere, or an array.

    Args:
        value: number, or array that broadcasts to the shape.

    Example:
        >>> import dagrt as keras
        >>> keras.initializers.Constant(0.5)((2,)).numpy()
        array([0.5, 0.5], dtype=float32)
    """

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return ops.broadcast_to(ops.cast(self.value, dtype or _config.floatx()), shape)

    def get_config(self) -> dict[str, Any]:
        from dagrt.saving import serialize_keras_object

        return {"value": serialize_keras_object(self.value)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Constant:
        from dagrt.saving import deserialize_keras_object

        return cls(deserialize_keras_object(config["value"]))


class Identity(Initializer):
    """The identity matrix times `gain`.

    Args:
        gain: factor.

    Raises:
        ValueError: the shape is no matrix's.

    Example:
        >>> import dagrt as keras
        >>> keras.initializers.Identity(2.0)((2, 2)).numpy().tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        if len(shape) != 2:
            raise ValueError(f"Identity matrix initializer can only be used for 2D matrices. Received: shape={shape}")
        return ops.eye(*shape, dtype=dtype) * self.gain

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain}


class RandomInitializer(Initializer):
    """Base of those that draw numbers.

    Args:
        seed: integer (the same numbers at each call), SeedGenerator, or None for a fresh one.

    Example:
        >>> import dagrt as keras
        >>> isinstance(keras.initializers.HeNormal(seed=1), keras.initializers.RandomInitializer)
        True
    """

    def __init__(self, seed: Any = None) -> None:
        self._init_seed = seed
        if seed is None:
            seed = _config.make_seed()
        self.seed = seed

    def get_config(self) -> dict[str, Any]:
        from dagrt.saving import serialize_keras_object

        return {"seed": serialize_keras_object(self._init_seed)}


class RandomNormal(RandomInitializer):
    """Normal numbers.

    Args:
        mean, stddev: mean and standard deviation.
        seed: integer (the same numbers at each call), SeedGenerator, or None for a fresh one.

    Example:
        >>> import dagrt as keras
        >>> x = keras.initializers.RandomNormal(mean=3.0, stddev=0.1, seed=1)((1000,))
        >>> round(float(keras.ops.mean(x)), 1), round(float(keras.ops.std(x)), 1)
        (3.0, 0.1)
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        self.mean, self.stddev = mean, stddev
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return random.normal(shape, self.mean, self.stddev, dtype, self.seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "stddev": self.stddev}


class TruncatedNormal(RandomNormal):
    """Normal numbers within two standard deviations.

    Args:
        mean, stddev: mean and standard deviation of the whole distribution.
        seed: integer (the same numbers at each call), SeedGenerator, or None for a fresh one.

    Example:
        >>> import dagrt as keras
        >>> x = keras.initializers.TruncatedNormal(stddev=0.5, seed=1)((1000,))
        >>> bool(keras.ops.max(keras.ops.abs(x)) <= 1.0)
        True
    """

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return random.truncated_normal(shape, self.mean, self.stddev, dtype, self.seed)


class RandomUniform(RandomInitializer):
    """Numbers in [minval, maxval), evenly spread.

    Args:
        minval, maxval: bounds.
        seed: integer (the same numbers at each call), SeedGenerator, or None for a fresh one.

    Example:
        >>> import dagrt as keras
        >>> x = keras.initializers.RandomUniform(2.0, 3.0, seed=1)((1000,))
        >>> bool(keras.ops.min(x) >= 2.0) and bool(keras.ops.max(x) < 3.0)
        True
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None) -> None:
        self.minval, self.maxval = minval, maxval
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return random.uniform(shape, self.minval, self.maxval, dtype, self.seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "minval": self.minval, "maxval": self.maxval}


def compute_fans(shape: Any) -> tuple[int, int]:
    """Inputs and outputs of a unit, by the shape of its weights.

    Args:
        shape: (..., inputs, outputs); the sizes before are a window, which multiplies both.

    Returns:
        (fan_in, fan_out).

    Example:
        >>> import dagrt as keras
        >>> keras.initializers.compute_fans((3, 3, 16, 32))
        (144, 288)
    """
    shape = tuple(shape)
    if len(shape) < 1:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    if len(shape) == 2:
        return shape[0], shape[1]
    field = math.prod(shape[:-2])
    return shape[-2] * field, shape[-1] * field


class VarianceScaling(RandomInitializer):
    """Numbers of variance scale / n, where n is the fan-in, the fan-out or their mean.

    Args:
        scale: positive.
        mode: "fan_in", "fan_out" or "fan_avg".
        distribution: "truncated_normal" (of that variance when cut at two standard deviations), "untruncated_normal" or
            "uniform".
        seed: integer (the same numbers at each call), SeedGenerator, or None for a fresh one.
        input_axes, output_axes: kept for files; fans follow from the shape alone (see `compute_fans`).

    Raises:
        ValueError: a scale not above 0, another mode or distribution.

    Example:
        >>> import dagrt as keras
        >>> w = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", seed=1)((50, 200))
        >>> round(float(keras.ops.std(w)), 2)
        0.2

    Reference:
        He, Zhang, Ren and Sun, "Delving Deep into Rectifiers", 2015, arXiv:1502.01852.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
        input_axes: Any = None,
        output_axes: Any = None,
    ) -> None:
        if scale <= 0.0:
            raise ValueError(f"Argument `scale` must be positive float. Received: scale={scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"Invalid `mode` argument: {mode!r}. Please use one of 'fan_in', 'fan_out', 'fan_avg'")
        distribution = "truncated_normal" if distribution == "normal" else distribution
        if distribution not in ("uniform", "truncated_normal", "untruncated_normal"):
            raise ValueError(f"Invalid `distribution` argument: {distribution!r}")
        self.scale, self.mode, self.distribution = scale, mode, distribution
        self.input_axes, self.output_axes = input_axes, output_axes
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        fan_in, fan_out = compute_fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        scale = self.scale / max(1.0, n)
        if self.distribution == "truncated_normal":
            stddev = math.sqrt(scale) / 0.87962566103423978  # the standard deviation of a unit normal cut at 2
            return random.truncated_normal(shape, 0.0, stddev, dtype, self.seed)
        if self.distribution == "untruncated_normal":
            return random.normal(shape, 0.0, math.sqrt(scale), dtype, self.seed)
        limit = math.sqrt(3.0 * scale)
        return random.uniform(shape, -limit, limit, dtype, self.seed)

    def get_config(self) -> dict[str, Any]:
        base = {**super().get_config(), "input_axes": self.input_axes, "output_axes": self.output_axes}
        if type(self) is not VarianceScaling:
            return base
        return {**base, "scale": self.scale, "mode": self.mode, "distribution": self.distribution}


_SCALED_PAGE = """{summary}

Args:
    seed: integer (the same numbers at each call), SeedGenerator, or None for a fresh one.
    input_axes, output_axes: kept for files; fans follow from the shape alone (see `compute_fans`).

Example:
    >>> import dagrt as keras
    >>> keras.layers.Dense(4, kernel_initializer=keras.initializers.{name}(seed=1))(keras.Input((8,))).shape
    (None, 4)

Reference:
    {reference}
"""
_GLOROT = (
    'Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.'
)
_LECUN = 'LeCun, Bottou, Orr and Mueller, "Efficient BackProp", 1998.'
_HE = 'He, Zhang, Ren and Sun, "Delving Deep into Rectifiers", 2015, arXiv:1502.01852.'


def _scaled(name: str, scale: float, mode: str, distribution: str, summary: str, reference: str) -> type:
    def __init__(self: Any, seed: Any = None, input_axes: Any = None, output_axes: Any = None) -> None:
        VarianceScaling.__init__(self, scale, mode, distribution, seed, input_axes, output_axes)

    page = _SCALED_PAGE.format(summary=summary, name=name, reference=reference)
    return type(name, (VarianceScaling,), {"__init__": __init__, "__doc__": page, "__module__": __name__})


GlorotUniform = _scaled(
    "GlorotUniform", 1.0, "fan_avg", "uniform", "Uniform in ±sqrt(6 / (fan_in + fan_out)).", _GLOROT
)
GlorotNormal = _scaled(
    "GlorotNormal", 1.0, "fan_avg", "truncated_normal", "Truncated normal, variance 2 / (fan_in + fan_out).", _GLOROT
)
LecunUniform = _scaled("LecunUniform", 1.0, "fan_in", "uniform", "Uniform in ±sqrt(3 / fan_in).", _LECUN)
LecunNormal = _scaled(
    "LecunNormal", 1.0, "fan_in", "truncated_normal", "Truncated normal, variance 1 / fan_in.", _LECUN
)
HeUniform = _scaled("HeUniform", 2.0, "fan_in", "uniform", "Uniform in ±sqrt(6 / fan_in).", _HE)
HeNormal = _scaled("HeNormal", 2.0, "fan_in", "truncated_normal", "Truncated normal, variance 2 / fan_in.", _HE)


class Orthogonal(RandomInitializer):
    """A matrix with orthogonal rows or columns, from the QR decomposition of normal numbers.

    Args:
        gain: factor.
        seed: integer (the same numbers at each call), SeedGenerator, or None for a fresh one.

    Raises:
        ValueError: a shape of fewer than two axes. All axes but the last count as rows.

    Example:
        >>> import dagrt as keras
        >>> q = keras.initializers.Orthogonal(seed=1)((3, 3))
        >>> bool(keras.ops.max(keras.ops.abs(q @ keras.ops.transpose(q) - keras.ops.eye(3))) < 1e-5)
        True

    Reference:
        Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks",
        2013, arXiv:1312.6120.
    """

    def __init__(self, gain: float = 1.0, seed: Any = None) -> None:
        self.gain = gain
        super().__init__(seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        if len(shape) < 2:
            raise ValueError(f"The tensor to initialize must be at least two-dimensional. Received: shape={shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        a = np.asarray(random.normal((max(rows, columns), min(rows, columns)), seed=self.seed), "float64")
        q, r = np.linalg.qr(a)
        q = q * np.sign(np.diag(r))
        q = q.T if rows < columns else q
        return ops.convert_to_tensor((self.gain * q.reshape(shape)).astype("float32"), dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gain": self.gain}


OrthogonalInitializer, IdentityInitializer = Orthogonal, Identity

_CLASSES = {
    c.__name__: c
    for c in (
        Zeros,
        Ones,
        Constant,
        Identity,
        RandomNormal,
        TruncatedNormal,
        RandomUniform,
        VarianceScaling,
        GlorotUniform,
        GlorotNormal,
        LecunUniform,
        LecunNormal,
        HeUniform,
        HeNormal,
        Orthogonal,
    )
}
_NAMES = {_config.to_snake_case(n): c for n, c in _CLASSES.items()}
_NAMES.update({"normal": RandomNormal, "uniform": RandomUniform, "zero": Zeros, "one": Ones})


def serialize(initializer: Any) -> Any:
    """The initializer as plain data, for `deserialize` and files.

    Args:
        initializer: the initializer, an object or function.

    Example:
        >>> import dagrt as keras
        >>> keras.initializers.serialize(keras.initializers.HeNormal())["class_name"]
        'HeNormal'
    """
    from dagrt.saving import serialize_keras_object

    return serialize_keras_object(initializer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    """The initializer that `serialize` described.

    Args:
        config: what `serialize` gave.
        custom_objects: dict of names to classes and functions that are not registered.

    Example:
        >>> import dagrt as keras
        >>> type(keras.initializers.deserialize(keras.initializers.serialize(keras.initializers.HeNormal()))).__name__
        'HeNormal'
    """
    from dagrt.saving import deserialize_keras_object

    return deserialize_keras_object(config, custom_objects)


def get(identifier: Any) -> Any:
    """The initializer that something stands for.

    Args:
        identifier: name, class, config, object, number, array or function of (shape, dtype); None is none.

    Raises:
        ValueError: an unknown name, or something else.

    Example:
        >>> import dagrt as keras
        >>> type(keras.initializers.get("he_normal")).__name__
        'HeNormal'
    """
    if identifier is None or isinstance(identifier, Initializer):
        return identifier
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        cls = _NAMES.get(identifier) or _CLASSES.get(identifier)
        if cls is None:
            from dagrt.saving import get_registered_object

            cls = get_registered_object(identifier)
        if cls is None:
            near = difflib.get_close_matches(identifier, list(_NAMES), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"Could not interpret initializer identifier: {identifier!r}.{hint}")
        return cls() if isinstance(cls, type) else cls
    if isinstance(identifier, type):
        return identifier()
    if isinstance(identifier, (int, float, np.ndarray, Tensor)):
        return Constant(identifier)
    if callable(identifier):
        return identifier
    raise ValueError(f"Could not interpret initializer identifier: {identifier!r}")


for _name, _cls in list(_NAMES.items()):
    globals().setdefault(_name, _cls)
