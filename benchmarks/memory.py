"""Peak memory of one training step at d=512, d_sae=16384, batch 4096: ours and the peers', each in its own process.

The figure is the growth from before the parameters exist (imports done, input batch there) to the peak of three steps;
the bound is 2 · (parameters + optimiser state) + one tile of pre-activations.
"""

import os
import subprocess
import sys
from pathlib import Path

D, D_SAE, K, BATCH = 512, 16384, 32, 4096
MIB = 2**20
CONTESTANTS = ("ours, torch", "ours, compiled", "sparsify (Adam)", "dictionary_learning", "SAELens")


def resident(field: str) -> int:
    """A figure of this process in bytes: VmRSS now, or VmHWM, the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(name: str) -> None:
    """Print how much the process grew from before the parameters existed to the peak of three steps."""
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    import engine
    from peers import steps

    shape = engine.Shape("topk", D, D_SAE, K, BATCH)
    rows = engine.world(shape)
    small = engine.Shape("topk", 16, 64, 4, 64)
    engine.contestants(small, engine.world(small))[name](0)  # imports and pools exist before anything is counted
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    makers = {
        "ours, torch": lambda: engine.ours("torch", shape, rows),
        "ours, compiled": lambda: engine.ours("auto", shape, rows),
        "sparsify (Adam)": lambda: engine.each([steps.sparsify(D, D_SAE, K)], shape, rows),
        "dictionary_learning": lambda: engine.each([steps.dictionary_learning(D, D_SAE, K)], shape, rows),
        "SAELens": lambda: engine.each([steps.saelens("topk", D, D_SAE, K, BATCH)], shape, rows),
    }
    step = makers[name]()
    for i in range(3):
        step(i)
    print(resident("VmHWM") - before)


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
        found = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, env=os.environ)
        if found.returncode:
            sys.exit(found.stderr)
        peak = int(found.stdout.split()[-1])
        print(f"{name:22}{peak / MIB:8.0f} MiB  {peak / bound:5.2f} of the bound")


if __name__ == "__main__":
    main()
