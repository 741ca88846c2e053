"""A byte-level BPE tokeniser made from text."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"


def train(texts: Sequence[str], d_vocab: int) -> Tokenizer:
    """A tokeniser of at most `d_vocab` tokens, the same for the same texts; token 0 is `END`.

    Byte-pair encoding of words (Sennrich et al. 2016, arXiv 1508.07909) over bytes (Radford et al. 2019).
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=d_vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def bits_per_byte(tokenizer: Tokenizer, loss: float, seen: Sequence[int]) -> float:
    """A loss in nats per token over the tokens `seen`, none of them `END`, per byte of their text instead."""
    size = sum(len(tokenizer.id_to_token(token) or "") for token in seen)  # a character of a token's name is one byte
    return loss * len(seen) / log(2) / size
