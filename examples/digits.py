"""Handwritten digits: a small network with a residual block and an inception block, trained in seconds on a CPU.

    python examples/digits.py

Data: scikit-learn's digits (1,797 images of 8 x 8, UCI's "Optical Recognition of Handwritten Digits"). The last 360
are held out. Shows its progress, prints the accuracy on the held-out images, and draws the model to digits.png.
"""

from __future__ import annotations

import sys
import time

import dagrt as keras
import numpy as np
from dagrt import layers


def residual_block(x, filters):
    shortcut = x
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    if shortcut.shape[-1] != filters:
        shortcut = layers.Conv2D(filters, 1)(shortcut)
    return layers.ReLU()(layers.Add()([x, shortcut]))


def inception_block(x, filters):
    one = layers.Conv2D(filters, 1, activation="relu")(x)
    three = layers.Conv2D(filters // 2, 1, activation="relu")(x)
    three = layers.Conv2D(filters, 3, padding="same", activation="relu")(three)
    five = layers.Conv2D(filters // 4, 1, activation="relu")(x)
    five = layers.Conv2D(filters // 2, 5, padding="same", activation="relu")(five)
    pool = layers.MaxPooling2D(3, strides=1, padding="same")(x)
    pool = layers.Conv2D(filters // 2, 1, activation="relu")(pool)
    return layers.concatenate([one, three, five, pool])


def build():
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)
    x = residual_block(x, 32)
    x = layers.MaxPooling2D()(x)
    x = inception_block(x, 32)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="digit")(x), name="digits")


def main() -> float:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("This example needs scikit-learn: pip install scikit-learn")
    keras.utils.set_random_seed(1)
    data = load_digits()
    images = (data.images[..., None] / 16.0).astype("float32")
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], data.target[order]
    train, test = slice(0, -360), slice(-360, None)

    model = build()
    model.summary()
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, decay_steps=20 * 45)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    model.fit(images[train], labels[train], batch_size=32, epochs=20, validation_split=0.1)
    seconds = time.perf_counter() - start
    _, accuracy = model.evaluate(images[test], labels[test], verbose=0)
    print(f"\nheld-out accuracy {accuracy:.2%} on {len(labels[test])} images, after {seconds:.1f} s of training")
    try:
        print("drawn to", keras.utils.plot_model(model, "digits.png", show_shapes=True, show_layer_names=True))
    except ImportError as e:
        print("not drawn:", e)
    return accuracy


if __name__ == "__main__":
    main()
