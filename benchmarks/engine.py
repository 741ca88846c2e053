"""Whole training steps of our engine, in turn with its peers' or with those of an older checkout: ratios, with spread.

    python benchmarks/engine.py                     beside the peers (`make bench-peers`)
    python benchmarks/engine.py --against CHECKOUT  beside an older checkout, and autograd beside the fast gradients;
                                                    needs no peers, exits 1 if a step is slower or autograd over 2×

Every round takes one step of each contestant on the same rows; a ratio is of CPU time within one round, and the tables
show medians and quartiles. Ours has exact selection and fp32 gradients in both forms: torch, and kernels in C++. An
older checkout runs twice, in two processes, whose ratio is the noise that any other ratio has to exceed. All processes
are started several times, since where a process's memory lies can alone make its steps a quarter slower.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import _engine_step  # noqa: E402  before torch, since it sets how threads wait
import torch  # noqa: E402
from _engine_step import AUTOGRAD, BATCHES, PEERS_HAVE, SHAPES, Shape, ours, timed, world  # noqa: E402

Step = Callable[[torch.Tensor], None]
Times = dict[str, list[float]]
WARM_UP = 2
"""Rounds that do not count."""
OLD, OLD_AGAIN, NEW = "older checkout", "older, once more", "this checkout"
BY_AUTOGRAD, WITHOUT_INT8 = f"this{AUTOGRAD}", "torch without int8"
MOST = 2.0
"""How many times the fast gradients autograd may cost."""


def each(members: list[Step], shape: Shape, rows: torch.Tensor) -> Callable[[int], None]:
    """A step of all of a peer's SAEs on batch number i."""

    def step(i: int) -> None:
        for member in members:
            member(rows[i * shape.batch : (i + 1) * shape.batch])

    return step


def contestants(shape: Shape, rows: torch.Tensor) -> dict[str, Callable[[int], None]]:
    """The peers that have this architecture, and ours; a peer trains its seeds one after another."""
    from peers import steps

    def peer(make: Callable[[], Step]) -> Callable[[int], None]:
        return each([make() for _ in range(shape.seeds)], shape, rows)

    size = (shape.d, shape.d_sae, shape.k)
    running = {"SAELens": peer(lambda: steps.saelens(shape.architecture, *size, shape.batch))}
    if shape.architecture == "topk":
        running["dictionary_learning"] = peer(lambda: steps.dictionary_learning(*size))
        running["sparsify (Adam)"] = peer(lambda: steps.sparsify(*size))
    return running | {f"ours, {name}": ours(name, shape, rows) for name in ("torch", "C++")}


def encoder_seconds(shape: Shape, rows: torch.Tensor) -> float:
    """CPU seconds of the one matrix product that cannot be avoided, in the pieces in which it is fastest here."""
    weights = torch.randn(shape.seeds * shape.d_sae, shape.d)
    out = torch.empty(512, len(weights))

    def product() -> float:
        start = time.process_time()
        for block in rows[: shape.batch].split(512):
            torch.mm(block, weights.T, out=out[: len(block)])
        return time.process_time() - start

    return min(product() for _ in range(5))


