"""The evidence panels of a report: each stage's result as one sentence, figures and tables.

Results are read as plain JSON and nothing in them is taken for granted: a stage that has not succeeded becomes a panel
that says so, and a figure whose numbers are missing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api import svg
from api.report_data import Json, ReportData, Stage, dig, items, part, real
from api.report_figures import Figure, Table, bars, curve_of, dots, error_curve, heat, interval, lines, row
from api.svg import Series, number

METRICS = {
    "pwmcc": "PWMCC: symmetrised mean of maximum |cos|",
    "pwmcc_alive": "PWMCC, alive features only",
    "mmcs_signed": "MMCS: mean of maximum cos, over both directions",
    "mmcs_signed_alive": "MMCS, alive features only",
    "shared_fraction_0_7": "Shared fraction: best |cos| above 0.7",
    "shared_fraction_0_7_alive": "Shared fraction, alive features only",
    "pw_mcc": "PW-MCC: one-to-one assignment (Song et al. 2025)",
    "pw_mcc_alive": "PW-MCC, alive features only",
    "activation_mcc": "Activation MCC: mean of maximum correlation of latents",
    "activation_mcc_alive": "Activation MCC, alive features only",
    "activation_pw_mcc": "Activation PW-MCC: the same, one-to-one",
    "activation_pw_mcc_alive": "Activation PW-MCC, alive features only",
}
NULLS = {
    "": "observed",
    "_gaussian_null": "Gaussian null",
    "_shuffled_null": "shuffled control",
    "_covariance_null": "covariance control",
    "_excess": "excess",
}
MEMBER = ["seed", "explained variance", "normalised MSE", "L0", "dead", "drift from init", "converged"]
DOMAINS = {"id": "fitted", "ood": "shifted", "unmirrored": "unmirrored"}
DROPS = {
    "explained_variance_drop": "explained variance",
    "probe_accuracy_drop": "feature probe",
    "probe_accuracy_drop_excess": "… beyond raw probe",
}


@dataclass(frozen=True)
class Panel:
    """One section: its finding in one sentence, then figures, tables and remarks."""

    id: str
    title: str
    finding: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


def panels(data: ReportData) -> list[Panel]:
    """Every evidence panel, in the order of the report."""
    makers = (_stability, _transformer, _saes, _ood, _transcoder, _untrained)
    return [make(data) for make in makers]


def _stability(data: ReportData) -> Panel:
    stage, untrained = data.stage("stability"), data.stage("untrained")
    result, observed = stage.result, _estimate(stage, "pwmcc")
    gaussian, shuffled, covariance = (
        _estimate(stage, f"pwmcc_{null}_null") for null in ("gaussian", "shuffled", "covariance")
    )
    found = [
        row("trained", observed, points=_pairs(result)),
        row("shuffled control", shuffled, "null", _pairs(result, "controls.shuffled.matrices.pwmcc")),
        row("covariance control", covariance, "null", _pairs(result, "controls.covariance.matrices.pwmcc")),
        row(
            "untrained network",
            _estimate(untrained, "pwmcc_untrained"),
            "s1",
            _pairs(untrained.result, "untrained_pairs"),
        ),
        row("Gaussian decoders", gaussian, "null"),
    ]
    finding = (
        f"Decoders of different seeds overlap with PWMCC {interval(observed)}. Chance is "
        f"{number(real(gaussian.get('value')))} for Gaussian decoders, {number(real(shuffled.get('value')))} for the "
        f"same training on shuffled activations and {number(real(covariance.get('value')))} for it on Gaussian rows of "
        f"the same covariance; the excess over the largest is "
        f"{interval(_estimate(stage, 'pwmcc_excess'))}."
    )
    chance, drift = real(gaussian.get("value")) or 0.0, _by_seed(stage, "drift_from_init")
    label = "mean |cos| of final with initial decoder"
    figures = [
        heat(_matrix(result), _seeds(result), "PWMCC of every pair of seeds", chance),
        dots(found, "Overlap against its chance levels", "PWMCC", include=(0, 1)),
        bars("Drift from initialisation", label, drift, "1 means that training moved nothing."),
    ]
    notes = [
        "Each point below an interval is one pair of seeds. Intervals take seeds, not pairs, as the unit.",
        "The measures differ in meaning and in chance level: compare within a row only. For activation-matched ones "
        "the Gaussian null is of untrained SAEs on the same rows.",
    ]
    return _panel("stability", "Stability across seeds", stage, finding, figures, [_overlap_table(stage)], notes)


def _transformer(data: ReportData) -> Panel:
    stage = data.stage("transformer")
    result = stage.result
    curve = items(result.get("curve"))
    leak = part(result, "leak")
    chance = real(leak.get("chance"))
    names = {"train_loss": "training", "validation_loss": "held out"}
    losses = [Series(name, curve_of(curve, "step", key), f"s{i}") for i, (key, name) in enumerate(names.items())]
    kinds = {"train_accuracy": "training", "validation_accuracy": "held out"}
    accuracies = [Series(name, curve_of(curve, "step", key), f"s{i}") for i, (key, name) in enumerate(kinds.items())]
    figures = [
        lines(losses, "Loss", "step", "cross-entropy", log_x=True, log_y=True),
        lines(accuracies, "Accuracy", "step", "accuracy", log_x=True, references=_chance(chance)),
        _leak_test(leak, chance),
    ]
    passed = {True: "passes", False: "fails"}.get(bool(leak.get("passed")), "") if leak else "has no result"
    finding = (
        f"Accuracy on test pairs is {number(real(result.get('test_accuracy')), 4)}. The leak test {passed}: with "
        f"random operands, accuracy is {number(real(leak.get('operand_randomised_accuracy')), 4)} "
        f"(chance {number(chance, 4)})."
    )
    step = real(result.get("grokking_step"))
    notes = [] if step is None else [f"Held-out accuracy first reached 0.95 at step {number(step, 0)}."]
    if result.get("leaks_label"):
        notes.append("The input of this network shows the answer (leaks_label); its features may be copies of it.")
    return _panel("transformer", "The transformer", stage, finding, figures, notes=notes)


def _leak_test(leak: Json, chance: float | None) -> Figure | None:
    names = {"accuracy": "unchanged", "operand_randomised_accuracy": "random operands"}
    names["answer_randomised_accuracy"] = "random answer token"
    found = [(name, real(leak.get(key))) for key, name in names.items()]
    shown = [(name, value, "s0" if name == "unchanged" else "s1") for name, value in found if value is not None]
    if not shown:
        return None
    title = "Leak test: accuracy when parts of the input are replaced"
    plot = svg.bars(shown, title, high=1, x_label="accuracy", references=_chance(chance))
    note = "A network that adds needs its operands and does not look at the answer token."
    return Figure(plot, title, Table(["input", "accuracy"], [[n, number(v, 4)] for n, v, _ in shown]), note)


def _saes(data: ReportData) -> Panel:
    stage = data.stage("sae")
    members = _members(stage)
    curves = items(stage.result.get("curves"))
    seeds = [str(m.get("seed")) for m in members]
    series = [Series("one line per seed", error_curve(curves, i), "thin s0") for i in range(len(members))]
    figures = [lines(series, "Held-out error during training", "tokens", "normalised MSE", log_y=True, names=seeds)]
    variance = _by_seed(stage, "explained_variance")
    figures.append(bars("Explained variance on test rows", "share of the variance", variance))
    table = Table(MEMBER, [_member(m) for m in members], "Every member, on rows neither trained on nor selected on")
    done = sum(bool(m.get("converged")) for m in members)
    values = [v for _, v in variance]
    spread = f" between {number(min(values))} and {number(max(values))}" if values else " unknown"
    finding = f"{done} of {len(members)} seeds converged; explained variance on test rows is{spread}."
    notes = ["Converged: after a fall, the held-out error changed by less than 1 % over the last 10 % of the tokens."]
    source = data.stage("activations").result
    if source:
        rows, width, rank = (real(source.get(key)) for key in ("n_rows", "d_model", "effective_rank"))
        notes.append(
            f"Activations: {number(rows, 0)} rows of width {number(width, 0)}, effective rank {number(rank, 1)}."
        )
    return _panel("saes", "The sparse autoencoders", stage, finding, figures, [table], notes)


def _ood(data: ReportData) -> Panel:
    stage = data.stage("ood")
    drop, probes = _estimate(stage, "explained_variance_drop"), _estimate(stage, "probe_accuracy_drop_excess")
    finding = (
        f"From held-out pairs of the fitted domain to the shifted one, explained variance drops by {interval(drop)}; "
        f"probes on the features lose {interval(probes)} more accuracy than a probe on the raw activations."
    )
    names = {"id": ("fitted", "s0"), "ood": ("shifted", "s1")}
    measured = [
        row(f"{name}, {domain}", _estimate(stage, f"{key}_{which}"), style, _domain(stage, key, which))
        for key, name in (("explained_variance", "EV"), ("probe_accuracy", "feature probe"))
        for which, (domain, style) in names.items()
    ]
    measured += [
        row(f"{name}, {domain}", {"value": dig(stage.result, f"{key}.{which}")}, style)
        for key, name in (("raw_probe_accuracy", "raw probe"), ("transformer_accuracy", "network"))
        for which, (domain, style) in names.items()
    ]
    drops = [row(name, _estimate(stage, key)) for key, name in DROPS.items()]
    figures = [
        dots(measured, "Inside and outside the fitted domain", "share of variance, or accuracy", include=(0, 1)),
        dots(drops, "What the shift costs", "drop", [(0, "0")]),
    ]
    limit, rows = stage.result.get("threshold"), part(stage.result, "rows")
    sizes = ", ".join(f"{name} {count}" for name, count in rows.items())
    notes = (
        [f"Fitted on first operands below {limit}, shifted from there on; pairs: {sizes}."] if limit is not None else []
    )
    notes.append(
        "Points are seeds. Fitted: pairs of that domain held out from fitting. Unmirrored: both operands are shifted."
    )
    return _panel("ood", "Under a shift of the domain", stage, finding, figures, [_domain_table(stage)], notes)


def _domain(stage: Stage, key: str, which: str) -> list[tuple[str, float]]:
    """A figure in one domain by seed."""
    found = [
        (seed, real(item.get(which)))
        for seed, item in zip(_all_seeds(stage), items(stage.result.get(key)), strict=False)
    ]
    return [(f"seed {seed}", value) for seed, value in found if value is not None]


def _domain_table(stage: Stage) -> Table:
    head, rows = ["", *(f"{name}, {domain}" for name in ("EV", "probe") for domain in DOMAINS.values())], []
    explained, probes = (items(stage.result.get(key)) for key in ("explained_variance", "probe_accuracy"))
    for seed, *measured in zip(_all_seeds(stage), explained, probes, strict=False):
        rows.append([f"seed {seed}", *(number(real(one.get(which)), 4) for one in measured for which in DOMAINS)])
    for key, name in (("raw_probe_accuracy", "raw activations"), ("transformer_accuracy", "the network itself")):
        if found := part(stage.result, key):
            rows.append([name, "–", "–", "–", *(number(real(found.get(which)), 4) for which in DOMAINS)])
    return Table(head, rows, "Explained variance, and accuracy of probes for the answer")


def _transcoder(data: ReportData) -> Panel:
    stage = data.stage("transcoder")
    sae, other = _estimate(stage, "sae_excess"), _estimate(stage, "transcoder_excess")
    difference = _estimate(stage, "sae_minus_transcoder")
    finding = (
        f"Above the larger of its shuffled and Gaussian chance levels the SAE overlaps by {interval(sae)}, a "
        f"transcoder on the same inputs by {interval(other)}. Taken over one and the same of these levels, the "
        f"difference is at least {interval(difference)}."
    )
    overlaps = []
    for arm, name, style in (("sae", "SAE", "s0"), ("transcoder", "transcoder", "s1")):
        overlaps.append(row(name, _estimate(stage, f"{arm}_pwmcc"), style, _pairs(stage.result, f"{arm}.pairs")))
        shuffled = _pairs(stage.result, f"{arm}.control_pairs")
        overlaps.append(row(f"{name}, shuffled", _estimate(stage, f"{arm}_pwmcc_shuffled_null"), "null", shuffled))
        overlaps.append(row(f"{name}, Gaussian", _estimate(stage, f"{arm}_pwmcc_gaussian_null"), "null"))
    excess = [row("SAE", sae), row("transcoder", other, "s1"), row("SAE − transcoder", difference, "s2")]
    figures = [
        dots(overlaps, "Overlap, each beside its own nulls", "PWMCC", include=(0, 1)),
        dots(excess, "Excess over the larger null", "PWMCC above chance", [(0, "0")]),
    ]
    hooks = [stage.result.get(key) for key in ("input_hook", "output_hook")]
    notes = [f"Transcoders map {hooks[0]} to {hooks[1]}; the SAEs here reconstruct {hooks[0]}."] if all(hooks) else []
    return _panel("transcoder", "Against a transcoder", stage, finding, figures, [_arms(stage)], notes)


def _arms(stage: Stage) -> Table:
    rows = [
        [f"{name}, seed {cells[0]}", *cells[1:]]
        for key, name in (("sae", "SAE"), ("transcoder", "transcoder"))
        for cells in map(_member, items(dig(stage.result, f"{key}.members")))
    ]
    return Table(["", *MEMBER[1:]], rows, "Both groups on test rows")


def _untrained(data: ReportData) -> Panel:
    stage = data.stage("untrained")
    trained, untrained = _estimate(stage, "pwmcc_trained"), _estimate(stage, "pwmcc_untrained")
    difference = _estimate(stage, "trained_minus_untrained")
    finding = (
        f"The same recipe gives PWMCC {interval(trained)} on the trained network and {interval(untrained)} on one "
        f"with random weights: a difference of {interval(difference)}."
    )
    overlaps = [
        row("trained", trained, points=_pairs(stage.result)),
        row("untrained", untrained, "s1", _pairs(stage.result, "untrained_pairs")),
        row("Gaussian decoders", _estimate(stage, "pwmcc_gaussian_null"), "null"),
    ]
    names = [name for name in METRICS if _estimate(stage, f"{name}_trained")]
    differences = [
        row(METRICS[name].split(":")[0].removesuffix(" features only"), _difference(stage, name)) for name in names
    ]
    figures = [
        dots(overlaps, "Overlap on both networks", "PWMCC", include=(0, 1)),
        dots(differences, "Trained minus untrained", "difference", [(0, "0")]),
    ]
    rows = [
        [
            METRICS[name],
            *(interval(_estimate(stage, f"{name}_{which}"), "\n") for which in ("trained", "untrained")),
            interval(_difference(stage, name), "\n"),
        ]
        for name in names
    ]
    ranks = [number(real(stage.result.get(key)), 1) for key in ("effective_rank", "untrained_effective_rank")]
    notes = [
        f"Effective rank of the activations: {ranks[0]} trained, {ranks[1]} untrained. One untrained network is drawn, "
        "so the intervals cover the seeds of the SAEs and not the draw of the network."
    ]
    table = Table(["measure", "trained", "untrained", "difference"], rows)
    return _panel("untrained", "On an untrained network", stage, finding, figures, [table], notes)


def _difference(stage: Stage, metric: str) -> Json:
    return _estimate(stage, "trained_minus_untrained" if metric == "pwmcc" else f"{metric}_trained_minus_untrained")


def _panel(
    id: str,
    title: str,
    stage: Stage,
    finding: str,
    figures: Sequence[Figure | None],
    tables: Sequence[Table] = (),
    notes: Sequence[str] = (),
) -> Panel:
    """A stage's panel; its state in words unless it has a result."""
    if not stage.result:
        return Panel(id, title, absence(stage))
    return Panel(id, title, finding, [f for f in figures if f], [table for table in tables if table.rows], notes)


