"""The seven models of the seed page, buildable with Keras or dagrt, with formula-made weights and data.

Nothing is stored: weights, inputs and targets come from an integer hash (Murmur3's 32-bit finaliser), so a recording
holds results only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


def hashed(stream: int, count: int) -> np.ndarray:
    """`count` numbers in [-1, 1): element k of a stream is fmix32(k * 0x9E3779B9 + stream * 0x85EBCA6B)."""
    with np.errstate(over="ignore"):
        h = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32((stream * 0x85EBCA6B) & 0xFFFFFFFF)
        h ^= h >> np.uint32(16)
        h *= np.uint32(0x85EBCA6B)
        h ^= h >> np.uint32(13)
        h *= np.uint32(0xC2B2AE35)
        h ^= h >> np.uint32(16)
    return h.astype(np.float64) / 2**31 - 1.0


def weight(index: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Value of the index-th weight of a model, by its kind."""
    u = hashed(1000 + index, int(np.prod(shape))).reshape(shape)
    if name == "gamma":
        return (1 + 0.2 * u).astype("float32")
    if name == "moving_variance":
        return (1 + 0.5 * np.abs(u)).astype("float32")
    if len(shape) == 1:
        return (0.1 * u).astype("float32")
    if name == "embeddings":
        return (0.5 * u).astype("float32")
    fan_in = int(np.prod(shape[:-1]))
    return (u * np.sqrt(4.5 / fan_in)).astype("float32")


def mlp(keras: Any) -> Any:
    inputs = keras.Input(shape=(784,))
    x = keras.layers.Dense(64, activation="relu")(inputs)
    x = keras.layers.Dense(32, activation="relu")(x)
    outputs = keras.layers.Dense(10, activation="softmax")(x)
    return keras.Model(inputs=inputs, outputs=outputs)


def ticket(keras: Any) -> Any:
    title_input = keras.Input(shape=(100,), name="title")
    body_input = keras.Input(shape=(500,), name="body")
    tags_input = keras.Input(shape=(10,), name="tags")
    title = keras.layers.LSTM(128)(keras.layers.Embedding(10000, 64)(title_input))
    body = keras.layers.LSTM(128)(keras.layers.Embedding(10000, 64)(body_input))
    tags = keras.layers.Dense(32, activation="relu")(tags_input)
    x = keras.layers.concatenate([title, body, tags])
    priority = keras.layers.Dense(1, activation="sigmoid", name="priority")(x)
    department = keras.layers.Dense(4, activation="softmax", name="department")(x)
    return keras.Model(inputs=[title_input, body_input, tags_input], outputs=[priority, department])


