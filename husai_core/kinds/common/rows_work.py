"""How much work it is to collect activations. Light: no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import sqrt
from typing import TYPE_CHECKING, Any

from husai_core import assets
from husai_core.kinds.common import work
from husai_core.kinds.kind import Facts, Work

if TYPE_CHECKING:
    from husai_core.kinds.train.activations import Spec

PLACES = {"bos": 1, "first_operand": 2, "second_operand": 4, "answer": 5, "answer_token": 6}
"""Tokens up to the position that is read, of modular addition."""
WIDE = ("mlp.hook_pre", "mlp.hook_post")
"""Hooks as wide as the MLP."""
CHARACTERS = 4
"""Characters per token."""
PASS_TOKENS = 8192
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def estimate(spec: Spec, facts: Facts) -> Work:
    """Reading the network once, and the rows that it gives."""
    if spec.source == "synthetic":
        return _synthetic(spec)
    language = spec.source == "language"
    cfg = model_config(spec.model) if spec.model else work.first(facts, "transformer")
    network = work.Network.of(cfg)
    rows = _text_rows(spec, facts) if language else _pairs(spec, facts)
    tokens = rows if language else rows * PLACES[spec.position]
    widths = [network.d_mlp if hook.endswith(WIDE) else network.d_model for hook in spec.hooks]
    columns = 25.0 if language else 9.0 + 8 * PLACES[spec.position]
    written = sum(rows * (BYTES[spec.dtype] * width + columns) + work.HEADER for width in widths)
    held = 0.0 if language else 3 * work.FLOAT * rows * sum(widths)
    cost = work.Cost(network.forward(tokens) + rows * sum(widths), network.held(min(tokens, PASS_TOKENS), 4))
    return cost.work(written, _outputs(spec, rows, widths, facts), base=held + work.FLOAT * network.parameters)


def _synthetic(spec: Spec) -> Work:
    world = spec.world
    cost = work.Cost(
        float(world.rows * world.n_features * world.d_model),
        2.0 * work.FLOAT * world.rows * (world.n_features + world.d_model),
    )
    written = world.rows * (BYTES[spec.dtype] * world.d_model + 9) + work.HEADER
    return cost.work(written, _outputs(spec, world.rows, [world.d_model], {}))


def _outputs(spec: Spec, rows: float, widths: list[int], facts: Facts) -> dict[str, dict[str, Any]]:
    """What is known about the rows beforehand."""
    shares = (1 - spec.validation_fraction - spec.test_fraction, spec.validation_fraction, spec.test_fraction)
    by_split = {split: round(share * rows) for split, share in zip(work.SHARES, shares, strict=True)}
    known = {"count": len(widths), "d_model": widths[0], "n_rows": round(rows), "rows_by_split": by_split}
    p = work.first(facts, "transformer").get("dataset", {}).get("p")
    return {"activations": known | ({"p": p} if p else {})}


def _pairs(spec: Spec, facts: Facts) -> float:
    """Different contexts up to the position."""
    pairs = work.modular_pairs(facts)
    return {"bos": 1.0, "first_operand": sqrt(pairs)}.get(spec.position, pairs)


def _text_rows(spec: Spec, facts: Facts) -> float:
    """Tokens of the text, as far as its size is known; at most `max_rows`."""
    sizes = [fact.get("size") for fact in facts.get("text", ())]
    if not sizes:
        paths = [assets.domain(spec.domain)] if spec.domain else assets.HELD_OUT.iterdir()
        sizes = [path.stat().st_size for path in paths]
    known = [float(size) for size in sizes if size]
    kept = 1 - spec.from_position / spec.context
    return min(float(spec.max_rows), kept * sum(known) / CHARACTERS if known else float(work.UNKNOWN_ROWS))


def model_config(name: str) -> Mapping[str, Any]:
    """The `config.json` of a model that is on this machine; else nothing."""
    directory = assets.locate(name)
    shape: dict[str, Any] = json.loads((directory / "config.json").read_bytes()) if directory else {}
    return shape
