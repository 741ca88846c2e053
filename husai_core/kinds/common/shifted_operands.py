"""What a shift of the operands costs the recipe of SAEs on a network for addition.

SAEs trained anew (same recipe and seeds) and probes are fitted on pairs whose first operand is in the lower half,
a < ceil(p/2), and tested on held-out pairs of that half and on all pairs of the upper half. The given SAEs are measured
on the pairs of the upper half.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from pydantic import Field

from husai_core import panels
from husai_core.errors import UserError
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Inputs
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import statistics as ranges
from husai_core.kinds.common import stress_panels, work
from husai_core.kinds.common.stress import Stress, StressSpec
from husai_core.kinds.kind import Facts, Work
from husai_core.stability.result_tables import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from husai_core.data.modular import Pairs
    from husai_core.saes.sae import SAE
    from husai_core.stability.halves import Doubled, Measured
    from husai_core.stability.intervals import Statistic
    from husai_core.stability.seed_group import SeedGroup


class OperandsSpec(StressSpec):
    """How the lower half is split."""

    validation_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share of its pairs for convergence and penalties"
    )
    test_fraction: float = Field(0.2, gt=0, lt=0.5, description="share of its pairs for the in-distribution figures")
    seed: int = Field(0, ge=0, lt=2**53, description="seed of the split")


class Domains(BaseResult):
    """One figure in and out of the fitted domain."""

    id: float = Field(description="held-out pairs of the lower half")
    ood: float = Field(description="pairs of the upper half")
    unmirrored: float = Field(description="pairs with both operands in the upper half")

    @property
    def drop(self) -> float:
        """In-distribution minus out-of-distribution."""
        return self.id - self.ood


class Operands(Evidence):
    """Drops under a shift of the operands; probe accuracies are shares of right answers among p."""

    p: int | None = Field(None, description="modulus; absent of a language model, as all but `texts`")
    threshold: int | None = Field(None, description="first operands below this were fitted")
    rows: dict[str, int] = Field({}, description="pairs per part")
    explained_variance: list[Domains] = Field([], description="per seed")
    probe_accuracy: list[Domains] = Field([], description="probe on the latents, per seed")
    raw_probe_accuracy: Domains | None = Field(None, description="probe on the raw activations")
    transformer_accuracy: Domains | None = None
    members: list[Member] = Field([], description="the refitted SAEs on held-out pairs of the lower half")
    seeds: list[int]


def measure(spec: OperandsSpec, inputs: Inputs, device: str, stress: Stress) -> tuple[Measured, dict[str, Any]]:
    """Fit on the lower half, test on both: the statistics, and the fields of `Operands`."""
    from husai_core.stability.retrain import halves, members

    data, rows, right = _read(inputs, stress.group, device)
    parts = _parts(spec, data)
    saes = stress.train("lower half", rows[parts["train"]], rows[parts["validation"]])
    explained = [_explained(sae(rows), rows, parts) for sae in saes]
    probes = [_probe(sae.encode(rows), data, parts) for sae in saes]
    raw = _probe(rows, data, parts)
    measured = _measured(explained, probes, raw, *_at_half(halves(saes), rows, data, parts))
    measured.extend(stress.measured([_candidates(group, rows[parts["ood"]]) for group, _ in stress.groups]))
    return measured, {
        "p": data.p,
        "threshold": _threshold(data.p),
        "rows": {name: len(at) for name, at in parts.items()},
        "explained_variance": explained,
        "probe_accuracy": probes,
        "raw_probe_accuracy": raw,
        "transformer_accuracy": _domains(parts, lambda at: float(right[at].double().mean())),
        "members": members(saes, rows[parts["id"]]),
    }


def _at_half(
    saes: Sequence[SAE], rows: Tensor, data: Pairs, parts: Mapping[str, Tensor]
) -> tuple[list[Domains], list[Domains]]:
    """Explained variance and probes of the refits at half the tokens; nothing where there are none."""
    explained = [_explained(sae(rows), rows, parts) for sae in saes]
    return explained, [_probe(sae.encode(rows), data, parts) for sae in saes]


def _threshold(p: int) -> int:
    return (p + 1) // 2


def _read(inputs: Inputs, group: SeedGroup, device: str) -> tuple[Pairs, Tensor, Tensor]:
    """All pairs, their activations [p², d] at the SAEs' hook, and whether the network answers them right [p²]."""
    from husai_core.data.modular import pairs
    from husai_core.models import modular

    path = inputs.one("transformer").path
    dataset, network = modular.read_config(path)["dataset"], modular.load(path, device)
    data = pairs(dataset["p"])
    rows = modular.activations(network, data.tokens, [group.hook_name], group.position)[group.hook_name]
    group.check_width(rows.shape[1])
    return data, rows, modular.logits(network, data.tokens, dataset["position"]).argmax(1) == data.label


