"""Operations on tensors of any kind, by Keras's names.

On arrays they run at once; in a traced function they become part of the program; on KerasTensors (from `Input`) they
become a node of the model. See docs/ops.md for the ops they are composed of.
"""

from __future__ import annotations

import difflib
from typing import Any

from dagrt.operation import CLASS_NAMES
from dagrt.ops import control as _control
from dagrt.ops import core as _core_ops
from dagrt.ops import elementwise as _elementwise
from dagrt.ops import linalg as _linalg
from dagrt.ops import nn as _nn
from dagrt.ops import raw as raw
from dagrt.ops import reductions as _reductions
from dagrt.ops import shapes as _shapes
from dagrt.ops.control import *  # noqa: F403
from dagrt.ops.core import *  # noqa: F403
from dagrt.ops.elementwise import *  # noqa: F403
from dagrt.ops.linalg import *  # noqa: F403
from dagrt.ops.nn import *  # noqa: F403
from dagrt.ops.reductions import *  # noqa: F403
from dagrt.ops.shapes import *  # noqa: F403
from dagrt.ops.shapes import slice_op as slice  # noqa: F401
from dagrt.tracing import gradients as gradients

_HOMES = (_core_ops, _elementwise, _reductions, _shapes, _linalg, _nn, _control)
_HIDDEN = {  # helpers of these modules
    "public",
    "as_tensor",
    "as_bool",
    "emit",
    "tree",
    "tracing",
    "annotations",
    "Any",
    "Callable",
    "dtype_of",
    "product_of",
    "one_axis",
    "static_axes",
    "unwrap_sizes",
    "promoted",
    "is_float",
    "standard_dtype",
    "dim_tensor",
    "owned",
    "transposed_size",
    "find_by_class_name",
}

__all__ = sorted(
    {
        name
        for home in _HOMES
        for name, value in vars(home).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", "").startswith("dagrt.ops")
        and name not in _HIDDEN
        and name != "slice_op"
    }
    | {"gradients", "slice", "raw"}
)


def find_by_class_name(name: str) -> Any:
    """The op whose node is called by that class name in files."""
    aliases = {"Abs": "absolute", "BitwiseInvert": "bitwise_not"} | {v: k for k, v in CLASS_NAMES.items()}
    return globals().get(aliases.get(name, ""))


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    near = difflib.get_close_matches(name, __all__, n=1)
    hint = f" The nearest is ops.{near[0]}." if near else ""
    raise AttributeError(f"dagrt.ops has no {name!r}.{hint} What is there: {', '.join(__all__)}")
