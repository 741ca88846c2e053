"""Which latents of sibling SAEs are compared with which: drawn by seed, and by nothing that comes out.

The twin of a latent in a sibling is its partner in the one-to-one assignment of alive latents with the largest sum of
|cosines| (Paulo & Belrose 2025, arXiv 2501.16615, match seeds so).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from husai_core.benchmarks.splice import Reading
from husai_core.errors import UserError
from husai_core.saes.evaluate import RESIDENT
from husai_core.saes.sae import SAE
from husai_core.seeding import generator
from husai_core.stability.matching import assign

STRATA = 4
"""Parts of equal size into which alive latents are divided by how often they fire."""
NONE = -1
"""In place of a twin where a latent has none."""


def at_predictions(reading: Reading) -> Reading:
    """The same reading with no rows but those whose token makes a prediction that counts, and these predictions alone.

    A pair of addition has one row and one prediction, which stay.
    """
    sample = reading.sample
    if sample.rows.shape[1] != sample.predicted.shape[1] + 1:
        return reading
    both = sample.rows[:, :-1] & sample.predicted
    return replace(reading, sample=replace(sample, rows=pad(both, (0, 1)), predicted=both))


@dataclass(frozen=True)
class Dictionary:
    """An SAE with what its latents do on the rows, all on the network's device.

    `frequency` [d_sae] is the share of rows on which a latent fires, `strength` [d_sae] its mean there.
    """

    sae: SAE
    frequency: Tensor
    strength: Tensor

    @cached_property
    def strata(self) -> list[Tensor]:
        """The latents that fire on any row, int64, in parts of equal size from the rarest to the most frequent."""
        order = self.frequency.argsort(stable=True).cpu()
        return list(order[self.frequency.cpu()[order] > 0].tensor_split(STRATA))

    @cached_property
    def alive(self) -> Tensor:
        """The same in one part, int64 [m]."""
        return torch.cat(self.strata)

    def direction(self, latent: int) -> Tensor:
        """The decoder row of a latent at unit length [d]."""
        return normalize(self.sae.W_dec[latent], dim=0)


def dictionaries(reading: Reading, saes: Sequence[SAE], on_block: Callable[[int], None]) -> list[Dictionary]:
    """Read all rows once; `on_block` hears how many sequences were read."""
    on_device = [sae.to(reading.device) for sae in saes]
    tallies = [torch.zeros(2, sae.d_sae, dtype=torch.float64, device=reading.device) for sae in saes]
    n = 0
    for block in reading.passes():
        rows = reading.rows(block)
        for sae, tally in zip(on_device, tallies, strict=True):
            for latents in _encoded(sae, rows):
                tally += torch.stack([(latents != 0).sum(0), latents.double().sum(0)])
        n += len(rows)
        on_block(block.stop - block.start)
    return [
        Dictionary(sae, fired / max(1, n), total / fired.clamp(min=1))
        for sae, (fired, total) in zip(on_device, tallies, strict=True)
    ]


@torch.no_grad()
def _encoded(sae: SAE, rows: Tensor) -> Iterator[Tensor]:
    """Latents of rows [m, d], a block at a time."""
    return (sae.encode(block) for block in torch.split(rows, max(1, RESIDENT // sae.d_sae)))


@dataclass(frozen=True)
class Trial:
    """A latent of one SAE, the sequences on which its effects are measured, and what they are compared with.

    `twins` and `others` are latents by the place of the sibling that has them, `random` [d] is a unit vector.
    """

    place: int
    latent: int
    sequences: Sequence[int]
    twins: Mapping[int, int]
    others: Mapping[int, int]
    random: Tensor


def draw(
    reading: Reading,
    siblings: Sequence[Dictionary],
    n_latents: int,
    n_sequences: int,
    seed: int,
    on_block: Callable[[int], None],
) -> list[list[Trial]]:
    """Latents of every SAE with the sequences in which they fire, drawn by `seed` and nothing that was measured.

    Every stratum of frequencies gives as many latents as the others, as far as it has them. All rows are read once;
    `on_block` hears how many sequences were read.

    Raises:
        UserError: fewer than two latents of an SAE fire.
    """
    for place, dictionary in enumerate(siblings):
        if (alive := len(dictionary.alive)) < 2:
            raise UserError(
                f"of SAE number {place} only {alive} of {dictionary.sae.d_sae} latents fire on the held-out rows, and "
                "a latent needs another one to be compared with; give more text, or raise max_sequences"
            )
    drawn = [_from_strata(sibling.strata, n_latents, seed, place) for place, sibling in enumerate(siblings)]
    firing = _firing(reading, siblings, drawn, on_block)
    partners = twins(siblings)
    return [
        [
            _trial(siblings, place, latent, firing[place][:, i].nonzero()[:, 0], n_sequences, partners[place], seed)
            for i, latent in enumerate(latents.tolist())
        ]
        for place, latents in enumerate(drawn)
    ]


def _from_strata(strata: Sequence[Tensor], n: int, seed: int, place: int) -> Tensor:
    """At most n latents, from all strata in turn."""
    rng = generator(seed, "latents", place)
    shuffled = [stratum[torch.randperm(len(stratum), generator=rng)].tolist() for stratum in strata]
    in_turn = [latents[i] for i in range(max(map(len, shuffled))) for latents in shuffled if i < len(latents)]
    return torch.tensor(in_turn[:n], dtype=torch.int64)


def _firing(
    reading: Reading, siblings: Sequence[Dictionary], drawn: Sequence[Tensor], on_block: Callable[[int], None]
) -> list[Tensor]:
    """For each SAE, in which sequences its drawn latents fire: bool [sequences, latents]."""
    fires = [torch.zeros(len(reading.sample), len(latents), dtype=torch.bool) for latents in drawn]
    for block in reading.passes():
        rows, sequence = reading.rows(block), block.start + reading.sample.rows[block].nonzero()[:, 0]
        for into, latents, dictionary in zip(fires, drawn, siblings, strict=True):
            active = torch.cat([encoded[:, latents] != 0 for encoded in _encoded(dictionary.sae, rows)]).cpu()
            row, column = active.nonzero().T
            into[sequence[row], column] = True
        on_block(block.stop - block.start)
    return fires


def twins(siblings: Sequence[Dictionary]) -> list[dict[int, Tensor]]:
    """For each SAE, by the place of every other, the partner there of each of its latents: int64 [d_sae]."""
    partners: list[dict[int, Tensor]] = [{} for _ in siblings]
    for a, one_side in enumerate(siblings):
        for b, other_side in enumerate(siblings[:a]):
            alive = one_side.alive, other_side.alive
            assigned = assign(one_side.sae.decoder.cpu()[alive[0]], other_side.sae.decoder.cpu()[alive[1]])
            pairs = alive[0][assigned.rows], alive[1][assigned.columns]
            partners[a][b] = torch.full((one_side.sae.d_sae,), NONE).index_put((pairs[0],), pairs[1])
            partners[b][a] = torch.full((other_side.sae.d_sae,), NONE).index_put((pairs[1],), pairs[0])
    return partners


def _trial(
    siblings: Sequence[Dictionary],
    place: int,
    latent: int,
    firing: Tensor,
    n_sequences: int,
    partners: Mapping[int, Tensor],
    seed: int,
) -> Trial:
    """What is drawn for one latent, which fires in the sequences `firing` [m]."""
    rng = generator(seed, "trial", place, latent)
    chosen = firing[torch.randperm(len(firing), generator=rng)][:n_sequences]
    random = normalize(torch.randn(siblings[place].sae.W_dec.shape[1], generator=rng), dim=0)
    counterparts = {b: int(partner[latent]) for b, partner in sorted(partners.items())}
    stratum = next(i for i, latents in enumerate(siblings[place].strata) if latent in latents)
    others = {b: _other(siblings[b], stratum, twin, rng) for b, twin in counterparts.items()}
    return Trial(
        place, latent, sorted(chosen.tolist()), counterparts, others, random.to(siblings[place].strength.device)
    )


def _other(sibling: Dictionary, stratum: int, twin: int, rng: torch.Generator) -> int:
    """A latent but the twin of the same stratum; of any, where there is no other."""
    alike, alive = (latents[latents != twin] for latents in (sibling.strata[stratum], sibling.alive))
    usable = alike if len(alike) else alive
    return int(usable[torch.randint(len(usable), (1,), generator=rng)])


def twin_cosines(siblings: Sequence[Dictionary], trials: Sequence[Trial]) -> Tensor:
    """Cosines of decoder rows of latents with their twins, by the place of the sibling: [latents, n].

    0 where there is no twin, NaN at the SAE's own place.
    """
    cosines = torch.full((len(trials), len(siblings)), torch.nan, dtype=torch.float64)
    for row, trial in zip(cosines, trials, strict=True):
        direction = siblings[trial.place].direction(trial.latent)
        for place, twin in trial.twins.items():
            row[place] = 0.0 if twin == NONE else float(direction @ siblings[place].direction(twin))
    return cosines
