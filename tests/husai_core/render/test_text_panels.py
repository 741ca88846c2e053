"""Every kind of panel as text: whole words, whole figures, at every width."""

import re
from typing import Any

import pytest

from husai_core import panels as p
from husai_core.estimate import Estimate
from husai_core.render.text_layout import cells
from husai_core.render.text_panels import cell, read, render


def estimate(value: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=5)


MEMBERS = p.Table(
    title="Variants",
    note="Means over seeds with intervals.",
    columns=[
        p.Column(label="variant"),
        p.Column(label="seeds", format="integer"),
        p.Column(label="explained variance"),
        p.Column(label="dead latents", format="share"),
        p.Column(label="candidate", format="digest"),
        p.Column(label="state"),
        p.Column(label="what it says"),
    ],
    rows=[
        ["topk k=16", 3, estimate(0.912, 0.9, 0.93), 0.125, "ab" * 32, "succeeded", "It came to rest and is good."],
        ["batchtopk k=16", 3, estimate(0.5), 0.0, "cd" * 32, "failed", None],
    ],
)
PANELS: list[p.AnyPanel] = [
    p.Table(title="All figures", folded=True, columns=[p.Column(label="figure")], rows=[["a"]] * 62),
    MEMBERS,
    p.Headline(
        text="Another seed finds 0.66 of the features, 0.39 above the largest null.",
        tone="good",
        figures=[p.Figure(label="PWMCC (mean maximum cosine between seeds)", value=estimate(0.658, 0.61, 0.7))],
    ),
    p.Intervals(
        title="Against the nulls",
        rows=[
            p.IntervalRow(label="excess over seeds", estimate=estimate(0.39, 0.3, 0.5), bar=0.05, tone="good"),
            p.IntervalRow(label="two seeds, whose interval is unknown", estimate=estimate(0.2)),
        ],
        references=[p.Reference(label="Gaussian decoders", value=0.27)],
        x_label="PWMCC",
    ),
    p.Lines(
        title="Curves",
        series=[p.Series(label=f"seed {i}", points=[(x, 1 / (x + 1)) for x in range(99)]) for i in range(20)],
        x_label="tokens",
        y_label="normalised MSE",
        log_y=True,
    ),
    p.Scatter(
        title="Sparsity",
        points=[p.ScatterPoint(label="k=16", x=estimate(16, 15, 17), y=estimate(0.9, 0.8, 0.95), group="topk")],
        x_label="L0",
        y_label="explained variance",
    ),
    p.HeatMap(
        title="Pairs",
        rows=["seed 0", "seed 1"],
        columns=[f"seed number {i}" for i in range(20)],
        values=[[0.25] * 20, [None, *[0.75] * 19]],
        low_label="nothing shared",
        high_label="everything shared",
    ),
    p.Bars(title="Latents", bars=[p.Bar(label="alive", value=0.9), p.Bar(label="dead", value=-0.1)], x_label="share"),
    p.Text(title="How to read this", paragraphs=["Plain words " * 20, "A second paragraph."]),
    p.FeatureCard(
        title="A latent",
        latent=3,
        figures=[p.Figure(label="density", value=0.01, format="share")],
        contexts=[p.Context(tokens=["The", " cat", " sat\n"], activations=[0, 3.125, 0.5])] * 9,
        promoted=[(" dog", 1.25)],
        suppressed=[(" tea", -0.5)],
    ),
]


@pytest.mark.parametrize("width", [44, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("everything", [False, True])
def test_no_line_is_too_long_and_no_word_is_split(width: int, everything: bool) -> None:
    lines = render(PANELS, width, everything=everything)
    assert max(map(cells, lines)) <= width
    words = set(" ".join(lines).split())
    text = " ".join(column.label for column in MEMBERS.columns) + " topk k=16 batchtopk succeeded failed rest good."
    text += (
        " 0.912 [0.900, 0.930] 12.5 abababababab Gaussian decoders nothing everything shared 0.25 0.75 latent density"
    )
    assert set(text.split()) <= words | {word.strip(",.") for word in words}


def test_the_headline_is_first_and_folded_tables_are_a_line() -> None:
    lines = render(PANELS, 100)
    assert lines[0].startswith("✓ Another seed finds 0.66")
    assert "All figures: 62 more rows; --all shows them" in lines
    assert "  8 more lines; --all shows them" in lines
    everything = render(PANELS, 100, everything=True)
    assert not any("--all" in line for line in everything)
    assert sum(line.strip() == "a" for line in everything) == 62


def test_intervals_are_drawn_against_their_bar_and_say_when_they_are_unknown() -> None:
    lines = render([PANELS[3]], 120)
    drawn = next(line for line in lines if "excess over seeds" in line)
    assert re.search(r"┃ +┊ *├─+●─+┤ +✓ 0.390 \[0.300, 0.500\], needed ≥ 0.050$", drawn), drawn
    assert any("●" in line and line.endswith("0.200 (interval unknown)") for line in lines)


def test_lines_show_their_course_and_both_ends() -> None:
    line = next(line for line in render([PANELS[4]], 100) if "seed 0" in line)
    assert re.search(r"█[▁-█]+▁ +1.000 → 0.010$", line), line


def test_figures_are_written_as_their_format_says() -> None:
    assert [cell(0.1234, "share"), cell(0.1234, "share", 2)] == ["12.3 %", "12.34 %"]
    assert [cell(None, "number"), cell(None), cell(True), cell(12_345, "integer")] == ["–", "", "yes", "12,345"]
    assert [cell(3 << 20, "bytes"), cell(75.0, "seconds"), cell("ab" * 32, "digest")] == [
        "3.15 MB", "1 min 15 s", "abababababab",
    ]  # fmt: skip
    assert cell(estimate(0.5, 0.4, 0.6), "share") == "50.0 [40.0, 60.0] %"


def test_what_a_service_sends_cannot_steer_the_terminal_and_news_do_not_break_it() -> None:
    documents = [
        {"type": "text", "paragraphs": ["\x1b[31mred"]},
        {"type": "hologram", "title": "New", "depth": 3},
        {"type": "headline", "text": "fine"},
    ]
    lines = render(read(documents), 80)
    assert lines[0] == "fine"
    assert "\x1b" not in "".join(lines)
    assert any("This version of husai cannot show this" in line for line in lines)


def test_intervals_are_drawn_even_at_width_1_and_names_stay_on_one_line() -> None:
    rows = [{"label": "two\nlines\tand a tab", "estimate": estimate(0.4, 0.3, 0.5).model_dump(), "bar": 0.1}]
    document: dict[str, Any] = {"type": "intervals", "title": "a\nb", "rows": rows}
    panels = read([document])
    assert render(panels, 1)
    text = render(panels, 100)
    assert text[0] == "a b"
    assert any("two lines and a tab" in line for line in text)


def test_of_a_long_table_the_first_rows_are_shown_and_all_of_them_on_request() -> None:
    rows: list[list[p.Cell]] = [[f"latent {i}"] for i in range(62)]
    table = p.Table(title="Latents", searchable=True, columns=[p.Column(label="latent")], rows=rows)
    few, everything = ("\n".join(render([table], 60, everything=wanted)) for wanted in (False, True))
    assert "latent 19" in few
    assert "latent 20" not in few
    assert "42 more rows; --all shows them" in few
    assert "latent 61" in everything
    assert "more rows" not in everything
