"""What a layer asks of its inputs before it looks at them."""

from __future__ import annotations

from typing import Any

from dagrt import tree


class InputSpec:
    """What a layer demands of an input, as its attribute `input_spec`; checked before the layer's `call`.

    Args:
        dtype: element type.
        shape: sizes, None where any will do; sets ndim too.
        ndim: number of axes.
        max_ndim, min_ndim: bounds of it.
        axes: dict of an axis's number to its size.
        allow_last_axis_squeeze, name, optional: kept for Keras's sake.

    Example:
        >>> import dagrt as keras
        >>> layer = keras.layers.Identity()
        >>> layer.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: 3})
        >>> layer(keras.Input((4,), name="x"))
        Traceback (most recent call last):
        ValueError: ...: the input must have size 3 on axis -1, got shape (None, 4)
    """

    def __init__(
        self,
        dtype: str | None = None,
        shape: Any = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: dict[int, int | None] | None = None,
        allow_last_axis_squeeze: bool = False,
        name: str | None = None,
        optional: bool = False,
    ) -> None:
        self.dtype, self.max_ndim, self.min_ndim = dtype, max_ndim, min_ndim
        self.shape = tuple(shape) if shape is not None else None
        self.ndim = len(self.shape) if self.shape is not None else ndim
        self.axes = {int(k): v for k, v in (axes or {}).items()}
        self.allow_last_axis_squeeze, self.name, self.optional = allow_last_axis_squeeze, name, optional

    def __repr__(self) -> str:
        parts = {k: getattr(self, k) for k in ("dtype", "shape", "ndim", "max_ndim", "min_ndim")}
        text = [f"{k}={v}" for k, v in parts.items() if v is not None]
        return f"InputSpec({', '.join(text + ([f'axes={self.axes}'] if self.axes else []))})"


def assert_input_compatibility(specs: Any, inputs: Any, who: str) -> None:
    """ValueError where an input does not fit its spec."""
    if specs is None:
        return
    flat_specs = tree.flatten(specs) if not isinstance(specs, InputSpec) else [specs]
    flat = tree.flatten(inputs)
    if len(flat) != len(flat_specs):
        raise ValueError(f"{who}: expected {len(flat_specs)} input(s), got {len(flat)}")
    for i, (x, spec) in enumerate(zip(flat, flat_specs)):
        if spec is None or x is None or not hasattr(x, "shape"):
            continue
        what = f"{who}: input {i}" if len(flat) > 1 else f"{who}: the input"
        shape, got = tuple(x.shape), f"got shape {tuple(x.shape)}"
        if spec.ndim is not None and len(shape) != spec.ndim:
            raise ValueError(f"{what} must have {spec.ndim} axes, {got}")
        if spec.max_ndim is not None and len(shape) > spec.max_ndim:
            raise ValueError(f"{what} must have at most {spec.max_ndim} axes, {got}")
        if spec.min_ndim is not None and len(shape) < spec.min_ndim:
            raise ValueError(f"{what} must have at least {spec.min_ndim} axes, {got}")
        if spec.dtype is not None and str(x.dtype) != spec.dtype:
            raise ValueError(f"{what} must be {spec.dtype}, got {x.dtype}")
        for axis, size in spec.axes.items():
            if size is not None and isinstance(shape[axis], int) and shape[axis] != size:
                raise ValueError(f"{what} must have size {size} on axis {axis}, {got}")
        if spec.shape is not None:
            for axis, size in enumerate(spec.shape):
                if size is not None and isinstance(shape[axis], int) and shape[axis] != size:
                    raise ValueError(f"{what} must have shape {spec.shape}, {got}")
