import re
from typing import get_args

import pytest

from husai_core.estimate import Estimate
from husai_core.panels import (
    Bar,
    Bars,
    Column,
    Context,
    FeatureCard,
    Figure,
    Format,
    Headline,
    HeatMap,
    IntervalRow,
    Intervals,
    Lines,
    Scatter,
    ScatterPoint,
    Series,
    Table,
    Text,
)
from husai_core.render import html, text_panels
from husai_core.render.notebook import Shown

HOSTILE = "</style><script>alert('x')</script><img src=x onerror=alert(1)>\"'"
FORMATS = get_args(Format)
ESTIMATE = Estimate(value=0.5, low=0.4, high=0.6, n=3)


def every_panel(text: str) -> list:
    row = IntervalRow(label=text, estimate=ESTIMATE, points=[(text, 0.5)], bar=0.1, tone="good")
    columns = [Column(label=text), Column(label=text, format="digest")]
    return [
        Headline(title=text, note=text, text=text, tone="good", figures=[Figure(label=text, value=text)]),
        Table(title=text, note=text, columns=columns, rows=[[text, text]]),
        Intervals(title=text, rows=[row], x_label=text),
        Intervals(title=text, rows=[row, row.model_copy(update={"bar": 0.2})]),
        Lines(title=text, series=[Series(label=text, points=[(0, 1), (1, 2)])], x_label=text, y_label=text),
        Scatter(
            title=text,
            points=[ScatterPoint(label=text, x=ESTIMATE, y=ESTIMATE, group=text)],
            x_label=text,
            y_label=text,
        ),
        HeatMap(title=text, rows=[text], columns=[text], values=[[0.5]], low_label=text, high_label=text),
        Bars(title=text, bars=[Bar(label=text, value=1.0)], x_label=text),
        Text(title=text, paragraphs=[text]),
        FeatureCard(
            title=text, latent=7, contexts=[Context(tokens=[text], activations=[1.0])], promoted=[(text, 1.0)]
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("panel", every_panel(HOSTILE), ids=lambda panel: panel.type)
@pytest.mark.parametrize("folded", [False, True])
def test_no_panel_lets_markup_through(panel, folded):
    markup = html.fragment([panel.model_copy(update={"folded": folded})])
    assert "<script" not in markup
    assert "<img" not in markup
    assert "style=" not in markup


def test_the_same_panels_give_the_same_bytes():
    assert html.fragment(every_panel("a")) == html.fragment(every_panel("a"))


@pytest.mark.parametrize("value", [1.7e308, -1.7e308, 1e-308])
def test_figures_at_the_end_of_floating_point_are_drawn(value):
    """Spreads, margins and powers of ten of such figures overflow."""
    ends = Estimate(value=value, low=-1.7e308, high=1.7e308)
    rows = [IntervalRow(label="a", estimate=ends, bar=bar, points=[("b", value)]) for bar in (value, 0.5)]
    points = [(0.0, -1.7e308), (1.0, value), (1.7e308, 1.7e308)]
    shown = [
        Headline(text="a", figures=[Figure(label="a", value=value, format=form) for form in FORMATS]),
        Table(columns=[Column(label="a", format=form) for form in FORMATS], rows=[[value] * len(FORMATS)]),
        Intervals(rows=rows[:1]),
        Intervals(rows=rows),
        Lines(series=[Series(label="a", points=points)], x_label="x", y_label="y"),
        Lines(series=[Series(label="a", points=points)], x_label="x", y_label="y", log_x=True, log_y=True),
        Scatter(points=[ScatterPoint(label="a", x=ends, y=ends)], x_label="x", y_label="y", joined=True),
        HeatMap(rows=["a"], columns=["b"], values=[[value]], low=-1.7e308, high=1.7e308),
        Bars(bars=[Bar(label="a", value=value), Bar(label="b", value=-1.7e308)]),
        FeatureCard(latent=1, contexts=[Context(tokens=["a"], activations=[value])], promoted=[("a", value)]),
    ]
    markup = html.fragment(shown)
    assert "nan" not in markup
    assert "inf" not in markup
    assert not re.search(r"\d{40}", markup)
    assert max(map(len, text_panels.render(shown, 100, everything=True))) <= 100


def test_folded_tables_say_how_many_rows_they_hide():
    table = Table(title="Members", columns=[Column(label="seed")], rows=[[i] for i in range(62)], folded=True)
    markup = html.one_panel(table)
    assert markup.startswith("<details")
    assert "62 rows" in markup


def test_figures_stand_right_and_texts_left():
    table = Table(columns=[Column(label="name"), Column(label="L0", format="number")], rows=[["a", 3.5]])
    markup = html.table(table)
    assert '<th scope="row">a</th><td class="figure">3.500</td>' in markup
    assert 'class="scroll" tabindex="0" role="region"' in markup


def test_an_estimate_is_written_with_its_interval_and_its_basis():
    table = Table(columns=[Column(label="name"), Column(label="PWMCC", format="number")], rows=[["a", ESTIMATE]])
    markup = html.table(table)
    assert "0.500" in markup
    assert "[0.400, 0.600]" in markup
    assert "95% interval over 3 seeds" in markup


def test_rows_with_bars_of_their_own_are_drawn_on_scales_of_their_own():
    rows = [IntervalRow(label="a", estimate=ESTIMATE, bar=bar, tone="good") for bar in (0.1, 30.0)]
    assert html.one_panel(Intervals(title="Rules", rows=rows)).count("<svg") == 2
    same = [row.model_copy(update={"bar": 0.1}) for row in rows]
    assert html.one_panel(Intervals(title="Rules", rows=same)).count("<svg") == 1


def test_a_notebook_shows_panels_with_their_style():
    shown = Shown(every_panel("a"))._repr_html_()
    assert "<style>" in shown
    assert 'class="panels"' in shown


def test_a_page_needs_nothing_but_itself():
    page = html.page("a & b", html.fragment(every_panel("a")))
    assert page.startswith("<!doctype html>")
    assert "<title>a &amp; b</title>" in page
    assert "http" not in page
    assert "src=" not in page


def test_only_a_table_that_can_be_searched_carries_its_figures_in_full():
    columns = [Column(label="latent", format="integer"), Column(label="fires", format="share"), Column(label="at")]
    rows = [[3, 0.123456, "a"], [4, None, "b"], [5, ESTIMATE, "c"]]
    plain = html.one_panel(Table(columns=columns, rows=rows))
    assert "data-" not in plain
    searchable = html.one_panel(Table(columns=columns, rows=rows, searchable=True))
    assert 'data-searchable=""' in searchable
    assert re.findall(r'data-value="([^"]*)"', searchable) == ["3.0", "0.123456", "4.0", "5.0", "0.5"]
    assert re.sub(r' data-(searchable|value)="[^"]*"', "", searchable) == plain
