"""TorchInt8 training steps of our engine and of its peers, in turn in one process: ratios with their spread.

Run it with a Python that has the peers: `make bench-peers` makes one in `.venv-peers`. Every round takes one step of
each contestant on the same rows; a ratio is of CPU time within one round, the table shows the median and quartiles.
Ours has exact selection and fp32 gradients in both forms: plain torch, and the compiled kernels.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait must not count as CPU time

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from peers import steps  # noqa: E402

from husai_core.saes.bank import Bank  # noqa: E402
from husai_core.saes.recipe import SAERecipe  # noqa: E402

BATCHES = 4


@dataclass(frozen=True)
class Shape:
    """What is trained; `seeds` members at once in our bank."""

    architecture: str
    d: int
    d_sae: int
    k: int
    batch: int
    seeds: int = 1

    def __str__(self) -> str:
        members = f", bank of {self.seeds}" if self.seeds > 1 else ""
        return f"{self.architecture} d={self.d} d_sae={self.d_sae} k={self.k} batch={self.batch}{members}"


SHAPES = {
    "small": Shape("topk", 512, 4096, 32, 4096),
    "large": Shape("topk", 512, 16384, 32, 4096),
    "batchtopk": Shape("batchtopk", 512, 4096, 32, 4096),
    "matryoshka": Shape("matryoshka", 512, 4096, 32, 4096),
    "bank": Shape("topk", 128, 1024, 16, 1024, seeds=8),
}


def world(shape: Shape) -> torch.Tensor:
    """Rows in superposition: eight of 4 d directions each, mean norm about √d."""
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(4 * shape.d, shape.d), dim=1)
    chosen = torch.randint(4 * shape.d, (BATCHES * shape.batch, 8))
    weights = torch.rand(len(chosen), 8, 1) * (shape.d / 8) ** 0.5 * 1.7
    return (directions[chosen] * weights).sum(1)


def ours(kernels: str, shape: Shape, rows: torch.Tensor) -> Callable[[int], None]:
    """A step of our bank on batch number i."""
    os.environ["HUSAI_KERNELS"] = kernels
    recipe = SAERecipe(
        architecture=shape.architecture,
        d_sae=shape.d_sae,
        k=shape.k,
        batch_size=shape.batch,
        tokens=steps.STEPS * shape.batch,
        dead_after_tokens=10_000_000,
        lr=3e-4,
        order_seed=0,
    )
    bank = Bank([recipe], range(shape.seeds), rows, None, "cpu")
    found = bank.stacks[0].kernels.name
    if kernels == "auto" and not found.startswith("cpp"):
        raise SystemExit("there is no compiler here, so the compiled kernels cannot be timed")
    return lambda i: bank.advance(torch.arange(i * shape.batch, (i + 1) * shape.batch)[None])


def each(members: list[steps.Step], shape: Shape, rows: torch.Tensor) -> Callable[[int], None]:
    """A step of all of a peer's SAEs on batch number i."""

    def step(i: int) -> None:
        for member in members:
            member(rows[i * shape.batch : (i + 1) * shape.batch])

    return step


def contestants(shape: Shape, rows: torch.Tensor) -> dict[str, Callable[[int], None]]:
    """The peers that have this architecture, and ours; a peer trains its seeds one after another."""

    def peer(make: Callable[[], steps.Step]) -> Callable[[int], None]:
        return each([make() for _ in range(shape.seeds)], shape, rows)

    size = (shape.d, shape.d_sae, shape.k)
    found = {"SAELens": peer(lambda: steps.saelens(shape.architecture, *size, shape.batch))}
    if shape.architecture == "topk":
        found["dictionary_learning"] = peer(lambda: steps.dictionary_learning(*size))
        found["sparsify (Adam)"] = peer(lambda: steps.sparsify(*size))
    return found | {"ours, torch": ours("torch", shape, rows), "ours, compiled": ours("auto", shape, rows)}


def encoder_seconds(shape: Shape, rows: torch.Tensor) -> float:
    """CPU seconds of the one matrix product that cannot be avoided, in the pieces in which it is fastest here."""
    weights = torch.randn(shape.seeds * shape.d_sae, shape.d)
    out = torch.empty(512, len(weights))

    def product() -> float:
        start = time.process_time()
        for part in rows[: shape.batch].split(512):
            torch.mm(part, weights.T, out=out[: len(part)])
        return time.process_time() - start

    return min(product() for _ in range(5))


def compare(shape: Shape, rounds: int) -> None:
    """Time all contestants in turn and print the table."""
    rows = world(shape)
    running = contestants(shape, rows)
    cpu: dict[str, list[float]] = {name: [] for name in running}
    wall: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(rounds + 2):
        for name, step in running.items():
            start, started = time.process_time(), time.perf_counter()
            step(turn % BATCHES)
            if turn >= 2:
                cpu[name].append(time.process_time() - start)
                wall[name].append(time.perf_counter() - started)
    floor = encoder_seconds(shape, rows)
    print(f"\n{shape}; {rounds} rounds, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    print(f"{'':22}{'CPU ms':>9}{'wall ms':>9}{'GEMM share':>12}   CPU time of SAELens and sparsify / ours (quartiles)")
    for name in running:
        share = floor / statistics.median(cpu[name])
        print(
            f"{name:22}{1e3 * statistics.median(cpu[name]):9.1f}{1e3 * statistics.median(wall[name]):9.1f}"
            f"{share:12.0%}   {ratio(cpu, 'SAELens', name)}  {ratio(cpu, 'sparsify (Adam)', name)}"
        )


def ratio(times: dict[str, list[float]], peer: str, name: str) -> str:
    """Median and quartiles of the peer's time over ours, round by round."""
    if peer not in times or name == peer:
        return f"{'':20}"
    ratios = [theirs / own for theirs, own in zip(times[peer], times[name], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:5.2f}× ({low:.2f}–{high:.2f})"


def main() -> None:
    """Compare the shapes that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help="all if none is named")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.shapes or SHAPES:
        compare(SHAPES[name], given.rounds)


if __name__ == "__main__":
    main()