def _parts(spec: OperandsSpec, data: Pairs) -> dict[str, Tensor]:
    """Row indices: `train`, `validation` and `id` split the lower half; `ood` and its part `unmirrored` the upper."""
    from husai_core.data.modular import split

    upper_a, upper_b = (data.tokens[:, column] >= _threshold(data.p) for column in (1, 3))
    lower = (~upper_a).nonzero()[:, 0]
    assigned = split(len(lower), spec.validation_fraction, spec.test_fraction, spec.seed)
    parts = {name: lower[assigned == i] for i, name in enumerate(("train", "validation", "id"))}
    unmirrored = (upper_a & upper_b).nonzero()[:, 0]
    if len(unmirrored) < 2:
        raise UserError(f"too few pairs: {len(unmirrored)} have both operands in the upper half of modulus {data.p}")
    return parts | {"ood": upper_a.nonzero()[:, 0], "unmirrored": unmirrored}


def _domains(parts: Mapping[str, Tensor], figure: Callable[[Tensor], float]) -> Domains:
    """A figure of row indices, in every domain."""
    return Domains(**{name: figure(parts[name]) for name in Domains.model_fields})


def _explained(prediction: Tensor, rows: Tensor, parts: Mapping[str, Tensor]) -> Domains:
    """Explained variance of rows [p², d]."""
    from math import isfinite

    from husai_core.saes.evaluate import explained_variance

    domains = _domains(parts, lambda at: explained_variance(rows[at], prediction[at]))
    if not all(map(isfinite, domains.model_dump().values())):
        raise UserError("explained variance cannot be computed: the activations of a part do not vary")
    return domains


def _candidates(group: SeedGroup, rows: Tensor) -> Measured:
    """Explained variance of the given SAEs themselves on rows of the upper half [n, d], outliers in or out."""
    from husai_core.saes.evaluate import evaluate_all
    from husai_core.stability.halves import Doubled, Measured, plain
    from husai_core.stability.intervals import seed_mean

    def explained(saes: Sequence[SAE]) -> Statistic:
        return seed_mean([figures.lower_explained_variance for figures in evaluate_all(saes, rows)])

    doubled = Doubled(explained(group.saes), explained(group.halves) if group.halves else None)
    measured = Measured()
    measured.add("candidate_explained_variance_ood", plain(doubled), ranges.EXPLAINED_VARIANCE)
    return measured


def _probe(features: Tensor, data: Pairs, parts: Mapping[str, Tensor]) -> Domains:
    """Accuracies of a probe from features [p², d] to the answer."""
    from husai_core.stability.probe import fit

    train, validation = ((features[parts[name]], data.label[parts[name]]) for name in ("train", "validation"))
    probe = fit(train, validation, data.p)
    return _domains(parts, lambda at: probe.accuracy(features[at], data.label[at]))


