"""Nested lists, tuples and dicts of values. None is a leaf; dicts are walked in sorted order of their keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def is_nested(value: Any) -> bool:
    """Whether the value is a list, tuple or dict."""
    return isinstance(value, (list, tuple, dict))


def _keys(d: dict) -> list:
    try:
        return sorted(d)
    except TypeError:
        return list(d)


def _rebuild(like: Any, values: list) -> Any:
    if isinstance(like, tuple):
        return type(like)(*values) if hasattr(like, "_fields") else tuple(values)
    return list(values)


def flatten(tree: Any) -> list[Any]:
    """The leaves, in order."""
    if isinstance(tree, (list, tuple)):
        return [leaf for t in tree for leaf in flatten(t)]
    if isinstance(tree, dict):
        return [leaf for k in _keys(tree) for leaf in flatten(tree[k])]
    return [tree]


def map_structure(fn: Callable, *trees: Any) -> Any:
    """`fn` of corresponding leaves, in the structure of the first tree.

    Raises:
        ValueError: trees of different structures.
    """
    first = trees[0]
    if isinstance(first, (list, tuple)):
        for t in trees[1:]:
            if not isinstance(t, (list, tuple)) or len(t) != len(first):
                raise ValueError(f"The structures differ: {first!r} and {t!r}")
        return _rebuild(first, [map_structure(fn, *parts) for parts in zip(*trees)])
    if isinstance(first, dict):
        for t in trees[1:]:
            if not isinstance(t, dict) or t.keys() != first.keys():
                raise ValueError(f"The structures differ: {first!r} and {t!r}")
        done = {k: map_structure(fn, *(t[k] for t in trees)) for k in _keys(first)}
        return {k: done[k] for k in first}
    return fn(*trees)


def pack_sequence_as(structure: Any, flat: Any) -> Any:
    """The leaves `flat` in the given structure.

    Raises:
        ValueError: another number of leaves.
    """
    flat = list(flat)
    count = len(flatten(structure))
    if count != len(flat):
        raise ValueError(f"pack_sequence_as: the structure has {count} leaves, got {len(flat)}")
    values = iter(flat)
    return map_structure(lambda _: next(values), structure)


def assert_same_structure(a: Any, b: Any) -> None:
    """ValueError where two trees differ in nesting or keys."""
    map_structure(lambda x, y: None, a, b)
    map_structure(lambda x, y: None, b, a)


def structure_key(tree: Any) -> Any:
    """A hashable description of the nesting: containers, keys, and which leaves are None."""
    if isinstance(tree, (list, tuple)):
        return (type(tree).__name__, *(structure_key(t) for t in tree))
    if isinstance(tree, dict):
        return ("dict", *((k, structure_key(tree[k])) for k in _keys(tree)))
    return tree is None
