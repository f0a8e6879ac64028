"""Input: where data enters a Functional model."""

from __future__ import annotations

from typing import Any

from dagrt import _config
from dagrt.layers.layer import Layer
from dagrt.operation import Node
from dagrt.tensor import KerasTensor


class InputLayer(Layer):
    """The layer behind an `Input`; use that function, which gives the symbolic tensor.

    Args:
        shape, batch_size, dtype, batch_shape, optional, name, sparse, ragged: as for `Input`.
        input_tensor: an existing symbolic tensor, `tensor` there.

    Input shape:
        None: data enters the model here.

    Output shape:
        (batch_size, *shape).

    Raises:
        ValueError: no shape, two, or sizes that are none.
        NotImplementedError: sparse or ragged, or a call.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.InputLayer(shape=(4,), name="x").output.shape
        (None, 4)
    """

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: Any = None,
        ragged: Any = None,
        batch_shape: Any = None,
        input_tensor: Any = None,
        optional: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if sparse or ragged:
            raise NotImplementedError(
                "Input: sparse and ragged tensors are not available; give dense arrays (and masks)"
            )
        if shape is not None and batch_shape is not None:
            raise ValueError("Input: give `shape` (without the batch) or `batch_shape`, not both")
        if input_tensor is not None:
            batch_shape, dtype = input_tensor.shape, dtype or input_tensor.dtype
        elif batch_shape is None:
            if shape is None:
                raise ValueError("Input: `shape` is required, such as shape=(28, 28, 1); () for a number each")
            batch_shape = (batch_size, *_sizes(shape, "shape"))
        batch_shape = _sizes(batch_shape, "batch_shape")
        super().__init__(name=name, dtype=dtype or _config.floatx())  # whatever the policy: layers cast
        self.batch_shape = batch_shape
        self.optional = optional
        self._input_dtype = str(self._policy.compute_dtype)
        self.built = True
        output = (
            input_tensor if input_tensor is not None else KerasTensor(batch_shape, dtype=self._input_dtype, name=name)
        )
        Node(operation=self, call_args=(), call_kwargs={}, outputs=output)

    def call(self) -> None:
        raise NotImplementedError("An InputLayer is not called: use its output")

    @property
    def dtype(self) -> str:
        return self._input_dtype

    def get_config(self) -> dict[str, Any]:
        return {
            "batch_shape": list(self.batch_shape),
            "dtype": self._input_dtype,
            "sparse": False,
            "ragged": False,
            "name": self.name,
            "optional": self.optional,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InputLayer:
        config = {k: v for k, v in config.items() if k not in ("trainable",)}
        return cls(**config)


def _sizes(shape: Any, what: str) -> tuple:
    if isinstance(shape, int):
        raise ValueError(f"Input: `{what}` must be a tuple such as ({shape},), got the number {shape}")
    sizes = tuple(shape)
    for d in sizes:
        if d is not None and (isinstance(d, bool) or not hasattr(d, "__index__") or int(d) < 0):
            raise ValueError(f"Input: `{what}` must hold sizes and None, got {sizes}")
    return tuple(None if d is None else int(d) for d in sizes)


def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: Any = None,
    ragged: Any = None,
    batch_shape: Any = None,
    name: str | None = None,
    tensor: Any = None,
    optional: bool = False,
) -> Any:
    """A symbolic tensor: the start of a Functional model.

    Args:
        shape: sizes without the batch axis; None where a size varies, as in `(None, None, 3)` for any image.
        batch_size: the batch's size, where it is fixed; None for any.
        dtype: element type; "float32" by default, "int32" for token ids.
        sparse, ragged: Keras's, not available; leave them out.
        batch_shape: all sizes, instead of `shape`.
        name: name of the input, by which dicts of data are bound.
        tensor: an existing symbolic tensor.
        optional: the model may be called with None here.

    Returns:
        A KerasTensor of shape `(batch_size, *shape)`.

    Raises:
        ValueError: no shape, two, or sizes that are none.
        NotImplementedError: sparse or ragged.

    Example:
        >>> import dagrt as keras
        >>> keras.Input((784,)).shape
        (None, 784)
    """
    layer = InputLayer(
        shape=shape,
        batch_size=batch_size,
        dtype=dtype,
        sparse=sparse,
        ragged=ragged,
        batch_shape=batch_shape,
        input_tensor=tensor,
        optional=optional,
        name=name,
    )
    return layer._inbound_nodes[0].output_tensors[0]
