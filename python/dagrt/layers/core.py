"""Dense, Embedding, Activation, Lambda and other small layers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from dagrt import activations, constraints, initializers, ops, regularizers
from dagrt.layers.layer import Layer


def serialized(config: dict[str, Any], obj: Any, *names: str) -> dict[str, Any]:
    """Adds attributes that have configurations of their own."""
    from dagrt.saving import serialize_keras_object

    for n in names:
        config[n] = serialize_keras_object(getattr(obj, n))
    return config


def _refuse_adapters(layer: Layer, lora_rank: Any, quantization_config: Any) -> None:
    """Keras's arguments for adapters and quantisation are known, so that they are not silently without effect."""
    for name, value in (("lora_rank", lora_rank), ("quantization_config", quantization_config)):
        if value is not None:
            raise NotImplementedError(f"{layer._who()}: {name} is not available, got {value!r}; leave it out")


class Dense(Layer):
    """Every output from every input, over the last axis.

    y = activation(x @ kernel + bias).

    Args:
        units: size of the outputs.
        activation: name or function; None for none.
        use_bias: add a bias.
        kernel_initializer: for the kernel (inputs, units); Glorot uniform by default.
        bias_initializer: for the bias (units,).
        kernel_regularizer: penalty on the kernel, added to the loss.
        bias_regularizer: penalty on the bias.
        activity_regularizer: penalty on the outputs, divided by the batch size.
        kernel_constraint: applied to the kernel after each step.
        bias_constraint: applied to the bias after each step.
        lora_rank, lora_alpha, quantization_config: Keras's, not available; leave them out.

    Input shape:
        (batch, ..., inputs); the last size is known.

    Output shape:
        (batch, ..., units).

    Raises:
        ValueError: units below 1, or a last axis that does not fit the kernel or is not known.
        NotImplementedError: a lora_rank or quantization_config.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Dense(3, activation="relu")(keras.Input((None, 4))).shape
        (None, None, 3)
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        if not isinstance(units, int) or units <= 0:
            raise ValueError(
                f"Received an invalid value for `units`, expected a positive integer. Received: units={units}"
            )
        _refuse_adapters(self, lora_rank, quantization_config)
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        size = input_shape[-1]
        if size is None:
            raise ValueError(
                f"{self._who()}: the last axis of the inputs must be known to make the kernel, got shape {tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            (size, self.units),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                (self.units,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def call(self, inputs: Any, training: Any = None) -> Any:
        check_last_axis(self, inputs, self.kernel.shape)
        x = inputs if "float" in inputs.dtype else ops.cast(inputs, self.compute_dtype)
        x = ops.matmul(x, self.kernel)
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return self.activation(x)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(units=self.units, activation=activations.serialize(self.activation), use_bias=self.use_bias)
        serialized(
            config,
            self,
            "kernel_initializer",
            "bias_initializer",
            "kernel_regularizer",
            "bias_regularizer",
            "kernel_constraint",
            "bias_constraint",
        )
        config["quantization_config"] = None
        return config


def check_last_axis(layer: Layer, inputs: Any, kernel: Any) -> None:
    size = inputs.shape[-1] if inputs.shape else None
    if not inputs.shape or (size is not None and size != kernel[0]):
        raise ValueError(
            f"{layer._who()}: expected last axis {kernel[0]} to match kernel {tuple(kernel)}, got "
            f"{size if inputs.shape else 'a scalar'} with shape {tuple(inputs.shape)}"
        )


class Embedding(Layer):
    """Rows of a table, looked up by integer ids.

    y[..., :] = embeddings[ids[...], :].

    Args:
        input_dim: number of rows; ids are 0..input_dim-1.
        output_dim: size of a row.
        embeddings_initializer: for the table; uniform in ±0.05 by default.
        embeddings_regularizer: penalty on the table, added to the loss.
        embeddings_constraint: applied to the table after each step.
        mask_zero: id 0 is padding: later layers and the loss get a mask that is False there.
        weights: the table, to begin with.
        lora_rank, lora_alpha, quantization_config: Keras's, not available; leave them out.

    Input shape:
        Any; integers, or floats that are integers.

    Output shape:
        The input's and output_dim behind it.

    Raises:
        ValueError: input_dim or output_dim below 1.
        IndexError: an id out of range, when it is met; nothing was changed then.
        NotImplementedError: a lora_rank or quantization_config.

    Example:
        >>> import dagrt as keras
        >>> layer = keras.layers.Embedding(3, 2, weights=[[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
        >>> layer([[2, 1]]).numpy().tolist()
        [[[3.0, 4.0], [1.0, 2.0]]]
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> None:
        input_length = kwargs.pop("input_length", None)
        if input_length is not None:
            kwargs.setdefault("input_shape", (input_length,))
        super().__init__(**kwargs)
        _refuse_adapters(self, lora_rank, quantization_config)
        if input_dim <= 0 or output_dim <= 0:
            raise ValueError(f"Embedding: input_dim and output_dim must be positive, got {input_dim} and {output_dim}")
        self.input_dim, self.output_dim, self.mask_zero = input_dim, output_dim, mask_zero
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)
        self.supports_masking = mask_zero
        self.autocast = False
        if weights is not None:
            self.build()
            self.set_weights(weights if isinstance(weights, list) and len(weights) == 1 else [weights])

    def build(self, input_shape: Any = None) -> None:
        self._embeddings = self.add_weight(
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
            name="embeddings",
        )

    @property
    def embeddings(self) -> Any:
        return self._embeddings

    def call(self, inputs: Any) -> Any:
        ids = inputs if inputs.dtype in ("int32", "int64") else ops.cast(inputs, "int32")
        return ops.cast(ops.take(self._embeddings, ids, axis=0), self.compute_dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape: Any) -> tuple:
        return (*input_shape, self.output_dim)

    def _spec_dtype(self) -> str:
        return "int32"

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(input_dim=self.input_dim, output_dim=self.output_dim)
        serialized(
            config,
            self,
            "embeddings_initializer",
            "embeddings_regularizer",
            "activity_regularizer",
            "embeddings_constraint",
        )
        config.update(mask_zero=self.mask_zero, quantization_config=None)
        return config


class Activation(Layer):
    """An activation function as a layer.

    y = activation(x), element by element (softmax and glu: along the last axis).

    Args:
        activation: name in `dagrt.activations`, or a function over `dagrt.ops`.

    Input shape:
        Any.

    Output shape:
        As the input.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Activation("relu")([-1.0, 2.0]).numpy()
        array([0., 2.], dtype=float32)
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any) -> Any:
        return self.activation(inputs)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "activation": activations.serialize(self.activation)}


class Identity(Layer):
    """The inputs as they are, mask included.

    Input shape:
        Any.

    Output shape:
        As the input.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Identity(name="features")([1.0, 2.0]).numpy()
        array([1., 2.], dtype=float32)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any) -> Any:
        return inputs


class Lambda(Layer):
    """A function as a layer. A named function that is registered can be saved in a file, a Python lambda cannot.

    Args:
        function: of the inputs, over `dagrt.ops`; it may also take `mask` and `training`.
        output_shape: accepted and not used: the shape is found by running the function.
        mask: the output's mask, or a function (inputs, mask) of it; None for none.
        arguments: dict of further keyword arguments for the function.

    Input shape:
        Any that the function takes.

    Output shape:
        The function's.

    Example:
        >>> import dagrt as keras
        >>> double = keras.layers.Lambda(lambda x, factor: x * factor, arguments={"factor": 2.0})
        >>> double([1.0, 2.0]).numpy()
        array([2., 4.], dtype=float32)
    """

    def __init__(
        self,
        function: Callable,
        output_shape: Any = None,
        mask: Any = None,
        arguments: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.function = function
        self.arguments = arguments or {}
        self._output_shape = output_shape
        self.mask = mask
        self.supports_masking = mask is not None

    def call(self, inputs: Any, mask: Any = None, training: Any = None) -> Any:
        import inspect

        names = inspect.signature(self.function).parameters
        extra = dict(self.arguments)
        if "mask" in names:
            extra["mask"] = mask
        if "training" in names:
            extra["training"] = training
        return self.function(inputs, **extra)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return self.mask(inputs, mask) if callable(self.mask) else self.mask

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**serialized(config, self, "function"), "arguments": self.arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        from dagrt.saving import deserialize_keras_object

        config = dict(config)
        config["function"] = deserialize_keras_object(config["function"])
        return cls(**{k: v for k, v in config.items() if k not in ("output_shape", "mask") or v is not None})


class Masking(Layer):
    """Masks the steps all of whose features equal `mask_value`, and sets them to 0.

    mask[b, t] = any over c of (x[b, t, c] != mask_value); y = x * mask.

    Args:
        mask_value: what padding consists of.

    Input shape:
        (batch, steps, features), or any other of which the last axis is the features.

    Output shape:
        As the input.

    Example:
        >>> import dagrt as keras
        >>> x = [[[1.0, 2.0], [9.0, 9.0]]]
        >>> keras.layers.Masking(mask_value=9.0)(x).numpy().tolist()
        [[[1.0, 2.0], [0.0, 0.0]]]
    """

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_value = mask_value
        self.supports_masking = True
        self.built = True

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)

    def call(self, inputs: Any) -> Any:
        keep = ops.any(ops.not_equal(inputs, self.mask_value), axis=-1, keepdims=True)
        return inputs * ops.cast(keep, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mask_value": self.mask_value}


class Rescaling(Layer):
    """Fixed scale and offset, as for pixels: Rescaling(1 / 255).

    y = x * scale + offset. Integers become floats first.

    Args:
        scale: number, or array that broadcasts against the inputs.
        offset: likewise; 0 by default.

    Input shape:
        Any.

    Output shape:
        As the input.

    Example:
        >>> import dagrt as keras
        >>> keras.layers.Rescaling(2.0, offset=-1.0)([0.0, 0.5, 1.0]).numpy()
        array([-1.,  0.,  1.], dtype=float32)
    """

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = scale, offset
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, self.compute_dtype)
        return x * ops.cast(self.scale, x.dtype) + ops.cast(self.offset, x.dtype)

    def get_config(self) -> dict[str, Any]:
        return serialized(super().get_config(), self, "scale", "offset")


class EinsumDense(Layer):
    """A dense layer whose product is any Einstein summation of the inputs and one kernel.

    y = activation(einsum(equation, x, kernel) + bias).

    Args:
        equation: as "ab,bc->ac", inputs and kernel left, outputs right; "..." stands for leading axes.
        output_shape: sizes of the outputs without the batch (with "...": of the named axes); None where a size follows from
            the inputs.
        activation: name or function; None for none.
        bias_axes: letters of the output that the bias has; None for no bias.
        kernel_initializer: for the kernel, shaped as the equation says; Glorot uniform by default.
        bias_initializer: for the bias.
        kernel_regularizer, bias_regularizer: penalties added to the loss.
        kernel_constraint, bias_constraint: applied after each step.
        lora_rank, lora_alpha, gptq_unpacked_column_size, quantization_config: Keras's, not available; leave them out.

    Input shape:
        What the equation says.

    Output shape:
        What the equation and `output_shape` say.

    Raises:
        NotImplementedError: a lora_rank or quantization_config.
        ValueError: another kind of equation, a size that nothing tells, bias_axes that the outputs lack.

    Example:
        >>> import dagrt as keras
        >>> heads = keras.layers.EinsumDense("abc,cde->abde", output_shape=(None, 4, 8), bias_axes="de")
        >>> heads(keras.Input((10, 32))).shape, heads.kernel.shape, heads.bias.shape
        ((None, 10, 4, 8), (32, 4, 8), (4, 8))
    """

    def __init__(
        self,
        equation: str,
        output_shape: Any,
        activation: Any = None,
        bias_axes: str | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        gptq_unpacked_column_size: int | None = None,
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _refuse_adapters(self, lora_rank, quantization_config)
        self.equation = equation
        self.partial_output_shape = (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)
        self.bias_axes = bias_axes
        self.activation = activations.get(activation)
        self.kernel_initializer, self.bias_initializer = (
            initializers.get(kernel_initializer),
            initializers.get(bias_initializer),
        )
        self.kernel_regularizer, self.bias_regularizer = (
            regularizers.get(kernel_regularizer),
            regularizers.get(bias_regularizer),
        )
        self.kernel_constraint, self.bias_constraint = (
            constraints.get(kernel_constraint),
            constraints.get(bias_constraint),
        )

    def build(self, input_shape: Any) -> None:
        match = re.fullmatch(
            r"(\.{3}[a-zA-Z]+|[a-zA-Z]+(?:\.{3})?),([a-zA-Z]+)->([a-zA-Z.]+)", self.equation.replace(" ", "")
        )
        if match is None:
            raise ValueError(
                f"{self.name} (EinsumDense): expected an equation such as 'ab,bc->ac' or '...x,xy->...y' (inputs, one kernel, "
                f"outputs), got {self.equation!r}."
            )
        x, w, out = match.groups()
        sizes: dict[str, Any] = {}
        if x.startswith("..."):
            sizes.update(zip(reversed(x[3:]), reversed(input_shape)))
            sizes.update(zip(reversed(out[3:]), reversed(self.partial_output_shape)))
        else:
            sizes.update(zip(x, input_shape))
            for letter, size in zip(out[1:], self.partial_output_shape):
                if size is not None:
                    sizes[letter] = size
        unknown = [c for c in w if sizes.get(c) is None]
        if unknown:
            raise ValueError(
                f"{self.name} (EinsumDense): expected a size of {unknown[0]!r} in {self.equation!r} for the kernel {w!r}, got none "
                f"from the inputs' shape {tuple(input_shape)} nor from output_shape {self.partial_output_shape}."
            )
        if foreign := [c for c in self.bias_axes or "" if c not in out]:
            raise ValueError(
                f"{self.name} (EinsumDense): expected bias_axes of letters of the outputs {out!r}, got {foreign[0]!r} in "
                f"{self.bias_axes!r}."
            )
        self.kernel = self.add_weight(
            tuple(sizes[c] for c in w),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.bias = None
        if self.bias_axes:
            shape = [sizes[c] if c in self.bias_axes else 1 for c in out.replace("...", "")]
            first = min(out.replace("...", "").index(c) for c in self.bias_axes)
            self.bias = self.add_weight(
                tuple(shape[first:]),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def call(self, inputs: Any, training: Any = None) -> Any:
        x = ops.einsum(self.equation, inputs, self.kernel)
        if self.bias is not None:
            x = x + self.bias
        return self.activation(x)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            output_shape=self.partial_output_shape,
            equation=self.equation,
            bias_axes=self.bias_axes,
            activation=activations.serialize(self.activation),
        )
        serialized(
            config,
            self,
            "kernel_initializer",
            "bias_initializer",
            "kernel_regularizer",
            "bias_regularizer",
            "activity_regularizer",
            "kernel_constraint",
            "bias_constraint",
        )
        config["quantization_config"] = None
        return config
