from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from husai_core import identity
from husai_core.release.evidence import EvidenceItem, read, result_digest

DOCUMENT = {"kind": "stress.ood", "inputs": {"saes": ["a"]}, "result": {"subject": ["a"], "x": 0.1}}


def test_the_digest_of_a_document_is_that_of_its_artifact(tmp_path: Path) -> None:
    data = identity.canonical(DOCUMENT)
    (tmp_path / "result.json").write_bytes(data)
    files = {"result.json": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}}
    digest = hashlib.sha256(identity.canonical({"type": "result", "files": files})).hexdigest()
    loaded = read(tmp_path, digest, 12.5)
    assert result_digest(loaded.document) == digest == result_digest(json.loads(data))
    assert loaded.produced_at == 12.5


@pytest.mark.parametrize("change", [{"kind": 1}, {"inputs": {"saes": "a"}}, {"inputs": 5}, {"result": None}])
def test_a_misshapen_document_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvidenceItem.model_validate({"digest": "a", "produced_at": 0, "document": {**DOCUMENT, **change}})
