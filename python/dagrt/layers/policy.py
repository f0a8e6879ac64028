"""Which element type a layer computes in, and which its variables have."""

from __future__ import annotations

from typing import Any

_NAMES = ("float32", "float16", "bfloat16", "int32", "int64", "uint8", "bool", "mixed_float16", "mixed_bfloat16")


class DTypePolicy:
    """Element types of a layer: `compute_dtype` and `variable_dtype`.

    Args:
        name: a dtype, or "mixed_float16" / "mixed_bfloat16" (16-bit inputs, float32 variables).

    Raises:
        ValueError: another name; float64 is refused, since dagrt computes in float32.
    """

    def __init__(self, name: str | None = None) -> None:
        name = name or "float32"
        if name == "float64":
            raise ValueError("dtype 'float64' is not available: dagrt computes in float32; leave dtype out")
        if name not in _NAMES:
            raise ValueError(f"Unknown dtype policy {name!r}; dagrt has {', '.join(_NAMES)}")
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def compute_dtype(self) -> str:
        return self._name.removeprefix("mixed_")

    @property
    def variable_dtype(self) -> str:
        return "float32" if self._name.startswith("mixed_") else self._name

    def get_config(self) -> dict[str, Any]:
        return {"name": self._name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DTypePolicy:
        return cls(config["name"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and other._name == self._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f'<DTypePolicy "{self._name}">'


DTypePolicy.__module__ = "dagrt"  # where users find it, and files name it


def get_policy(value: Any) -> DTypePolicy:
    """A policy from None (the global one), a name, a policy, or a policy's config."""
    from dagrt import _config

    if value is None:
        return _config.dtype_policy()
    if isinstance(value, DTypePolicy):
        return value
    if isinstance(value, dict):
        config = value.get("config", value)
        return DTypePolicy(config["name"] if isinstance(config, dict) else config)
    if hasattr(value, "name") and isinstance(value.name, str):  # np.dtype, another framework's policy
        return DTypePolicy(value.name)
    if isinstance(value, type):
        import numpy as np

        return DTypePolicy(np.dtype(value).name)
    return DTypePolicy(str(value))
