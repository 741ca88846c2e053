"""A tiny language model built by hand: what its residual stream holds is known.

Each word has a sparse code: some of `FEATURES` features with positive magnitudes, scaled to unit length. The embedding
holds a little of it under dense noise. Block 0 strengthens the code and removes the noise, block 1 copies every feature
to a second direction. So behind block 1 a row is exactly a sparse combination of `FEATURES` directions, behind block 0
too, and the MLP of block 1 reads features and writes features, while that of block 0 reads mostly noise. The logits of
the next word are the overlaps of its code with that of the last word, features permuted. Texts are drawn from these
predictions, so that the model is right about its text. Words are numbers, punctuation and words in lower case or with a
capital, by the group of their strongest feature; the permutation leads each group to the next.

Attention does nothing, so that a row depends on its own word alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from husai_core.job import Artifact
from husai_core.local_job import artifact_in

D, FEATURES, LEAST, MOST, WORDS, CONTEXT = 64, 28, 5, 7, 2000, 16
"""Width, features, fewest and most features of a word, words, and words of a sequence."""
EMBEDDED, STRONG, COPIED, CONSTANT, SHARPNESS = 0.4, 4.0, 3.0, 1.0, 20.0
"""Of the code: its share in the embedding, its size behind block 0 and that of its copy; the size of the constant part
of every row; and what an overlap of 1 adds to a logit."""
GROUPS = ("w", "W", "", ";")
"""How words of each group begin."""
NEURONS = 2 * D
Readout = Literal["code", "mean"]


@dataclass(frozen=True)
class Planted:
    """The model and its language.

    Args:
        in_layers: block 0 makes the code; otherwise the embedding holds all of it and the blocks do nothing.
        readout: `mean` makes zeros at the hook catastrophic, and the mean of the rows nearly as good as the rows.
        sink: words number 0 have rows of `sink` times the usual norm; none at 0.
        trained: otherwise all weights are random.
    """

    in_layers: bool = True
    readout: Readout = "code"
    sink: float = 0.0
    trained: bool = True

    @cached_property
    def codes(self) -> Tensor:
        """The code of every word [words, features]."""
        rng = torch.Generator().manual_seed(1)
        chosen = torch.rand(WORDS, FEATURES, generator=rng).topk(MOST, dim=1).indices
        sizes = 0.5 + torch.rand(WORDS, MOST, generator=rng)
        sizes *= torch.arange(MOST) < torch.randint(LEAST, MOST + 1, (WORDS, 1), generator=rng)
        codes = torch.zeros(WORDS, FEATURES).scatter_(1, chosen, sizes)
        return codes / codes.norm(dim=1, keepdim=True)

    @cached_property
    def basis(self) -> Tensor:
        """Orthonormal directions [d - 1, d] that LayerNorm does not centre away."""
        drawn = torch.randn(D, D, generator=torch.Generator().manual_seed(2))
        drawn[0] = 1.0
        return torch.linalg.qr(drawn.T)[0].T[1:]

    @property
    def directions(self) -> Tensor:
        """What stands behind block 1 for each feature [features, d]."""
        return STRONG * self.basis[:FEATURES] + COPIED * self.basis[FEATURES : 2 * FEATURES]

    @cached_property
    def logits(self) -> Tensor:
        """Of the next word (column) after each word (row) [words, words]."""
        return SHARPNESS * self.codes @ self.followed.T

    @property
    def followed(self) -> Tensor:
        """The code that should stand before each word [words, features]."""
        return self.codes.roll(-FEATURES // len(GROUPS), dims=1)

    @cached_property
    def names(self) -> list[str]:
        """The words as they are written."""
        group = self.codes.argmax(1) // (FEATURES // len(GROUPS))
        return [f"{GROUPS[place]}{word}" for word, place in enumerate(group.tolist())]

    def write(self, folder: Path) -> Artifact:
        """The model in the Hugging Face layout."""
        folder.mkdir(parents=True)
        vocabulary = {"<e>": WORDS} | {f"\u2581{name}": word for word, name in enumerate(self.names)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<e>"))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>", unk_token="<e>").save_pretrained(folder)
        config = GPTNeoXConfig(
            vocab_size=WORDS + 1,
            hidden_size=D,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=NEURONS,
            max_position_embeddings=CONTEXT,
            hidden_act="relu",
            bos_token_id=WORDS,
            eos_token_id=WORDS,
        )
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(3)
            model = GPTNeoXForCausalLM(config)
            if self.trained:
                self._plant(model)
        model.save_pretrained(folder)
        (folder / "cfg.json").write_text(json.dumps({"architecture": "GPTNeoXForCausalLM", "leaks_label": False}))
        return artifact_in(folder, "transformer")

    def text(
        self,
        folder: Path,
        words: int,
        seed: int = 0,
        tilt: float = 0.0,
        only: Sequence[int] = (),
        sinks: int = 0,
    ) -> Artifact:
        """A text of the model's own language.

        Args:
            folder: where it is written.
            words: its length.
            seed: of the draw.
            tilt: makes some words likelier.
            only: features; words without any of them are left out.
            sinks: after so many words stands word number 0.
        """
        rng = np.random.default_rng(seed)
        logits = self.logits.double().numpy() + tilt * np.random.default_rng(9).standard_normal(WORDS)
        if only:
            logits = np.where((self.codes[:, list(only)] > 0).any(1).numpy(), logits, -np.inf)
        chances = np.exp(logits - logits.max(1, keepdims=True))
        ladder = (chances / chances.sum(1, keepdims=True)).cumsum(1)
        ladder[:, -1] = 1.0
        word, drawn = 1, list[str]()
        for place, share in enumerate(rng.random(words)):
            word = 0 if sinks and place % sinks == 0 else int(np.searchsorted(ladder[word], share))
            drawn.append(self.names[word])
        folder.mkdir(parents=True)
        (folder / "text.txt").write_text(" ".join(drawn))
        return artifact_in(folder, "upload")

    def _plant(self, model: Any) -> None:
        """Replace all weights."""
        for parameter in model.parameters():
            parameter.zero_()
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1.0)
        first, second = (layer.mlp for layer in model.gpt_neox.layers)
        code, *_, sink, bias, constant = self.basis[:FEATURES], *self.basis
        noise = self.basis[FEATURES:-3]
        embedding = model.gpt_neox.embed_in.weight
        embedding += CONSTANT * constant
        if self.in_layers:
            drawn = torch.randn(WORDS, len(noise), generator=torch.Generator().manual_seed(4))
            loud = (1 - EMBEDDED**2) ** 0.5 * drawn / drawn.norm(dim=1, keepdim=True)
            embedding[:WORDS] += EMBEDDED * self.codes @ code + loud @ noise
            scale = (D / (1 + CONSTANT**2)) ** 0.5
            self._mlp(first, code, code * (STRONG - EMBEDDED) / scale / EMBEDDED)
            self._mlp(first, torch.cat([noise, -noise]), torch.cat([-noise, noise]) / scale, len(code))
            copies = self.basis[FEATURES : 2 * FEATURES]
            self._mlp(second, code, copies * COPIED / STRONG / (D / (STRONG**2 + CONSTANT**2)) ** 0.5)
        else:
            embedding[:WORDS] += self.codes @ self.directions
        norm = (STRONG**2 + COPIED**2 + CONSTANT**2) ** 0.5
        unembedding = model.get_output_embeddings().weight
        unembedding[:WORDS] += SHARPNESS * self.followed @ code * norm / STRONG / D**0.5
        if self.sink:
            embedding[0] = sink
            first.dense_h_to_4h.weight[-1], first.dense_4h_to_h.weight[:, -1] = sink, self.sink * sink
        if self.readout == "mean":
            model.gpt_neox.final_layer_norm.bias += bias
            unembedding[WORDS] += 60 * (bias - constant * norm / CONSTANT / D**0.5)

    @staticmethod
    def _mlp(mlp: Any, read: Tensor, write: Tensor, start: int = 0) -> None:
        """Neurons from `start` on that read directions and write others [n, d]."""
        mlp.dense_h_to_4h.weight[start : start + len(read)] = read
        mlp.dense_4h_to_h.weight[:, start : start + len(read)] = write.T
