"""A variational autoencoder of handwritten digits: a sampling layer, and a loss that the layer itself adds.

    pip install scikit-learn; python examples/vae.py

Loss = -log p(image | z) + KL(q(z | image) || N(0, 1)), z drawn anew in every step; beside it what the mean image reaches.
"""

import dagrt as keras
import numpy as np
from dagrt import layers, ops
from sklearn.datasets import load_digits

PIXELS, LATENT = 64, 4


class Sampling(layers.Layer):
    """z = mean + exp(log_variance / 2) noise; adds the KL divergence of z's distribution from N(0, 1) to the loss."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(1)

    def call(self, inputs):
        mean, log_variance = inputs
        self.add_loss(ops.mean(ops.sum(ops.exp(log_variance) + ops.square(mean) - 1 - log_variance, axis=-1)) / 2)
        return mean + ops.exp(log_variance / 2) * keras.random.normal(ops.shape(mean), seed=self.seed)


def build():
    image = keras.Input((PIXELS,), name="image")
    x = layers.Dense(128, activation="relu")(image)
    z = Sampling()([layers.Dense(LATENT, name="mean")(x), layers.Dense(LATENT, name="log_variance")(x)])
    latent = keras.Input((LATENT,), name="z")
    y = layers.Dense(PIXELS, activation="sigmoid")(layers.Dense(128, activation="relu")(latent))
    decoder = keras.Model(latent, y, name="decoder")
    return keras.Model(image, decoder(z), name="vae"), decoder


def negative_log_likelihood(image, p):
    return PIXELS * keras.losses.binary_crossentropy(image, p)


def main(epochs=40, verbose=2):
    keras.utils.set_random_seed(0)
    images = (load_digits().data / 16.0).astype("float32")
    vae, decoder = build()
    vae.compile(keras.optimizers.Adam(2e-3), negative_log_likelihood)
    vae.fit(images[:-360], images[:-360], batch_size=64, epochs=epochs, verbose=verbose)
    loss = vae.evaluate(images[-360:], images[-360:], verbose=0)
    mean = np.broadcast_to(images[:-360].mean(0), (360, PIXELS))
    baseline = float(np.mean(negative_log_likelihood(images[-360:], mean)))
    print(f"held-out loss {loss:.2f}; the mean image reaches {baseline:.2f}")
    drawn = decoder.predict(np.random.default_rng(1).normal(size=(1, LATENT)), verbose=0)[0].reshape(8, 8)
    print("a digit drawn from noise:", *("".join(" .+#"[int(3.99 * v)] * 2 for v in row) for row in drawn), sep="\n")
    return loss, baseline


if __name__ == "__main__":
    main()
