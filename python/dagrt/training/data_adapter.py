"""From what users pass to `fit` to a stream of batches `(x, y, sample_weight)` of NumPy arrays.

Arrays in any nesting of list, tuple and dict, PyDataset, generators and other iterables. float64 becomes float32
here, once; integers keep their width. Class weights become sample weights.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dagrt import tree
from dagrt.utils.dataset import PyDataset


def unpack_x_y_sample_weight(data: Any) -> tuple[Any, Any, Any]:
    """Splits `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)` into three, None where absent.

    Args:
        data: a batch, as a step gets it.

    Raises:
        ValueError: a tuple of more than three entries.
    """
    if isinstance(data, list):
        data = tuple(data)
    if not isinstance(data, tuple):
        return data, None, None
    if len(data) == 1:
        return data[0], None, None
    if len(data) == 2:
        return data[0], data[1], None
    if len(data) == 3:
        return data[0], data[1], data[2]
    raise ValueError(
        f"A batch must be x, (x,), (x, y) or (x, y, sample_weight), got a tuple of {len(data)} entries. "
        "Put several inputs into one list or dict: ([x1, x2], y)."
    )


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """The inverse of `unpack_x_y_sample_weight`.

    Args:
        x, y, sample_weight: parts of a batch; None where absent.
    """
    if y is None:
        return x if not isinstance(x, (list, tuple)) else (x,)
    return (x, y) if sample_weight is None else (x, y, sample_weight)


def as_array(value: Any, what: str = "data") -> np.ndarray:
    """One array that dagrt can run on: float64 and float16 lists become float32, strings are refused."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # a torch tensor
        value = value.detach().cpu()
    array = np.asarray(value)
    kind = array.dtype
    if kind == np.float32 or kind == np.int32 or kind == np.int64 or kind == np.uint8 or kind == np.bool_:
        return array
    if kind == np.float64 or kind == np.float16 or kind.name == "bfloat16":
        return array.astype(np.float32)
    if kind.kind in "iu":
        if kind.itemsize < 4:
            return array.astype(np.int32)
        if kind == np.uint32:
            return array.astype(np.int64)
        if kind == np.uint64:
            if array.size and array.max() > np.iinfo(np.int64).max:
                raise TypeError(f"{what}: uint64 values above 2**63 - 1 do not fit int64")
            return array.astype(np.int64)
    hint = " Rows of different lengths? See dagrt.utils.pad_sequences." if kind.hasobject else ""
    raise TypeError(f"{what}: expected numbers, got an array of dtype {kind}.{hint}")


def as_arrays(data: Any, what: str) -> Any:
    """`as_array` over a nested structure; None entries stay. A list of plain numbers is one array."""
    if data is None:
        return None
    if _is_frame(data):
        return as_array(data.to_numpy(), what)
    if isinstance(data, (list, tuple)) and data and all(_is_plain(d) for d in data):
        return as_array(data, what)
    if isinstance(data, dict):
        return {k: as_arrays(v, f"{what}[{k!r}]") for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return type(data)(as_arrays(v, f"{what}[{i}]") for i, v in enumerate(data))
    return as_array(data, what)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (bool, int, float, np.number)):
        return True
    return isinstance(value, (list, tuple)) and bool(value) and all(_is_plain(v) for v in value)


def _is_frame(value: Any) -> bool:
    return type(value).__module__.split(".")[0] == "pandas" and hasattr(value, "to_numpy")


def arrays_in(data: Any) -> list[np.ndarray]:
    return [a for a in tree.flatten(data) if a is not None]


def class_weight_to_sample_weight(y: Any, class_weight: dict, sample_weight: Any = None) -> np.ndarray:
    """Weight of each row by its class; multiplied with a given sample weight.

    Args:
        y: class numbers (N,) or (N, 1), or one-hot rows (N, C).
        class_weight: class number -> weight; classes left out weigh 1.

    Raises:
        ValueError: y is not one array, or a key is not a class number.
    """
    arrays = arrays_in(y)
    if len(arrays) != 1:
        raise ValueError(
            "`class_weight` is only supported for models with a single output. "
            "For several, give sample_weight with one entry per head."
        )
    if any(not isinstance(k, (int, np.integer)) or k < 0 for k in class_weight):
        raise ValueError(f"`class_weight` keys must be class numbers (ints >= 0), got {list(class_weight)}")
    target = arrays[0]
    classes = target.argmax(axis=-1) if target.ndim > 1 and target.shape[-1] > 1 else target.reshape(len(target), -1)
    classes = np.round(classes).astype("int64")
    if classes.ndim > 1 and classes.shape[-1] == 1:
        classes = classes[..., 0]
    table = np.ones(max(int(classes.max(initial=0)), *class_weight) + 1, dtype="float32")
    for key, weight in class_weight.items():
        table[key] = weight
    weights = table[classes]
    if sample_weight is not None:
        weights = weights * arrays_in(sample_weight)[0]
    return weights.astype("float32")