def _measured(
    explained: Sequence[Domains],
    probes: Sequence[Domains],
    raw: Domains,
    half_explained: Sequence[Domains] = (),
    half_probes: Sequence[Domains] = (),
) -> Measured:
    """Means over seeds. The probe on raw activations has no seed, so it is a constant in the difference."""
    from husai_core.stability.halves import Figure, Measured, plain
    from husai_core.stability.intervals import Independent

    measured = Measured()
    for name, whole, half, least in (
        ("explained_variance", explained, half_explained, -inf),
        ("probe_accuracy", probes, half_probes, 0.0),
    ):
        for figure, values in (("id", (least, 1.0)), ("ood", (least, 1.0)), ("drop", (least - 1, 1 - least))):
            measured.add(f"{name}_{figure}", plain(_over_seeds(figure, whole, half)), values)
    drops = plain(_over_seeds("drop", probes, half_probes))
    beyond_raw = Figure(drops.whole.minus(Independent(raw.drop)), drops.change)
    measured.add("probe_accuracy_drop_excess", beyond_raw, (-2.0, 2.0))
    return measured


def _over_seeds(name: str, whole: Sequence[Domains], half: Sequence[Domains]) -> Doubled[Statistic]:
    """The mean over seeds of one figure of every domain."""
    from husai_core.stability.halves import Doubled
    from husai_core.stability.intervals import seed_mean

    means = [seed_mean([getattr(domains, name) for domains in group]) for group in (whole, half) if group]
    return Doubled(*means)


DOMAINS = {"id": "fitted", "ood": "shifted", "unmirrored": "unmirrored"}
SHORT = {"id": "fit", "ood": "shift", "unmirrored": "both"}
NAMES = {
    "explained_variance": "explained variance",
    "probe_accuracy": "probe on latents",
    "candidate_explained_variance_ood": "explained variance of the given SAEs",
    "probe_accuracy_drop_excess": "probe on latents",
}
CHANGES = ("explained_variance_drop", "probe_accuracy_drop_excess", "candidate_explained_variance_ood")
ENDS = {"id": "fitted domain", "ood": "shifted domain", "drop": "drop", "excess": "drop beyond raw probe"}


def present(result: Operands) -> list[panels.AnyPanel]:
    """What the shift costs, and every figure in every domain."""
    drop, probes = (result.statistics.get(name) for name in ("explained_variance_drop", "probe_accuracy_drop_excess"))
    text = (
        f"From held-out pairs of the fitted domain to another domain, the drop of explained variance is "
        f"{common.interval(drop)}; probes on the latents lose {common.interval(probes)} more accuracy than a probe on "
        "the raw activations."
    )
    figures = [
        ("drop of explained variance", "explained_variance_drop"),
        ("drop of probes beyond the raw probe", "probe_accuracy_drop_excess"),
        ("explained variance of the given SAEs, shifted", "candidate_explained_variance_ood"),
    ]
    return [
        stress_panels.headline(result, text, figures),
        _drops(result),
        _levels(result),
        *stress_panels.changes(result, CHANGES, _words),
        _per_seed(result),
        *common.members_table({"refitted": result.members}, "Every refitted SAE on the fitted domain"),
        stress_panels.statistics_table(result, _words),
    ]


def _drops(result: Operands) -> panels.Intervals:
    """What the shift costs."""
    labels = {
        "explained_variance_drop": "explained variance",
        "probe_accuracy_drop": "probe on latents",
        "probe_accuracy_drop_excess": "... beyond the raw probe",
    }
    rows = [row for name, label in labels.items() for row in common.interval_row(label, result.statistics.get(name))]
    sizes = ", ".join(f"{DOMAINS.get(name, name)} {count}" for name, count in result.rows.items())
    return panels.Intervals(
        title="What the shift costs",
        note=(
            f"Fitted on first operands below {result.threshold} of {result.p}, shifted from there on; pairs: {sizes}. "
            "Fitted: pairs of that domain held out from fitting. Unmirrored: both operands are shifted."
        ),
        rows=rows,
        references=[panels.Reference(label="no loss", value=0.0)],
        x_label="drop",
    )


