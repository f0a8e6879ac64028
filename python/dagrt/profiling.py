"""Where the time goes: every step of every run, by layer, op and shapes, against what the machine can do.

    with dagrt.profile("trace.json"):       # a trace for Chrome (chrome://tracing) or Perfetto
        model.fit(x, y)

    print(model.profile(x))                 # a table; .plot("profile.png") colours the model's graph by time

Off, it costs one test of a null pointer a step. On a GPU a profiled run is no graph: its steps run one after another, each
between two of the driver's events.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import statistics
from collections.abc import Iterator
from typing import Any

from dagrt import _core
from dagrt.saving.atomic import replacing

__all__ = ["Profile", "profile"]


class Profile:
    """What a profile recorded.

    Attributes:
        steps: a dict a step, in order of time: path (the layers it came from), op (the algorithm), device, shapes, flops,
            bytes, begin_ns, end_ns, run, thread.
        runs: how many runs of programs were recorded.
    """

    def __init__(self, steps: list[dict[str, Any]] | None = None, model: Any = None) -> None:
        self.steps = steps or []
        self._model = model
        self._roofline: dict[str, float] | None = None

    @property
    def runs(self) -> int:
        return len({s["run"] for s in self.steps})

    @property
    def roofline(self) -> dict[str, float]:
        """What this machine's CPU reaches at most on the threads in use: flops_per_s, bytes_per_s. Measured when first asked."""
        if self._roofline is None:
            self._roofline = _core.measure_roofline(_core.num_threads())
        return self._roofline

    def _work(self) -> list[dict[str, Any]]:
        """Steps, but those whose time is that of others among them: a scan is what its body's steps are."""
        return [s for s in self.steps if s["op"] != "scan"]

    def _busy_ns(self) -> int:
        """The runs' time in steps: where several are at work at once, it counts once."""
        busy, reached = 0, (-1, 0)  # the run, and its time up to which all is counted
        for s in sorted(self._work(), key=lambda s: (s["run"], s["begin_ns"])):
            begin = max(s["begin_ns"], reached[1]) if s["run"] == reached[0] else s["begin_ns"]
            busy += max(s["end_ns"] - begin, 0)
            reached = (s["run"], max(s["end_ns"], begin))
        return busy

    def rows(self) -> list[dict[str, Any]]:
        """Steps of the same layer, op and shapes together, the slowest first.

        Each row: path, op, device, shapes, calls, total_ns, ns (the median call's), flops and bytes (of a call), share (of
        all time), roofline (the time that the machine's limits would allow, over the median call's; None on a GPU, whose
        limits are not measured).
        """
        groups: dict[tuple, list[dict[str, Any]]] = {}
        steps = self._work()
        for s in steps:
            groups.setdefault((s["path"], s["op"], s["device"], s["shapes"]), []).append(s)
        total = sum(s["end_ns"] - s["begin_ns"] for s in steps) or 1
        rows = []
        for (path, op, device, shapes), group in groups.items():
            times = [s["end_ns"] - s["begin_ns"] for s in group]
            ns = max(statistics.median(times), 1)
            flops, size = group[0]["flops"], group[0]["bytes"]
            roof = None
            if device == "cpu":
                roof = max(flops / self.roofline["flops_per_s"], size / self.roofline["bytes_per_s"]) * 1e9 / ns
            rows.append(
                {
                    "path": path,
                    "op": op,
                    "device": device,
                    "shapes": shapes,
                    "calls": len(group),
                    "total_ns": sum(times),
                    "ns": ns,
                    "flops": flops,
                    "bytes": size,
                    "share": sum(times) / total,
                    "roofline": roof,
                }
            )
        return sorted(rows, key=lambda r: -r["total_ns"])

    def table(self, most: int = 40) -> str:
        """The rows as text: at most so many, the rest summed up.

        A share of the roofline above 100 % is no error: Winograd multiplies less than the convolution that it computes,
        and small tensors come from the caches, not from memory.
        """
        rows = self.rows()
        lines = [f"{'time':>10} {'share':>6} {'GFLOP/s':>8} {'GB/s':>7} {'roof':>5}  {'op':24} {'layer':32} shapes"]
        for r in rows[:most]:
            roof = "" if r["roofline"] is None else f"{r['roofline']:.0%}"
            lines.append(
                f"{_time(r['ns']):>10} {r['share']:6.1%} {r['flops'] / r['ns']:8.1f} {r['bytes'] / r['ns']:7.1f} "
                f"{roof:>5}  {_short(r['op'], 24):24} {_short(r['path'] or '(compiler)', 32):32} {r['shapes']}"
            )
        if len(rows) > most:
            rest = rows[most:]
            lines.append(f"{'':>10} {sum(r['share'] for r in rest):6.1%}  ... {len(rest)} more")
        total = self._busy_ns()
        devices = sorted({r["device"] for r in rows} - {"cpu"})
        on = (
            f"{', '.join(devices)}, step by step" if devices else f"{_core.num_threads()} threads; the machine reaches "
        )
        if not devices:
            on += f"{self.roofline['flops_per_s'] / 1e9:.0f} GFLOP/s and {self.roofline['bytes_per_s'] / 1e9:.1f} GB/s"
        lines.append(f"{_time(total / max(self.runs, 1)):>10} a run over {self.runs} runs on {on}")
        return "\n".join(lines)

    __str__ = table

    def save(self, path: Any) -> None:
        """Writes a trace that Chrome and Perfetto show, atomically."""
        events = [
            {
                "name": f"{s['op']} {s['path']}".strip(),
                "cat": s["op"],
                "ph": "X",
                "ts": s["begin_ns"] / 1e3,
                "dur": (s["end_ns"] - s["begin_ns"]) / 1e3,
                "pid": 1,
                "tid": s["thread"],
                "args": {k: s[k] for k in ("path", "shapes", "flops", "bytes", "run")},
            }
            for s in self.steps
        ]
        with replacing(os.fspath(path)) as temporary, open(temporary, "w") as f:
            json.dump({"traceEvents": events, "displayTimeUnit": "ns"}, f)

    def by_layer(self) -> dict[str, float]:
        """Nanoseconds a run by layer path; a step of several layers counts for each in equal parts."""
        times: dict[str, float] = {}
        for s in self._work():
            paths = [p for p in s["path"].split(" + ") if p]
            for p in paths:
                times[p] = times.get(p, 0.0) + (s["end_ns"] - s["begin_ns"]) / len(paths) / max(self.runs, 1)
        return times

    def plot(self, to_file: Any = "profile.png", model: Any = None, **options: Any) -> str:
        """Draws the model's graph with each layer coloured by its time; nested models are expanded.

        Args:
            to_file: as for `plot_model`.
            model: by default the model whose `profile` made this.
            **options: further arguments of `plot_model`.

        Raises:
            ValueError: no model is known.
        """
        from dagrt.visualization.plot_model import plot_model

        model = model or self._model
        if model is None:
            raise ValueError("Profile.plot: give the model that was run: profile.plot(path, model=model)")
        times = {p.removeprefix(model.name + "/"): t for p, t in self.by_layer().items()}
        total = sum(times.values()) or 1.0

        def note(path: str) -> tuple[str, str] | None:
            own = sum(t for p, t in times.items() if p == path or p.startswith(path + "/"))
            if not own:
                return None
            return _heat(own / total), f"{html.escape(_time(own))} <b>{own / total:.1%}</b>"

        options = {"expand_nested": True, "show_layer_names": True, **options}
        return plot_model(model, to_file, _note=note, **options)


