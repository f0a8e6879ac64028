"""Cases for the op harness (tests/test_ops.py): data, one file for each file of csrc/ops/.

A case names an op, its attributes, its inputs and a NumPy float64 reference. From that alone the harness runs
forward, the gradient against central differences of the reference, every instruction set, one thread and several,
and guard bands around every caller's buffer.

Example (tests/cases/matmul.py):
    CASES = [Case("matmul", [Arg((3, 5)), Arg((5, 7))], lambda a, b: a @ b)]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Arg:
    """One input: its shape, dtype and domain. `values` overrides all."""

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    low: float = -2.0  # integers: low <= x < high
    high: float = 2.0
    avoid: tuple[float, ...] = ()  # kinks: values nearer than 0.05 are moved away from them
    values: Any = None

    def make(self, rng: np.random.Generator) -> np.ndarray:
        if self.values is not None:
            return np.array(self.values, dtype=self.dtype, order="C")
        if self.dtype == "bool":
            return rng.random(self.shape) < 0.5
        if self.dtype in ("int32", "int64", "uint8"):
            return rng.integers(int(self.low), int(self.high), self.shape).astype(self.dtype)
        x = rng.uniform(self.low, self.high, self.shape)
        for k in self.avoid:
            near = np.abs(x - k) < 0.05
            x = np.where(near, k + np.where(x >= k, 0.1, -0.1), x)
        return x.astype(np.float32)


@dataclass(frozen=True)
class Case:
    op: str
    inputs: list[Arg | None]  # None: an absent optional input
    # float64 (floats) or int64/bool arrays in, the outputs to compare (array, or list for several) out
    reference: Callable[..., Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 16.0  # multiples of float32 epsilon times max(|reference|)
    grad: tuple[int, ...] | None = None  # inputs whose gradient is checked; None: all float ones, if differentiable
    grad_tolerance: float = 64.0
    name: str = ""  # what is special about this case
    fault: str | None = None  # expects DataError with this text instead