def absence(stage: Stage) -> str:
    """Why a stage has nothing to show, in words."""
    states = {
        "not planned": "This stage is not part of the pipeline, or has not been planned yet.",
        "waiting": "This stage waits for its inputs.",
        "queued": "This stage is queued.",
        "running": "This stage is running; its figures appear when it has finished.",
        "blocked": "This stage is blocked: something that it needs is missing.",
        "failed": "This stage failed.",
        "cancelled": "This stage was cancelled.",
        "timed_out": "This stage ran into its time limit.",
        "succeeded": "This stage succeeded but left no figures.",
    }
    text = states.get(stage.state, f"This stage is in state {stage.state}.")
    why = stage.detail or stage.reason
    return f"{text.rstrip('.')}: {why}" if why else text


def _estimate(stage: Stage, name: str) -> Json:
    return part(stage.result, f"statistics.{name}")


def _members(stage: Stage) -> list[Json]:
    return items(stage.result.get("members"))


def _member(m: Json) -> list[str]:
    share = real(m.get("dead_fraction"))
    return [
        str(m.get("seed", "–")),
        *(number(real(m.get(key)), 4) for key in ("explained_variance", "normalised_mse")),
        number(real(m.get("l0")), 1),
        "–" if share is None else f"{100 * share:.1f} %",
        number(real(m.get("drift_from_init"))),
        "unknown" if m.get("converged") is None else "yes" if m["converged"] else "no",
    ]


