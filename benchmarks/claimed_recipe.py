"""How often SAEs of an honest recipe agree with those trained here by it, and how often those of an understated one do.

Rows are those of the built-in language model. All SAEs are trained by the recipe that is true; the recipe that is
claimed has the same or fewer tokens. Groups of seeds share no SAE within a comparison, and comparisons share SAEs.
"""

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path

from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from husai_core.activations.store import load  # noqa: E402
from husai_core.evidence import RecipeCheck  # noqa: E402
from husai_core.kinds.common.check_retraining import BESIDE_ONE, LEAST  # noqa: E402
from husai_core.local_job import run  # noqa: E402
from husai_core.saes.recipe import SAERecipe  # noqa: E402
from husai_core.saes.sae import SAE  # noqa: E402
from husai_core.saes.trainer import train  # noqa: E402
from husai_core.stability import agreement  # noqa: E402


def main() -> None:
    """Print the table."""
    args = _arguments()
    rows = _rows(args)
    honest = SAERecipe(d_sae=args.d_sae, k=args.k, tokens=args.tokens, lr=args.lr, measure_half=False)
    imported = _train(honest, rows, range(args.groups * args.most))
    print("| claimed tokens | imported SAEs | agree | differ | undecided | explained variance | PWMCC |")
    print("|---|---|---|---|---|---|---|")
    for share in args.shares:
        claimed = honest.model_copy(update={"tokens": int(share * args.tokens)})
        retrained = _train(claimed, rows, range(1000, 1000 + args.groups * args.most))
        for count in args.counts:
            needed = BESIDE_ONE if count == 1 else max(LEAST, count)
            pairs = product(_groups(imported, count, args), _groups(retrained, needed, args))
            checks = [agreement.check(there, here, [], rows["test"]) for there, here in pairs]
            print(_line(share, count, checks), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hook", default="blocks.1.hook_resid_post")
    parser.add_argument("--max-rows", type=int, default=60_000)
    parser.add_argument("--d-sae", type=int, default=128)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1_200_000)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--shares", type=float, nargs="+", default=[1, 0.5, 0.25, 0.1])
    args = parser.parse_args()
    args.most = max(4, *args.counts)
    return args


def _rows(args: argparse.Namespace) -> dict[str, Tensor]:
    """The rows of each split."""
    with tempfile.TemporaryDirectory() as folder:
        spec = {"source": "language", "model": "classics-2m", "hook_name": args.hook, "max_rows": args.max_rows}
        stored = load(run("train.activations", spec, folder=folder, quiet=True).paths["activations"][0])
        return {split: stored.part(split)[:].clone() for split in ("train", "validation", "test")}


def _train(recipe: SAERecipe, rows: dict[str, Tensor], seeds: range) -> list[SAE]:
    return list(train(recipe, rows["train"], list(seeds), validation=rows["validation"]))


def _groups(saes: list[SAE], count: int, args: argparse.Namespace) -> list[list[SAE]]:
    """Disjoint groups of some SAEs."""
    return [saes[args.most * place : args.most * place + count] for place in range(args.groups)]


def _line(share: float, count: int, checks: list[RecipeCheck]) -> str:
    answers = [check.agrees for check in checks]
    shares = " | ".join(f"{answers.count(answer)} of {len(answers)}" for answer in ("yes", "no", "unknown"))
    figures = " | ".join(_figure(name, checks) for name in ("explained_variance", "pwmcc"))
    return f"| {share:g} | {count} | {shares} | {figures} |"


def _figure(name: str, checks: list[RecipeCheck]) -> str:
    """The mean difference and the mean half width of its interval."""
    differences = [check.figures[name].difference for check in checks]
    value = sum(difference.value for difference in differences) / len(differences)
    width = sum((difference.high - difference.low) / 2 for difference in differences) / len(differences)
    return f"{value:+.4f} ± {width:.4f}"


if __name__ == "__main__":
    main()
