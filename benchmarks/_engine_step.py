"""Training steps of our bank, one at a time: in this process, or in a process of its own for some checkout.

    PYTHONPATH=CHECKOUT python benchmarks/_engine_step.py SHAPE IMPLEMENTATION THREADS

says "ready" and then, for every line with the number of a batch, the CPU and wall seconds of a step on it.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait must not count as CPU time

import torch

BATCHES = 4
STEPS = 10**6
"""Steps that schedules are laid out for: the learning rate is constant while anything is timed."""
KERNELS = {"torch": "torch", "torch without int8": "torch", "C++": "auto"}
"""The implementations by what chooses them; each may end in AUTOGRAD."""
AUTOGRAD = ", autograd"


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


PEERS_HAVE = {
    "small": Shape("topk", 512, 4096, 32, 4096),
    "large": Shape("topk", 512, 16384, 32, 4096),
    "batchtopk": Shape("batchtopk", 512, 4096, 32, 4096),
    "matryoshka": Shape("matryoshka", 512, 4096, 32, 4096),
    "bank": Shape("topk", 128, 1024, 16, 1024, seeds=8),
}
FURTHER = {
    "switch": Shape("switch", 512, 4096, 32, 2048),
    "relu": Shape("relu", 256, 2048, 32, 1024),
    "jumprelu": Shape("jumprelu", 256, 2048, 32, 1024),
    "gated": Shape("gated", 256, 2048, 32, 1024),
}
SHAPES = PEERS_HAVE | FURTHER


def world(shape: Shape) -> torch.Tensor:
    """Rows in superposition: eight of 4 d directions each, mean norm about √d."""
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(4 * shape.d, shape.d), dim=1)
    chosen = torch.randint(4 * shape.d, (BATCHES * shape.batch, 8))
    weights = torch.rand(len(chosen), 8, 1) * (shape.d / 8) ** 0.5 * 1.7
    return (directions[chosen] * weights).sum(1)


def ours(implementation: str, shape: Shape, rows: torch.Tensor) -> Callable[[int], None]:
    """A step of our bank on batch number i."""
    from husai_core.saes.bank import Bank
    from husai_core.saes.recipe import SPARSITY, SAERecipe

    kernels = implementation.removesuffix(AUTOGRAD)
    os.environ["HUSAI_KERNELS"] = KERNELS[kernels]
    field = SPARSITY[shape.architecture]
    recipe = SAERecipe(
        **{"architecture": shape.architecture, field: 0.1 if field == "l1" else shape.k},
        d_sae=shape.d_sae,
        batch_size=shape.batch,
        tokens=STEPS * shape.batch,
        dead_after_tokens=10_000_000,
        lr=3e-4,
        order_seed=0,
    )
    further = {}
    if implementation.endswith(AUTOGRAD):
        from husai_core.saes.objective import Objective

        further["objective"] = Objective()
    bank = Bank([recipe], range(shape.seeds), rows, None, "cpu", **further)
    stacks = bank.stacks if hasattr(bank, "stacks") else bank.groups  # the name in older checkouts
    if kernels == "torch without int8":
        from husai_core.saes.kernels.torch_cpu import TorchCPU

        stacks[0].kernels = TorchCPU()
    if (kernels == "C++") == stacks[0].kernels.name.startswith("torch"):
        raise SystemExit("there is no compiler here, so the kernels in C++ cannot be timed")

    @torch.no_grad()
    def step(i: int) -> None:
        bank.advance(torch.arange(i * shape.batch, (i + 1) * shape.batch)[None])

    return step


def timed(step: Callable[[int], None], i: int) -> tuple[float, float]:
    """CPU and wall seconds of a step on batch number i."""
    cpu, wall = time.process_time(), time.perf_counter()
    step(i)
    return time.process_time() - cpu, time.perf_counter() - wall


def serve() -> None:
    """Answer every line until there are no more."""
    shape = SHAPES[sys.argv[1]]
    torch.set_num_threads(int(sys.argv[3]))
    step = ours(sys.argv[2], shape, world(shape))
    print("ready", flush=True)
    for line in sys.stdin:
        print(*timed(step, int(line)), flush=True)


if __name__ == "__main__":
    serve()
