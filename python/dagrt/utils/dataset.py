"""PyDataset: batches made by Python code, fetched ahead by threads."""

from __future__ import annotations

from typing import Any

import numpy as np


class PyDataset:
    """Base class for datasets that make their batches in Python.

    Override `__getitem__(index)`, which returns `(x,)`, `(x, y)` or `(x, y, sample_weight)`, and `__len__` (or the
    property `num_batches`; None means endless). `on_epoch_begin` and `on_epoch_end` are called around epochs.

    Args:
        workers: threads that fetch batches ahead; 1 fetches in the caller's thread.
        use_multiprocessing: accepted for compatibility; threads are used (NumPy and file reading release the GIL).
        max_queue_size: batches held ahead.

    Example:
        >>> import numpy as np, dagrt
        >>> class Squares(dagrt.utils.PyDataset):
        ...     def __len__(self): return 4
        ...     def __getitem__(self, i):
        ...         x = np.full((8, 1), i, "float32")
        ...         return x, x * x
        >>> len(Squares())
        4
    """

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        self._workers = workers
        self._use_multiprocessing = use_multiprocessing
        self._max_queue_size = max_queue_size

    @property
    def workers(self) -> int:
        return getattr(self, "_workers", 1)

    @property
    def use_multiprocessing(self) -> bool:
        return getattr(self, "_use_multiprocessing", False)

    @property
    def max_queue_size(self) -> int:
        return getattr(self, "_max_queue_size", 10)

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} (PyDataset): override __getitem__(index) to return a batch")

    @property
    def num_batches(self) -> int | None:
        try:
            return len(self)  # type: ignore[arg-type]
        except TypeError:
            raise NotImplementedError(
                f"{type(self).__name__} (PyDataset): override __len__, or the property num_batches"
            ) from None

    def on_epoch_begin(self) -> None:
        """Called before each epoch."""

    def on_epoch_end(self) -> None:
        """Called after each epoch; reshuffle here."""


def split_dataset(
    dataset: Any,
    left_size: float | int | None = None,
    right_size: float | int | None = None,
    shuffle: bool = False,
    seed: int | None = None,
    preferred_backend: str | None = None,
) -> tuple[Any, Any]:
    """Splits arrays (or a tuple, list or dict of arrays) in two along axis 0.

    Args:
        dataset: arrays of equal first size.
        left_size, right_size: fraction of rows (float) or number of rows (int); one may be left out.
        shuffle: shuffle rows first.
        seed: of the shuffle.
        preferred_backend: Keras's, without effect.

    Returns:
        Two structures like `dataset`.

    Raises:
        ValueError: neither size is given, or they do not fit.

    Example:
        >>> import numpy as np, dagrt
        >>> left, right = dagrt.utils.split_dataset(np.arange(10), left_size=0.8)
        >>> len(left), len(right)
        (8, 2)
    """
    from dagrt import tree

    arrays = tree.map_structure(np.asarray, dataset)
    rows = {len(a) for a in tree.flatten(arrays)}
    if len(rows) != 1:
        raise ValueError(f"split_dataset: arrays must have equal first sizes, got {sorted(rows)}")
    n = rows.pop()
    if left_size is None and right_size is None:
        raise ValueError("split_dataset: give left_size or right_size")

    def count(size: Any) -> int:
        return int(n * size) if isinstance(size, float) else int(size)

    left = count(left_size) if left_size is not None else n - count(right_size)
    right = count(right_size) if right_size is not None else n - left
    if left < 0 or right < 0 or left + right > n:
        raise ValueError(f"split_dataset: sizes {left} and {right} do not fit {n} rows")
    order = np.random.default_rng(seed).permutation(n) if shuffle else np.arange(n)
    return (
        tree.map_structure(lambda a: a[order[:left]], arrays),
        tree.map_structure(lambda a: a[order[left : left + right]], arrays),
    )