def _all_seeds(stage: Stage) -> list[str]:
    seeds = stage.result.get("seeds")
    return [str(seed) for seed in seeds] if isinstance(seeds, list) else []


def _matrix(result: Json, path: str = "pairs") -> list[list[float | None]]:
    rows = dig(result, path)
    square = isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(rows) for row in rows)
    return [[real(value) for value in row] for row in rows] if square and isinstance(rows, list) else []


def _seeds(result: Json, path: str = "pairs") -> list[str]:
    """Names of a pair matrix's rows."""
    seeds, n = result.get("seeds"), len(_matrix(result, path))
    return [str(s) for s in seeds] if isinstance(seeds, list) and len(seeds) == n else [str(i) for i in range(n)]


def _pairs(result: Json, path: str = "pairs") -> list[tuple[str, float]]:
    """The values below the diagonal of a pair matrix, with the seeds that they are of."""
    matrix, seeds = _matrix(result, path), _seeds(result, path)
    cells = [(i, j, matrix[i][j]) for i in range(len(matrix)) for j in range(i)]
    return [(f"seeds {seeds[j]} and {seeds[i]}", value) for i, j, value in cells if value is not None]


def _by_seed(stage: Stage, key: str) -> list[tuple[str, float]]:
    found = [(f"seed {member.get('seed')}", real(member.get(key))) for member in _members(stage)]
    return [(name, value) for name, value in found if value is not None]


def _chance(chance: float | None) -> list[tuple[float, str]]:
    return [] if chance is None else [(chance, f"chance {number(chance)}")]


def _overlap_table(stage: Stage) -> Table:
    """Overlap measures by row; what was observed, its nulls and the excess by column."""
    rows = [
        [METRICS[name], *(interval(_estimate(stage, name + suffix), "\n") for suffix in NULLS)]
        for name in METRICS
        if _estimate(stage, name)
    ]
    return Table(["measure", *NULLS.values()], rows, "Every overlap measure, with 95 % intervals")