def detector(keras: Any, size: int = 224) -> Any:
    inputs = keras.Input(shape=(size, size, 3))
    x = keras.layers.Conv2D(64, 3, activation="relu")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(128, 3, activation="relu")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(256, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    class_output = keras.layers.Dense(10, activation="softmax", name="class")(x)
    bbox_output = keras.layers.Dense(4, activation="sigmoid", name="bbox")(x)
    return keras.Model(inputs=inputs, outputs=[class_output, bbox_output])


def siamese(keras: Any) -> Any:
    shared_embedding = keras.layers.Embedding(10000, 128)
    input_a = keras.Input(shape=(100,), name="input_a")
    input_b = keras.Input(shape=(100,), name="input_b")
    lstm = keras.layers.LSTM(64)
    x = keras.layers.concatenate([lstm(shared_embedding(input_a)), lstm(shared_embedding(input_b))])
    output = keras.layers.Dense(1, activation="sigmoid")(x)
    return keras.Model(inputs=[input_a, input_b], outputs=output)


def residual_block(keras: Any, x: Any, filters: int) -> Any:
    shortcut = x
    x = keras.layers.Conv2D(filters, 3, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(filters, 3, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    if shortcut.shape[-1] != filters:
        shortcut = keras.layers.Conv2D(filters, 1)(shortcut)
    x = keras.layers.Add()([x, shortcut])
    return keras.layers.ReLU()(x)


def resnet(keras: Any, size: int = 224) -> Any:
    inputs = keras.Input(shape=(size, size, 3))
    x = keras.layers.Conv2D(64, 7, strides=2, padding="same")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.MaxPooling2D()(x)
    for filters in (64, 128, 256):
        x = residual_block(keras, x, filters)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))


def inception_module(keras: Any, x: Any, f1: int, f3: int, f5: int, fp: int) -> Any:
    conv = keras.layers.Conv2D
    branch_1x1 = conv(f1, 1, activation="relu")(x)
    branch_3x3 = conv(f3 // 2, 1, activation="relu")(x)
    branch_3x3 = conv(f3, 3, padding="same", activation="relu")(branch_3x3)
    branch_5x5 = conv(f5 // 2, 1, activation="relu")(x)
    branch_5x5 = conv(f5, 5, padding="same", activation="relu")(branch_5x5)
    branch_pool = keras.layers.MaxPooling2D(3, strides=1, padding="same")(x)
    branch_pool = conv(fp, 1, activation="relu")(branch_pool)
    return keras.layers.concatenate([branch_1x1, branch_3x3, branch_5x5, branch_pool])


def inception(keras: Any, size: int = 224) -> Any:
    inputs = keras.Input(shape=(size, size, 3))
    x = keras.layers.Conv2D(64, 7, strides=2, padding="same", activation="relu")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    x = inception_module(keras, x, 64, 128, 32, 32)
    x = inception_module(keras, x, 128, 192, 96, 64)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))


def autoencoder(keras: Any) -> Any:
    encoder_input = keras.Input(shape=(28, 28, 1), name="img")
    x = keras.layers.Conv2D(16, 3, activation="relu")(encoder_input)
    x = keras.layers.Conv2D(32, 3, activation="relu")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(32, 3, activation="relu")(x)
    x = keras.layers.Conv2D(16, 3, activation="relu")(x)
    encoder = keras.Model(encoder_input, keras.layers.GlobalMaxPooling2D()(x), name="encoder")
    decoder_input = keras.Input(shape=(16,), name="encoded_img")
    x = keras.layers.Reshape((4, 4, 1))(decoder_input)
    x = keras.layers.Conv2DTranspose(16, 3, activation="relu")(x)
    x = keras.layers.Conv2DTranspose(32, 3, activation="relu")(x)
    x = keras.layers.UpSampling2D()(x)
    x = keras.layers.Conv2DTranspose(16, 3, activation="relu")(x)
    decoder = keras.Model(decoder_input, keras.layers.Conv2DTranspose(1, 3, activation="sigmoid")(x), name="decoder")
    autoencoder_input = keras.Input(shape=(28, 28, 1), name="img")
    return keras.Model(autoencoder_input, decoder(encoder(autoencoder_input)), name="autoencoder")


class Inp(NamedTuple):
    shape: tuple[int, ...]
    ids: int = 0  # vocabulary, 0: floats


class Seed(NamedTuple):
    build: Any
    batch: int
    inputs: list[Inp]
    targets: list[tuple[str, int]]  # ("onehot" | "binary" | "unit" | "image", size)
    losses: list[str]


SEEDS: dict[str, Seed] = {
    "mlp": Seed(mlp, 32, [Inp((784,))], [("onehot", 10)], ["categorical_crossentropy"]),
    "ticket": Seed(
        ticket,
        4,
        [Inp((100,), 10000), Inp((500,), 10000), Inp((10,))],
        [("binary", 1), ("onehot", 4)],
        ["binary_crossentropy", "categorical_crossentropy"],
    ),
    "detector": Seed(
        detector, 2, [Inp((224, 224, 3))], [("onehot", 10), ("unit", 4)], ["categorical_crossentropy", "mse"]
    ),
    "siamese": Seed(siamese, 8, [Inp((100,), 10000), Inp((100,), 10000)], [("binary", 1)], ["binary_crossentropy"]),
    "resnet": Seed(resnet, 2, [Inp((224, 224, 3))], [("onehot", 10)], ["categorical_crossentropy"]),
    "inception": Seed(inception, 2, [Inp((224, 224, 3))], [("onehot", 10)], ["categorical_crossentropy"]),
    "autoencoder": Seed(autoencoder, 4, [Inp((28, 28, 1))], [("image", 400)], ["mse"]),
}


def data(seed: Seed, batch: int | None = None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs and targets of a batch."""
    n = batch or seed.batch
    xs, ys = [], []
    for i, inp in enumerate(seed.inputs):
        u = hashed(10 + i, n * int(np.prod(inp.shape))).reshape((n, *inp.shape))
        xs.append(np.floor((u + 1) / 2 * inp.ids).astype("int32") if inp.ids else u.astype("float32"))
    for i, (kind, size) in enumerate(seed.targets):
        u = (hashed(50 + i, n * size).reshape(n, size) + 1) / 2
        if kind == "onehot":
            ys.append(np.eye(size, dtype="float32")[np.floor(u[:, 0] * size).astype(int)])
        elif kind == "binary":
            ys.append((u > 0.5).astype("float32"))
        elif kind == "image":
            side = round(size**0.5)
            ys.append(u.reshape(n, side, side, 1).astype("float32"))
        else:
            ys.append(u.astype("float32"))
    return xs, ys


def set_weights(model: Any) -> None:
    """Gives a model its formula weights, in the order of `model.weights`."""
    model.set_weights([weight(i, w.name, tuple(w.shape)) for i, w in enumerate(model.weights)])


def fingerprint(index: int, gradient: np.ndarray) -> dict[str, np.ndarray]:
    """What is kept of a gradient: its norm, 8 projections on hashed signs, 64 entries."""
    g = np.asarray(gradient, dtype="float64").ravel()
    signs = np.stack([np.sign(hashed(5000 + 8 * index + k, g.size) + 1e-12) for k in range(8)])
    picks = np.floor((hashed(9000 + index, 64) + 1) / 2 * g.size).astype(int)
    return {
        "norm": np.array([np.sqrt((g * g).sum())]),
        "projections": signs @ g / np.sqrt(max(g.size, 1)),
        "entries": g[picks].astype("float32"),
        "largest": np.array([np.abs(g).max() if g.size else 0.0]),
    }
