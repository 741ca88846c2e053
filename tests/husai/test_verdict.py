from typing import Any
from xml.etree import ElementTree

import pytest

from husai.errors import Exit
from husai.models import Decision
from husai.verdict import COLUMNS, DROPPABLE, Judgement, junit, markdown
from husai_core.release.policy import load
from husai_core.render import text_layout as layout

RULES: list[dict[str, Any]] = [
    {"name": "stability", "title": "Stable?", "statistic": "pwmcc_excess", "value": 0.31, "low": 0.25, "high": 0.4,
     "bound": "low", "op": ">=", "threshold": 0.05, "verdict": "pass", "reason": "0.25 clears 0.05"},
    {"name": "ood", "title": "Holds | elsewhere?", "value": 0.5, "low": 0.3, "high": 0.6, "bound": "high", "op": "<=",
     "threshold": 0.1, "verdict": "fail", "reason": "0.3 is above <0.1>"},
    {"name": "probing", "title": "Probes?", "value": None, "low": None, "high": None, "bound": "low", "op": ">=",
     "threshold": 0.0, "verdict": "inconclusive", "reason": "no\nevidence"},
]  # fmt: skip


def judgement(verdict: str = "fail") -> Judgement:
    return Judgement(verdict, "strict", "c" * 64, ["ood: too much"], RULES, decision="d1")


def test_a_row_says_which_end_must_clear_which_threshold() -> None:
    rows = judgement().rows()
    assert rows[0] == ("stability", "pwmcc_excess", "0.31 [0.25, 0.4]", "lower end ≥ 0.05", "met")
    assert rows[1][3] == "upper end ≤ 0.1"
    assert rows[2][1:3] == ("", "unknown")
    assert all(len(row) == len(COLUMNS) for row in rows)


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("pass", Exit.OK), ("fail", Exit.FAIL), ("inconclusive", Exit.INCONCLUSIVE), ("new word", Exit.INCONCLUSIVE)],
)
def test_only_a_pass_exits_with_0(verdict: str, code: Exit) -> None:
    assert judgement(verdict).exit_code == code


def test_the_rules_of_strict_fit_a_narrow_terminal_one_below_the_other() -> None:
    ends = {"value": -0.0327, "low": -0.0412, "high": 0.142, "verdict": "inconclusive", "provenance": "trained here"}
    rows = Judgement("fail", "strict", "c", [], [rule.model_dump() | ends for rule in load("strict").rules]).rows()
    narrow, wide = (layout.table(COLUMNS, rows, width, droppable=DROPPABLE) for width in (80, 120))
    assert narrow[0].split() == [name for name in COLUMNS if name not in DROPPABLE]
    assert wide[0].split() == list(COLUMNS)
    assert any("kl_recovered.random" in line and "kl_recovered_minus_random" in line for line in wide)


def test_markdown_keeps_its_table_whatever_the_texts_hold() -> None:
    text = markdown(judgement())
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(RULES)
    assert {line.replace("\\|", "").count("|") for line in table} == {len(COLUMNS) + 2}
    assert "&lt;0.1>" in text
    assert "`d1`" in text


def test_junit_counts_fails_and_takes_inconclusive_for_an_error() -> None:
    suite = ElementTree.fromstring(junit(judgement()))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [len(case) for case in suite] == [0, 1, 1]
    assert suite[2][0].get("message") == "no evidence"


def test_junit_without_rules_has_the_verdict_as_its_case() -> None:
    suite = ElementTree.fromstring(junit(Judgement("inconclusive", "strict", "c", ["self-test failed"])))
    assert suite.get("errors") == "1"


def test_a_reason_is_said_once() -> None:
    reasons = ["self-test: no controls", "ood: 0.3 is above <0.1>", "probing: no\nevidence"]
    text = markdown(Judgement("fail", "strict", "c", reasons, RULES))
    assert text.count("0.3 is above") == 1
    assert "- self-test: no controls" in text
    assert "| Stable? |" in text
    alike = [{"name": name, "verdict": "inconclusive", "reason": "no result"} for name in ("a", "b")]
    judgement = Judgement("inconclusive", "strict", "c", ["a: no result", "b: no result"], alike)
    assert judgement.grouped_reasons == ["a, b: no result"]


def test_a_rule_about_provenance_says_what_it_accepts_and_what_it_took_on_trust() -> None:
    rule = {
        "name": "provenance", "title": "Whose?", "threshold": None, "accepts": ["attested", "claimed"],
        "provenance": "claimed", "verdict": "pass", "reason": "claimed: their word",
    }  # fmt: skip
    judgement = Judgement("pass", "own", "c", ["provenance: claimed: their word"], [*RULES[:1], rule])
    assert judgement.rows()[1] == ("provenance", "provenance", "claimed", "attested or claimed", "met")
    assert judgement.grouped_reasons == ["provenance: claimed: their word"]


def test_what_a_newer_service_adds_does_not_disturb() -> None:
    document = {"id": "d", "job": "j", "unheard_of": 1, "verdict": "fail", "policy": "strict", "candidate": "c"}
    judgement = Judgement.of_decision(Decision.read({**document, "rules": RULES}))
    assert (judgement.verdict, judgement.decision, len(judgement.rows())) == ("fail", "d", len(RULES))
