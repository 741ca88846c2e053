"""Evidence as the decision sees it: result documents under their digests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from husai_core import identity


class Document(BaseModel):
    """The parts of a result document that a decision reads."""

    model_config = ConfigDict(strict=True)

    kind: str
    inputs: dict[str, list[str]]
    result: dict[str, Any]


class EvidenceItem(BaseModel):
    """One result document with the digest of the artifact that holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    digest: str
    produced_at: float = Field(description="Unix time in seconds")
    document: dict[str, Any]

    @field_validator("document")
    @classmethod
    def _shaped(cls, document: dict[str, Any]) -> dict[str, Any]:
        Document.model_validate(document)
        return document


class Control(BaseModel):
    """The measurement of one control world, or why there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    artifact: str | None = Field(default=None, description="digest of the result artifact")
    result: dict[str, Any] | None = None
    reason: str | None = Field(default=None, description="why there is no result")

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.result is None) == (self.reason is None):
            raise ValueError("a control has either a result or a reason")
        return self


class Controls(BaseModel):
    """What the gate measured on worlds whose answer is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    good: Control
    bad: Control


def result_digest(document: Mapping[str, Any]) -> str:
    """The digest of the artifact that holds just this document as canonical `result.json`."""
    data = identity.canonical(document)
    files = {"result.json": {"sha256": identity.sha256(data), "size": len(data)}}
    return identity.digest({"type": "result", "files": files})


def read(path: Path, digest: str, produced_at: float) -> EvidenceItem:
    """The item of a result artifact whose files lie in `path`."""
    document = json.loads((path / "result.json").read_bytes())
    return EvidenceItem(digest=digest, produced_at=produced_at, document=document)
