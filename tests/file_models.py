"""Models whose files Keras and dagrt exchange: every layer of the first release, with optimisers in mid-training."""

from __future__ import annotations

from typing import Any

import numpy as np


def numbers(n: int, shape: tuple[int, ...]) -> np.ndarray:
    i = np.arange(int(np.prod(shape)))
    return (((i * 7919 + n * 104729) % 1000) / 1000 - 0.5).astype("float32").reshape(shape)


def image(k: Any) -> tuple[Any, Any, Any]:
    layers = k.layers
    a = k.Input((16, 16, 3), name="image")
    x = layers.ZeroPadding2D(((0, 1), (1, 2)))(layers.Rescaling(0.5)(a))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(epsilon=1.001e-5)(x))
    x = layers.Conv2D(8, 3, groups=4, dilation_rate=2, padding="same", activation="gelu")(x)
    y = layers.UpSampling2D(2, interpolation="bilinear")(layers.MaxPooling2D(2, padding="same")(x))
    y = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(y)
    z = layers.LayerNormalization()(layers.LeakyReLU()(layers.Conv2D(4, 1)(layers.AveragePooling2D(2)(y))))
    z = layers.GlobalAveragePooling1D()(layers.Reshape((-1, 4))(layers.Permute((2, 1, 3))(z)))
    o = layers.Concatenate()([z, layers.GlobalMaxPooling2D()(y)]) * 2.0 + 1.0
    o = layers.Softmax()(layers.Activation("swish")(layers.Dropout(0.0)(o)))
    m = k.Model(a, o, name="image_model")
    m.compile(k.optimizers.Adam(k.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)), "mse", metrics=["mae"])
    return m, numbers(1, (4, 16, 16, 3)), numbers(2, (4, 8))


def text(k: Any) -> tuple[Any, Any, Any]:
    layers = k.layers
    ids = k.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(20, 6, mask_zero=True)(ids)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    s, h, c = layers.LSTM(5, return_state=True, go_backwards=True)(x)
    steps = layers.GlobalAveragePooling1D()(layers.TimeDistributed(layers.Dense(2))(x))
    o = layers.Concatenate()([s, layers.Multiply()([h, c]), layers.GRU(3)(x), steps])
    inner = k.Sequential([k.Input((15,)), layers.Dense(4, activation="relu", kernel_regularizer="l2"), layers.Dense(3)])
    part = k.Input((15,))
    other = k.Model(part, layers.Dense(2, name="last")(part), name="other")
    m = k.Model({"ids": ids}, {"a": inner(o), "b": other(o)}, name="text_model")
    losses = {"a": "mse", "b": k.losses.Huber()}
    m.compile(k.optimizers.AdamW(0.01, clipnorm=1.0), losses, {"a": 1.0, "b": 0.3}, metrics={"a": ["mae"]})
    x = np.array([[1, 2, 3, 0], [4, 0, 5, 6], [2, 0, 0, 0], [7, 8, 9, 10]])
    return m, {"ids": x}, {"a": numbers(1, (4, 3)), "b": numbers(2, (4, 2))}


def sequential(k: Any) -> tuple[Any, Any, Any]:
    layers = k.layers
    hidden = [layers.Dense(4, activation="leaky_relu"), layers.BatchNormalization(), layers.Flatten()]
    m = k.Sequential([k.Input((6,)), *hidden, layers.Dense(1, activation="sigmoid")], name="sequential_model")
    m.compile(k.optimizers.RMSprop(0.01, momentum=0.5), "bce")
    return m, numbers(1, (4, 6)), (numbers(2, (4, 1)) > 0).astype("float32")


def shared(k: Any) -> tuple[Any, Any, Any]:
    layers = k.layers
    a, b = k.Input((4,), name="a"), k.Input((4,), name="b")
    encoder = k.Model(a, layers.Dense(3, name="code")(a), name="encoder")
    x, y = encoder(a), encoder(b)
    difference = layers.Subtract()([x, y])
    o = layers.concatenate([layers.Dot(axes=1, normalize=True)([x, y]), difference, x[:, 0:1], (x - y) / 2.0])
    m = k.Model([a, b], [layers.Dense(1, name="same")(o), difference], name="shared_model")
    m.compile(k.optimizers.SGD(0.1, momentum=0.9, nesterov=True), ["mse", None])
    return m, [numbers(1, (4, 4)), numbers(2, (4, 4))], [numbers(3, (4, 1)), numbers(4, (4, 3))]


MODELS = {"image": image, "text": text, "sequential": sequential, "shared": shared}


def trained(k: Any, name: str) -> tuple[Any, Any, Any]:
    """The model after two epochs from formula weights, so that its optimiser has a past."""
    m, x, y = MODELS[name](k)
    values = [numbers(i, w.shape) for i, w in enumerate(m.get_weights())]
    m.set_weights([np.abs(w) + 0.1 if "variance" in v.path else w for w, v in zip(values, m.weights)])
    m.fit(x, y, verbose=0, epochs=2)
    return m, x, y
