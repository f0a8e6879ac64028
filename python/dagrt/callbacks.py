"""Callbacks: hooks into fit, evaluate and predict, as Keras has them.

A callback is any object with (some of) the hooks `on_{train,test,predict}_{begin,end}(logs)`,
`on_epoch_{begin,end}(epoch, logs)`, `on_{train,test,predict}_batch_{begin,end}(batch, logs)`,
`on_batch_{begin,end}`, `set_model`, `set_params`.
"""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from dagrt.utils.progbar import Progbar

_BATCH_HOOKS = tuple(f"on_{mode}_batch_{when}" for mode in ("train", "test", "predict") for when in ("begin", "end"))


class Callback:
    """Base class of callbacks; override the hooks that you need.

    Attributes:
        model: the model in training.
        params: dict with "verbose", "epochs", "steps".

    Example:
        >>> import dagrt
        >>> class Stop(dagrt.callbacks.Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         if logs["loss"] < 0.01:
        ...             self.model.stop_training = True
    """

    model: Any = None
    params: dict | None = None

    def set_params(self, params: dict) -> None:
        self.params = params

    def set_model(self, model: Any) -> None:
        self.model = model

    def on_batch_begin(self, batch: int, logs: dict | None = None) -> None: ...
    def on_batch_end(self, batch: int, logs: dict | None = None) -> None: ...
    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None: ...
    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None: ...
    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.on_batch_end(batch, logs=logs)

    def on_test_batch_begin(self, batch: int, logs: dict | None = None) -> None: ...
    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None: ...
    def on_predict_batch_begin(self, batch: int, logs: dict | None = None) -> None: ...
    def on_predict_batch_end(self, batch: int, logs: dict | None = None) -> None: ...
    def on_train_begin(self, logs: dict | None = None) -> None: ...
    def on_train_end(self, logs: dict | None = None) -> None: ...
    def on_test_begin(self, logs: dict | None = None) -> None: ...
    def on_test_end(self, logs: dict | None = None) -> None: ...
    def on_predict_begin(self, logs: dict | None = None) -> None: ...
    def on_predict_end(self, logs: dict | None = None) -> None: ...


def _overrides(callback: Any, hook: str) -> bool:
    own = getattr(type(callback), hook, None)
    if hook in callback.__dict__ if hasattr(callback, "__dict__") else False:
        return True
    if own is None:
        return False
    if hook.startswith("on_train_batch") and own is getattr(Callback, hook):
        plain = hook.replace("train_", "")
        return _overrides(callback, plain)
    return own is not getattr(Callback, hook, None)


