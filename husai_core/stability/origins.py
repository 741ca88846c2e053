"""What the `cfg.json` of SAEs, and of what is bound beside them, already rule out: before any weights are read.

Imported SAEs are the ones that go wrong: their user has to say what their files do not. Light: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from husai_core.errors import UserError
from husai_core.models import hooks
from husai_core.saes.layout import ARCHITECTURES, SELECTING, SIGNED, THRESHOLDED
from husai_core.saes.recipe import SAERecipe, unsaid

Cfg = Mapping[str, Any]
PLACE = ("hook_name", "position")
SHAPE = ("architecture", "d_in", "d_sae", "k", "apply_b_dec_to_input")
LEAST_RETRAINED = 2
UNTOLD = {"measure_half"}
"""Fields of a recipe that do not change the SAE that it makes."""
UNKNOWN = "unknown"
IMPORT_AGAIN = "import them again with `husai import FILE --hook-name HOOK --set position=POSITION`"
PLACE_UNKNOWN = f"the imported SAEs do not say at which hook_name and position they read; {IMPORT_AGAIN}"


def check_siblings(saes: Sequence[Cfg], recipe: SAERecipe | None) -> None:
    """Refuse SAEs that cannot be siblings, and a recipe that nothing says, not needed, or not theirs.

    Raises:
        UserError: what is wrong, and what to do.
    """
    if _are_imported(saes):
        _check_imported(saes, recipe)
    elif recipe:
        raise UserError("recipe is for imported SAEs; these say how they were trained")


def check_retrained(saes: Sequence[Cfg], retrained: Sequence[Cfg], recipe: SAERecipe | None) -> None:
    """Refuse SAEs that were not trained here by the recipe that is claimed of imported ones, at the hook of these.

    Of SAEs that do not exist yet, not everything is known; what is not is no reason to refuse.

    Args:
        saes: the imported SAEs.
        retrained: those that are said to be trained here.
        recipe: what the user says of the imported ones; None: what their files claim.

    Raises:
        UserError: what does not fit.
    """
    if not _are_imported(saes):
        raise UserError("retrained is for imported SAEs; these were trained here")
    if _are_imported(retrained):
        raise UserError("retrained takes SAEs that train.sae made here, and these were imported")
    if len(retrained) < LEAST_RETRAINED:
        raise UserError(f"retrained takes at least {LEAST_RETRAINED} SAEs of different seeds, not {len(retrained)}")
    expected = (recipe or claimed(saes)).model_dump(exclude=UNTOLD)
    for place, sae in enumerate(retrained):
        said = sae.get("husai", {})
        if "recipe" in said:
            trained_by = SAERecipe.model_validate(said["recipe"]).model_dump(exclude=UNTOLD)
            _agree(f"retrained number {place}", trained_by, expected, "the claimed recipe has", list(expected))
        _agree(f"retrained number {place}", sae, saes[0], "the imported SAEs have", ["d_in"])
        _agree(f"retrained number {place}", said, saes[0]["husai"], "the imported SAEs have", PLACE)


def _agree(who: str, facts: Cfg, expected: Cfg, whose: str, names: Sequence[str]) -> None:
    for name in names:
        value, wanted = facts.get(name), expected.get(name)
        known = name not in PLACE or UNKNOWN not in (value or UNKNOWN, wanted or UNKNOWN)
        if name in facts and known and value != wanted:
            raise UserError(f"{who} has {name} {value}, but {whose} {wanted}")


def known_claim(saes: Sequence[Cfg]) -> SAERecipe | None:
    """The recipe that the files of imported SAEs claim; None where there is none that could have made them, or no need
    of one."""
    try:
        check_siblings(saes, None)
        return claimed(saes) if _are_imported(saes) else None
    except UserError:
        return None


def check_alike(saes: Sequence[Cfg]) -> None:
    """Refuse SAEs that cannot be siblings, whatever is known of their recipe.

    Raises:
        UserError: what is wrong.
    """
    if _are_imported(saes):
        check_equal(saes, SHAPE)
        check_equal([sae["husai"] for sae in saes], PLACE)


def _are_imported(saes: Sequence[Cfg]) -> bool:
    """Whether all SAEs were imported; refuses transcoders, and imported ones among others."""
    for place, sae in enumerate(saes):
        if ARCHITECTURES.get(sae.get("architecture", ""), ("", False))[1]:
            raise UserError(f"SAE number {place} is a transcoder; stresses start from SAEs")
    imported = [bool(sae.get("husai", {}).get("imported")) for sae in saes]
    if any(imported) and not all(imported):
        raise UserError(f"SAE number {imported.index(True)} was imported, others were trained here: no siblings")
    return any(imported)


def _check_imported(saes: Sequence[Cfg], recipe: SAERecipe | None) -> None:
    recipe = recipe or claimed(saes)
    if any(sae["architecture"] == SIGNED for sae in saes):
        raise UserError("the SAEs keep negative latents, as no recipe makes them")
    check_equal(saes, SHAPE)
    check_equal([sae["husai"] for sae in saes], PLACE)
    architecture = ARCHITECTURES[saes[0]["architecture"]][0]
    saved = "jumprelu" if recipe.architecture in THRESHOLDED else recipe.architecture
    check_made(saved, recipe, {**saes[0], "architecture": architecture}, ("k",) if saved in SELECTING else ())


def claimed(saes: Sequence[Cfg]) -> SAERecipe:
    """The recipe that the files of all these imported SAEs claim.

    Raises:
        UserError: they say too little, or different things.
    """
    claims = [{name: sae["husai"].get(f"claimed_{name}") for name in ("recipe", "step")} for sae in saes]
    fields = claims[0]["recipe"] or {}
    if lacking := unsaid(fields):
        reason = f"do not say {', '.join(lacking)}"
    elif any(claim != claims[0] for claim in claims):
        reason = "say different things"
    else:
        return SAERecipe.model_validate(fields)
    raise UserError(
        f"the files of the imported SAEs {reason} of their training; set recipe to what is known of it, with the "
        "fields of train.sae's recipe (architecture, d_sae, k, tokens, lr, ...); husai check: --recipe FILE"
    )


def check_made(saved: str, recipe: SAERecipe, shape: Cfg, names: Sequence[str]) -> None:
    """Refuse a recipe that makes SAEs of another architecture, other `d_sae`, or other fields in `names`.

    Args:
        saved: the architecture of the checkpoints that the recipe makes.
        recipe: what is said to have made the SAEs.
        shape: what the SAEs are.
        names: fields of both to compare besides.

    Raises:
        UserError: the first field that differs.
    """
    expected = {"architecture": saved} | {name: getattr(recipe, name) for name in ("d_sae", *names)}
    for name, value in expected.items():
        if shape.get(name) != value:
            raise UserError(
                f"a recipe with {name} {value} does not make the SAEs, whose {name} is {shape.get(name)}; mend recipe"
            )


def check_equal(facts: Sequence[Cfg], names: Sequence[str]) -> None:
    """Refuse SAEs that differ in some facts.

    Raises:
        UserError: the first fact that is not one for all.
    """
    for name in names:
        if any(fact.get(name) != facts[0].get(name) for fact in facts):
            raise UserError(f"the SAEs differ in more than their seed: they do not have one {name}")


def check_rows(sae: Cfg, rows: Cfg) -> None:
    """Refuse rows that an imported SAE does not fit: of another width, hook or position.

    Raises:
        UserError: what does not fit.
    """
    check_width(sae["d_in"], rows.get("d_model"))
    for name in PLACE:
        read_at, taken_at = sae["husai"].get(name) or UNKNOWN, rows.get(name) or UNKNOWN
        if UNKNOWN not in (read_at, taken_at) and read_at != taken_at:
            option = "--hook-name" if name == "hook_name" else "--set position="
            raise UserError(
                f"the SAEs read {name} {read_at!r}, but the activations are of {taken_at!r}; if the SAEs' is wrong, "
                f"`husai import` sets it with {option}"
            )


def check_network(sae: Cfg, network: Cfg) -> None:
    """Refuse a network that an imported SAE does not fit: the SAE names no hook of it, or one of another width.

    On a network for addition the SAE must say at which position it reads, too. On a language model the rows beside say
    where it reads, if it does not.

    Raises:
        UserError: what does not fit.
    """
    hook_name, position = (sae["husai"].get(name) or UNKNOWN for name in PLACE)
    if hooks.is_for_addition(network) and UNKNOWN in (hook_name, position):
        raise UserError(PLACE_UNKNOWN)
    if hook_name == UNKNOWN:
        return
    try:
        hooks.check([hook_name], network)
    except UserError as error:
        raise UserError(f"{error}. The SAEs were imported with it: {IMPORT_AGAIN}") from None
    check_width(sae["d_in"], hooks.width(hook_name, network))


def check_reading(sae: Cfg, hook_name: str | None, network: Cfg) -> None:
    """Refuse an SAE that nothing says the hook of, and a network that is known to lack it, or to be of another width.

    Args:
        sae: its `cfg.json`.
        hook_name: where it is said to read, if its file does not say it.
        network: its `cfg.json` or `config.json`; empty where it is not known.

    Raises:
        UserError: what does not fit.
    """
    hook_name = hook_name or sae.get("husai", {}).get("hook_name") or UNKNOWN
    if hook_name == UNKNOWN:
        raise UserError("nothing says at which hook the SAEs read; set hook_name (husai check: --hook-name HOOK)")
    hooks.check([hook_name], network)
    check_width(sae["d_in"], hooks.width(hook_name, network))


def check_width(read: int, width: int | None) -> None:
    """Refuse rows of another width than SAEs read, where both are known.

    Raises:
        UserError: they differ.
    """
    if width is not None and read != width:
        raise UserError(f"the SAEs read rows of width {read}, but these have width {width}")