class ArrayAdapter:
    """Batches of arrays in memory."""

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int | None = None,
        shuffle: bool | str = False,
        class_weight: dict | None = None,
        rng: np.random.Generator | None = None,
        steps: int | None = None,
    ) -> None:
        self.data = (as_arrays(x, "x"), as_arrays(y, "y"), as_arrays(sample_weight, "sample_weight"))
        sizes: dict[str, list[int]] = {}
        for what, part in zip(("x", "y", "sample_weight"), self.data):
            for a in arrays_in(part):
                if a.ndim == 0:
                    raise ValueError(f"{what}: expected arrays with a batch axis, got a scalar")
                sizes.setdefault(what, []).append(a.shape[0])
        if "x" not in sizes:
            raise ValueError("x: expected at least one array, got none")
        if len({n for part in sizes.values() for n in part}) > 1:
            lines = "; ".join(f"{what}: {', '.join(map(str, ns))}" for what, ns in sizes.items())
            raise ValueError(f"Data cardinality is ambiguous: all arrays need the same number of rows. Got {lines}")
        self.rows = sizes["x"][0]
        if class_weight is not None:
            if self.data[1] is None:
                raise ValueError("`class_weight` needs targets y")
            weights = class_weight_to_sample_weight(self.data[1], class_weight, self.data[2])
            self.data = (self.data[0], self.data[1], weights)
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if batch_size is None:
            batch_size = -(-self.rows // steps) if steps else 32
        self.batch_size = max(int(batch_size), 1)
        self.num_batches: int | None = -(-self.rows // self.batch_size)
        self.shuffle = shuffle
        self._rng = rng

    def plan(self) -> tuple[np.ndarray, int, np.ndarray | None]:
        """An epoch's batches: where each starts, their rows, and the order of rows (None: as they are)."""
        n, b = self.rows, self.batch_size
        if self.shuffle == "batch":
            return self._generator().permutation(self.num_batches) * b, b, None
        order = self._generator().permutation(n) if self.shuffle else None
        return np.arange(0, n, b), b, order

    def batches(self, plan: Any = None) -> Iterator[tuple[Any, Any, Any]]:
        starts, b, order = plan or self.plan()
        for start in starts:
            stop = min(int(start) + b, self.rows)
            rows = slice(int(start), stop) if order is None else order[int(start) : stop]
            yield tree.map_structure(lambda a: None if a is None else a[rows], self.data)  # noqa: B023

    def _generator(self) -> np.random.Generator:
        if self._rng is None:
            self._rng = np.random.default_rng()
        return self._rng

    def on_epoch_begin(self) -> None:
        pass

    def on_epoch_end(self) -> None:
        pass


class DatasetAdapter:
    """Batches of a PyDataset, fetched ahead by its workers."""

    def __init__(
        self,
        dataset: PyDataset,
        *,
        class_weight: dict | None = None,
        shuffle: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.dataset = dataset
        self.num_batches = dataset.num_batches
        self.batch_size: int | None = None
        self._class_weight = class_weight
        self._shuffle = shuffle
        self._rng = rng

    def batches(self) -> Iterator[tuple[Any, Any, Any]]:
        order: Any = itertools.count() if self.num_batches is None else range(self.num_batches)
        if self._shuffle and self.num_batches is not None:
            order = [int(i) for i in (self._rng or np.random.default_rng()).permutation(self.num_batches)]
        if self.dataset.workers <= 1:
            for i in order:
                yield prepare_batch(self.dataset[i], self._class_weight)
            return
        with ThreadPoolExecutor(self.dataset.workers) as pool:
            indices = iter(order)
            ahead = max(self.dataset.max_queue_size, self.dataset.workers)
            queue = [pool.submit(self.dataset.__getitem__, i) for i in itertools.islice(indices, ahead)]
            while queue:
                batch = queue.pop(0).result()
                queue.extend(pool.submit(self.dataset.__getitem__, i) for i in itertools.islice(indices, 1))
                yield prepare_batch(batch, self._class_weight)

    def on_epoch_begin(self) -> None:
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.dataset.on_epoch_end()


class IterableAdapter:
    """Batches of a generator or another iterable; one that can be iterated again starts anew each epoch."""

    def __init__(self, iterable: Any, *, class_weight: dict | None = None) -> None:
        self._iterable = iterable
        self._class_weight = class_weight
        self.batch_size: int | None = None
        self.once = iter(iterable) is iterable
        try:
            self.num_batches: int | None = len(iterable)
        except TypeError:
            self.num_batches = None

    def batches(self) -> Iterator[tuple[Any, Any, Any]]:
        for batch in self._iterable:
            yield prepare_batch(batch, self._class_weight)

    def on_epoch_begin(self) -> None:
        pass

    def on_epoch_end(self) -> None:
        pass


def prepare_batch(batch: Any, class_weight: dict | None = None) -> tuple[Any, Any, Any]:
    """One batch as the steps take it: arrays of supported dtypes, class weights applied."""
    x, y, sample_weight = unpack_x_y_sample_weight(batch)
    x, y = as_arrays(x, "x"), as_arrays(y, "y")
    sample_weight = as_arrays(sample_weight, "sample_weight")
    if class_weight is not None:
        if y is None:
            raise ValueError("`class_weight` needs targets y")
        sample_weight = class_weight_to_sample_weight(y, class_weight, sample_weight)
    return x, y, sample_weight


Adapter = ArrayAdapter | DatasetAdapter | IterableAdapter


def is_array_like(x: Any) -> bool:
    """True for arrays, scalars and nested lists, tuples and dicts of them; False for datasets and iterators."""
    if isinstance(x, dict):
        return all(is_array_like(v) for v in x.values())
    if isinstance(x, (list, tuple)):
        return all(is_array_like(v) for v in x)
    return x is None or _is_plain(x) or hasattr(x, "__array__") or _is_frame(x)


def make_adapter(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    shuffle: bool | str = False,
    class_weight: dict | None = None,
    rng: np.random.Generator | None = None,
    steps: int | None = None,
) -> Adapter:
    """Chooses the adapter for `x`.

    Raises:
        ValueError: y or sample_weight beside a dataset, arrays of unequal length, a bad batch size.
        TypeError: x is nothing that yields batches.
    """
    if is_array_like(x) and x is not None:
        return ArrayAdapter(
            x, y, sample_weight, batch_size=batch_size, shuffle=shuffle, class_weight=class_weight, rng=rng, steps=steps
        )
    if x is None:
        raise ValueError("x: expected arrays, a PyDataset or an iterable of batches, got None")
    for what, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(
                f"`{what}` must be None when x is a {type(x).__name__}: its batches are (x, y) or (x, y, sample_weight)"
            )
    if isinstance(x, PyDataset):
        return DatasetAdapter(x, class_weight=class_weight, shuffle=shuffle is True, rng=rng)
    if hasattr(x, "__iter__"):
        return IterableAdapter(x, class_weight=class_weight)
    raise TypeError(f"x: expected arrays, a PyDataset or an iterable of batches, got {type(x).__name__}")


class EpochIterator:
    """Hands out an epoch's batches, with Keras's rules for `steps_per_epoch`.

    Without it an epoch is one pass. With it the same pass goes on over epochs; running out warns and stops training.
    """

    def __init__(self, adapter: Adapter, steps_per_epoch: int | None = None) -> None:
        self.adapter = adapter
        self.steps_per_epoch = steps_per_epoch
        self._current: Iterator | None = None
        self.exhausted = False

    @property
    def num_batches(self) -> int | None:
        return self.steps_per_epoch or self.adapter.num_batches

    def epoch(self, plan: Any = None) -> Iterator[tuple[Any, Any, Any]]:
        self.adapter.on_epoch_begin()
        if not self.steps_per_epoch:
            count = 0
            for batch in self.adapter.batches(plan) if plan else self.adapter.batches():  # type: ignore[call-arg]
                count += 1
                yield batch
            if count == 0 and getattr(self.adapter, "once", False):
                self._ran_out()
            self.adapter.on_epoch_end()
            return
        for step in range(self.steps_per_epoch):
            batch = self._next()
            if batch is None:
                if step == 0 or getattr(self.adapter, "once", False):
                    self._ran_out()
                break
            yield batch
        self.adapter.on_epoch_end()

    def _next(self) -> Any:
        for _ in range(2):
            if self._current is None:
                self._current = iter(self.adapter.batches())
            batch = next(self._current, None)
            if batch is not None:
                return batch
            if getattr(self.adapter, "once", False):
                return None
            self._current = None  # a pass is over: the next begins
        return None

    def _ran_out(self) -> None:
        self.exhausted = True
        warnings.warn(
            "Your input ran out of data; interrupting training. Make sure that your dataset or generator can generate "
            "at least `steps_per_epoch * epochs` batches.",
            stacklevel=4,
        )
