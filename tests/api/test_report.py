from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from api.report import page, render, verdict
from api.report_data import ReportData, Stage
from husai_core import kinds
from husai_core.identity import canonical
from services.artifacts import Store, register, store_index
from services.db import Database
from services.states import State
from services.tables import Base, Decision, Execution, Job, Output, Owner, Result
from tests.api.report_sample import KINDS, estimate, gate_result, results, rules, sample


def changed(data: ReportData, name: str, **fields) -> ReportData:
    return replace(data, stages={**data.stages, name: replace(data.stages[name], **fields)})


class Reader(HTMLParser):
    """Collects what a page holds, and checks that its elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data.replace("\N{NO-BREAK SPACE}", " ") if self.open[-1:] != ["style"] else ""


@pytest.mark.parametrize("name", KINDS)
def test_the_sample_has_the_shape_of_real_results(name):
    kinds.get(KINDS[name]).result.model_validate(results()[name])


def test_the_page_is_self_contained_and_well_formed():
    text = page(sample())
    tags = {tag for tag, _ in Reader(text).seen}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text
    assert len(text) < 300_000


def test_the_page_is_the_same_every_time():
    assert page(sample()) == page(sample())


def test_links_and_sections_agree():
    seen = Reader(page(sample())).seen
    ids = [attributes["id"] for _, attributes in seen if "id" in attributes]
    links = {attributes["href"] for _, attributes in seen if "href" in attributes}
    assert len(ids) == len(set(ids))
    assert links == {f"#{name}" for name in ids}


def test_every_figure_has_a_text_alternative_and_its_numbers():
    seen = Reader(page(sample())).seen
    plots = [attributes for tag, attributes in seen if tag == "svg"]
    assert len(plots) > 15
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    figures = sum(tag == "figure" for tag, _ in seen)
    assert page(sample()).count("<summary>Numbers</summary>") == figures > 10


def test_the_verdict_comes_first_and_names_what_decided():
    text = Reader(page(sample())).text
    banner = verdict(sample())
    assert banner.word == "fail"
    assert "1 of 6 rules is missed: ood.reconstruction, the high end 0.233 is above 0.1." in banner.why
    assert "2 cannot be decided: transcoder, external.saebench." in banner.why
    assert text.index(banner.why) < text.index("The gate, rule by rule")
    assert not banner.settle, "more evidence would not change it"


def test_every_rule_is_shown_with_its_figure_threshold_verdict_and_reason():
    reader = Reader(page(sample()))
    for one in rules():
        assert one["title"] in reader.text
        assert one["reason"] in reader.text
    assert "0.412 [0.391, 0.433]" in reader.text
    assert "needs lower end ≥ −0.05" in reader.text
    gauges = [a["aria-label"] for tag, a in reader.seen if tag == "svg" and "needed:" in a["aria-label"]]
    assert [label.rsplit("; ", 1)[1] for label in gauges] == [one["verdict"] for one in rules()]


@pytest.mark.parametrize(
    ("outcomes", "passed", "word", "phrase"),
    [
        (["pass"] * 6, True, "pass", "All 6 rules hold"),
        (["pass"] * 5 + ["inconclusive"], True, "inconclusive", "None of 6 rules is missed, but 1 cannot be decided"),
        (["fail"] * 2 + ["pass"] * 4, True, "fail", "2 of 6 rules are missed"),
        (["fail"] + ["pass"] * 5, False, "inconclusive", "could not tell its own controls apart"),
    ],
)
def test_the_banner_follows_the_outcomes(outcomes, passed, word, phrase):
    judged = [{**one, "verdict": outcome} for one, outcome in zip(rules(), outcomes, strict=True)]
    gate = gate_result() | {"verdict": word, "rules": judged}
    gate["self_test"] = {**gate["self_test"], "passed": passed}
    data = changed(sample(), "gate", result=gate)
    assert verdict(data).word == word
    assert phrase in verdict(data).why
    told = any("this version has no job kind benchmark.saebench" in way for way in verdict(data).settle)
    assert told == ("inconclusive" in outcomes)
    assert phrase in Reader(page(data)).text


def test_a_hostile_name_stays_text():
    hostile = "</style><script>alert(1)</script>\"'&"
    data = sample()
    for name in data.stages:
        data = changed(data, name, detail=hostile, spec={"hook_name": hostile, "recipe": {"architecture": hostile}})
    gate = gate_result()
    gate["rules"] = [{**gate["rules"][0], "title": hostile, "reason": hostile, "name": hostile}]
    data = changed(data, "gate", result=gate)
    reader = Reader(page(data))
    assert "script" not in {tag for tag, _ in reader.seen}
    assert hostile in reader.text


@pytest.mark.parametrize("state", ["waiting", "running", "failed", "cancelled", "blocked", "timed_out"])
@pytest.mark.parametrize("name", KINDS)
def test_a_stage_without_a_result_is_told_in_words(name, state):
    data = changed(sample(), name, state=state, result={}, manifest={}, outputs={}, detail="the disk was full")
    text = Reader(page(data)).text
    assert "the disk was full" in text
    assert ("The gate has not decided" in text) == (name == "gate")


def test_a_pipeline_that_failed_its_floors_says_so_beside_the_verdict():
    data = sample()
    data = replace(data, pipeline=replace(data.pipeline, state="failed", detail="explained variance is 0.2"))
    assert verdict(data).why.endswith("stages have succeeded. Pipeline: explained variance is 0.2.")
    assert verdict(sample()).why.endswith("transcoder, external.saebench.")


def test_a_pipeline_without_any_stage_still_gives_a_page():
    pipeline = Stage("study.pipeline", "study.pipeline", "j1", "queued")
    text = Reader(page(ReportData(pipeline, {}, 1_795_418_000.0))).text
    assert "The pipeline is in state queued; 0 of 0 stages have succeeded." in text
    assert "husai rerun j1 --check" in text
    assert "husai verify" not in text


@pytest.mark.parametrize("name", KINDS)
def test_missing_and_unknown_figures_leave_a_page(name):
    whole = results()[name]
    for key in whole:
        for value in (None, []):
            Reader(page(changed(sample(), name, result={**whole, key: value})))


def test_figures_without_an_interval_say_so():
    result = results()["stability"]
    result["statistics"]["pwmcc"] = estimate(0.71)
    assert "PWMCC 0.710 [interval unknown]" in Reader(page(changed(sample(), "stability", result=result))).text


def test_provenance_lists_what_differs_between_stages_and_every_digest():
    text = Reader(page(sample())).text
    assert "1 (transformer, activations, sae, stability, transcoder, ood, untrained); 2 (gate)" in text
    assert "4be1f0c2" * 5 + ", clean" in text
    for stage in sample().stages.values():
        for digests in (*stage.inputs.values(), *stage.outputs.values()):
            assert all(found in text for found in digests)


def test_the_commands_name_this_job_and_its_decision():
    text = Reader(page(sample())).text
    assert "husai rerun job_01jd3k9x2m --check" in text
    assert "husai gate show dec_01jd3m77qa --bundle dec_01jd3m77qa.json\nhusai verify dec_01jd3m77qa.json" in text


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(f"sqlite:///{tmp_path}/husai.db")
    Base.metadata.create_all(found.engine)
    yield found
    found.close()


def add_job(session: Session, store: Store, stage: Stage, parent: str | None = None) -> Job:
    """A job in the state of a stage, with its execution, result and outputs; the stage's manifest is stored."""
    common = {
        "kind": stage.kind,
        "spec": stage.spec,
        "inputs": stage.inputs,
        "device": "cpu",
        "environment": {},
        "owner_id": "o1",
        "priority": 1,
        "state": State(stage.state),
        "reason": stage.reason,
        "detail": stage.detail,
        "created_at": 1_795_418_000.0,
        "finished_at": 1_795_418_900.0,
    }
    execution = Execution(
        id=f"x_{stage.name}",
        digest="0" * 64,
        queue="train",
        shared=True,
        **common,
    )
    session.add(execution)
    session.flush()
    if stage.result:
        session.add(Result(execution_id=execution.id, result=stage.result))
        blob = store.put_bytes(canonical(stage.manifest))
        files = {"manifest.json": {"sha256": blob, "size": store.size(blob)}}
        stored = store_index(store, {"type": "manifest", "files": files})
        register(session, stored, "o1", execution.id)
        session.add(Output(execution_id=execution.id, name="manifest", position=0, sha256=stored.sha256))
    job = Job(
        id=stage.job,
        execution_id=execution.id,
        parent_id=parent,
        name=stage.name,
        labels=[],
        reuse=True,
        private=False,
        **common,
    )
    session.add(job)
    session.flush()
    return job


def test_a_report_is_read_from_database_and_store(database: Database, tmp_path: Path) -> None:
    data, store = sample(), Store(str(tmp_path / "store"))
    with database.write() as session:
        session.add(Owner(id="o1", name="ada", role="researcher", created_at=0.0))
        session.flush()
        job = add_job(session, store, data.pipeline)
        for name, stage in data.stages.items():
            add_job(
                session,
                store,
                replace(stage, state="running", result={}) if name == "ood" else stage,
                "x_study.pipeline",
            )
        session.add(
            Decision(
                seq=12, id="dec1", execution_id="x_gate", policy="strict", policy_digest="0" * 64, candidate="0" * 64,
                verdict="fail", envelope={}, public_key="", previous="", chain="", judged_at=0.0, created_at=0.0,
            )
        )  # fmt: skip
        session.flush()
        text = Reader(render(session, store, job)).text
    assert verdict(data).why in text
    assert "This stage is running" in text
    assert "husai verify dec1.json" in text
    assert "4be1f0c2" * 5 + ", clean" in text
    assert "PWMCC 0.710 [0.689, 0.731]" in text
