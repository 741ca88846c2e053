"""The records of latents as files for other programs: Parquet with types, and comma-separated values."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

PAIRS = {
    "neighbours": ("latent", "cosine"),
    "promoted": ("token", "effect"),
    "suppressed": ("token", "effect"),
}
"""Fields that are lists of pairs, with the names of both."""
TYPES = {
    "latent": pa.int64(),
    "twins": pa.list_(pa.int64()),
    "contexts": pa.list_(pa.string()),
    "neighbours": pa.list_(pa.struct([("latent", pa.int64()), ("cosine", pa.float64())])),
    "promoted": pa.list_(pa.struct([("token", pa.string()), ("effect", pa.float64())])),
    "suppressed": pa.list_(pa.struct([("token", pa.string()), ("effect", pa.float64())])),
}
"""Of the fields that are no single figure, whatever is unknown in them."""


def write(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write records with the same fields as `features.parquet` and as `features.csv`, where lists are JSON."""
    names = list(rows[0])
    schema = pa.schema([(name, TYPES.get(name, pa.float64())) for name in names])
    columns = {name: [_with_names(name, row[name]) for row in rows] for name in names}
    parquet.write_table(pa.table(columns, schema=schema), folder / "features.parquet")
    with (folder / "features.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow(json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for v in row.values())


def _with_names(field: str, value: Any) -> Any:
    """A list of pairs as a list of records."""
    return [dict(zip(PAIRS[field], pair, strict=True)) for pair in value] if field in PAIRS else value
