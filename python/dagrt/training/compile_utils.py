"""Which loss and which metrics belong to which head of a model.

A model's heads are its outputs, flattened in declaration order and named: the layer that made a tensor for list
outputs, the key for dict outputs. Whatever is a dict (losses, metrics, targets, weights) binds by name; whatever is a
list binds by position, in declaration order. Names of the results follow Keras: `loss`, `<metric>` for one head,
`<head>_loss`, `<head>_<metric>` for several.
"""

from __future__ import annotations

import difflib
from typing import Any

from dagrt import tree


def output_heads(y_pred: Any, output_names: list[str] | None) -> dict[str, Any]:
    """Name -> tensor, in declaration order, for any structure of outputs."""
    if isinstance(y_pred, dict):
        heads: dict[str, Any] = {}
        for key, value in y_pred.items():
            parts = tree.flatten(value)
            for i, part in enumerate(parts):
                heads[str(key) if len(parts) == 1 else f"{key}_{i}"] = part
        return heads
    flat = tree.flatten(y_pred)
    if output_names is None or len(output_names) != len(flat):
        output_names = ["output"] if len(flat) == 1 else [f"output_{i + 1}" for i in range(len(flat))]
    return dict(zip(output_names, flat))


def _unknown(what: str, wrong: Any, names: list[str]) -> ValueError:
    near = difflib.get_close_matches(str(wrong), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{what}: unknown output name {wrong!r}; the model's outputs are {names}.{hint}")


def route(value: Any, names: list[str], what: str, broadcast: bool = False) -> dict[str, Any]:
    """Binds `value` to heads: dicts by name, lists by position, anything else to the only head.

    Args:
        value: None, one entry, or a list, tuple or dict of entries.
        names: the heads.
        what: for messages ("y", "loss").
        broadcast: one entry goes to every head instead of needing a single one.

    Returns:
        name -> entry, for the heads that have one.

    Raises:
        ValueError: an unknown name, or a list of the wrong length.
    """
    if value is None:
        return {}
    if isinstance(value, dict):
        flat = _flatten_dict(value, names)
        for key in flat:
            if key not in names:
                raise _unknown(what, key, names)
        return {n: flat[n] for n in names if n in flat and flat[n] is not None}
    if isinstance(value, (list, tuple)):
        entries = tree.flatten(value) if len(value) != len(names) else list(value)
        if len(entries) != len(names):
            raise ValueError(f"{what}: expected {len(names)} entries, one for each output {names}, got {len(entries)}")
        return {n: e for n, e in zip(names, entries) if e is not None}
    if len(names) == 1 or broadcast:
        return {n: value for n in names}
    raise ValueError(f"{what}: expected a list or dict with one entry for each output {names}, got a single value")


def _flatten_dict(value: dict, names: list[str]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        key = str(key)
        if (
            key not in names
            and isinstance(entry, (list, tuple))
            and all(f"{key}_{i}" in names for i in range(len(entry)))
        ):
            flat.update({f"{key}_{i}": e for i, e in enumerate(entry)})
        else:
            flat[key] = entry
    return flat


class CompileLoss:
    """The losses of `compile`: total = sum of weight x loss over the heads, with a tracker for each head.

    Args:
        loss: None, name, function, Loss, or a list or dict of them.
        loss_weights: None, or numbers as a list or dict. They live in Variables, so that callbacks may change them.
    """

    def __init__(self, loss: Any, loss_weights: Any = None, output_names: list[str] | None = None) -> None:
        self.loss = loss
        self.loss_weights = loss_weights
        self.output_names = output_names
        self.built = False
        self.weights: dict[str, Any] = {}  # head -> Variable
        self.trackers: dict[str, Any] = {}  # head -> Mean, when several heads have a loss
        self._losses: dict[str, Any] = {}

    def build(self, heads: dict[str, Any], by_name: bool = False) -> None:
        """Resolves names. `by_name`: the outputs are a dict, so that results follow the loss dict's order, as in Keras."""
        from dagrt import losses as losses_module
        from dagrt.metrics import Mean
        from dagrt.variable import Variable

        names = list(heads)
        spec = route(self.loss, names, "loss", broadcast=not isinstance(self.loss, (list, tuple, dict)))
        if isinstance(self.loss, dict):
            given = _flatten_dict(self.loss, names)
            absent = [n for n in names if n not in given]
            if absent:
                raise ValueError(f"loss: no entry for the outputs {absent}; give None for an output without a loss")
        self._order = [str(k) for k in self.loss] if by_name and isinstance(self.loss, dict) else names
        self._losses = {n: _get_loss(fn, losses_module, heads[n]) for n, fn in spec.items()}
        weights = route(self.loss_weights, names, "loss_weights")
        for n, w in weights.items():
            if not isinstance(w, Variable):
                w = Variable(float(w), dtype="float32", trainable=False, name=f"{n}_loss_weight")
            self.weights[n] = w
        if len(self._losses) > 1:
            self.trackers = {n: Mean(name=f"{n}_loss") for n in self._losses}
        self.built = True

    @property
    def metrics(self) -> list[Any]:
        """Trackers of the heads, where more than one has a loss."""
        order = [n for n in getattr(self, "_order", []) if n in self.trackers]
        return [self.trackers[n] for n in order + [n for n in self.trackers if n not in order]]

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The weighted total, or None where no head has a loss."""
        from dagrt import ops, tracing

        heads = output_heads(y_pred, self.output_names)
        if not self.built:
            self.build(heads, by_name=isinstance(y_pred, dict))
        names = list(heads)
        targets = route(y_true, names, "y")
        sample_weights = route(sample_weight, names, "sample_weight", broadcast=True)
        total = None
        for name, loss_fn in self._losses.items():
            if name not in targets:
                raise ValueError(
                    f"y: no targets for output {name!r}, which has a loss; got targets for {list(targets)}"
                )
            with tracing.path_scope(name):  # errors name the head
                value = loss_fn(targets[name], heads[name], sample_weight=sample_weights.get(name))
            if name in self.trackers:
                rows = ops.shape(tree.flatten(heads[name])[0])[0]
                self.trackers[name].update_state(value, sample_weight=rows)
            if name in self.weights:
                value = value * self.weights[name]
            total = value if total is None else total + value
        return total


def _get_loss(spec: Any, losses_module: Any, y_pred: Any) -> Any:
    """A Loss object for a name, function or Loss."""
    if isinstance(spec, str) and spec in ("crossentropy", "ce"):
        return _Deferred(spec, losses_module)
    found = losses_module.get(spec)
    if isinstance(found, losses_module.Loss) or _is_loss_like(found):
        return found
    if not callable(found):
        raise TypeError(f"loss: expected a name, a function of (y_true, y_pred) or a Loss, got {spec!r}")
    return losses_module.LossFunctionWrapper(found, name=getattr(found, "__name__", "loss"))


def _is_loss_like(value: Any) -> bool:
    """A duck-typed loss: an object (not a function) whose call takes sample_weight."""
    import inspect

    if inspect.isfunction(value) or inspect.isbuiltin(value) or inspect.ismethod(value) or inspect.isclass(value):
        return False
    try:
        return "sample_weight" in inspect.signature(value).parameters
    except (TypeError, ValueError):
        return False


class _Deferred:
    """`crossentropy`: which one is decided by the shapes of targets and predictions, as for `accuracy`."""

    def __init__(self, name: str, losses_module: Any) -> None:
        self.name, self._module, self._loss = name, losses_module, None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if self._loss is None:
            m = self._module
            kind = target_kind(y_true, y_pred)
            self._loss = {
                "binary": m.BinaryCrossentropy,
                "sparse": m.SparseCategoricalCrossentropy,
                "categorical": m.CategoricalCrossentropy,
            }[kind]()
        return self._loss(y_true, y_pred, sample_weight=sample_weight)


def target_kind(y_true: Any, y_pred: Any) -> str:
    """Keras's rule for `accuracy` and `crossentropy`: "binary", "sparse" or "categorical"."""
    p, t = y_pred.shape, y_true.shape
    if len(p) == 0 or p[-1] == 1:
        return "binary"
    if len(t) < len(p) or (t[-1] == 1 and (p[-1] is None or p[-1] > 1)):
        return "sparse"
    return "categorical"


class CompileMetrics:
    """The metrics of `compile`, built when the first targets and predictions are seen."""

    def __init__(self, metrics: Any, weighted_metrics: Any, output_names: list[str] | None = None) -> None:
        self._user = (metrics, weighted_metrics)
        self.output_names = output_names
        self.built = False
        self._entries: list[tuple[str, str, Any, bool]] = []  # (key, head, metric, weighted)

    @property
    def metrics(self) -> list[Any]:
        return [m for _, _, m, _ in self._entries]

    def build(self, heads: dict[str, Any], targets: dict[str, Any]) -> None:
        names = list(heads)
        used: dict[str, int] = {}
        found: list[tuple[str, str, Any, bool]] = []
        for spec, weighted in zip(self._user, (False, True)):
            for head, entries in self._per_head(spec, names, "weighted_metrics" if weighted else "metrics").items():
                for entry in entries:
                    if entry is None:
                        continue
                    if head not in targets:
                        raise ValueError(f"metrics: output {head!r} has metrics but no targets in y")
                    metric, name = _get_metric(entry, targets[head], heads[head])
                    key = f"{head}_{name}" if len(names) > 1 else name
                    if weighted and key in used:
                        key = f"{head}_weighted_{name}" if len(names) > 1 else f"weighted_{name}"
                    if key in used:
                        used[key] += 1
                        key = f"{key}_{used[key]}"
                    used[key] = 0
                    found.append((key, head, metric, weighted))
        self._entries = found  # all or, if interrupted, none
        self.built = True

    @staticmethod
    def _per_head(spec: Any, names: list[str], what: str) -> dict[str, list[Any]]:
        if spec is None:
            return {}
        if isinstance(spec, dict):
            routed = {}
            for key, value in spec.items():
                if key not in names:
                    raise _unknown(what, key, names)
                routed[key] = list(value) if isinstance(value, (list, tuple)) else [value]
            return {n: routed[n] for n in names if n in routed}
        if not isinstance(spec, (list, tuple)):
            spec = [spec]
        if len(names) == 1:
            flat = tree.flatten(list(spec)) if any(isinstance(s, (list, tuple)) for s in spec) else list(spec)
            return {names[0]: flat}
        if any(isinstance(s, (list, tuple)) for s in spec) or len(spec) == len(names):
            if len(spec) != len(names):
                raise ValueError(f"{what}: expected {len(names)} entries, one for each output {names}, got {len(spec)}")
            return {n: list(s) if isinstance(s, (list, tuple)) else [s] for n, s in zip(names, spec)}
        # Keras refuses a flat list here; applying it to every head is what its writer means. Names need an own
        # object for each head, so metric objects (which hold state) cannot be shared.
        for s in spec:
            if not isinstance(s, str) and not callable(s):
                raise ValueError(f"{what}: a list of {len(spec)} entries does not fit the outputs {names}")
            if hasattr(s, "update_state"):
                raise ValueError(
                    f"{what}: the metric object {getattr(s, 'name', s)!r} cannot serve the outputs {names} at once: "
                    "give a dict or one list for each output"
                )
        return {n: list(spec) for n in names}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        heads = output_heads(y_pred, self.output_names)
        names = list(heads)
        targets = route(y_true, names, "y") if y_true is not None else {}
        if not self.built:
            self.build(heads, targets)
        weights = route(sample_weight, names, "sample_weight", broadcast=True)
        for _, head, metric, weighted in self._entries:
            kwargs = {"sample_weight": weights.get(head)} if weighted else {}
            mask = getattr(heads[head], "_keras_mask", None)
            if mask is not None:
                kwargs["sample_weight"] = _masked(kwargs.get("sample_weight"), mask)
            metric.update_state(targets[head], heads[head], **kwargs)

    def result(self) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for key, head, metric, _ in self._entries:
            value = metric.result()
            if isinstance(value, dict):
                prefix = key[: -len(metric.name)] if key.endswith(metric.name) else f"{head}_"
                results.update({f"{prefix}{k}": v for k, v in value.items()})
            else:
                results[key] = value
        return results


def _masked(sample_weight: Any, mask: Any) -> Any:
    from dagrt import ops

    mask = ops.cast(mask, "float32")
    if sample_weight is None:
        return mask
    while len(sample_weight.shape) < len(mask.shape):
        sample_weight = ops.expand_dims(sample_weight, -1)
    return mask * ops.cast(sample_weight, "float32")


def _get_metric(spec: Any, y_true: Any, y_pred: Any) -> tuple[Any, str]:
    """A Metric and the name under which it is shown."""
    from dagrt import metrics as m

    if hasattr(spec, "update_state"):
        return spec, spec.name
    kind = target_kind(y_true, y_pred)
    if isinstance(spec, str) and spec in ("accuracy", "acc"):
        cls = {"binary": m.BinaryAccuracy, "sparse": m.SparseCategoricalAccuracy, "categorical": m.CategoricalAccuracy}
        return cls[kind](name=spec), spec
    if isinstance(spec, str) and spec in ("crossentropy", "ce"):
        cls = {
            "binary": m.BinaryCrossentropy,
            "sparse": m.SparseCategoricalCrossentropy,
            "categorical": m.CategoricalCrossentropy,
        }
        return cls[kind](name=spec), spec
    found = m.get(spec)
    if hasattr(found, "update_state"):
        name = spec if isinstance(spec, str) else found.name
        return found, name
    if not callable(found):
        raise TypeError(f"metrics: expected a name, a function of (y_true, y_pred) or a Metric, got {spec!r}")
    name = spec if isinstance(spec, str) else getattr(spec, "__name__", None) or getattr(spec, "name", "metric")
    name = name.strip("<>")  # of a lambda
    return m.MeanMetricWrapper(found, name=name), name
