"""The models that are measured: the seven of the seed page, and five that people run.

Each is a function of the `keras` module to build it with (Keras or dagrt), so that every peer runs the same graph.
ResNet50: He et al. 2015, as keras.applications has it. MobileNetV2: Sandler et al. 2018. EfficientNetB0: Tan and Le 2019.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from seed_models import SEEDS, Inp, Seed, data, weight


def resnet50(keras: Any) -> Any:
    layers = keras.layers

    def normalised(x: Any, filters: int, size: int, strides: int = 1) -> Any:
        x = layers.Conv2D(filters, size, strides=strides, padding="same")(x)
        return layers.BatchNormalization(epsilon=1.001e-5)(x)

    inputs = keras.Input((224, 224, 3))
    x = layers.ZeroPadding2D(3)(inputs)
    x = layers.Conv2D(64, 7, strides=2)(x)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1.001e-5)(x))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for stage, (filters, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(blocks):
            strides = 2 if block == 0 and stage > 0 else 1
            shortcut = normalised(x, 4 * filters, 1, strides) if block == 0 else x
            y = layers.ReLU()(normalised(x, filters, 1, strides))
            y = layers.ReLU()(normalised(y, filters, 3))
            x = layers.ReLU()(layers.Add()([shortcut, normalised(y, 4 * filters, 1)]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(1000, activation="softmax")(x))


def mobilenet_v2(keras: Any) -> Any:
    layers = keras.layers

    def normalised(x: Any, act: bool = True) -> Any:
        x = layers.BatchNormalization(epsilon=1e-3, momentum=0.999)(x)
        return layers.ReLU(6.0)(x) if act else x

    inputs = keras.Input((224, 224, 3))
    x = normalised(layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(inputs))
    for expand, filters, repeats, strides in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:
        for i in range(repeats):
            start, channels, step = x, x.shape[-1], strides if i == 0 else 1
            if expand > 1:
                x = normalised(layers.Conv2D(expand * channels, 1, use_bias=False)(x))
            x = normalised(layers.DepthwiseConv2D(3, strides=step, padding="same", use_bias=False)(x))
            x = normalised(layers.Conv2D(filters, 1, use_bias=False)(x), act=False)
            if step == 1 and channels == filters:
                x = layers.Add()([start, x])
    x = normalised(layers.Conv2D(1280, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(1000, activation="softmax")(x))


def efficientnet_b0(keras: Any) -> Any:
    layers = keras.layers

    def normalised(x: Any, act: bool = True) -> Any:
        x = layers.BatchNormalization()(x)
        return layers.Activation("swish")(x) if act else x

    inputs = keras.Input((224, 224, 3))
    x = layers.Rescaling(1 / 255.0)(inputs)
    x = normalised(layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(x))
    for expand, size, filters, repeats, strides in [
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    ]:
        for i in range(repeats):
            start, channels, step = x, x.shape[-1], strides if i == 0 else 1
            wide = expand * channels
            if expand > 1:
                x = normalised(layers.Conv2D(wide, 1, use_bias=False)(x))
            x = normalised(layers.DepthwiseConv2D(size, strides=step, padding="same", use_bias=False)(x))
            squeezed = layers.Reshape((1, 1, wide))(layers.GlobalAveragePooling2D()(x))
            squeezed = layers.Conv2D(max(1, channels // 4), 1, activation="swish")(squeezed)
            squeezed = layers.Conv2D(wide, 1, activation="sigmoid")(squeezed)
            x = layers.Multiply()([x, squeezed])
            x = normalised(layers.Conv2D(filters, 1, use_bias=False)(x), act=False)
            if step == 1 and channels == filters:
                x = layers.Add()([x, start])
    x = normalised(layers.Conv2D(1280, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(1000, activation="softmax")(x))


def language_model(keras: Any) -> Any:
    """Two LSTM layers that predict the token behind 64 others."""
    tokens = keras.Input((64,), dtype="int32")
    x = keras.layers.Embedding(10000, 256)(tokens)
    x = keras.layers.LSTM(256, return_sequences=True)(x)
    x = keras.layers.LSTM(256)(x)
    return keras.Model(tokens, keras.layers.Dense(10000, activation="softmax")(x))


def wide_mlp(keras: Any) -> Any:
    inputs = keras.Input((1024,))
    x = keras.layers.Dense(2048, activation="relu")(inputs)
    x = keras.layers.Dense(2048, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(100, activation="softmax")(x))


IMAGE = Inp((224, 224, 3))
CROSS_ENTROPY = ["categorical_crossentropy"]
MODELS: dict[str, Seed] = {
    **SEEDS,
    "resnet50": Seed(resnet50, 2, [IMAGE], [("onehot", 1000)], CROSS_ENTROPY),
    "mobilenet_v2": Seed(mobilenet_v2, 2, [IMAGE], [("onehot", 1000)], CROSS_ENTROPY),
    "efficientnet_b0": Seed(efficientnet_b0, 2, [IMAGE], [("onehot", 1000)], CROSS_ENTROPY),
    "language_model": Seed(language_model, 8, [Inp((64,), 10000)], [("onehot", 10000)], CROSS_ENTROPY),
    "wide_mlp": Seed(wide_mlp, 32, [Inp((1024,))], [("onehot", 100)], CROSS_ENTROPY),
}


class Row(NamedTuple):
    model: str
    mode: str  # "predict" or "train": forward, backward and Adam on one batch
    batch: int
    floor: float = 0.0  # best peer / dagrt that the project wants at least

    @property
    def label(self) -> str:
        return f"{self.model}, {'batch' if self.mode == 'predict' else 'train'} {self.batch}"


ROWS = [
    Row("mlp", "predict", 1, 2.0),
    Row("mlp", "predict", 32, 1.2),
    Row("mlp", "train", 32, 4.0),
    Row("ticket", "predict", 1, 1.6),
    Row("ticket", "predict", 32, 1.2),
    Row("ticket", "train", 32, 2.0),
    Row("siamese", "predict", 1, 2.2),
    Row("siamese", "predict", 32, 1.2),
    Row("siamese", "train", 32, 1.6),
    Row("detector", "predict", 1, 1.7),
    Row("detector", "predict", 8, 1.7),
    Row("detector", "train", 8, 2.4),
    Row("resnet", "predict", 1, 1.25),
    Row("resnet", "predict", 8, 1.25),
    Row("resnet", "train", 4, 2.4),
    Row("inception", "predict", 1, 1.8),
    Row("inception", "predict", 8, 1.8),
    Row("inception", "train", 4, 2.0),
    Row("autoencoder", "predict", 1, 2.0),
    Row("autoencoder", "predict", 32, 2.5),
    Row("autoencoder", "train", 32, 3.0),
]
for name, batches in {
    "resnet50": (1, 32, 4),
    "mobilenet_v2": (1, 32, 8),
    "efficientnet_b0": (1, 32, 8),
    "language_model": (1, 32, 32),
    "wide_mlp": (1, 32, 32),
}.items():
    ROWS += [
        Row(name, "predict", batches[0]),
        Row(name, "predict", batches[1]),
        Row(name, "train", batches[2]),
    ]


def build(keras: Any, name: str) -> Any:
    """The model with its formula weights; moving variances near 1 keep deep models' activations in range."""
    model = MODELS[name].build(keras)
    model.set_weights([weight(i, w.name, tuple(w.shape)) for i, w in enumerate(model.weights)])
    return model


def batch_of(row: Row) -> tuple[list[Any], list[Any]]:
    return data(MODELS[row.model], row.batch)


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(math.log(v) for v in values) / len(values)) if values else math.nan
