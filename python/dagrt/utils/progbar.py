"""The progress bar of `fit`, `evaluate` and `predict`, in Keras's form."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, TextIO


class Progbar:
    """Shows progress on one line, redrawn in place on a terminal.

    Args:
        target: number of steps, or None where it is not known.
        width: characters of the bar.
        verbose: 1: a bar; 2: one line when finished; 0: nothing.
        interval: least seconds between two redraws.
        stateful_metrics: names shown as given; others are averaged over steps.
        stateless_metrics: names that are averaged; the others are shown as given.
        unit_name: "step" by default.
        stream: where it writes; standard output by default.

    Example:
        >>> from dagrt.utils import Progbar
        >>> bar = Progbar(2, verbose=0)
        >>> bar.update(1, [("loss", 0.5)])
    """

    def __init__(
        self,
        target: int | None,
        width: int = 20,
        verbose: int = 1,
        interval: float = 0.05,
        stateful_metrics: Any = None,
        stateless_metrics: Any = None,
        unit_name: str = "step",
        stream: TextIO | None = None,
    ) -> None:
        self.target = target
        self.width = width
        self.verbose = verbose
        self.interval = interval
        self.unit_name = unit_name
        self.stateful_metrics = set(stateful_metrics or [])
        self.stateless_metrics = None if stateless_metrics is None else set(stateless_metrics)
        self._stream = stream
        self._start = time.monotonic()
        self._time_at_first_step: float | None = None
        self._last_draw = 0.0
        self._drawn = 0
        self._values: dict[str, list[float]] = {}
        self._seen = 0

    @property
    def stream(self) -> TextIO:
        return self._stream or sys.stdout

    def _dynamic(self) -> bool:
        return (hasattr(self.stream, "isatty") and self.stream.isatty()) or "PYCHARM_HOSTED" in os.environ

    def due(self) -> bool:
        """True when a redraw would show: lets a caller skip preparing values."""
        return self.verbose == 1 and time.monotonic() - self._last_draw >= self.interval

    def update(self, current: int, values: Any = None, finalize: bool | None = None) -> None:
        """Shows that `current` steps are done. `values`: (name, number) pairs."""
        if finalize is None:
            finalize = self.target is not None and current >= self.target
        for name, value in values or []:
            stateful = name in self.stateful_metrics or (
                self.stateless_metrics is not None and name not in self.stateless_metrics
            )
            steps = max(current - self._seen, 1)
            if stateful or name not in self._values:
                self._values[name] = [float(value), 1.0] if stateful else [float(value) * steps, float(steps)]
            else:
                self._values[name][0] += float(value) * steps
                self._values[name][1] += steps
        self._seen = current
        now = time.monotonic()
        if self._time_at_first_step is None and not finalize:
            self._time_at_first_step = now
        if self.verbose == 1:
            if not finalize and (now - self._last_draw < self.interval or not self._dynamic()):
                return
            self._last_draw = now
            line = self._line(current, now, finalize)
            if self._dynamic():
                self.stream.write("\r" + line + " " * max(self._drawn - len(line), 0) + ("\n" if finalize else ""))
            else:
                self.stream.write(line + "\n")
            self._drawn = len(line)
            self.stream.flush()
        elif self.verbose == 2 and finalize:
            self.stream.write(self._line(current, now, True, bar=False) + "\n")
            self.stream.flush()

    def add(self, n: int, values: Any = None) -> None:
        """Shows that n more steps are done."""
        self.update(self._seen + n, values)

    def _line(self, current: int, now: float, finalize: bool, bar: bool = True) -> str:
        total = str(self.target) if self.target is not None else "Unknown"
        text = f"{current:>{len(total)}}/{total}"
        if bar:
            part = min(current / self.target, 1.0) if self.target else (1.0 if finalize else 0.0)
            full = int(self.width * part)
            if self._dynamic():
                text += f" \033[32m{'━' * full}\033[0m\033[37m{'━' * (self.width - full)}\033[0m"
            else:
                text += " " + "━" * full + " " * (self.width - full)
        per_step = self._seconds_per_step(current, now)
        if finalize or self.target is None:
            text += f"{'' if bar else ' -'} {_duration(now - self._start)}"
        else:
            text += f" {_duration(per_step * (self.target - current))}"
        text += f"{'' if bar else ' -'} {_per_step(per_step)}/{self.unit_name}"
        for name, (total_value, weight) in self._values.items():
            mean = total_value / weight if weight else 0.0
            shown = f"{mean:.4f}" if abs(mean) > 1e-3 or mean != mean else f"{mean:.4e}"
            text += f" - {name}: {shown}"
        return text

    def _seconds_per_step(self, current: int, now: float) -> float:
        # The first step compiles: it does not count where there are others.
        if current > 1 and self._time_at_first_step is not None:
            return (now - self._time_at_first_step) / (current - 1)
        return (now - self._start) / max(current, 1)


def _duration(seconds: float) -> str:
    s = int(seconds)
    if s >= 3600:
        return f"{s // 3600}:{s % 3600 // 60:02d}:{s % 60:02d}"
    if s >= 60:
        return f"{s // 60}:{s % 60:02d}"
    return f"{s}s"


def _per_step(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.0f}s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.0f}ms"
    return f"{seconds * 1e6:.0f}us"
