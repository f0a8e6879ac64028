"""Small array helpers: one-hot targets, normalisation, padding of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Turns class numbers into one-hot rows.

    Args:
        x: integers of any shape, 0 <= x < num_classes; a trailing axis of size 1 is dropped.
        num_classes: number of classes; by default max(x) + 1.

    Returns:
        float32 array of shape `x.shape + (num_classes,)`.

    Raises:
        ValueError: a class number is negative or not below `num_classes`.

    Example:
        >>> import dagrt
        >>> dagrt.utils.to_categorical([0, 2], num_classes=3)
        array([[1., 0., 0.],
               [0., 0., 1.]], dtype=float32)
    """
    x = np.asarray(x).astype("int64")
    if x.ndim > 1 and x.shape[-1] == 1:
        x = x.reshape(x.shape[:-1])
    if num_classes is None:
        num_classes = int(x.max()) + 1 if x.size else 0
    if x.size and (x.min() < 0 or x.max() >= num_classes):
        bad = int(x.min()) if x.min() < 0 else int(x.max())
        raise ValueError(f"to_categorical: expected class numbers from 0 to {num_classes - 1}, got {bad}")
    out = np.zeros((x.size, num_classes), dtype="float32")
    out[np.arange(x.size), x.ravel()] = 1.0
    return out.reshape((*x.shape, num_classes))


def normalize(x: Any, axis: int = -1, order: int = 2) -> np.ndarray:
    """Divides an array by its norm along an axis (zero vectors stay zero).

    Args:
        x: array.
        axis: the axis of the vectors.
        order: of the norm; 2 is the Euclidean.

    Returns:
        float64 array of the same shape.

    Example:
        >>> import dagrt
        >>> dagrt.utils.normalize([[3.0, 4.0]])
        array([[0.6, 0.8]])
    """
    x = np.asarray(x, dtype="float64")
    norm = np.linalg.norm(x, order, axis=axis, keepdims=True)
    return x / np.where(norm == 0, 1, norm)


def pad_sequences(
    sequences: Any,
    maxlen: int | None = None,
    dtype: str = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: float = 0.0,
) -> np.ndarray:
    """Pads or cuts sequences to one length.

    Args:
        sequences: list of sequences (of scalars, or of equally shaped items).
        maxlen: length of the result; by default the longest sequence's.
        dtype: of the result.
        padding: "pre" or "post": where padding goes.
        truncating: "pre" or "post": where too long sequences are cut.
        value: padding value.

    Returns:
        Array of shape (len(sequences), maxlen, ...).

    Raises:
        ValueError: `padding` or `truncating` is neither "pre" nor "post", or an item has another shape.

    Example:
        >>> import dagrt
        >>> dagrt.utils.pad_sequences([[1, 2, 3], [4]], maxlen=2)
        array([[2, 3],
               [0, 4]], dtype=int32)
    """
    for what, choice in (("padding", padding), ("truncating", truncating)):
        if choice not in ("pre", "post"):
            raise ValueError(f"pad_sequences: {what} must be 'pre' or 'post', got {choice!r}")
    sequences = [np.asarray(s) for s in sequences]
    length = maxlen if maxlen is not None else max((len(s) for s in sequences), default=0)
    item_shape = next((s.shape[1:] for s in sequences if len(s)), ())
    out = np.full((len(sequences), length, *item_shape), value, dtype=dtype)
    for row, s in enumerate(sequences):
        if not len(s):
            continue
        if s.shape[1:] != item_shape:
            raise ValueError(f"pad_sequences: sequence {row} has items of shape {s.shape[1:]}, expected {item_shape}")
        s = s[-length:] if truncating == "pre" else s[:length]
        if not len(s):
            continue
        if padding == "pre":
            out[row, -len(s) :] = s
        else:
            out[row, : len(s)] = s
    return out
