"""The kernels in C++, built with the compiler of the machine when there is one and kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from husai_core.saes.kernels import BETAS, EPSILON
from husai_core.saes.kernels.torch_cpu import TorchCPU, tiles
from husai_core.saes.kernels.torch_int8 import multiplies_bytes
from husai_core.seeding import generator

logger = logging.getLogger("husai.kernels")
SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = "-O3 -std=c++17 -shared -fPIC -pthread -fassociative-math -fno-signed-zeros -fno-trapping-math -fno-math-errno"
LEVELS_OF_CPU = {"AVX2": ["-march=x86-64-v3"], "AVX512": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}
BUILD_SECONDS = 120
LATENTS, DEPTH, ALIGNED = 8, 8, 32
"""What the integer product works on at once: latents and columns, and the bytes its memory is aligned to."""
OUTLIER = 12.0
"""From how many times its root mean square on a row's largest entry leaves the others too few integers."""
TYPES = (torch.float32, torch.int8, torch.int32, torch.int64)
CHOICE = 16
"""From this many latents for each chosen one, choosing by integers pays."""


class Cpp(TorchCPU):
    """See `Kernels`; matrix products stay torch's."""

    def __init__(self, library: ctypes.CDLL, key: str) -> None:
        self.library, self.name = library, f"cpp-{key}"

    def _call(self, function: str, *arguments: Tensor | float | bool) -> None:
        """Call a function; tensors become their addresses, and it uses as many threads as torch."""
        getattr(self.library, function)(*map(_argument, arguments))

    def top(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`; where there is much to choose from, integers choose what fp32 then computes."""
        n = encoder.shape[1]
        if n % LATENTS == 0 and n >= CHOICE * k and hasattr(self.library, "quantized_top"):
            return self._quantized_top(x, encoder, bias, k)
        return super().top(x, encoder, bias, k)

    def _quantized_top(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        (s, n, d), b, threads = encoder.shape, x.shape[1], torch.get_num_threads()
        depth = -(-d // DEPTH) * DEPTH
        buffer = torch.empty(s * n * depth + ALIGNED, dtype=torch.int8)
        packed = buffer[-buffer.data_ptr() % ALIGNED :][: s * n * depth].view(s, -1)
        scale, correction, norms = torch.empty(3, s, n).unbind()
        dither = (torch.rand(2, d, generator=generator(0, "dither")) - 0.5).unbind()
        self._call("pack", encoder, *dither, s * n, d, depth, packed, scale, correction, norms, threads)
        worst = zip(scale.amax(1).tolist(), norms.amax(1).tolist(), strict=True)
        imprecise = self.library.levels() * scale > OUTLIER * (norms / d).sqrt()
        values, latents = torch.empty(s, b, k), torch.empty(s, b, k, dtype=torch.int32)
        for i, (worst_scale, worst_norm) in enumerate(worst):
            member = [encoder[i], bias[i], *dither, packed[i], scale[i], correction[i]]
            exact = imprecise[i].nonzero()[:, 0].int()
            size = (len(exact), b, d, depth, n, k, i * n)
            rows, out = x[i if len(x) > 1 else 0], (values[i], latents[i])
            self._call("quantized_top", rows, *member, worst_scale, worst_norm, exact, *size, *out, threads)
        return values, latents

    def largest(self, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        (*shape, n), threads = z.shape, torch.get_num_threads()
        values, places = torch.empty(*shape, k), torch.empty(*shape, k, dtype=torch.int32)
        self._call("largest_of", z, z.numel() // n, n, k, values, places, threads)
        return values, places.long()

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernels`."""
        (s, n, _), b, threads = encoder.shape, x.shape[1], torch.get_num_threads()
        counts, pieces = torch.zeros(s, b, dtype=torch.int32), list[tuple[int, Tensor, Tensor]]()
        for members, rows, z in tiles(x, encoder, bias):
            count = torch.empty(z.shape[1], len(z), dtype=torch.int32)
            bound = threshold[members].contiguous()
            self._call("count_above", z, *z.shape, bound, count, threads)
            ends = count.flatten().cumsum(0)
            values, latents = torch.empty(int(ends[-1])), torch.empty(int(ends[-1]), dtype=torch.int32)
            starts = ends - count.flatten()
            self._call("fill_above", z, *z.shape, bound, starts, members.start * n, values, latents, threads)
            counts[members, rows] = count
            for i, size in enumerate(count.sum(1).tolist()):
                start = int(starts[i * len(z)])
                piece = slice(start, start + size)
                pieces.append((members.start + i, values[piece], latents[piece]))
        pieces.sort(key=lambda piece: piece[0])
        starts = torch.cat([counts.new_zeros(1), counts.flatten().cumsum(0)]).int()
        return torch.cat([piece[1] for piece in pieces]), torch.cat([piece[2] for piece in pieces]), starts

    def decode(self, values: Tensor, latents: Tensor, starts: Tensor, dictionary: Tensor) -> Tensor:
        """See `Kernels`."""
        rows, d = len(starts) - 1, dictionary.shape[1]
        out = torch.empty(rows, d)
        self._call("decode", values, latents, starts, dictionary, rows, d, out, torch.get_num_threads())
        return out

    def dots(self, rows: Tensor, row_of: Tensor, latents: Tensor, starts: Tensor, dictionary: Tensor) -> Tensor:
        """See `Kernels`."""
        out = torch.empty(len(latents))
        self._call("dots", rows, latents, starts, dictionary, *rows.shape, out, torch.get_num_threads())
        return out

    def transpose(self, latents: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        order, starts = torch.empty_like(latents), torch.empty(n + 1, dtype=torch.int32)
        self._call("transpose", latents, len(latents), n, order, starts)
        return order, starts

    def outer(self, weights: Tensor, source: Tensor, starts: Tensor, rows: Tensor) -> Tensor:
        """See `Kernels`."""
        out = torch.empty(len(starts) - 1, rows.shape[1])
        self._call("outer", weights, source, starts, rows, *out.shape, out, torch.get_num_threads())
        return out

    def adam(
        self, weights: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], lr: float, step: int, unit: bool
    ) -> None:
        """See `Kernels`."""
        rate, correction = lr / (1 - BETAS[0] ** step), 1 / (1 - BETAS[1] ** step)
        size = (weights.numel() // weights.shape[-1], weights.shape[-1])
        constants = (*BETAS, rate, correction, EPSILON, unit, torch.get_num_threads())
        self._call("adam", weights, gradient, *moments, *size, *constants)


def _argument(value: Tensor | float | bool) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_float | ctypes.c_bool:
    if isinstance(value, Tensor):
        if not value.is_contiguous() or value.dtype not in TYPES or value.device.type != "cpu":
            raise ValueError("the compiled kernels take contiguous tensors of 32-bit numbers on the CPU only")
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, bool):
        return ctypes.c_bool(value)
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_float(value)


@cache
def build() -> Cpp | None:
    """The compiled kernels, built if they are not in the cache; None where that is impossible."""
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        return None
    flags = [*FLAGS.split(), *LEVELS_OF_CPU.get(torch.backends.cpu.get_cpu_capability(), [])]
    if multiplies_bytes():
        flags.append("-mavx512vnni")
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=BUILD_SECONDS).stdout
        sources = [path.read_bytes() for path in sorted(SOURCE.parent.glob("*.[ch]pp"))]
        key = hashlib.sha256(b"\0".join([*sources, version, " ".join(flags).encode()])).hexdigest()[:16]
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "husai"
        return Cpp(_loaded([compiler, *flags, str(SOURCE)], folder, f"kernels-{key}.so"), key)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        logger.warning("the C++ kernels could not be compiled, so the slower ones in torch are used: %s", error)
        return None


def _loaded(command: list[str], folder: Path, name: str) -> ctypes.CDLL:
    """The library of the cache, or a new one if it is not there, damaged, or somebody else may have written it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not _is_private(folder):
        with tempfile.TemporaryDirectory() as private:
            return _built(command, Path(private) / name)
    if (folder / name).exists() and _is_private(folder / name):
        with suppress(OSError):
            return ctypes.CDLL(str(folder / name))
    return _built(command, folder / name)


def _is_private(path: Path) -> bool:
    """Whether a file or folder is this user's and nobody else may write there."""
    status = path.lstat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022 and not path.is_symlink()


def _built(command: list[str], library: Path) -> ctypes.CDLL:
    """Compile beside the library and replace it at once, since other processes may be loading it."""
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        fresh = Path(scratch) / library.name
        subprocess.run([*command, "-o", str(fresh)], capture_output=True, check=True, timeout=BUILD_SECONDS)
        fresh.chmod(0o700)
        fresh.replace(library)
    return ctypes.CDLL(str(library))