@contextlib.contextmanager
def profile(path: Any = None) -> Iterator[Profile]:
    """Records every step of every run inside the `with` block, of all threads.

    Args:
        path: where to write a trace for Chrome or Perfetto at the end; None: nowhere.

    Yields:
        A Profile, filled at the end of the block: print it for a table.

    Raises:
        GraphError: another profile is on.

    Example:
        >>> import dagrt, numpy as np
        >>> model = dagrt.Sequential([dagrt.Input((4,)), dagrt.layers.Dense(3)])
        >>> with dagrt.profile() as p:
        ...     _ = model.predict(np.ones((2, 4)), verbose=0)
        >>> any(step["path"].endswith("dense") for step in p.steps)
        True
    """
    result = Profile()
    _core.profile_start()
    try:
        yield result
    finally:
        result.steps = _core.profile_stop()
    if path is not None:
        result.save(path)


def profile_model(model: Any, x: Any, y: Any = None, runs: int = 20) -> Profile:
    """`Model.profile`."""
    if runs < 1:
        raise ValueError(f"profile: runs must be at least 1, got {runs}")
    call = (lambda: model.predict_on_batch(x)) if y is None else (lambda: model.train_on_batch(x, y))
    call()  # compiles
    with profile() as result:
        for _ in range(runs):
            call()
    result._model = model
    return result


def _time(ns: float) -> str:
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= scale:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns:.0f} ns"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _heat(share: float) -> str:
    """From pale yellow to dark red, by the square root: small shares still differ."""
    stops = [(255, 247, 214), (252, 186, 110), (214, 69, 48), (120, 20, 28)]
    at = min(share**0.5, 1.0) * (len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    mixed = [round(a + (b - a) * (at - i)) for a, b in zip(stops[i], stops[i + 1])]
    return "#" + "".join(f"{c:02x}" for c in mixed)
