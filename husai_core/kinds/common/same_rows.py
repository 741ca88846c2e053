"""Refuses activations that a stress cannot compare: of another hook, another model or other tokens. Light: no torch.

What is foretold of artifacts that do not exist yet lacks most facts; only known ones are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from husai_core.errors import UserError

if TYPE_CHECKING:
    from husai_core.activations.store import Activations

Cfg = Mapping[str, Any]
SIZES = ("n_rows", "rows_by_split")
OTHER_TOKENS = "is of other tokens or has another split; read it with the same text and seed"
MODES = {"all": "all weights fresh", "keep_embeddings": "embeddings kept"}
"""What is untrained of a language model, in words."""


def check_untrained(trained: Cfg, untrained: Sequence[Cfg]) -> None:
    """Refuse rows that are no untrained networks' of the same architecture at the same hook.

    Raises:
        UserError: the first that does not fit, and what to do.
    """
    draws = set[tuple[Any, Any]]()
    for place, cfg in enumerate(untrained):
        if "source" not in cfg or "source" not in trained:
            continue
        if cfg.get("untrained_of") is None:
            raise UserError(
                f"untrained number {place} is of no untrained language model; make it with train.activations, source "
                "language and untrained all or keep_embeddings"
            )
        if cfg["untrained_of"] != trained.get("model_digest"):
            raise UserError(f"untrained number {place} is of another model than the activations")
        check_same(f"untrained number {place}", cfg, trained, ("hook_name",))
        check_sizes(f"untrained number {place}", cfg, trained)
        draw = cfg["untrained"], cfg["untrained_seed"]
        if draw in draws:
            raise UserError(f"untrained number {place} has the untrained_seed of another one; draw it with its own")
        draws.add(draw)


def check_sizes(name: str, cfg: Cfg, like: Cfg) -> None:
    """Refuse rows that cannot be of the same tokens as others, by their number.

    Raises:
        UserError: they cannot.
    """
    if any(cfg.get(size) != like.get(size) for size in SIZES):
        raise UserError(f"{name} {OTHER_TOKENS}")


def check_tokens(name: str, rows: Activations, like: Activations) -> None:
    """Refuse rows that are not of the same tokens, in the same split, as others.

    Raises:
        UserError: they are not.
    """
    import torch

    for column in ("tokens", "split", "sequence", "place"):
        a, b = getattr(rows, column), getattr(like, column)
        if (a is None) != (b is None) or (a is not None and not torch.equal(a, b)):
            raise UserError(f"{name} {OTHER_TOKENS}")


def check_same(name: str, cfg: Cfg, like: Cfg, facts: Sequence[str]) -> None:
    """Refuse rows that differ from others in a fact.

    Raises:
        UserError: the first fact in which they do.
    """
    for fact in facts:
        if cfg.get(fact) != like.get(fact):
            words = fact.removesuffix("_digest").replace("_", " ")
            raise UserError(f"{name} has another {words} ({cfg.get(fact)}) than the other rows ({like.get(fact)})")
