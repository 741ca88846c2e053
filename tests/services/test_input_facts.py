"""What is known about inputs before a job runs."""

from __future__ import annotations

from husai_core.artifact_index import index_tree
from husai_core.job import ArtifactType
from services import accounts, input_facts
from services.artifacts import Store, store_tree
from services.db import Database
from services.jobs import Submission, submit
from services.settings import Settings
from services.tables import Job


def stored(settings: Settings, type: ArtifactType, name: str, text: str) -> str:
    """The digest of an artifact of one file."""
    folder = settings.root / f"{type}-{name}"
    folder.mkdir()
    (folder / name).write_text(text)
    return store_tree(Store(settings.artifacts), index_tree(type, folder), folder).sha256


def test_facts_are_what_artifacts_say_of_themselves(settings: Settings) -> None:
    store = Store(settings.artifacts)
    digests = [stored(settings, "sae", "cfg.json", '{"d_model": 8}'), stored(settings, "sae", "other.json", "{}")]
    facts = input_facts.of_artifacts(store, {"saes": [*digests, "0" * 64]})
    assert facts == {"saes": [{"d_model": 8}, {}, {}]}


def test_of_an_upload_its_size_is_known_whatever_its_files_say(settings: Settings) -> None:
    digests = [stored(settings, "upload", name, '{"size": 1}') for name in ("cfg.json", "novel.txt")]
    assert input_facts.of_artifacts(Store(settings.artifacts), {"text": digests}) == {"text": [{"size": 11}] * 2}


def test_what_a_job_is_to_make_is_foretold(settings: Settings, database: Database) -> None:
    world = {"source": "synthetic", "world": {"rows": 500, "d_model": 24}}
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "researcher").id

        def accepted(kind: str, spec: dict[str, object], inputs: dict[str, list[object]]) -> Job:
            return submit(session, settings, owner, Submission(kind, spec, inputs))[0]  # type: ignore[arg-type]

        rows = accepted("train.activations", world, {})
        saes = accepted("train.sae", {"seeds": [0, 1, 2]}, {"activations": [{"job": rows.id, "output": "activations"}]})
        store, reference = Store(settings.artifacts), {"job": saes.id, "output": "saes"}
        facts = input_facts.of(session, store, {"all": [reference], "second": [{**reference, "index": 1}]})
        assert [fact["d_in"] for fact in facts["all"]] == [24] * 3
        assert facts["second"] == facts["all"][:1]
        assert input_facts.of(session, store, {"all": [reference]}, depth=0) == {"all": [{}]}
