"""Settings of the process, and the counters behind automatic names."""

from __future__ import annotations

import os
import random as python_random
import re
import threading
from collections import defaultdict
from typing import Any

import numpy as np

_settings: dict[str, Any] = {
    "epsilon": 1e-7,
    "floatx": "float32",
    "image_data_format": "channels_last",
    "dtype_policy": None,
    "exact": os.environ.get("DAGRT_EXACT", "") not in ("", "0"),
}
_names: dict[str, int] = defaultdict(int)
_lock = threading.Lock()
_generator: list[np.random.Generator] = [np.random.default_rng()]
_seed: list[int | None] = [None]


def floatx() -> str:
    """The default float dtype: "float32"."""
    return _settings["floatx"]


def set_floatx(value: str) -> None:
    """Sets the default float dtype.

    Raises:
        ValueError: anything but "float32", "float16" and "bfloat16"; dagrt computes in float32.
    """
    if value == "float64":
        raise ValueError("floatx 'float64' is not available: dagrt computes in float32. Leave floatx at 'float32'.")
    if value not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"Unknown floatx {value!r}: expected 'float32', 'float16' or 'bfloat16'")
    _settings["floatx"] = value


def dtype_policy() -> Any:
    """The DTypePolicy of layers that are given no dtype: by default that of `floatx()`."""
    from dagrt.layers.policy import DTypePolicy

    return _settings["dtype_policy"] or DTypePolicy(floatx())


def set_dtype_policy(policy: Any) -> None:
    """Sets the policy of layers that are made from now on without a dtype.

    Args:
        policy: a DTypePolicy, or a name such as "mixed_bfloat16"; None goes back to `floatx()`.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> import dagrt as keras
        >>> keras.config.set_dtype_policy("mixed_bfloat16")
        >>> keras.layers.Dense(4).compute_dtype
        'bfloat16'
        >>> keras.config.set_dtype_policy(None)
    """
    from dagrt.layers.policy import get_policy

    _settings["dtype_policy"] = None if policy is None else get_policy(policy)


def epsilon() -> float:
    """The small number that keeps divisions and logarithms finite: 1e-7."""
    return _settings["epsilon"]


def set_epsilon(value: float) -> None:
    """Sets `epsilon()`."""
    _settings["epsilon"] = float(value)


def image_data_format() -> str:
    """The default layout of images: "channels_last"."""
    return _settings["image_data_format"]


def set_image_data_format(data_format: str) -> None:
    """Sets the default layout: "channels_last" or "channels_first"."""
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"Unknown data_format {data_format!r}: expected 'channels_last' or 'channels_first'")
    _settings["image_data_format"] = data_format


def exact() -> bool:
    """Whether programs keep to algorithms that round no worse than direct sums (see `set_exact`)."""
    return _settings["exact"]


def set_exact(value: bool) -> None:
    """Chooses between fast and exact algorithms for what is traced from now on.

    By default (False) convolutions may take algorithms with fewer multiplications, whose results differ from the direct
    sum's by up to 5e-5 of the largest output. True, or the environment's `DAGRT_EXACT=1`, keeps to those that round no
    worse than the direct sum. Steps and functions that are traced already stay as they are.
    """
    _settings["exact"] = bool(value)
    from dagrt.ops import raw

    raw.forget_programs()


def set_random_seed(seed: int) -> None:
    """Seeds Python's, NumPy's and dagrt's generators: what follows is the same in every run.

    Args:
        seed: an integer.

    Raises:
        ValueError: not an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ValueError(f"set_random_seed: expected an integer, got {seed!r}")
    python_random.seed(int(seed))
    np.random.seed(int(seed) % 2**32)
    _generator[0] = np.random.default_rng(int(seed) % 2**63)
    _seed[0] = int(seed)
    from dagrt import random

    random._forget_global_generator()


def host_generator() -> np.random.Generator:
    """NumPy's generator behind shuffling and new seeds."""
    return _generator[0]


def make_seed() -> int:
    """A fresh seed; the same sequence of them after `set_random_seed`."""
    with _lock:
        return int(_generator[0].integers(1, 2**31 - 1))


def to_snake_case(name: str) -> str:
    """Keras's rule: Conv2DTranspose -> conv2d_transpose, ReLU -> re_lu."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def unique_name(prefix: str) -> str:
    """ "dense", then "dense_1", ...: counted for the process until `clear_session`."""
    with _lock:
        n = _names[prefix]
        _names[prefix] += 1
    return prefix if n == 0 else f"{prefix}_{n}"


def clear_session(free_memory: bool = True) -> None:
    """Starts automatic names, and the global random generator, from the beginning again.

    Args:
        free_memory: kept for Keras's sake.
    """
    with _lock:
        _names.clear()
    from dagrt import random

    random._forget_global_generator()


def backend() -> str:
    return "dagrt"
