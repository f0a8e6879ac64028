"""Layers that disturb in training only: dropout and noise."""

from __future__ import annotations

from typing import Any

from dagrt import ops, random
from dagrt.layers.layer import Layer
from dagrt.layers.reshaping import data_format_of


class Dropout(Layer):
    """In training, elements become 0 at random and the others grow, so that the mean stays.

    y = x * keep / (1 - rate), where keep is 1 with probability 1 - rate, else 0. Otherwise y = x.

    Args:
        rate: probability of 0, between 0 and 1.
        noise_shape: sizes of the random choice, broadcast to the inputs, as (batch, 1, features) for the same choice in all
            steps; None for the inputs' shape.
        seed: integer for the same numbers in every run; None for fresh ones.

    Input shape:
        Any.

    Output shape:
        As the input.

    Raises:
        ValueError: a rate outside 0 to 1.

    Example:
        >>> import dagrt as keras
        >>> y = keras.layers.Dropout(0.5, seed=1)(keras.ops.ones((1000,)), training=True)
        >>> sorted(set(y.numpy().tolist()))
        [0.0, 2.0]

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014.
    """

    def __init__(self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate <= 1:
            raise ValueError(
                f"Invalid value received for argument `rate`. Expected a float value between 0 and 1. Received: rate={rate}"
            )
        self.rate, self.noise_shape, self.seed = rate, noise_shape, seed
        if rate > 0:
            self.seed_generator = random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, training: Any = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        return random.dropout(inputs, self.rate, noise_shape=self._noise(inputs), seed=self.seed_generator)

    def _noise(self, inputs: Any) -> Any:
        return self.noise_shape

    def compute_output_shape(self, input_shape: Any) -> tuple:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed, "noise_shape": self.noise_shape}


class SpatialDropout1D(Dropout):
    """Dropout of whole channels of sequences: a channel is 0 in all steps or in none.

    Args:
        rate: probability of 0, between 0 and 1.
        seed: integer for the same numbers in every run; None for fresh ones.
        name: name of the layer.
        dtype: dtype or policy.

    Input shape:
        (batch, steps, channels).

    Output shape:
        As the input.

    Raises:
        ValueError: a rate outside 0 to 1.

    Example:
        >>> import dagrt as keras
        >>> y = keras.layers.SpatialDropout1D(0.5, seed=1)(keras.ops.ones((1, 5, 100)), training=True)
        >>> sorted(set(y.numpy().sum(axis=1).ravel().tolist()))
        [0.0, 10.0]

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2014, arXiv:1411.4280.
    """

    def __init__(self, rate: float, seed: int | None = None, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(rate, None, seed, name=name, dtype=dtype)

    def _noise(self, inputs: Any) -> Any:
        return (inputs.dims[0], 1, inputs.dims[2])

    def get_config(self) -> dict[str, Any]:
        # What Keras writes, no more: its reader knows no other keys for these two.
        return {"rate": self.rate, "seed": self.seed, "name": self.name, "dtype": self.dtype}


class SpatialDropout2D(SpatialDropout1D):
    """Dropout of whole channels of images: a channel is 0 in all pixels or in none.

    Args:
        rate: probability of 0, between 0 and 1.
        data_format: "channels_last", "channels_first", or None for `config.image_data_format()`.
        seed: integer for the same numbers in every run; None for fresh ones.
        name: name of the layer.
        dtype: dtype or policy.

    Input shape:
        (batch, rows, columns, channels), or (batch, channels, rows, columns).

    Output shape:
        As the input.

    Raises:
        ValueError: a rate outside 0 to 1.

    Example:
        >>> import dagrt as keras
        >>> y = keras.layers.SpatialDropout2D(0.5, seed=1)(keras.ops.ones((1, 2, 2, 100)), training=True)
        >>> sorted(set(y.numpy().sum(axis=(1, 2)).ravel().tolist()))
        [0.0, 8.0]

    Reference:
        Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2014, arXiv:1411.4280.
    """

    def __init__(
        self,
        rate: float,
        data_format: str | None = None,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(rate, seed, name, dtype)
        self.data_format = data_format_of(data_format)

    def _noise(self, inputs: Any) -> Any:
        b, c = inputs.dims[0], inputs.dims[1 if self.data_format == "channels_first" else 3]
        return (b, c, 1, 1) if self.data_format == "channels_first" else (b, 1, 1, c)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


class GaussianNoise(Layer):
    """In training, adds normal noise.

    y = x + n, n normal with mean 0 and the given standard deviation. Otherwise y = x.

    Args:
        stddev: standard deviation of the noise.
        seed: integer for the same numbers in every run; None for fresh ones.

    Input shape:
        Any.

    Output shape:
        As the input.

    Example:
        >>> import dagrt as keras
        >>> y = keras.layers.GaussianNoise(0.1, seed=1)(keras.ops.zeros((10000,)), training=True)
        >>> round(float(keras.ops.std(y)), 2)
        0.1
    """

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stddev, self.seed = stddev, seed
        if stddev > 0:
            self.seed_generator = random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, training: Any = False) -> Any:
        if not training or self.stddev == 0:
            return inputs
        return inputs + random.normal(inputs.dims, 0.0, self.stddev, dtype=inputs.dtype, seed=self.seed_generator)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stddev": self.stddev, "seed": self.seed}


class GaussianDropout(Layer):
    """In training, multiplies by normal numbers around 1.

    y = x * n, n normal with mean 1 and variance rate / (1 - rate): the variance that dropout gives. Otherwise y = x.

    Args:
        rate: the dropout rate it resembles, between 0 and 1.
        seed: integer for the same numbers in every run; None for fresh ones.

    Input shape:
        Any.

    Output shape:
        As the input.

    Raises:
        ValueError: a rate outside 0 to 1.

    Example:
        >>> import dagrt as keras
        >>> y = keras.layers.GaussianDropout(0.2, seed=1)(keras.ops.ones((10000,)), training=True)
        >>> round(float(keras.ops.mean(y)), 1), round(float(keras.ops.std(y)), 1)
        (1.0, 0.5)

    Reference:
        Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate <= 1:
            raise ValueError(
                f"Invalid value received for argument `rate`. Expected a float value between 0 and 1. Received: rate={rate}"
            )
        self.rate, self.seed = rate, seed
        if rate > 0:
            self.seed_generator = random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, training: Any = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        stddev = (self.rate / (1.0 - self.rate)) ** 0.5
        return inputs * random.normal(inputs.dims, 1.0, stddev, dtype=inputs.dtype, seed=self.seed_generator)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


class ActivityRegularization(Layer):
    """Passes the inputs on and adds a penalty on them to the loss.

    loss += (l1 * sum|x| + l2 * sum x²) / batch size.

    Args:
        l1: factor of the absolute values.
        l2: factor of the squares.

    Input shape:
        Any.

    Output shape:
        As the input.

    Example:
        >>> import dagrt as keras
        >>> layer = keras.layers.ActivityRegularization(l1=1.0)
        >>> y = layer([[1.0, -2.0], [3.0, 0.0]])
        >>> float(layer.losses[0])
        3.0
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any) -> None:
        from dagrt.regularizers import L1L2

        super().__init__(activity_regularizer=L1L2(l1, l2), **kwargs)
        self.l1, self.l2 = l1, l2
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any) -> Any:
        return ops.convert_to_tensor(inputs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("activity_regularizer", None)
        return {**config, "l1": self.l1, "l2": self.l2}