class CallbackList:
    """Calls several callbacks as one. Batch hooks that nobody overrides cost nothing.

    Args:
        callbacks: list of callbacks (or one), None for none.
        add_history: add a History unless there is one.
        add_progbar: add a progress bar unless there is one.
        model: given to every callback.
        params: given to every callback: "verbose", "epochs", "steps".

    Raises:
        TypeError: a class in place of an object, or an object without hooks.

    Example:
        >>> import dagrt as keras
        >>> hooks = keras.callbacks.CallbackList([keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(logs))])
        >>> hooks.on_epoch_end(0, {"loss": 1.0})
        {'loss': 1.0}
    """

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        if callbacks is None:
            self.callbacks: list[Any] = []
        elif isinstance(callbacks, (list, tuple)):
            self.callbacks = list(callbacks)
        else:
            self.callbacks = [callbacks]
        for c in self.callbacks:
            if isinstance(c, type):
                raise TypeError(f"callbacks: expected objects, got the class {c.__name__}; write {c.__name__}(...)")
            if not any(
                hasattr(c, h)
                for h in (
                    *_BATCH_HOOKS,
                    "on_epoch_end",
                    "on_train_begin",
                    "on_epoch_begin",
                    "on_train_end",
                    "on_test_end",
                    "on_predict_end",
                )
            ):
                raise TypeError(f"callbacks: {c!r} has none of the callback hooks (on_epoch_end, ...)")
        self._history = next((c for c in self.callbacks if isinstance(c, History)), None)
        if add_history and self._history is None:
            self._history = History()
            self.callbacks.append(self._history)
        if add_progbar and not any(isinstance(c, ProgbarLogger) for c in self.callbacks):
            self.callbacks.append(ProgbarLogger())
        self._hooked = {h: [c for c in self.callbacks if _overrides(c, h)] for h in _BATCH_HOOKS}
        if model is not None:
            self.set_model(model)
        if params:
            self.set_params(params)

    def append(self, callback: Any) -> None:
        self.callbacks.append(callback)
        self._hooked = {h: [c for c in self.callbacks if _overrides(c, h)] for h in _BATCH_HOOKS}

    def set_params(self, params: dict) -> None:
        self.params = params
        for c in self.callbacks:
            if hasattr(c, "set_params"):
                c.set_params(params)

    def set_model(self, model: Any) -> None:
        if self._history is not None:
            model.history = self._history
        for c in self.callbacks:
            if hasattr(c, "set_model"):
                c.set_model(model)

    def wants_batches(self, mode: str) -> bool:
        return bool(self._hooked[f"on_{mode}_batch_begin"] or self._hooked[f"on_{mode}_batch_end"])

    def wants_every_batch(self, mode: str) -> bool:
        """Whether anybody listens to batches beside a progress bar, which redraws itself now and then."""
        listeners = self._hooked[f"on_{mode}_batch_begin"] + self._hooked[f"on_{mode}_batch_end"]
        return any(not isinstance(c, ProgbarLogger) for c in listeners)

    def on_batch(self, mode: str, when: str, batch: int, logs: Any = None) -> None:
        """`logs` may be a function that makes them: it is called only if somebody listens."""
        hook = f"on_{mode}_batch_{when}"
        listeners = self._hooked[hook]
        if not listeners:
            return
        for c in listeners:
            # A progress bar between two redraws needs no numbers.
            if isinstance(c, ProgbarLogger) and not c.due(mode, batch):
                continue
            if callable(logs):
                logs = logs()
            getattr(c, hook)(batch, logs)

    def call(self, hook: str, *args: Any, logs: dict | None = None) -> None:
        for c in self.callbacks:
            method = getattr(c, hook, None)
            if method is not None:
                method(*args, logs)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.call("on_epoch_begin", epoch, logs=logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.call("on_epoch_end", epoch, logs=logs)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.call("on_train_begin", logs=logs)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.call("on_train_end", logs=logs)

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.call("on_test_begin", logs=logs)

    def on_test_end(self, logs: dict | None = None) -> None:
        self.call("on_test_end", logs=logs)

    def on_predict_begin(self, logs: dict | None = None) -> None:
        self.call("on_predict_begin", logs=logs)

    def on_predict_end(self, logs: dict | None = None) -> None:
        self.call("on_predict_end", logs=logs)


class History(Callback):
    """Records the logs of every epoch; `fit` returns it.

    Attributes:
        history: dict of lists, one value an epoch.
        epoch: numbers of the epochs of the last `fit`.

    Example:
        >>> import numpy as np, dagrt as keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=2, verbose=0)
        >>> history.epoch, sorted(history.history), len(history.history["loss"])
        ([0, 1], ['loss'], 2)
    """

    def __init__(self) -> None:
        self.history: dict[str, list] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch.append(epoch)
        for k, v in (logs or {}).items():
            self.history.setdefault(k, []).append(v)
        self.model.history = self


class ProgbarLogger(Callback):
    """Shows a progress bar with the metrics (see `dagrt.utils.Progbar`); `fit` adds one where verbose is not 0.

    Example:
        >>> import numpy as np, dagrt as keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=2)
        1/1 - ... - loss: ...
    """

    def __init__(self) -> None:
        self.epochs: int | None = None
        self._epoch_line = True
        self._in_fit = False
        self.target: int | None = None
        self.verbose = 1
        self.progbar: Progbar | None = None
        self.seen = 0

    def set_params(self, params: dict) -> None:
        self.params = params
        self.verbose = params.get("verbose", 1)
        self.epochs = params.get("epochs")
        self.target = params.get("steps")

    def due(self, mode: str, batch: int) -> bool:
        if mode == "test" and self._in_fit:  # the bar counts the batches of training
            return False
        self.seen = batch + 1
        return self.progbar is None or self.progbar.due()

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._in_fit = True

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._reset()
        if self.verbose and self.epochs and self.epochs > 1:
            print(f"Epoch {epoch + 1}/{self.epochs}")

    def on_test_begin(self, logs: dict | None = None) -> None:
        if not self._in_fit:
            self._reset()

    def on_predict_begin(self, logs: dict | None = None) -> None:
        self._reset()

    def _reset(self) -> None:
        self.seen = 0
        self.progbar = Progbar(self.target, verbose=self.verbose, unit_name="step")
        self.progbar.stateless_metrics = set()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._update(batch, logs)

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if not self._in_fit:
            self._update(batch, logs)

    def on_predict_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._update(batch, None)

    def _update(self, batch: int, logs: dict | None) -> None:
        self.seen = batch + 1
        if self.progbar is not None:
            self.progbar.update(self.seen, list((logs or {}).items()), finalize=False)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._finish(logs)

    def on_test_end(self, logs: dict | None = None) -> None:
        if not self._in_fit:
            self._finish(logs)

    def on_predict_end(self, logs: dict | None = None) -> None:
        self._finish(None)

    def _finish(self, logs: dict | None) -> None:
        if self.progbar is None:
            return
        if self.target is None:
            self.target = self.seen
        self.progbar.target = self.target
        self.progbar.update(self.seen, list((logs or {}).items()), finalize=True)


class _Monitor(Callback):
    """What EarlyStopping, ModelCheckpoint and ReduceLROnPlateau share: a watched value and which way is better."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            warnings.warn(f"{type(self).__name__}: mode {mode!r} is unknown, using 'auto'", stacklevel=3)
            mode = "auto"
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)
        self._direction: str | None = mode if mode != "auto" else None
        self._warned = False

    @property
    def direction(self) -> str:
        if self._direction is None:
            name = self.monitor.removeprefix("val_")
            model = self.model
            up = None
            for metric in getattr(model, "metrics", None) or []:
                if getattr(metric, "name", None) == name and getattr(metric, "_direction", None):
                    up = metric._direction == "up"
            if up is None:
                up = name.endswith(("acc", "accuracy", "auc", "precision", "recall", "f1_score", "score", "iou"))
            self._direction = "max" if up else "min"
        return self._direction

    def worst(self) -> float:
        return -math.inf if self.direction == "max" else math.inf

    def improved(self, value: float, reference: float, min_delta: float | None = None) -> bool:
        delta = self.min_delta if min_delta is None else min_delta
        return value - delta > reference if self.direction == "max" else value + delta < reference

    def value_in(self, logs: dict | None) -> float | None:
        value = (logs or {}).get(self.monitor)
        if value is None and not self._warned:
            self._warned = True
            warnings.warn(
                f"{type(self).__name__}: the watched value {self.monitor!r} is not there; "
                f"available: {', '.join(sorted(logs or {}))}",
                stacklevel=4,
            )
        return value


class EarlyStopping(_Monitor):
    """Stops training when a watched value has stopped improving.

    Args:
        monitor: name in the logs.
        min_delta: least change that counts as an improvement.
        patience: epochs without improvement after which training stops.
        verbose: 1 says so when it acts.
        mode: "min", "max" or "auto" (from the name).
        baseline: value that must be beaten for patience to be restored.
        restore_best_weights: put back the weights of the best epoch.
        start_from_epoch: epochs to wait before watching.

    Example:
        >>> import numpy as np, dagrt as keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.0), "mse")
        >>> stop = keras.callbacks.EarlyStopping(monitor="loss", patience=3, restore_best_weights=True)
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=10, callbacks=[stop], verbose=0)
        >>> len(history.epoch)
        4

    Reference:
        Prechelt, "Early Stopping - But When?", Neural Networks: Tricks of the Trade, 1998.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.wait = 0
        self.stopped_epoch = 0
        self.best: float | None = None
        self.best_weights: list | None = None
        self.best_epoch = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best = None
        self.best_weights = None
        self.best_epoch = 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        current = self.value_in(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.best is None:
            self.best = self.worst()
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights = self.model.get_weights()
            self.best_epoch = epoch
        self.wait += 1
        if self.improved(current, self.best):
            self.best = current
            self.best_epoch = epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.improved(current, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.stopped_epoch > 0 and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                print(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(_Monitor):
    """Saves the model (or its weights) during training, atomically.

    Args:
        filepath: may hold `{epoch}` and names of logs: "m.{epoch:02d}-{val_loss:.2f}.keras"; must end in ".keras",
            or ".weights.h5" with save_weights_only.
        monitor, mode: the watched value, for save_best_only, and which way is better.
        verbose: 1 says when it saves.
        save_best_only: only when the watched value improved.
        save_weights_only: `model.save_weights` instead of `model.save`.
        save_freq: "epoch", or a number of batches.
        initial_value_threshold: value to beat at the start.

    Raises:
        ValueError: another ending or save_freq.
        KeyError: filepath names what is not in the logs.

    Example:
        >>> import dagrt as keras
        >>> best = keras.callbacks.ModelCheckpoint("best.keras", monitor="val_accuracy", save_best_only=True)
        >>> keras.callbacks.ModelCheckpoint("best.h5")
        Traceback (most recent call last):
        ValueError: ModelCheckpoint: with save_weights_only=False the filepath must end in '.keras', got 'best.h5'
    """

    def __init__(
        self,
        filepath: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self.best = initial_value_threshold
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ValueError(f"ModelCheckpoint: save_freq must be 'epoch' or a number of batches, got {save_freq!r}")
        ending = ".weights.h5" if save_weights_only else ".keras"
        if not self.filepath.endswith(ending):
            raise ValueError(
                f"ModelCheckpoint: with save_weights_only={save_weights_only} the filepath must end in {ending!r}, "
                f"got {self.filepath!r}"
            )
        self._batches = 0
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.save_freq == "epoch":
            return
        self._batches += 1
        if self._batches >= self.save_freq:
            self._batches = 0
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: dict) -> None:
        try:
            path = self.filepath.format(epoch=epoch + 1, **({"batch": batch + 1} if batch is not None else {}), **logs)
        except KeyError as e:
            raise KeyError(
                f"ModelCheckpoint: filepath {self.filepath!r} names {e}, which is not in the logs: {sorted(logs)}"
            ) from None
        if self.save_best_only:
            current = self.value_in(logs)
            if current is None:
                return
            reference = self.worst() if self.best is None else self.best
            if not self.improved(current, reference):
                if self.verbose:
                    print(f"\nEpoch {epoch + 1}: {self.monitor} did not improve from {reference:.5f}")
                return
            if self.verbose:
                print(f"\nEpoch {epoch + 1}: {self.monitor} improved to {current:.5f}, saving model to {path}")
            self.best = current
        elif self.verbose:
            print(f"\nEpoch {epoch + 1}: saving model to {path}")
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)


class ReduceLROnPlateau(_Monitor):
    """Multiplies the learning rate by `factor` when a watched value has stopped improving.

    rate = max(rate * factor, min_lr).

    Args:
        monitor, mode: the watched value, and which way is better.
        factor: below 1.
        patience: epochs without improvement.
        verbose: 1 says so when it acts.
        min_delta: least change that counts.
        cooldown: epochs to wait after a reduction.
        min_lr: lower bound of the rate.

    Raises:
        ValueError: a factor of 1 or more.

    Example:
        >>> import numpy as np, dagrt as keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
        >>> model.compile(keras.optimizers.SGD(1.0), "mse")
        >>> slower = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1)
        >>> history = model.fit(np.zeros((4, 2)), np.zeros((4, 1)), epochs=3, callbacks=[slower], verbose=0)
        >>> history.history["learning_rate"]
        [1.0, 1.0, 0.5]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 0.0001,
        cooldown: int = 0,
        min_lr: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if factor >= 1.0:
            raise ValueError(f"ReduceLROnPlateau does not support a factor >= 1.0. Got {factor}")
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.cooldown_counter = 0
        self.wait = 0
        self.best: float | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.cooldown_counter = 0
        self.wait = 0
        self.best = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs if logs is not None else {}
        current = self.value_in(logs)
        logs["learning_rate"] = rate = float(np.asarray(self.model.optimizer.learning_rate))
        if current is None:
            return
        if self.best is None:
            self.best = self.worst()
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improved(current, self.best):
            self.best = current
            self.wait = 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            if self.wait >= self.patience and rate > np.float32(self.min_lr):
                new = max(rate * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = new
                if self.verbose:
                    print(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {new}.")
                self.cooldown_counter = self.cooldown
                self.wait = 0


class LearningRateScheduler(Callback):
    """Sets the learning rate at each epoch's start.

    Args:
        schedule: function (epoch, rate) of the new rate; epochs count from 0.
        verbose: 1 says so each time.

    Raises:
        ValueError: the schedule gave no float, or the optimiser has no learning rate.

    Example:
        >>> import numpy as np, dagrt as keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(1.0), "mse")
        >>> halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=2, callbacks=[halve], verbose=0)
        >>> history.history["learning_rate"]
        [0.5, 0.25]
    """

    def __init__(self, schedule: Callable, verbose: int = 0) -> None:
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if not hasattr(self.model.optimizer, "learning_rate"):
            raise ValueError('LearningRateScheduler: the optimizer must have a "learning_rate" attribute')
        rate = float(np.asarray(self.model.optimizer.learning_rate))
        try:
            new = self.schedule(epoch, rate)
        except TypeError:  # the older form: schedule(epoch)
            new = self.schedule(epoch)
        if not isinstance(new, (float, np.floating)):
            raise ValueError(f"LearningRateScheduler: `schedule` must return a float, got {new!r}")
        self.model.optimizer.learning_rate = float(new)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {float(new)}.")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(np.asarray(self.model.optimizer.learning_rate))


class CSVLogger(Callback):
    """Writes the logs of every epoch as a line of a CSV file; what an epoch lacks is "NA".

    Args:
        filename: path of the file.
        separator: between fields.
        append: go on with an existing file.

    Example:
        >>> import os, tempfile, numpy as np, dagrt as keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = keras.callbacks.CSVLogger(os.path.join(folder, "log.csv"))
        ...     history = model.fit(np.ones((4, 2)), np.ones((4, 1)), callbacks=[log], verbose=0)
        ...     print(open(log.filename).readline().strip())
        epoch,loss,val_loss
    """

    def __init__(self, filename: Any, separator: str = ",", append: bool = False) -> None:
        self.filename = os.fspath(filename)
        self.separator = separator
        self.append = append
        self._keys: list[str] | None = None
        self._file: Any = None
        self._writer: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        header = True
        if self.append and os.path.exists(self.filename):
            with open(self.filename, newline="") as f:
                header = not f.readline()
        self._file = open(self.filename, "a" if self.append else "w", newline="")  # noqa: SIM115
        self._header = header
        self._writer = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        if self._file is None:
            return
        if self._writer is None:
            keys = sorted(logs)
            # Validation may begin in a later epoch (validation_freq): its columns are there from the start.
            later = [] if any(k.startswith("val_") for k in keys) else [f"val_{k}" for k in keys]
            self._keys = keys + later
            self._writer = csv.DictWriter(self._file, ["epoch", *self._keys], delimiter=self.separator)
            if self._header:
                self._writer.writeheader()
        self._writer.writerow({"epoch": epoch, **{k: logs.get(k, "NA") for k in self._keys or []}})
        self._file.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class TerminateOnNaN(Callback):
    """Stops training at the first batch whose loss is NaN or infinite. (A step whose loss is NaN changes no weights anyway.)

    Args:
        raise_error: raise RuntimeError instead of only stopping.

    Raises:
        RuntimeError: such a loss, with raise_error.

    Example:
        >>> import numpy as np, dagrt as keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> stop = keras.callbacks.TerminateOnNaN()
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     history = model.fit(np.full((4, 2), np.inf), np.ones((4, 1)), epochs=9, callbacks=[stop], verbose=0)
        Batch 0: Invalid loss, terminating training
        >>> len(history.epoch)
        1
    """

    def __init__(self, raise_error: bool = False) -> None:
        self.raise_error = raise_error

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            if self.raise_error:
                raise RuntimeError(f"NaN or Inf loss encountered at batch {batch}.")
            print(f"Batch {batch}: Invalid loss, terminating training")
            self.model.stop_training = True


class LambdaCallback(Callback):
    """A callback from functions.

    Args:
        on_epoch_begin, on_epoch_end: functions (epoch, logs).
        on_train_begin, on_train_end: functions (logs).
        on_train_batch_begin, on_train_batch_end: functions (batch, logs).
        kwargs: further hooks by name.

    Example:
        >>> import dagrt
        >>> show = dagrt.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
        >>> show.on_epoch_end(3, {"loss": 0.5})
        3 0.5
    """

    def __init__(
        self,
        on_epoch_begin: Callable | None = None,
        on_epoch_end: Callable | None = None,
        on_train_begin: Callable | None = None,
        on_train_end: Callable | None = None,
        on_train_batch_begin: Callable | None = None,
        on_train_batch_end: Callable | None = None,
        **kwargs: Any,
    ) -> None:
        hooks = dict(
            on_epoch_begin=on_epoch_begin,
            on_epoch_end=on_epoch_end,
            on_train_begin=on_train_begin,
            on_train_end=on_train_end,
            on_train_batch_begin=on_train_batch_begin,
            on_train_batch_end=on_train_batch_end,
            **kwargs,
        )
        for name, fn in hooks.items():
            if fn is not None:
                setattr(self, name, fn)


class BackupAndRestore(Callback):
    """Keeps the training state on disk, so that an interrupted `fit` can go on where it was.

    Args:
        backup_dir: folder for the state (weights, optimiser, epoch).
        save_freq: "epoch", or a number of batches.
        double_checkpoint: accepted and not used: each file replaces the one before atomically.
        delete_checkpoint: delete the state when training has ended.

    Example:
        >>> import dagrt as keras
        >>> keep = keras.callbacks.BackupAndRestore("backup", save_freq="epoch")
    """

    def __init__(
        self,
        backup_dir: Any,
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq = save_freq
        self.delete_checkpoint = delete_checkpoint
        self._path = os.path.join(self.backup_dir, "latest.weights.h5")
        self._epoch_path = os.path.join(self.backup_dir, "epoch.txt")
        self._batches = 0
        self._epoch = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        if os.path.exists(self._path) and os.path.exists(self._epoch_path):
            self.model.load_weights(self._path)
            with open(self._epoch_path) as f:
                self.model._initial_epoch = int(f.read())

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.save_freq != "epoch":
            self._batches += 1
            if self._batches >= int(self.save_freq):
                self._batches = 0
                self._save(self._epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch + 1)

    def _save(self, epoch: int) -> None:
        os.makedirs(self.backup_dir, exist_ok=True)
        self.model.save_weights(self._path, overwrite=True)
        with open(self._epoch_path + ".tmp", "w") as f:
            f.write(str(epoch))
        os.replace(self._epoch_path + ".tmp", self._epoch_path)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.delete_checkpoint:
            for path in (self._path, self._epoch_path):
                if os.path.exists(path):
                    os.remove(path)
