"""What the kinds show of results that the version before panels wrote (`old_results`)."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from husai_core import kinds, panels
from husai_core.panels import PANELS, to_csv

OLD = {path.stem: path for path in sorted(Path(__file__).with_name("old_results").glob("*.json"))}
SENTENCES = {
    "train.imported": "Imported: 1 SAE, 1 set of activations.",
    "train.activations": "169 rows at 1 hook (blocks.0.hook_resid_post) of width 32",
    "train.sae": "3 SAEs (topk k 8) explain 0.958 (interval unknown) of the variance of held-out rows",
    "train.transformer": "The network adds 70.59 % of the held-out pairs right. The leak test passed",
    "stress.trained_vs_random": "between seeds) is 0.576 [0.545, 0.606]; its excess over the largest chance level is",
    "stress.transcoder": "SAE minus transcoder is 0.004 [−0.111, 0.097] in PWMCC (mean maximum cosine between",
    "stress.ood": "the drop of explained variance is −0.027 [−0.040, −0.014]; probes on the latents lose 0.120",
    "stress.untrained_model": "PWMCC (mean maximum cosine between seeds) is 0.576 [0.545, 0.606] there and 0.621",
    "release.gate": "Inconclusive: 8 of 8 rules are undecided (reconstruction, stability, transcoder,",
    "study.pipeline": "Inconclusive: some rules of the gate are undecided. All 8 stages ran",
}


def document(kind: str) -> dict[str, Any]:
    """A stored result."""
    stored: dict[str, Any] = json.loads(OLD[kind].read_bytes())
    return stored


def headline(shown: list[panels.AnyPanel]) -> panels.Headline:
    """The panel that comes first."""
    assert isinstance(shown[0], panels.Headline)
    return shown[0]


@pytest.mark.parametrize("kind", SENTENCES)
def test_a_result_of_an_earlier_version_is_shown_under_its_key_sentence(kind: str) -> None:
    shown = kinds.get(kind).panels(document(kind))
    assert SENTENCES[kind] in headline(shown).text
    assert PANELS.validate_json(PANELS.dump_json(shown)) == shown
    for panel in shown:
        rows = list(csv.reader(io.StringIO(to_csv(panel))))
        assert len(rows) > 1
        assert len({len(row) for row in rows}) == 1
        assert not {"nan", "inf"} & {cell for row in rows for cell in row}


@pytest.mark.parametrize("kind", SENTENCES)
def test_a_broken_result_still_shows_its_figures(kind: str) -> None:
    shown = kinds.get(kind).panels(document(kind) | {"a figure of another version": 0.5})
    cells = [row for panel in shown if isinstance(panel, panels.Table) for row in panel.rows]
    assert ["a figure of another version", 0.5] in cells


def test_showing_a_result_loads_no_numerical_library() -> None:
    program = """
import json, sys
from husai_core import kinds
for kind, document in json.load(sys.stdin).items():
    kinds.get(kind).panels(document)
