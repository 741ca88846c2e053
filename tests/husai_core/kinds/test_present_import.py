from __future__ import annotations

from pathlib import Path

from husai_core import kinds, panels
from husai_core.job import Artifact
from husai_core.panels import PANELS
from tests.husai_core.kinds.stress_job import run


def upload(artifact: Artifact) -> Artifact:
    """An artifact of ours as somebody would send its files."""
    return Artifact(artifact.digest, "upload", artifact.path, artifact.produced_at)


def test_imported_things_are_named_by_their_outputs_with_what_is_unknown_of_them(tmp_path: Path) -> None:
    world = {"rows": 400, "n_features": 8, "d_model": 6, "active": 2}
    _, rows, _ = run("train.activations", tmp_path / "rows", {"source": "synthetic", "world": world})
    recipe = {"d_sae": 16, "k": 2, "tokens": 2000, "batch_size": 100}
    _, saes, _ = run("train.sae", tmp_path / "saes", {"recipe": recipe, "seeds": [0, 1]}, activations=rows)
    result, imported, _ = run("data.import", tmp_path / "out", file=[upload(artifact) for artifact in (*saes, *rows)])
    shown = kinds.get("data.import").panels(result.model_dump(mode="json"))
    assert PANELS.validate_json(PANELS.dump_json(shown)) == shown
    headline, table, recipes, origins = shown
    assert isinstance(headline, panels.Headline)
    assert headline.text.startswith("Imported: 2 SAEs, 1 set of activations.")
    assert isinstance(table, panels.Table)
    assert {row[0] for row in table.rows} == {"saes:0", "saes:1", "activations"}
    assert len(table.rows) == len(imported) == 3
    assert isinstance(recipes, panels.Table)
    assert ["tokens", 2000, 2000] in recipes.rows
    assert isinstance(origins, panels.Text)
    assert all("a claim." in paragraph for paragraph in origins.paragraphs[:3])
