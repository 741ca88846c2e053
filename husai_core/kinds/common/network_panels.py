"""Panels about the training of a small network: its leak test and its curves. Light: no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from husai_core import panels

if TYPE_CHECKING:
    from husai_core.kinds.train.transformer import Leak, Result


def leak_test(leak: Leak | None) -> list[panels.AnyPanel]:
    """Accuracies with parts of the input replaced, beside chance; nothing where the test was not done."""
    if leak is None:
        return []
    bars = [
        panels.Bar(label="unchanged input", value=leak.accuracy),
        panels.Bar(label="random operands", value=leak.operand_randomised_accuracy),
        panels.Bar(label="random answer token", value=leak.answer_randomised_accuracy),
    ]
    return [
        panels.Bars(
            title="Leak test: accuracy when a part of the input is replaced",
            note="A network that adds needs its operands and does not look at the answer token.",
            bars=bars,
            x_label="accuracy",
            references=[panels.Reference(label="chance", value=leak.chance)],
        )
    ]


def curves(result: Result) -> list[panels.AnyPanel]:
    """Loss and accuracy while the network was trained; nothing where there is no curve."""
    if len(result.curve) < 2:
        return []
    labels = {"train": "training", "validation": "held out"}
    chance = [panels.Reference(label="chance", value=result.leak.chance)] if result.leak else []

    def series(figure: str) -> list[panels.Series]:
        return [
            panels.Series(
                label=label, points=[(point.step, getattr(point, f"{split}_{figure}")) for point in result.curve]
            )
            for split, label in labels.items()
        ]

    note = "Held out: the validation split, which decided when to stop." if result.text is None else ""
    losses = panels.Lines(
        title="Loss", note=note, series=series("loss"), x_label="step", y_label="cross-entropy", log_x=True, log_y=True
    )
    accuracies = panels.Lines(
        title="Accuracy",
        series=series("accuracy"),
        x_label="step",
        y_label="accuracy",
        log_x=True,
        references=chance,
    )
    return [losses, accuracies]
