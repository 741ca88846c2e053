"""The tables and figures of a result become artifacts, the same bytes each time."""

from pathlib import Path
from xml.etree import ElementTree

from sqlalchemy import select

from husai_core import panels
from husai_core.local_job import LocalJob
from husai_core.panels import Column, Lines, Series, Table, Text
from services.artifacts import Store, read_files, read_index
from services.db import Database
from services.settings import Settings
from services.states import State
from services.tables import Output
from tests.worker.serving import execution, submit
from worker import panel_files
from worker.worker import WorkerProcess

SHOWN: list[panels.AnyPanel] = [
    Text(title="Words", paragraphs=["No table, no figure."]),
    Table(title="Explained variance, by seed", columns=[Column(label="seed"), Column(label="EV")], rows=[["0", 0.5]]),
    Lines(title="Loss", series=[Series(label="seed 0", points=[(0, 1), (1, 0.5)])], x_label="step", y_label="loss"),
]


def written(folder: Path, shown: list[panels.AnyPanel]) -> dict[str, bytes]:
    job = LocalJob(folder)
    panel_files.write(shown, job)
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_tables_are_csv_and_figures_are_svg_documents_of_the_same_bytes_each_time(tmp_path: Path) -> None:
    files = written(tmp_path / "first", SHOWN)
    assert sorted(files) == ["02-explained-variance-by-seed.csv", "03-loss.svg"]
    assert files["02-explained-variance-by-seed.csv"] == b"seed,EV\n0,0.5\n"
    root = ElementTree.fromstring(files["03-loss.svg"])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert written(tmp_path / "second", SHOWN) == files


def test_a_result_without_tables_and_figures_makes_no_artifacts(tmp_path: Path) -> None:
    assert written(tmp_path / "job", SHOWN[:1]) == {}


def test_a_finished_job_has_its_tables_and_figures(settings: Settings, database: Database) -> None:
    id = submit(settings, database)
    WorkerProcess(settings, database, ["train"], 1).work(["train"])
    assert execution(database, id).state == State.SUCCEEDED
    with database.read() as session:
        outputs = {row.name: row.sha256 for row in session.scalars(select(Output).where(Output.execution_id == id))}
    store, types = Store(settings.artifacts), {"tables": "table", "figures": "figure"}
    assert {"activations", "result", "manifest", "tables"} <= set(outputs)
    for name in types.keys() & outputs.keys():
        assert read_index(store, outputs[name])["type"] == types[name]
        assert all(read_files(store, outputs[name]).values())
