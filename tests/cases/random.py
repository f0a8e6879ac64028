"""Random: the words of Philox 4x32-10 in NumPy, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cases import Arg, Case


def _words(seed: int, counter: int, stream: int, step: int, n: int) -> np.ndarray:
    """The first n words for a key and counter (Salmon et al., SC 2011)."""
    mask, blocks = np.uint64(0xFFFFFFFF), (n + 3) // 4
    c = [
        np.arange(blocks, dtype=np.uint64),
        *(np.full(blocks, v & 0xFFFFFFFF, np.uint64) for v in (counter, stream, step)),
    ]
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p, q = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (q >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            q & mask,
            (p >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            p & mask,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, -1).ravel()[:n].astype(np.uint32)


def _uniform(words: np.ndarray) -> np.ndarray:
    return (words >> np.uint32(8)) * 2.0**-24


def _normal(words: np.ndarray) -> np.ndarray:
    r = np.sqrt(-2 * np.log(_uniform(words[0::2]) + 2.0**-24))
    angle = 2 * np.pi * _uniform(words[1::2])
    return np.stack([r * np.cos(angle), r * np.sin(angle)], -1).ravel()


def _case(
    op: str,
    shape: tuple[int, ...],
    make: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
    seed: int = 12345,
    counter: int = 3,
    stream: int = 0,
    step: int | None = None,
) -> Case:
    def reference(*_: np.ndarray) -> np.ndarray:
        n = int(np.prod(shape))
        return make(_words(seed, counter, stream, step or 0, (n + 3) // 4 * 4))[:n].reshape(shape)

    state = Arg(values=[seed, counter], dtype="int64")
    inputs: list[Arg | None] = [state] if step is None else [state, Arg(values=step, dtype="int32")]
    return Case(
        op,
        inputs,
        reference,
        {"shape": list(shape), "stream": stream},
        tolerance,
        grad=(),
        name=f"{shape}_{seed}_{counter}_{stream}_{step}",
    )


_MAKERS: list[tuple[str, Callable[[np.ndarray], np.ndarray], float]] = [
    ("random_uniform", _uniform, 0),
    ("random_normal", _normal, 4),
    ("random_bits", lambda w: w.view(np.int32), 0),
]
CASES = [
    _case(op, shape, make, tolerance, **more)
    for op, make, tolerance in _MAKERS
    for shape, more in [
        ((), {}),
        ((0, 3), {}),
        ((1,), {"stream": 7}),
        ((5, 13), {"step": 4}),
        ((64,), {"seed": -3, "counter": 2**33 + 1}),
        ((65,), {"seed": 2**60 + 17, "stream": 2**32 - 1}),
        ((3, 4097), {"counter": 0, "seed": 0}),
    ]
]
