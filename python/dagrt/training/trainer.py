"""compile, fit, evaluate, predict: what turns a model into one that learns.

Each of the three steps (train, test, predict) is Python, traced once for each structure, dtypes and ranks of its
arguments into one program, with axis 0 of every argument unknown. `train_step` is forward, loss, gradients, optimiser
and metrics over `dagrt.ops`; a subclass may override it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from dagrt import _core, tree
from dagrt.callbacks import CallbackList
from dagrt.training import data_adapter
from dagrt.training.compile_utils import CompileLoss, CompileMetrics
from dagrt.training.step import StepFunction

_REDRAW = 0.05  # seconds between two looks of the progress bar


class Trainer:
    """The training half of `Model`."""

    def __init__(self) -> None:
        self._reset_trainer()

    def _reset_trainer(self) -> None:
        self.optimizer: Any = None
        self.loss: Any = None
        self.loss_weights: Any = None
        self.stop_training = False
        self.compiled = False
        self._device: str | None = None
        self.steps_per_execution = 1
        self.run_eagerly = False
        self.jit_compile: Any = "auto"
        self.history: Any = None
        self._compile_loss: CompileLoss | None = None
        self._compile_metrics: CompileMetrics | None = None
        self._loss_tracker: Any = None
        self._compile_config: dict | None = None
        self._trainable_snapshot: dict[int, tuple[Any, bool]] | None = None
        self._initial_epoch: int | None = None
        self._warned_nan = False
        self._steps: dict[str, StepFunction] = {}
        self._step_metrics: list[Any] | None = None

    # --- compile -----------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
        device: str | None = None,
    ) -> None:
        """Configures the model for training.

        Args:
            optimizer: name or Optimizer.
            loss: name, Loss or function of (y_true, y_pred); a list or dict of them for several outputs.
            loss_weights: number for each output, list or dict.
            metrics: list of names, Metrics or functions; for several outputs a dict, or a list with one entry each.
                A flat list of names goes to every output.
            weighted_metrics: as `metrics`, weighted by sample_weight.
            run_eagerly: trace every step anew, so that Python in it runs each time.
            steps_per_execution: batches between two calls of batch callbacks.
            jit_compile: accepted for compatibility; every step is compiled.
            auto_scale_loss: under the policy "mixed_float16", put a LossScaleOptimizer around the optimizer.
            device: where the model's steps run: "cpu", "cuda" (the first GPU), "cuda:1" and so on; by default
                `dagrt.device()`, which is a GPU where this build of dagrt and the machine have one. Weights go there when
                a step first runs. Not saved with the model.

        Raises:
            DeviceError: there is no such device; the message says why.
            ValueError: an unknown name, or a structure that does not fit the outputs (some of it is only
                seen at the first step).

        Example:
            >>> import dagrt as keras
            >>> x = keras.Input((4,))
            >>> model = keras.Model(x, keras.layers.Dense(1)(x))
            >>> model.compile(optimizer="adam", loss="mse", metrics=["mae"])
        """
        from dagrt import optimizers
        from dagrt.metrics import Mean

        if steps_per_execution < 1:
            raise ValueError(f"steps_per_execution must be at least 1, got {steps_per_execution}")
        self._device = device if device is None else _core.find_device(device)
        self.optimizer = optimizers.get(optimizer)
        scales = self.optimizer is None or isinstance(self.optimizer, optimizers.LossScaleOptimizer)
        if auto_scale_loss and self.dtype_policy.name == "mixed_float16" and not scales:
            self.optimizer = optimizers.LossScaleOptimizer(self.optimizer, name="loss_scale_optimizer")
        self.loss = loss
        self.loss_weights = loss_weights
        names = self._output_names_or_none()
        self._compile_loss = CompileLoss(loss, loss_weights, names) if loss is not None else None
        if loss is None and loss_weights is not None:
            raise ValueError("compile: loss_weights were given without a loss")
        self._compile_metrics = (
            CompileMetrics(metrics, weighted_metrics, names)
            if metrics is not None or weighted_metrics is not None
            else None
        )
        self._loss_tracker = Mean(name="loss")
        self.run_eagerly = run_eagerly
        self.steps_per_execution = steps_per_execution
        self.jit_compile = jit_compile
        self.stop_training = False
        self.compiled = True
        self._warned_nan = False
        self._compile_config = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
        }
        self._trainable_snapshot = self._trainable_flags() if self.built else None
        self._clear_steps()

    def _output_names_or_none(self) -> list[str] | None:
        try:
            return list(self.output_names)
        except (AttributeError, NotImplementedError):
            return None

    def _trainable_flags(self) -> dict[int, tuple[Any, bool]]:
        """Of every layer and variable now: id -> (object, its own flag)."""
        flags: dict[int, tuple[Any, bool]] = {}
        for layer in self._flatten_layers():
            flags[id(layer)] = (layer, layer._trainable)
        for v in self.variables:
            flags[id(v)] = (v, v.trainable)
        return flags

    def _clear_steps(self) -> None:
        """Forgets the traced steps (after compile, or when the model's graph changed)."""
        self._steps = {}
        self._step_metrics = None

    def _check_compiled(self, method: str) -> None:
        if not self.compiled:
            raise ValueError(f"{self.name}: call compile(optimizer=..., loss=...) before {method}()")

    @property
    def metrics(self) -> list[Any]:
        """The model's metrics: the loss tracker, the metrics of `compile`, trackers of the heads, metrics of layers."""
        found: list[Any] = [self._loss_tracker] if self._loss_tracker is not None else []
        if self._compile_metrics is not None:
            found += self._compile_metrics.metrics
        if self._compile_loss is not None:
            found += self._compile_loss.metrics
        for m in self._tracked_metrics():
            if all(m is not f for f in found):
                found.append(m)
        return found

    def _tracked_metrics(self) -> list[Any]:
        """Metrics that layers (and this model) hold as attributes."""
        found: list[Any] = []
        for layer in self._flatten_layers():
            for m in getattr(layer, "_metrics", ()):
                if all(m is not f for f in found):
                    found.append(m)
        return found

    @property
    def metrics_names(self) -> list[str]:
        return [m.name for m in self.metrics]

    def reset_metrics(self) -> None:
        """Sets every metric back to its start."""
        for m in self.metrics:
            m.reset_state()

    def _reset_step_metrics(self) -> None:
        """The same before a step on one batch, where looking for metrics would take longer than the step."""
        found = self._step_metrics
        if found is None:
            found = self.metrics
            if self.built and all(c is None or c.built for c in (self._compile_loss, self._compile_metrics)):
                self._step_metrics = found  # a traced step knows no others
        for m in found:
            m.reset_state()

    # --- the steps, traced ---------------------------------------------------------------------------------------

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The total loss of a batch: heads' losses with their weights, add_loss and regularisers. May be overridden.

        Args:
            x, y, y_pred, sample_weight: inputs, targets, outputs and weights of the batch.
            training: whether the step trains.

        Returns:
            A scalar.

        Raises:
            ValueError: there is no loss at all.
        """
        from dagrt import ops

        total = None
        if self._compile_loss is not None:
            total = self._compile_loss(y, y_pred, sample_weight)
        for extra in self.losses:
            extra = ops.sum(ops.cast(extra, "float32"))
            total = extra if total is None else total + extra
        if total is None:
            raise ValueError(
                f"{self.name}: there is no loss to compute. Give compile(loss=...), or call add_loss in a layer."
            )
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Updates the metrics with a batch and returns their results by name. May be overridden.

        Args:
            x, y, y_pred, sample_weight: inputs, targets, outputs and weights of the batch.
        """
        if self._compile_metrics is not None:
            self._compile_metrics.update_state(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """Name -> current value of every metric."""
        results: dict[str, Any] = {}
        compiled = self._compile_metrics
        own = compiled.metrics if compiled is not None else []
        for m in self.metrics:
            if any(m is c for c in own):
                continue
            value = m.result()
            results.update(value if isinstance(value, dict) else {m.name: value})
        if compiled is not None:
            results.update(compiled.result())
        return results

    def _forward(self, x: Any, training: bool) -> Any:
        return self(x, training=training) if self._call_has_training_arg else self(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One training step on symbolic values: traced once, then run in C++. Override it for other ways to train.

        Args:
            data: `x`, `(x, y)` or `(x, y, sample_weight)`; see `dagrt.utils.unpack_x_y_sample_weight`.

        Returns:
            Name -> scalar: the logs of the step.
        """
        from dagrt import ops

        x, y, sample_weight = data_adapter.unpack_x_y_sample_weight(data)
        y_pred = self._forward(x, training=True)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
        self._track_loss(loss, x)
        variables = self.trainable_variables
        if variables:
            scaled = self.optimizer.scale_loss(loss) if hasattr(self.optimizer, "scale_loss") else loss
            self.optimizer.apply(ops.gradients(scaled, variables), variables)
        else:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """One evaluation step on symbolic values; may be overridden.

        Args:
            data: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            Name -> scalar: the logs of the step.
        """
        x, y, sample_weight = data_adapter.unpack_x_y_sample_weight(data)
        y_pred = self._forward(x, training=False)
        if self._compile_loss is not None or self.losses:
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False)
            self._track_loss(loss, x)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def predict_step(self, data: Any) -> Any:
        """One prediction step on symbolic values; may be overridden.

        Args:
            data: `x`, or a tuple that begins with it.

        Returns:
            The outputs.
        """
        x, _, _ = data_adapter.unpack_x_y_sample_weight(data)
        return self._forward(x, training=False)

    def _track_loss(self, loss: Any, x: Any) -> None:
        from dagrt import ops

        if self._loss_tracker is not None:
            self._loss_tracker.update_state(loss, sample_weight=ops.shape(tree.flatten(x)[0])[0])

    def _step(self, mode: str) -> StepFunction:
        step = self._steps.get(mode)
        if step is None:
            step = self._steps[mode] = StepFunction(self, mode)
        return step

    # --- fit -----------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: dict | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Any = 1,
    ) -> Any:
        """Trains the model for a number of epochs.

        Args:
            x, y, sample_weight: arrays, or lists, tuples or dicts of them (dicts bind by name); or x alone: a
                PyDataset, a generator or another iterable of `(x, y)` or `(x, y, sample_weight)` batches.
            batch_size: rows of a step, 32 by default.
            epochs: index of the last epoch, initial_epoch counted in.
            verbose: 0 silent, 1 progress bar, 2 one line an epoch; "auto" is 1.
            callbacks: list of callbacks.
            validation_split: the last fraction of the rows (before shuffling) to validate on.
            validation_data: `(x, y)` or `(x, y, sample_weight)`, a PyDataset or an iterable.
            shuffle: rows each epoch (True), the order of batches ("batch") or not.
            class_weight: class number -> weight.
            initial_epoch: index of the first epoch, to go on with an earlier training.
            steps_per_epoch: batches of an epoch; the data goes on over epochs.
            validation_steps, validation_batch_size: likewise, for the validation.
            validation_freq: validate every so many epochs, or at the epochs of a list (counted from 1).

        Returns:
            History: `.history` has the logs of every epoch.

        Raises:
            ValueError, TypeError, IndexError: data that does not fit. The model is then as before the step.
            KeyboardInterrupt: Ctrl-C; the model is as after the last complete step.

        Example:
            >>> import numpy as np, dagrt as keras
            >>> x = keras.Input((2,))
            >>> model = keras.Model(x, keras.layers.Dense(1)(x))
            >>> model.compile("sgd", "mse")
            >>> history = model.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=2, verbose=0)
            >>> len(history.history["loss"])
            2
        """
        self._check_compiled("fit")
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = _split_validation(x, y, sample_weight, validation_split)
        rng = self._shuffle_generator()
        adapter = data_adapter.make_adapter(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            shuffle=shuffle,
            class_weight=class_weight,
            rng=rng,
            steps=steps_per_epoch,
        )
        iterator = data_adapter.EpochIterator(adapter, steps_per_epoch)
        if not isinstance(callbacks, CallbackList):
            callbacks = CallbackList(
                callbacks,
                add_history=True,
                add_progbar=verbose not in (0, False),
                model=self,
                verbose=_verbosity(verbose),
                epochs=epochs,
                steps=iterator.num_batches,
            )
        validation = None
        if validation_data is not None:
            vx, vy, vw = _unpack_validation(validation_data)
            validation = data_adapter.EpochIterator(
                data_adapter.make_adapter(vx, vy, vw, batch_size=validation_batch_size or batch_size),
                validation_steps,
            )
        self.stop_training = False
        self._initial_epoch = initial_epoch
        step = self._step("train")
        callbacks.on_train_begin()
        training_logs: dict[str, Any] = {}
        epoch_logs: dict[str, Any] = {}
        for epoch in range(self._initial_epoch, epochs):
            self.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            logs = self._run_epoch(step, iterator, callbacks, "train")
            if logs is None:  # no batch at all
                if iterator.exhausted:
                    break
                raise ValueError("fit: x has no rows (or the dataset no batches), so there is nothing to train on")
            epoch_logs = dict(sorted(logs.items()))
            if validation is not None and _validates(epoch, validation_freq):
                val = self._evaluate(validation, callbacks)
                epoch_logs.update({f"val_{k}": v for k, v in sorted(val.items())})
            callbacks.on_epoch_end(epoch, epoch_logs)
            training_logs = epoch_logs
            if self.stop_training or iterator.exhausted:
                break
        if epoch_logs and hasattr(self.optimizer, "finalize_variable_values"):
            self.optimizer.finalize_variable_values(self.trainable_variables)
        callbacks.on_train_end(logs=training_logs)
        return self.history

    def _shuffle_generator(self) -> np.random.Generator:
        from dagrt import _config

        return _config.host_generator()

    def _run_epoch(
        self, step: StepFunction, iterator: data_adapter.EpochIterator, callbacks: CallbackList, mode: str
    ) -> dict[str, float] | None:
        """Runs the steps of one epoch; the logs after the last of them, None where there was no batch."""
        plan = epoch = None
        if self._runs_in_core(iterator):
            plan = iterator.adapter.plan()
            prepared, epoch = self._epoch_in_core(step, iterator.adapter, plan)
        if epoch is not None:
            return self._run_epoch_in_core(prepared, epoch, callbacks, mode)
        outputs: Any = None
        saw_nan = False
        every = self.steps_per_execution
        listened = callbacks.wants_batches(mode)
        pending = False
        index = -1
        for index, batch in enumerate(iterator.epoch(plan)):
            if listened and index % every == 0:
                callbacks.on_batch(mode, "begin", index)
            outputs = step(batch)
            if mode == "train" and not saw_nan and _is_nan(outputs):
                saw_nan = True
                self._warn_nan(index)
            pending = True
            if (index + 1) % every == 0:
                pending = False
                if listened:
                    callbacks.on_batch(mode, "end", index, lambda: _numbers(outputs, saw_nan))  # noqa: B023
                if self.stop_training and mode == "train":
                    break
        if pending and listened:
            callbacks.on_batch(mode, "end", index, lambda: _numbers(outputs, saw_nan))
        return None if outputs is None else _numbers(outputs, saw_nan)

    def _runs_in_core(self, iterator: data_adapter.EpochIterator) -> bool:
        """Whether the batches are slices of arrays in memory, each epoch one pass: then C++ makes them."""
        adapter = iterator.adapter
        return (
            isinstance(adapter, data_adapter.ArrayAdapter)
            and adapter.rows > 0
            and not iterator.steps_per_epoch
            and not self.run_eagerly
        )

    def _epoch_in_core(
        self, step: StepFunction, adapter: Any, plan: Any, into: Callable | None = None
    ) -> tuple[Any, Any]:
        """The traced step and its steps over all rows; None for these where batches need more than their rows: another
        dtype, say, which is then better made batch by batch than for all rows at once."""
        first = next(adapter.batches(plan))
        prepared = step.prepare(first)
        arrays = data_adapter.arrays_in(adapter.data)
        if any(s and s[0] is not None for s in self._declared_input_shapes() or ()):
            return prepared, None
        if not prepared.same_types(data_adapter.arrays_in(first)):  # binding converts, moves axes or reorders
            return prepared, None
        bound = [a for a in tree.flatten(self._bind_batch(adapter.data)) if a is not None]
        if not prepared.same_types(bound) or not all(a.flags.c_contiguous for a in arrays):
            return prepared, None
        outputs = into(prepared) if into is not None else []
        return prepared, None if outputs is None else prepared.epoch(bound, plan, outputs)

    def _run_epoch_in_core(self, prepared: Any, epoch: Any, callbacks: CallbackList, mode: str) -> dict[str, float]:
        listened = callbacks.wants_batches(mode)
        each = callbacks.wants_every_batch(mode)
        watched = prepared.output_index("loss") if mode == "train" else -1
        outputs: Any = None
        saw_nan = False
        index = 0
        while index < epoch.steps:
            if listened:
                callbacks.on_batch(mode, "begin", index)
            most = self.steps_per_execution if each else epoch.steps
            if listened and not each and index == 0:
                most = self.steps_per_execution  # the bar leaves the first step out of its time per step
            seconds = _REDRAW if listened and not each else math.inf
            done, nan_at, flat = epoch.run(most, seconds, watched)
            outputs = prepared.pack(flat)
            if nan_at >= 0 and not saw_nan:
                saw_nan = True
                self._warn_nan(index + nan_at)
            index += done
            if listened:
                callbacks.on_batch(mode, "end", index - 1, lambda: _numbers(outputs, saw_nan))  # noqa: B023
                if self.stop_training and mode == "train":
                    break
        return _numbers(outputs, saw_nan)

    def _warn_nan(self, batch: int) -> None:
        if not self._warned_nan:
            self._warned_nan = True
            warnings.warn(
                f"{self.name}: the loss is NaN at batch {batch}. The weights keep their last good values: a step whose "
                "loss is NaN changes nothing. Look for NaN in the data, or lower the learning rate.",
                RuntimeWarning,
                stacklevel=4,
            )

    # --- evaluate and predict ------------------------------------------------------------------------------------

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The loss and metrics on given data.

        Args:
            x, y, sample_weight, batch_size, verbose, callbacks: as for `fit`.
            steps: batches to take; None for all.
            return_dict: answer a dict.

        Returns:
            A dict by name (`return_dict=True`); else the loss, or a list: loss, metrics in compile order, losses of the
            heads, the rest by name.

        Raises:
            ValueError: no rows, or data that does not fit.
            TypeError: an unknown argument.

        Example:
            >>> import numpy as np, dagrt as keras
            >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
            >>> model.compile("sgd", "mse", metrics=["mae"])
            >>> model.evaluate(np.ones((8, 2)), np.full((8, 1), 2.0), verbose=0)
            [4.0, 2.0]
        """
        self._check_compiled("evaluate")
        if kwargs:
            raise TypeError(f"evaluate: unknown arguments {sorted(kwargs)}")
        adapter = data_adapter.make_adapter(x, y, sample_weight, batch_size=batch_size, steps=steps)
        iterator = data_adapter.EpochIterator(adapter, steps)
        if not isinstance(callbacks, CallbackList):
            callbacks = CallbackList(
                callbacks,
                add_progbar=verbose not in (0, False),
                model=self,
                verbose=_verbosity(verbose),
                epochs=1,
                steps=iterator.num_batches,
            )
        logs = self._evaluate(iterator, callbacks)
        if return_dict:
            return dict(sorted(logs.items()))
        return self._flatten_logs(logs)

    def _evaluate(self, iterator: data_adapter.EpochIterator, callbacks: CallbackList) -> dict[str, float]:
        self.reset_metrics()
        callbacks.on_test_begin()
        logs = self._run_epoch(self._step("test"), iterator, callbacks, "test")
        if logs is None:
            raise ValueError("evaluate: x has no rows (or the dataset no batches), so there is nothing to evaluate")
        callbacks.on_test_end(logs=logs)
        return logs

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for given inputs, computed in batches.

        Args:
            x: as for `fit` (targets in a dataset's batches are ignored).
            batch_size: rows of a step, 32 by default.
            verbose: 0 silent, 1 progress bar, 2 one line; "auto" is 1.
            steps: batches to take; None for all.
            callbacks: list of callbacks.

        Returns:
            NumPy arrays in the structure of the model's outputs, axis 0 over all rows. Zero rows give zero rows.

        Raises:
            ValueError: data that does not fit, or a dataset without batches.

        Example:
            >>> import numpy as np, dagrt as keras
            >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
            >>> model.predict(np.array([[1.0, 2.0]]), verbose=0)
            array([[3.]], dtype=float32)
        """
        adapter = data_adapter.make_adapter(x, batch_size=batch_size, steps=steps)
        iterator = data_adapter.EpochIterator(adapter, steps)
        if not isinstance(callbacks, CallbackList):
            callbacks = CallbackList(
                callbacks,
                add_progbar=verbose not in (0, False),
                model=self,
                verbose=_verbosity(verbose),
                epochs=1,
                steps=iterator.num_batches,
            )
        step = self._step("predict")
        callbacks.on_predict_begin()
        rows = adapter.rows if isinstance(adapter, data_adapter.ArrayAdapter) and not steps else None
        if rows == 0:
            result = step((adapter.data[0], None, None))
            callbacks.on_predict_end()
            return result
        listened = callbacks.wants_batches("predict")
        if not callbacks.wants_every_batch("predict") and self._runs_in_core(iterator):
            result = self._predict_in_core(step, adapter, callbacks, listened)
            if result is not None:
                callbacks.on_predict_end()
                return result
        collected = _Collector(rows)
        for index, (bx, _, _) in enumerate(iterator.epoch()):
            if listened:
                callbacks.on_batch("predict", "begin", index)
            outputs = collected.run(step, (bx, None, None))
            if listened:
                callbacks.on_batch("predict", "end", index, {"outputs": outputs})
        callbacks.on_predict_end()
        if not collected.rows_done:
            raise ValueError("predict: x has no batches, so the shape of the outputs is not known")
        return collected.result()

    def _predict_in_core(self, step: StepFunction, adapter: Any, callbacks: CallbackList, listened: bool) -> Any:
        plan = adapter.plan()
        full: list[np.ndarray] = []

        def into(prepared: Any) -> Any:
            n = min(adapter.batch_size, adapter.rows)
            types = prepared.output_types()
            if not types or any(not shape or shape[0] != n for _, shape in types):
                return None
            full.extend(np.empty((adapter.rows, *shape[1:]), dtype) for dtype, shape in types)
            return full

        prepared, epoch = self._epoch_in_core(step, adapter, plan, into)
        if epoch is None:
            return None
        index = 0
        while index < epoch.steps:
            index += epoch.run(epoch.steps, _REDRAW if listened else math.inf)[0]
            if listened:
                callbacks.on_batch("predict", "end", index - 1, {})
        return prepared.pack(full)

    # --- single batches ------------------------------------------------------------------------------------------

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One training step on one batch; the values returned are those of this batch.

        Args:
            x, y, sample_weight: arrays of one batch, as for `fit`.
            class_weight: class number -> weight, instead of sample_weight.
            return_dict: answer a dict.

        Returns:
            As `evaluate`.

        Raises:
            ValueError: sample_weight together with class_weight, or data that does not fit.

        Example:
            >>> import numpy as np, dagrt as keras
            >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
            >>> model.compile("sgd", "mse")
            >>> float(model.train_on_batch(np.ones((8, 2)), np.full((8, 1), 2.0)))
            4.0
        """
        self._check_compiled("train_on_batch")
        if class_weight is not None and sample_weight is not None:
            raise ValueError("Arguments `sample_weight` and `class_weight` cannot be given at the same time.")
        self._reset_step_metrics()
        if class_weight is None and (logs := self._fast_logs("train", x, y, sample_weight)) is not None:
            if logs.get("loss", 0.0) != logs.get("loss", 0.0):
                self._warn_nan(0)
            return dict(sorted(logs.items())) if return_dict else self._flatten_logs(logs)
        outputs = self._step("train")(data_adapter.prepare_batch((x, y, sample_weight), class_weight))
        if nan := _is_nan(outputs):
            self._warn_nan(0)
        logs = _numbers(outputs, nan)
        return dict(sorted(logs.items())) if return_dict else self._flatten_logs(logs)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """One evaluation step on one batch; the values returned are those of this batch.

        Args:
            x, y, sample_weight: arrays of one batch, as for `fit`.
            return_dict: answer a dict.

        Returns:
            As `evaluate`.
        """
        self._check_compiled("test_on_batch")
        self._reset_step_metrics()
        if (logs := self._fast_logs("test", x, y, sample_weight)) is not None:
            return dict(sorted(logs.items())) if return_dict else self._flatten_logs(logs)
        logs = _numbers(self._step("test")(data_adapter.prepare_batch((x, y, sample_weight))), False)
        return dict(sorted(logs.items())) if return_dict else self._flatten_logs(logs)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch, as NumPy arrays.

        Args:
            x: arrays of one batch, as for `fit`.
        """
        step = self._steps.get("predict")
        if step is not None and not self.run_eagerly:
            outputs = step.fast(x)
            if outputs is not NotImplemented:
                return outputs
        return self._step("predict")((data_adapter.as_arrays(x, "x"), None, None))

    def _fast_logs(self, mode: str, x: Any, y: Any, sample_weight: Any) -> dict[str, float] | None:
        """The step's logs by its fast call; None where that does not take these arguments."""
        step = self._steps.get(mode)
        if step is None or self.run_eagerly:
            return None
        if sample_weight is not None:
            values = step.fast(x, y, sample_weight) if y is not None else NotImplemented
        else:
            values = step.fast(x, y) if y is not None else step.fast(x)
        return None if values is NotImplemented else dict(zip(step.names, values))

    def _flatten_logs(self, logs: dict[str, float]) -> Any:
        names = ["loss"] if "loss" in logs else []
        if self._compile_metrics is not None and len(getattr(self._compile_loss, "trackers", None) or {}) == 0:
            names += [k for k, *_ in self._compile_metrics._entries if k in logs and k not in names]
        if self._compile_loss is not None:
            names += [m.name for m in self._compile_loss.metrics if m.name in logs and m.name not in names]
        names += sorted(k for k in logs if k not in names)
        values = [logs[n] for n in names]
        return values[0] if len(values) == 1 else values


class _Collector:
    """Gathers the outputs of predict: batches write straight into their rows of the final arrays."""

    def __init__(self, rows: int | None) -> None:
        self._rows = rows
        self.rows_done = 0
        self._flat: list[np.ndarray] | None = None  # final arrays, when the number of rows is known
        self._parts: list[list[np.ndarray]] = []
        self._structure: Any = None

    def run(self, step: StepFunction, batch: Any) -> Any:
        n = data_adapter.arrays_in(batch[0])[0].shape[0]
        traced = step.prepare(batch)
        types = traced.output_types()
        if self._rows is not None and all(len(shape) and shape[0] == n for _, shape in types):
            if self._flat is None:
                self._flat = [np.empty((self._rows, *shape[1:]), dtype) for dtype, shape in types]
            if all(f.shape[1:] == tuple(shape[1:]) for f, (_, shape) in zip(self._flat, types)):
                out = [f[self.rows_done : self.rows_done + n] for f in self._flat]
                result = traced.run(out)
                self._structure = traced.pack
                self.rows_done += n
                return result
            raise ValueError(
                f"predict: outputs of shape {[s for _, s in types]} do not fit the earlier batches' "
                f"{[f.shape[1:] for f in self._flat]}"
            )
        result = traced.run(None)
        self._structure = traced.pack
        self._parts.append([np.asarray(a) for a in tree.flatten(result)])
        self.rows_done += n
        return result

    def result(self) -> Any:
        if self._flat is not None:
            return self._structure([f[: self.rows_done] for f in self._flat])
        return self._structure([np.concatenate(p) if p[0].ndim else np.stack(p) for p in zip(*self._parts)])


def _verbosity(verbose: str | int) -> int:
    if verbose == "auto":
        return 1
    if verbose not in (0, 1, 2):
        raise ValueError(f"verbose must be 'auto', 0, 1 or 2, got {verbose!r}")
    return int(verbose)


def _is_nan(logs: Any) -> bool:
    loss = logs.get("loss") if isinstance(logs, dict) else None
    return loss is not None and bool(np.isnan(loss).any())


def _numbers(outputs: Any, saw_nan: bool) -> dict[str, float]:
    """Logs as Python floats. Once a batch's loss was NaN, the epoch's loss is NaN, as Keras shows it."""
    if not isinstance(outputs, dict):
        outputs = {"loss": outputs} if outputs is not None and not tree.is_nested(outputs) else {}
    logs = {k: float(v) if np.ndim(v) == 0 else np.asarray(v) for k, v in outputs.items()}
    if saw_nan and "loss" in logs:
        logs["loss"] = math.nan
    return logs


def _validates(epoch: int, freq: Any) -> bool:
    if isinstance(freq, int):
        if freq < 1:
            raise ValueError(f"validation_freq must be at least 1, got {freq}")
        return (epoch + 1) % freq == 0
    return (epoch + 1) in freq


def _unpack_validation(data: Any) -> tuple[Any, Any, Any]:
    if isinstance(data, (tuple, list)) and data and data_adapter.is_array_like(data):
        return data_adapter.unpack_x_y_sample_weight(data)
    return data, None, None


def _split_validation(x: Any, y: Any, sample_weight: Any, fraction: float) -> tuple[tuple, tuple]:
    """Keras's rule: the last rows, before shuffling; the cut is at floor(rows * (1 - fraction))."""
    if not 0 < fraction < 1:
        raise ValueError(f"validation_split must be between 0 and 1, got {fraction}")
    if not data_adapter.is_array_like(x):
        raise ValueError("validation_split needs arrays; for datasets and generators give validation_data")
    parts = tuple(data_adapter.as_arrays(d, what) for d, what in ((x, "x"), (y, "y"), (sample_weight, "sample_weight")))
    sizes = {len(a) for a in data_adapter.arrays_in(parts)}
    if len(sizes) > 1:
        raise ValueError(f"Data cardinality is ambiguous: arrays have {sorted(sizes)} rows")
    n = sizes.pop()
    cut = math.floor(n * (1.0 - fraction))
    if cut == 0 or cut == n:
        raise ValueError(
            f"validation_split={fraction} of {n} rows leaves {'no rows to train on' if cut == 0 else 'none to validate on'}"
        )
    take = lambda s: tree.map_structure(lambda a: None if a is None else a[s], parts)  # noqa: E731
    return take(slice(0, cut)), take(slice(cut, n))
