"""Labels that a text gives its own tokens, for probes that need no annotation.

The label of a token is what kind of token comes next. It can be read off any text in any language, and a network that
predicts the next token must hold much of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from husai_core.activations.store import Activations
from husai_core.errors import UserError
from husai_core.models.language import LanguageModel
from husai_core.seeding import generator

CLASSES = (
    "more of the word",
    "a word in lower case",
    "a word with a capital",
    "a number",
    "punctuation",
    "white space",
)
NO_CLASS = -1
SPACES = ("Ġ", "▁", " ")
"""How tokenisers write that a token begins with a space."""


@dataclass(frozen=True)
class Labelled:
    """Rows [n, d] with the class of the token that follows each: int64 [n]."""

    rows: Tensor
    label: Tensor


def token_classes(model: LanguageModel) -> Tensor:
    """The class of every token of the vocabulary, int64 [d_vocab]; `NO_CLASS` for special ones."""
    tokenizer, special = model.tokenizer, set(model.tokenizer.all_special_ids)
    classes = torch.full((max(model.d_vocab, len(tokenizer)),), NO_CLASS)
    ids = [token for token in range(len(tokenizer)) if token not in special]
    names = tokenizer.convert_ids_to_tokens(ids)
    for token, name, word in zip(ids, names, model.words(ids), strict=True):
        classes[token] = _class(word, str(name).startswith(SPACES))
    return classes


def _class(word: str, after_space: bool) -> int:
    """Index in `CLASSES` of a token with its text."""
    text = word.strip()
    if not text:
        return 5
    if not text[0].isalnum():
        return 4
    if not text[0].isalpha():
        return 3
    if not (after_space or word[0].isspace()):
        return 0
    return 2 if text[0].isupper() else 1


def labelled(activations: Activations, classes: Tensor, split: str, most: int, seed: int) -> Labelled:
    """At most `most` rows of a split, drawn at random from those whose next token is known and has a class.

    Raises:
        UserError: the rows do not say where in a text they come from, or none has a next token.
    """
    if activations.sequence is None or activations.place is None:
        raise UserError("the activations do not say where in a text their rows come from, so no probe can be fitted")
    joined = (activations.sequence[1:] == activations.sequence[:-1]) & (activations.place.diff() == 1)
    label = torch.full((len(activations.tokens),), NO_CLASS)
    label[:-1] = torch.where(joined, classes[activations.tokens[1:, 0]], NO_CLASS)
    usable = (activations.mask(split) & (label != NO_CLASS)).nonzero()[:, 0]
    if not len(usable):
        raise UserError(f"no {split} row of the activations has a next token, so no probe can be fitted")
    drawn = torch.randperm(len(usable), generator=generator(seed, f"probe rows of {split}"))[:most]
    chosen = usable[drawn].sort().values
    return Labelled(activations.rows.select(chosen)[:], label[chosen])
