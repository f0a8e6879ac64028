"""A GAN with two optimisers in one traced step: noise becomes points on a ring.

    python examples/gan.py

The generator's pass reads the discriminator as the step before it left it; both updates are one program in C++.
"""

import dagrt as keras
import numpy as np
from dagrt import layers, ops

NOISE = 4


class Gan(keras.Model):
    def __init__(self, generator, discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.seed = keras.random.SeedGenerator(1)

    def compile(self, generator_optimizer, discriminator_optimizer):
        super().compile(optimizer=generator_optimizer)
        self.discriminator_optimizer = discriminator_optimizer

    def train_step(self, data):
        real = data[0]
        g, d = self.generator.trainable_variables, self.discriminator.trainable_variables
        fake = self.generator(keras.random.normal((ops.shape(real)[0], NOISE), seed=self.seed))
        # -log sigmoid(x) = softplus(-x): real points should score high, made ones low.
        d_loss = ops.mean(ops.softplus(-self.discriminator(real)) + ops.softplus(self.discriminator(fake)))
        self.discriminator_optimizer.apply(ops.gradients(d_loss, d), d)
        g_loss = ops.mean(ops.softplus(-self.discriminator(fake)))
        self.optimizer.apply(ops.gradients(g_loss, g), g)
        return {"d_loss": d_loss, "g_loss": g_loss}


def network(inputs, outputs):
    hidden = [layers.Dense(64, activation="leaky_relu") for _ in range(2)]
    return keras.Sequential([keras.Input((inputs,)), *hidden, layers.Dense(outputs)])


def main(epochs=30, verbose=2):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 4096)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 0.03, (4096, 2))
    gan = Gan(network(NOISE, 2), network(2, 1))
    gan.compile(keras.optimizers.Adam(1e-3, beta_1=0.5), keras.optimizers.Adam(1e-3, beta_1=0.5))
    noise = rng.normal(size=(1000, NOISE)).astype("float32")
    error = lambda: np.abs(np.linalg.norm(gan.generator.predict(noise, verbose=0), axis=1) - 1).mean()  # noqa: E731
    before = error()
    gan.fit(ring, batch_size=128, epochs=epochs, verbose=verbose)
    print(f"mean distance from the ring: {before:.2f} before training, {error():.2f} after")
    return before, error()


if __name__ == "__main__":
    main()