def _levels(result: Operands) -> panels.Intervals:
    """Figures inside and outside the fitted domain, with their seeds."""
    rows = []
    measured = {"explained_variance": result.explained_variance, "probe_accuracy": result.probe_accuracy}
    for figure, seeds in measured.items():
        for domain in ("id", "ood"):
            values = [getattr(figures, domain) for figures in seeds]
            points = [(f"seed {seed}", value) for seed, value in zip(result.seeds, values, strict=False)]
            label = f"{NAMES[figure]}, {DOMAINS[domain]}"
            rows += common.interval_row(label, result.statistics.get(f"{figure}_{domain}"), points)
    for label, domains in _without_seeds(result).items():
        for domain in ("id", "ood"):
            rows += common.interval_row(f"{label}, {DOMAINS[domain]}", common.value_only(getattr(domains, domain)))
    return panels.Intervals(
        title="Inside and outside the fitted domain",
        note="A point is a seed. The raw probe and the network have no seed, so they have no interval.",
        rows=rows,
        x_label="share of variance, or accuracy",
    )


def _without_seeds(result: Operands) -> dict[str, Domains]:
    """What no seed stands behind."""
    figures = {"raw probe": result.raw_probe_accuracy, "network": result.transformer_accuracy}
    return {label: domains for label, domains in figures.items() if domains is not None}


def _per_seed(result: Operands) -> panels.Table:
    """Every figure in every domain, by seed."""
    columns = [
        panels.Column(label="seed"),
        *(panels.Column(label=f"EV {d}", format="number", digits=4) for d in SHORT.values()),
        *(panels.Column(label=f"probe {d}", format="number", digits=4) for d in SHORT.values()),
    ]
    measured = zip(result.seeds, result.explained_variance, result.probe_accuracy, strict=False)
    rows: list[list[panels.Cell]] = [
        [f"{seed}", *(common.finite(getattr(f, domain)) for f in figures for domain in DOMAINS)]
        for seed, *figures in measured
    ]
    for label, accuracy in _without_seeds(result).items():
        rows.append([label, *[None] * len(DOMAINS), *(getattr(accuracy, domain) for domain in DOMAINS)])
    note = (
        "EV: explained variance; probe: accuracy of a probe for the answer; fit: held-out pairs of the fitted domain; "
        "shift: pairs of the other; both: both operands are shifted. Below: raw activations, and the network itself."
    )
    return panels.Table(title="Every domain, by seed", note=note, folded=True, columns=columns, rows=rows)


def _words(name: str) -> tuple[str, str]:
    """A statistic's measure and figure in words."""
    measure = max((known for known in NAMES if name.startswith(known)), key=len, default=name)
    return NAMES.get(measure, name.replace("_", " ")), ENDS.get(name.rpartition("_")[2], "")


def estimate(spec: OperandsSpec, facts: Facts) -> Work:
    """SAEs on the lower half of the pairs, their figures on all of them, and the probes."""
    siblings, pairs = work.Siblings.of(spec.recipe, facts), work.modular_pairs(facts)
    network, width = work.Network.of(work.first(facts, "transformer")), siblings.recipe.d_sae
    probes = work.Cost(
        siblings.seeds * (pairs / 2 * width**2 + pairs * width * pairs**0.5) + width**3,
        2 * work.FLOAT * pairs * (width + pairs**0.5),
    )
    again = 1 + siblings.halves
    cost = siblings.training(1, spec.validation_fraction * pairs / 2) + siblings.measured(2 * again, pairs)
    cost += work.Cost(again * probes.units, probes.memory)
    cost += work.Cost(network.forward(pairs * work.LENGTH, pairs), network.held(8192, 4))
    cost += siblings.recipe_check(work.split_rows(work.first(facts, "activations"), "test"))
    return cost.work(work.result_bytes(siblings.seeds), base=4 * siblings.rows_bytes(pairs))
