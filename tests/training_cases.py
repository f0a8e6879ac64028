"""What `compile`, `fit`, `evaluate` and `predict` promise, as small programs that Keras and dagrt run alike.

Each case takes the module (keras or dagrt) and answers plain data; golden/record_training.py keeps Keras's answers,
test_training.py compares dagrt's with them. Weights come from a formula, nothing is shuffled.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CASES: dict[str, Callable[[Any], Any]] = {}
QUIET = {"verbose": 0, "shuffle": False}


def case(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    CASES[fn.__name__] = fn
    return fn


def numbers(n: int, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    i = np.arange(int(np.prod(shape)))
    return (((i * 7919 + n * 104729) % 1000) / 1000 - 0.5).astype("float32").reshape(shape) * scale


def with_formula_weights(model: Any) -> Any:
    model.set_weights([numbers(i, w.shape) if w.ndim else w for i, w in enumerate(model.get_weights())])
    return model


X, Y = numbers(1, (10, 4)), numbers(2, (10, 1))
X2 = {"a": X, "b": numbers(2, (10, 3))}
CLASSES = np.arange(10) % 3
Y2 = {"p": (numbers(3, (10, 1)) > 0).astype("float32"), "d": CLASSES}


def one(k: Any, activation: Any = None, units: int = 1) -> Any:
    x = k.Input((4,), name="a")
    y = k.layers.Dense(units, activation=activation, name="y")(k.layers.Dense(5, activation="tanh")(x))
    return with_formula_weights(k.Model(x, y))


def two(k: Any) -> Any:
    a, b = k.Input((4,), name="a"), k.Input((3,), name="b")
    x = k.layers.Dense(5, activation="tanh")(k.layers.concatenate([a, b]))
    p = k.layers.Dense(1, activation="sigmoid", name="p")(x)
    d = k.layers.Dense(3, activation="softmax", name="d")(x)
    return with_formula_weights(k.Model([a, b], [p, d]))


def plain(value: Any) -> Any:
    """As JSON has it: dicts in order, arrays as lists, numbers to 6 digits."""
    if isinstance(value, dict):
        return [[str(n), plain(v)] for n, v in value.items()]
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    a = np.asarray(value)
    return [plain(v) for v in a] if a.ndim else float(f"{float(a):.6g}")


# --- names, order and routing of results -----------------------------------------------------------------------------


@case
def lists_of_losses_and_metrics(k: Any) -> Any:
    m = two(k)
    m.compile("sgd", ["binary_crossentropy", "sparse_categorical_crossentropy"], metrics=[["accuracy"], ["accuracy"]])
    y = [Y2["p"], Y2["d"]]
    history = m.fit(X2, y, batch_size=4, epochs=2, **QUIET).history
    return history, m.evaluate(X2, y, verbose=0), m.evaluate(X2, y, verbose=0, return_dict=True)


@case
def dicts_of_losses_and_metrics(k: Any) -> Any:
    m = two(k)
    m.compile(
        "sgd",
        {"d": "sparse_categorical_crossentropy", "p": "bce"},
        loss_weights={"p": 2.0, "d": 0.5},
        metrics={"d": ["acc", "sparse_categorical_accuracy"], "p": ["mse", "AUC"]},
        weighted_metrics={"p": ["mse"]},
    )
    history = m.fit([X2["a"], X2["b"]], Y2, batch_size=4, epochs=2, validation_split=0.3, **QUIET).history
    return history, m.evaluate(X2, Y2, verbose=0), m.evaluate(X2, Y2, verbose=0, return_dict=True)


@case
def a_head_without_a_loss(k: Any) -> Any:
    m = two(k)
    m.compile("sgd", {"p": "bce", "d": None}, metrics={"p": "mae"})
    return m.fit(X2, Y2, batch_size=4, **QUIET).history, m.evaluate(X2, Y2, verbose=0)


@case
def dict_outputs(k: Any) -> Any:
    a = k.Input((4,), name="a")
    outputs = {"z": k.layers.Dense(2)(a), "q": k.layers.Dense(1)(a)}
    m = with_formula_weights(k.Model(a, outputs))
    m.compile("sgd", {"z": "mse", "q": "mae"}, metrics={"q": ["mse"]})
    y = {"z": numbers(1, (10, 2)), "q": Y}
    history = m.fit(X, y, batch_size=4, **QUIET).history
    return history, sorted(m.predict(X, verbose=0)), m.evaluate(X, y, verbose=0, return_dict=True)


@case
def metrics_of_one_head(k: Any) -> Any:
    m = one(k)
    m.compile("sgd", "mse", metrics=["mae", "mse", k.metrics.MeanAbsolutePercentageError(name="m")])
    return m.fit(X, Y, **QUIET).history, m.evaluate(X, Y, verbose=0)


@case
def names_used_twice(k: Any) -> Any:
    m = one(k)
    m.compile("sgd", "mse", metrics=["mae", "mae"], weighted_metrics=["mae"])
    return m.fit(X, Y, **QUIET).history


@case
def accuracy_by_shapes(k: Any) -> Any:
    found = []
    for activation, units, y, loss in (
        ("sigmoid", 1, (Y > 0).astype("float32"), "bce"),
        ("softmax", 3, CLASSES, "sparse_categorical_crossentropy"),
        ("softmax", 3, CLASSES[:, None], "sparse_categorical_crossentropy"),
        ("softmax", 3, np.eye(3)[CLASSES], "categorical_crossentropy"),
    ):
        m = one(k, activation, units)
        m.compile("sgd", loss, metrics=["accuracy", "acc"])
        found.append(m.fit(X, y, **QUIET).history)
    return found


@case
def functions_as_loss_and_metrics(k: Any) -> Any:
    def my_loss(y: Any, p: Any) -> Any:
        return k.ops.mean(k.ops.abs(y - p) ** 1.5, axis=-1)

    def top(y: Any, p: Any) -> Any:
        return k.ops.max(p, axis=-1)

    m = one(k)
    m.compile("sgd", my_loss, metrics=[top, lambda y, p: k.ops.mean(p)])
    return m.fit(X, Y, batch_size=4, **QUIET).history


@case
def single_batches(k: Any) -> Any:
    m = one(k)
    m.compile("sgd", "mse", metrics=["mae"])
    return [
        m.train_on_batch(X, Y),
        m.train_on_batch(X, Y, return_dict=True),
        m.test_on_batch(X, Y),
        m.test_on_batch(X[:4], Y[:4], return_dict=True),
        m.predict_on_batch(X),
        m.train_on_batch(X, Y, sample_weight=np.arange(10.0)),
    ]


@case
def single_batches_of_two_heads(k: Any) -> Any:
    m = two(k)
    m.compile("sgd", ["bce", "sparse_categorical_crossentropy"], metrics=[["acc"], ["acc"]])
    y = [Y2["p"], Y2["d"]]
    return m.train_on_batch(X2, y), m.test_on_batch(X2, y, return_dict=True), m.test_on_batch(X2, y)


@case
def structures_of_predict(k: Any) -> Any:
    a = k.Input((4,), name="a")
    b, c = k.layers.Dense(2)(a), k.layers.Dense(3)(a)
    found = []
    for outputs in (b, [b], [b, c], (b, c), {"x": b, "y": [c, b]}):
        p = with_formula_weights(k.Model(a, outputs)).predict(X, batch_size=4, verbose=0)
        found.append([type(p).__name__, k.tree.map_structure(lambda t: str(t.shape), p)])
    return found


@case
def ranks_are_repaired(k: Any) -> Any:
    a = k.Input((1,), name="a")
    m = with_formula_weights(k.Model(a, k.layers.Dense(1)(a)))
    row = np.arange(4.0)
    found = [m.predict(row, verbose=0), m.predict(np.arange(4)[:, None], verbose=0)]
    m.compile("sgd", "mse")
    return [*found, m.evaluate(row, row, verbose=0), m.fit(row, row, **QUIET).history]


# --- weights of samples, losses from everywhere ------------------------------------------------------------------------


@case
def sample_weights(k: Any) -> Any:
    m = one(k)
    m.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"])
    w = np.arange(10) / 3.0
    history = m.fit(X, Y, batch_size=4, sample_weight=w, epochs=2, validation_data=(X, Y, w), **QUIET).history
    return history, m.evaluate(X, Y, sample_weight=w, verbose=0), m.get_weights()


@case
def class_weights(k: Any) -> Any:
    found = []
    for loss, y in (("sparse_categorical_crossentropy", CLASSES), ("categorical_crossentropy", np.eye(3)[CLASSES])):
        m = one(k, "softmax", 3)
        m.compile("sgd", loss, metrics=["accuracy"], weighted_metrics=["accuracy"])
        found.append(m.fit(X, y, batch_size=4, class_weight={0: 1.0, 1: 3.0, 2: 0.5}, **QUIET).history)
    return found


@case
def losses_of_layers_and_regularizers(k: Any) -> Any:
    a = k.Input((4,))
    x = k.layers.Dense(5, kernel_regularizer="l2", bias_regularizer=k.regularizers.L1(0.1), activity_regularizer="l2")(
        a
    )
    d = k.layers.Dense(1, name="d", kernel_regularizer=k.regularizers.L1L2(0.1, 0.2))(x)
    m = with_formula_weights(k.Model(a, [k.layers.Dense(1, name="p")(x), d]))
    m.compile("sgd", ["mse", "mae"], loss_weights=[2.0, 0.5])
    return m.fit(X, [Y, Y], batch_size=4, epochs=2, validation_data=(X, [Y, Y]), **QUIET).history


@case
def a_loss_added_by_a_layer(k: Any) -> Any:
    class Square(k.layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(k.ops.mean(x**2))
            return x

    found = []
    for loss in ("mse", None):
        a = k.Input((4,))
        m = with_formula_weights(k.Model(a, k.layers.Dense(1)(Square()(a))))
        m.compile("sgd", loss)
        found.append(m.fit(X, Y if loss else None, batch_size=4, **QUIET).history)
    return found


@case
def masks_reach_losses_and_metrics(k: Any) -> Any:
    ids = k.Input((None,), dtype="int32")
    y = k.layers.Dense(1)(k.layers.Embedding(10, 4, mask_zero=True)(ids))
    m = with_formula_weights(k.Model(ids, y))
    m.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"])
    x = np.array([[1, 2, 0, 0], [0, 3, 0, 4], [0, 0, 0, 0], [1, 2, 3, 4]])
    return m.evaluate(x, numbers(5, (4, 4, 1)), verbose=0)


@case
def batch_normalization(k: Any) -> Any:
    a = k.Input((3,))
    m = with_formula_weights(k.Model(a, k.layers.Dense(1)(k.layers.BatchNormalization(momentum=0.9)(a))))
    m.set_weights([np.abs(w) for w in m.get_weights()])
    m.compile("sgd", "mse")
    found = [m.fit(X2["b"], Y, batch_size=4, epochs=3, validation_data=(X2["b"], Y), **QUIET).history, m.get_weights()]
    m.layers[1].trainable = False
    m.compile("sgd", "mse")
    return [*found, m.fit(X2["b"], Y, batch_size=4, epochs=2, **QUIET).history, m.get_weights()]


# --- data ----------------------------------------------------------------------------------------------------------------


@case
def validation_split(k: Any) -> Any:
    m = one(k)
    m.compile("sgd", "mse")
    h = m.fit(X[:5], Y[:5], validation_split=0.3, batch_size=2, **QUIET)
    return h.history, h.params


@case
def an_endless_generator(k: Any) -> Any:
    def batches() -> Iterator[tuple]:
        i = 0
        while True:
            yield X[i % 8 : i % 8 + 2], Y[i % 8 : i % 8 + 2]
            i += 1

    m = one(k)
    m.compile("sgd", "mse")
    # In Keras, validation by a generator repeats its first batch in every epoch: only one epoch's is compared.
    validation = {"validation_data": batches(), "validation_steps": 2, "validation_freq": 3}
    h = m.fit(batches(), steps_per_epoch=3, epochs=3, verbose=0, **validation).history
    return h, m.evaluate(batches(), steps=3, verbose=0), m.predict(batches(), steps=2, verbose=0)


@case
def a_generator_that_ends(k: Any) -> Any:
    def batches() -> Iterator[tuple]:
        for i in range(4):
            yield X[i : i + 2], Y[i : i + 2], np.array([1.0, 2.0])

    m = one(k)
    m.compile("sgd", "mse")
    found = [m.fit(batches(), verbose=0).history]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [*found, m.fit(batches(), steps_per_epoch=3, epochs=2, verbose=0).history]


@case
def arrays_by_steps(k: Any) -> Any:
    m = one(k)
    m.compile("sgd", "mse")
    history = m.fit(X, Y, batch_size=3, steps_per_epoch=2, epochs=3, **QUIET).history
    return history, m.predict(X, batch_size=3, steps=2, verbose=0)


@case
def a_dataset(k: Any) -> Any:
    class Data(k.utils.PyDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> tuple:
            return X[2 * i : 2 * i + 3], Y[2 * i : 2 * i + 3]

    m = one(k)
    m.compile("sgd", "mse")
    history = m.fit(Data(), epochs=3, shuffle=False, validation_data=Data(), verbose=0).history
    return history, m.predict(Data(), verbose=0)


# --- callbacks -------------------------------------------------------------------------------------------------------------


def recorder(k: Any) -> Any:
    class Recorder(k.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[Any] = []

    def hook(name: str, counted: bool) -> Callable:
        def call(self: Any, *args: Any, logs: Any = None) -> None:
            index, logs = (
                (args[0], args[1] if len(args) > 1 else logs) if counted else (None, args[0] if args else logs)
            )
            self.calls.append([name, index, sorted(logs) if logs else None])

        return call

    for mode in ("train", "test", "predict"):
        for when in ("begin", "end"):
            setattr(Recorder, f"on_{mode}_{when}", hook(f"{mode}_{when}", False))
            setattr(Recorder, f"on_{mode}_batch_{when}", hook(f"{mode}_batch_{when}", True))
            setattr(Recorder, f"on_epoch_{when}", hook(f"epoch_{when}", True))
    return Recorder()


@case
def order_of_hooks(k: Any) -> Any:
    m, c = one(k), recorder(k)
    m.compile("sgd", "mse", metrics=["mae"])
    m.fit(X, Y, batch_size=4, epochs=2, validation_data=(X[:5], Y[:5]), callbacks=[c], **QUIET)
    m.evaluate(X, Y, batch_size=4, verbose=0, callbacks=[c])
    m.predict(X, batch_size=4, verbose=0, callbacks=[c])
    return c.calls


@case
def hooks_by_steps_per_execution(k: Any) -> Any:
    m, c = one(k), recorder(k)
    m.compile("sgd", "mse", steps_per_execution=2)
    m.fit(X[:8], Y[:8], batch_size=2, epochs=2, callbacks=[c], **QUIET)
    return [call[:2] for call in c.calls]


@case
def initial_epoch_and_validation_freq(k: Any) -> Any:
    m, c = one(k), recorder(k)
    m.compile("sgd", "mse")
    fit = {"initial_epoch": 2, "epochs": 4, "validation_data": (X, Y), "validation_freq": 2}
    h = m.fit(X, Y, batch_size=5, callbacks=[c], **fit, **QUIET)
    return c.calls, h.epoch, h.history


@case
def early_stopping(k: Any) -> Any:
    found = []
    for settings in (
        {"monitor": "loss", "patience": 1, "min_delta": 0.02, "restore_best_weights": True},
        {"monitor": "loss", "patience": 0, "start_from_epoch": 2, "baseline": 0.0},
    ):
        m = one(k)
        m.compile(k.optimizers.SGD(0.5), "mse")
        stop = k.callbacks.EarlyStopping(**settings)
        h = m.fit(X, Y, epochs=12, callbacks=[stop], **QUIET)
        found.append([h.history, stop.stopped_epoch, stop.best_epoch, m.get_weights()])
    return found


@case
def reduce_lr_on_plateau(k: Any) -> Any:
    m = one(k)
    m.compile(k.optimizers.SGD(0.5), "mse")
    plateau = k.callbacks.ReduceLROnPlateau(
        monitor="loss", factor=0.5, patience=1, min_delta=0.05, cooldown=1, min_lr=0.1
    )
    return m.fit(X, Y, epochs=12, callbacks=[plateau], **QUIET).history


@case
def learning_rate_scheduler(k: Any) -> Any:
    m = one(k)
    m.compile(k.optimizers.SGD(0.5), "mse")
    halve = k.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5 if epoch else rate)
    return m.fit(X, Y, epochs=4, callbacks=[halve], **QUIET).history


@case
def files_of_callbacks(k: Any) -> Any:
    m = one(k)
    m.compile(k.optimizers.SGD(0.5), "mse")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = k.callbacks.ModelCheckpoint
        callbacks = [
            checkpoint(folder + "/m-{epoch:02d}-{loss:.3f}.keras", monitor="loss"),
            checkpoint(folder + "/best.weights.h5", monitor="loss", save_best_only=True, save_weights_only=True),
            checkpoint(folder + "/b{batch}.weights.h5", save_freq=2, save_weights_only=True),
            k.callbacks.CSVLogger(folder + "/log.csv"),
        ]
        m.fit(X, Y, epochs=4, callbacks=callbacks, batch_size=5, **QUIET)
        return sorted(os.listdir(folder)), Path(folder, "log.csv").read_text().splitlines()[0]


# --- optimizers ------------------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "momentum": lambda o: o.SGD(0.1, momentum=0.9),
    "nesterov": lambda o: o.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "rms_centered": lambda o: o.RMSprop(0.01, momentum=0.5, centered=True),
    "name": lambda o: "rmsprop",
    "amsgrad": lambda o: o.Adam(0.1, amsgrad=True),
    "adam_w": lambda o: o.AdamW(0.1),
    "clipnorm": lambda o: o.Adam(0.1, clipnorm=0.1),
    "global_clipnorm": lambda o: o.SGD(0.1, global_clipnorm=0.1),
    "clipvalue": lambda o: o.SGD(0.1, clipvalue=0.05),
    "ema": lambda o: o.SGD(0.1, use_ema=True, ema_momentum=0.9),
    "ema_overwritten": lambda o: o.SGD(0.1, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3),
    "accumulated": lambda o: o.Adam(0.1, gradient_accumulation_steps=3),
    "warm_cosine": lambda o: o.Adam(o.schedules.CosineDecay(0.0, 5, warmup_target=0.1, warmup_steps=3)),
    "staircase": lambda o: o.SGD(o.schedules.ExponentialDecay(0.1, 3, 0.5, staircase=True)),
    "piecewise": lambda o: o.SGD(o.schedules.PiecewiseConstantDecay([2, 4], [0.1, 0.01, 0.001])),
    "polynomial": lambda o: o.SGD(o.schedules.PolynomialDecay(0.1, 4, power=2.0, cycle=True)),
}


def _optimizer_case(name: str) -> Callable[[Any], Any]:
    def run(k: Any) -> Any:
        m = one(k)
        m.compile(OPTIMIZERS[name](k.optimizers), "mse")
        history = m.fit(X, Y, batch_size=5, epochs=6, **QUIET).history
        o = m.optimizer
        return history, m.get_weights(), o.learning_rate, o.iterations, [v.name for v in o.variables]

    return run


CASES.update({f"optimizer_{name}": _optimizer_case(name) for name in OPTIMIZERS})


# --- names -----------------------------------------------------------------------------------------------------------------


@case
def automatic_names(k: Any) -> Any:
    layers = (
        "Conv2DTranspose(1, 1) BatchNormalization() ReLU() PReLU() LeakyReLU() UpSampling2D() ZeroPadding2D() LSTM(1)"
    )
    found = [k.layers.Dense(1).name, k.layers.Dense(1).name]
    for text in layers.replace(", ", ",").split():
        name, _, arguments = text.partition("(")
        found.append(getattr(k.layers, name)(*[int(n) for n in arguments[:-1].split(",") if n]).name)
    found += [k.optimizers.RMSprop().name, k.optimizers.AdamW().name, k.metrics.AUC().name, k.metrics.AUC().name]
    a = k.Input((4,))
    m = k.Model(a, k.layers.Dense(1)(a) + 1.0)
    found += [a.name, k.Input((1,)).name, m.name, [l.name for l in m.layers], [o.name for o in m.operations]]
    return [*found, [w.path for w in m.weights], k.Model(a, a * 2).name]


@case
def order_of_weights(k: Any) -> Any:
    a = k.Input((8, 8, 3))
    y = k.layers.BatchNormalization()(k.layers.Conv2D(2, 3)(a))
    s = k.layers.Add()([y, k.layers.Conv2D(2, 3, name="z")(a)])
    inner = k.Sequential([k.Input((6, 6, 2)), k.layers.Conv2D(1, 1), k.layers.BatchNormalization()])
    m = k.Model(a, k.layers.Dense(2)(k.layers.Flatten()(inner(s))))
    paths = lambda: [[w.path for w in ws] for ws in (m.weights, m.trainable_weights, m.non_trainable_weights)]  # noqa: E731
    found = [[l.name for l in m.layers], paths()]
    m.layers[1].trainable = inner.trainable = False
    return [*found, paths(), m.count_params(), [v.path for v in m.variables]]