print(sorted({"torch", "scipy", "numpy", "transformer_lens"} & sys.modules.keys()))
"""
    documents = json.dumps({kind: document(kind) for kind in OLD})
    ran = subprocess.run([sys.executable, "-c", program], input=documents, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", SENTENCES)
def test_every_stored_figure_is_shown_or_stands_in_a_folded_table(kind: str) -> None:
    shown = "\n".join(to_csv(panel) for panel in kinds.get(kind).panels(document(kind)))
    stored = document(kind)
    estimates = stored.get("statistics", {}).values()
    singles = [value for value in stored.values() if isinstance(value, float)]
    for value in [*(estimate["value"] for estimate in estimates), *singles]:
        assert str(value) in shown


def test_a_stress_says_on_how_many_rows_its_controls_were_trained() -> None:
    shown = headline(kinds.get("stress.ood").panels(document("stress.ood") | {"control_rows": 20_000}))
    (figure,) = [figure for figure in shown.figures if figure.label == "rows that the controls were trained on"]
    assert (figure.value, figure.format) == (20_000, "integer")


def test_trainings_that_had_not_converged_and_seeds_left_out_are_named() -> None:
    stored = document("stress.ood") | {"siblings_left_out": 2}
    first = headline(kinds.get("stress.ood").panels(stored))
    assert "had not converged: SAEs (seeds 0, 1, 2)." in first.note
    assert "2 seeds of the same training were left out." in first.note
    assert first.tone == "unknown"


def test_what_is_judged_of_the_transcoder_agrees_with_the_figures_beside_it() -> None:
    above = kinds.get("stress.transcoder").panels(document("stress.transcoder"))[1]
    assert isinstance(above, panels.Intervals)
    values = {row.label: row.estimate.value or 0.0 for row in above.rows}
    for null in ("Gaussian", "shuffled"):
        difference = values[f"SAE above {null}"] - values[f"transcoder above {null}"]
        assert difference == pytest.approx(values[f"difference above {null}"])
    differences = [value for label, value in values.items() if label.startswith("difference")]
    assert values["smallest difference"] == pytest.approx(min(differences))


@pytest.mark.parametrize("kind", [kind for kind in OLD if kind.startswith("stress.")])
def test_a_stress_measures_and_claims_no_bar(kind: str) -> None:
    shown = kinds.get(kind).panels(document(kind))
    rows = [row for panel in shown if isinstance(panel, panels.Intervals) for row in panel.rows]
    assert {(row.bar, row.tone) for row in rows} == {(None, "neutral")}
    assert {figure.tone for figure in headline(shown).figures} == {"neutral"}
    assert headline(shown).tone in ("neutral", "unknown")
    assert any(0.0 in {r.value for r in panel.references} for panel in shown if isinstance(panel, panels.Intervals))
    if kind != "stress.ood":
        assert any("A release policy sets its own bar." in panel.note for panel in shown)
    assert "judged" not in "".join(map(to_csv, shown))


def test_a_gate_says_each_reason_once_and_draws_every_rule_against_its_bar() -> None:
    shown = {panel.title: panel for panel in kinds.get("release.gate").panels(document("release.gate"))}
    reasons, bars = shown["Reasons"], shown["Rules against their bars"]
    assert isinstance(reasons, panels.Text)
    assert isinstance(bars, panels.Intervals)
    said = [paragraph.partition(": ")[2] for paragraph in reasons.paragraphs]
    assert len(said) == len(set(said)) == 6
    assert [(row.bar, row.op, row.tone) for row in bars.rows][:1] == [(0.7, ">=", "unknown")]
    assert {row.op for row in bars.rows} == {">=", "<="}
    assert "What would decide it" in shown


def test_a_known_bad_control_that_does_not_pass_is_as_expected() -> None:
    decision = document("release.gate")
    test = decision["self_test"]
    good, bad = test["good"] | {"verdict": "pass"}, test["bad"] | {"verdict": "fail", "measured": True}
    for outcomes, words in (((good, bad), ["as expected"] * 2), ((bad, good), ["not as expected"] * 2)):
        decision["self_test"] = test | dict(zip(("good", "bad"), outcomes, strict=True))
        shown = {panel.title: panel for panel in kinds.get("release.gate").panels(decision)}
        table = shown["Controls of the gate"]
        assert isinstance(table, panels.Table)
        assert [row[-1] for row in table.rows] == words


@pytest.mark.parametrize(
    ("verdicts", "passed", "text"),
    [
        ("pp", True, "Release: all 2 rules are met, each by the unfavourable end of its interval."),
        ("pf", True, "Do not release: 1 of 2 rules is not met (stability); 1 is met."),
        ("fi", True, "Do not release: 1 of 2 rules is not met (reconstruction); 1 is undecided (stability)."),
        ("pi", True, "Inconclusive: 1 of 2 rules is undecided (stability); 1 is met."),
        (
            "pp",
            False,
            "Inconclusive: the gate could not tell its own controls apart, so it says nothing about this SAE.",
        ),
    ],
)
def test_a_verdict_is_said_in_plain_words(verdicts: str, passed: bool, text: str) -> None:
    decision = document("release.gate")
    words = {"p": "pass", "f": "fail", "i": "inconclusive"}
    rules = [rule | {"verdict": words[v]} for rule, v in zip(decision["rules"], verdicts, strict=False)]
    verdict = "inconclusive" if not passed or "i" in verdicts else "pass"
    decision |= {"rules": rules, "verdict": "fail" if "f" in verdicts else verdict}
    decision["self_test"]["passed"] = passed
    assert headline(kinds.get("release.gate").panels(decision)).text == text
