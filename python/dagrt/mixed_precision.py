"""Keras's names for training with 16-bit activations and float32 variables.

import dagrt as keras

keras.mixed_precision.set_global_policy("mixed_bfloat16")

Activations and what kernels read of the weights are rounded to 16 bits; arithmetic and sums stay in float32. On a GPU (sm_80 on)
tensor cores multiply bfloat16 as it is, unless `dagrt.config.exact()`.
On a CPU values stay in float32 memory, rounded; a bfloat16 value that only arithmetic up to the next rounding reads is not rounded
in between, and products with few rows read their weights as bfloat16, in half the bytes (docs/ops.md).
"""

from __future__ import annotations

from dagrt._config import dtype_policy, set_dtype_policy
from dagrt.layers.policy import DTypePolicy
from dagrt.optimizers.loss_scale import LossScaleOptimizer

Policy = DTypePolicy
global_policy = dtype_policy
set_global_policy = set_dtype_policy

__all__ = [
    "DTypePolicy",
    "LossScaleOptimizer",
    "Policy",
    "dtype_policy",
    "global_policy",
    "set_dtype_policy",
    "set_global_policy",
]
