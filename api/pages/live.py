"""What a job's events say while it runs: its states in order, curves, the end of its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from husai_core.panels import AnyPanel, Lines, Series
from services.tables import Event

MOST_CURVES = 6
LOG_RATIO = 20.0
"""Positive values that span more than this are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Step:
    """One state of a job's life, or an attempt; `at` and `seconds`, how long it lasted, are Unix time and seconds."""

    name: str
    at: float
    seconds: float | None
    detail: str


def timeline(events: Sequence[Event]) -> list[Step]:
    """The states that a job went through, each with how long it lasted."""
    states = [event for event in events if event.type == "state"]
    ends: list[float | None] = [*(event.at for event in states[1:]), None]
    return [
        Step(str(event.data.get("state")), event.at, None if end is None else end - event.at, _detail(event.data))
        for event, end in zip(states, ends, strict=True)
    ]


def _detail(data: Mapping[str, Any]) -> str:
    return str(data.get("detail") or data.get("reason") or "")


def curves(events: Sequence[Event], unit: str = "step") -> list[AnyPanel]:
    """One panel per metric; what stands after a slash in a metric's name tells its lines apart.

    A figure that is not finite is null in an event, and no point of its line.

    Args:
        unit: what the job counts, such as rows.
    """
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for event in events:
        step = float(event.data.get("step", 0))
        for name, value in event.data.get("values", {}).items():
            if value is None:
                continue
            metric, _, line = str(name).partition("/")
            points.setdefault(metric, {}).setdefault(line, []).append((step, float(value)))
    return [_curve(metric, lines, unit) for metric, lines in list(points.items())[:MOST_CURVES]]


def _curve(metric: str, lines: Mapping[str, list[tuple[float, float]]], unit: str) -> Lines:
    values = [value for points in lines.values() for _, value in points]
    log = min(values) > 0 and max(values) / min(values) > LOG_RATIO
    series = [Series(label=line or ("all" if len(lines) > 1 else ""), points=points) for line, points in lines.items()]
    name = metric.replace("_", " ")
    return Lines(title=name[:1].upper() + name[1:], series=series, x_label=unit, y_label=name, log_y=log)


def log_text(events: Sequence[Event]) -> str:
    """Log lines as text."""
    return "".join(_line(str(event.data.get("text", ""))) for event in events)


def _line(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"
