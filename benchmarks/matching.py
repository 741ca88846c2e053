"""Time, peak memory and stated error of the one-to-one assignment of two wide dictionaries, each in its own process.

Peak memory is the growth from before the dictionaries exist to the peak of the assignment. `shared` is the share of
features that both have, up to noise of 0.3 of their length.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from memory import MIB, resident  # noqa: E402

from husai_core.stability.matching import assign  # noqa: E402

D = 512


def measure(width: int, shared: float) -> None:
    """Print one line of the table."""
    torch.set_num_threads(2)
    assign(*torch.randn(2, 64, D))  # imports and pools exist before anything is counted
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, width, D, generator=rng)
    alike = round(shared * width)
    b[:alike] = a[:alike] + 0.3 * torch.randn(alike, D, generator=rng)
    wall, cpu = time.perf_counter(), time.process_time()
    assigned = assign(a, b[torch.randperm(width, generator=rng)])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = (resident("VmHWM") - before) / MIB
    print(f"{width:8}{shared:8.1f}{wall:9.1f}{cpu:9.1f}{peak:10.0f}{assigned.mean:10.5f}{assigned.error:12.1e}")


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        measure(int(arguments.case[0]), float(arguments.case[1]))
        return
    print(f"d_model {D}, 2 threads, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f}")
    print("   d_sae  shared   wall s    CPU s  peak MiB    pw_mcc  error <=")
    for width in arguments.widths:
        for shared in ("0.0", "0.3"):
            subprocess.run([sys.executable, __file__, "--case", str(width), shared], check=True)


if __name__ == "__main__":
    main()
