"""Peak memory of one training step at d=512, d_sae=16384, batch 4096: ours and the peers', each in its own process.

The figure is the growth from before the parameters exist (imports done, input batch there) to the peak of three steps;
the bound is 2 · (parameters + optimiser state) + one tile of pre-activations.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

D, D_SAE, K, BATCH = 512, 16384, 32, 4096
MIB = 2**20
OURS = ("torch", "C++", "C++, autograd")
CONTESTANTS = (*(f"ours, {name}" for name in OURS), "sparsify (Adam)", "dictionary_learning", "SAELens")


def resident(field: str) -> int:
    """A figure of this process in bytes: VmRSS now, or VmHWM, the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(name: str) -> None:
    """Print how much the process grew from before the parameters existed to the peak of three steps."""
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    import engine

    shape = engine.Shape("topk", D, D_SAE, K, BATCH)
    rows = engine.world(shape)
    small = engine.Shape("topk", 16, 64, 4, 64)
    makers(engine, small, engine.world(small))[name]()(0)  # imports and pools exist before anything is counted
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step = makers(engine, shape, rows)[name]()
    for i in range(3):
        step(i)
    print(resident("VmHWM") - before)


def makers(engine: Any, shape: Any, rows: Any) -> dict[str, Callable[[], Callable[[int], None]]]:
    """What makes a step of each contestant."""

    def peer(name: str, *size: Any) -> Callable[[int], None]:
        from peers import steps

        return engine.each([getattr(steps, name)(*size)], shape, rows)  # type: ignore[no-any-return]

    size = (shape.d, shape.d_sae, shape.k)
    return {
        **{f"ours, {name}": lambda name=name: engine.ours(name, shape, rows) for name in OURS},
        "sparsify (Adam)": lambda: peer("sparsify", *size),
        "dictionary_learning": lambda: peer("dictionary_learning", *size),
        "SAELens": lambda: peer("saelens", shape.architecture, *size, shape.batch),
    }


def main() -> None:
    """Measure every contestant and print the table."""
    if len(sys.argv) > 1:
        measure(sys.argv[1])
        return
    weights = 4 * (2 * D * D_SAE + D_SAE + D)
    state, tile = 2 * weights, 4 * 512 * D_SAE
    bound = 2 * (weights + state) + tile
    print(f"parameters and optimiser state {(weights + state) / MIB:.0f} MiB; bound {bound / MIB:.0f} MiB")
    for name in CONTESTANTS:
        child = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, env=os.environ)
        if child.returncode:
            sys.exit(child.stderr)
        peak = int(child.stdout.split()[-1])
        print(f"{name:22}{peak / MIB:8.0f} MiB  {peak / bound:5.2f} of the bound")


if __name__ == "__main__":
    main()