def rounds_of(contest: dict[str, Callable[[int], tuple[float, float]]], rounds: int) -> tuple[Times, Times]:
    """CPU and wall seconds of every contestant's steps; each round begins with another of them."""
    cpu: Times = {name: [] for name in contest}
    wall: Times = {name: [] for name in contest}
    names = list(contest)
    for turn in range(WARM_UP + rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds = contest[name](turn % BATCHES)
            if turn >= WARM_UP:
                cpu[name].append(seconds[0])
                wall[name].append(seconds[1])
    return cpu, wall


def heading(shape: Shape, rounds: int) -> str:
    """What was timed, and on how busy a machine."""
    return f"\n{shape}; {rounds} rounds, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"


def compare_with_peers(shape: Shape, rounds: int) -> None:
    """Time all contestants in turn in this process and print the table."""
    rows = world(shape)
    steps = contestants(shape, rows)
    cpu, wall = rounds_of({name: lambda i, step=step: timed(step, i) for name, step in steps.items()}, rounds)
    product = encoder_seconds(shape, rows)
    print(heading(shape, rounds))
    print(f"{'':22}{'CPU ms':>9}{'wall ms':>9}{'GEMM share':>12}   CPU time of SAELens and sparsify / ours (quartiles)")
    for name in steps:
        share = product / statistics.median(cpu[name])
        beside = [shown(cpu, peer, name) for peer in ("SAELens", "sparsify (Adam)")]
        print(
            f"{name:22}{1e3 * statistics.median(cpu[name]):9.1f}{1e3 * statistics.median(wall[name]):9.1f}"
            f"{share:12.0%}   {'  '.join(beside)}"
        )


def quartiles(times: Times, name: str, base: str) -> Sequence[float]:
    """Quartiles of the ratio of two contestants' times, round by round."""
    return statistics.quantiles([a / b for a, b in zip(times[name], times[base], strict=True)], n=4)


def shown(times: Times, name: str, base: str) -> str:
    """Median and quartiles; empty where there is nothing to compare."""
    if name not in times or name == base:
        return f"{'':20}"
    low, middle, high = quartiles(times, name, base)
    return f"{middle:5.2f}× ({low:.2f}–{high:.2f})"


def in_process(
    checkout: Path, name: str, implementation: str, running: ExitStack
) -> Callable[[int], tuple[float, float]]:
    """A contestant in a process of its own, in which `husai_core` is a checkout's."""
    command = [sys.executable, _engine_step.__file__, name, implementation, str(torch.get_num_threads())]
    process = running.enter_context(
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(checkout)},
        )
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asks, answers = process.stdin, process.stdout
    if answers.readline().strip() != "ready":
        raise SystemExit(f"{implementation} of {checkout} does not start")

    def step(i: int) -> tuple[float, float]:
        print(i, file=asks, flush=True)
        cpu, wall = answers.readline().split()
        return float(cpu), float(wall)

    return step


def launch(name: str, checkout: Path, implementation: str, rounds: int) -> Times:
    """CPU seconds of one implementation of both checkouts, from processes that are started for these rounds."""
    here = HERE.parent
    with ExitStack() as running:
        contest = {
            OLD: in_process(checkout, name, implementation, running),
            NEW: in_process(here, name, implementation, running),
            OLD_AGAIN: in_process(checkout, name, implementation, running),
            BY_AUTOGRAD: in_process(here, name, implementation + AUTOGRAD, running),
        }
        if implementation == "torch":
            contest[WITHOUT_INT8] = in_process(here, name, WITHOUT_INT8, running)
        return rounds_of(contest, rounds)[0]


def compare_with_checkout(name: str, checkout: Path, implementation: str, rounds: int, launches: int) -> bool:
    """Time one implementation of both checkouts, print the ratios, and say whether they are as they should be."""
    cpu: Times = {}
    for _ in range(launches):
        for row, seconds in launch(name, checkout, implementation, rounds).items():
            cpu.setdefault(row, []).extend(seconds)
    print(f"{heading(SHAPES[name], rounds)} of {launches} launches, {implementation}")
    for row, base in ((NEW, OLD), (OLD_AGAIN, OLD), (BY_AUTOGRAD, NEW), (WITHOUT_INT8, NEW)):
        if row in cpu:
            median = 1e3 * statistics.median(cpu[row])
            print(f"{row:22}{median:9.1f} CPU ms{shown(cpu, row, base):>24} of {base}", flush=True)
    low, middle, _ = quartiles(cpu, NEW, OLD)
    noise = max(quartiles(cpu, OLD_AGAIN, OLD)[2], quartiles(cpu, OLD, OLD_AGAIN)[2])
    slower = low > 1 and middle > noise
    costly = quartiles(cpu, BY_AUTOGRAD, NEW)[1] > MOST
    print("slower than the older checkout beyond the noise" if slower else "no slower beyond the noise", end="; ")
    print(f"autograd {'over' if costly else 'within'} {MOST:g}×", flush=True)
    return not slower and not costly


def main() -> None:
    """Compare the shapes that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}; all if none is named")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="folder with an older checkout")
    parser.add_argument("--implementation", choices=["torch", "C++"], help="with --against: only this one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--launches", type=int, default=4, help="with --against: how often the processes are started")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.against is None:
        for name in options.shapes or PEERS_HAVE:
            compare_with_peers(SHAPES[name], options.rounds)
        return
    implementations = [options.implementation] if options.implementation else ["torch", "C++"]
    outcomes = [
        compare_with_checkout(name, options.against.resolve(), implementation, options.rounds, options.launches)
        for name in options.shapes or SHAPES
        for implementation in implementations
    ]
    sys.exit(0 if all(outcomes) else 1)


if __name__ == "__main__":
    main()
