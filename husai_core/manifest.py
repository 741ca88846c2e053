"""The manifest of a result: what is needed to repeat it, and to judge whether a repetition must agree bit for bit."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from husai_core import identity

ROOT = identity.PACKAGE.parent
FORMAT = "husai-manifest/1"
RUN_DEPENDENT = ("job_id", "attempt", "command", "started_at", "wall_seconds", "peak_memory_bytes", "git")
"""Fields that may differ between two runs of one computation. The revision is among them because `code`, the digest
of what really ran, says more: a commit that touches no code of the kind changes nothing."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
DETERMINISM = ("CUBLAS_WORKSPACE_CONFIG", "PYTHONHASHSEED")


def collect(
    *,
    kind: str,
    spec: Mapping[str, Any],
    inputs: Mapping[str, Sequence[str]],
    outputs: Mapping[str, Sequence[str]],
    digest: str,
    code: str,
    device: str,
    threads: int,
    started_at: float,
    wall_seconds: float,
    job_id: str,
    attempt: int,
) -> dict[str, Any]:
    """The manifest of a job, to be taken in the process that ran it.

    Args:
        spec: the full spec with its defaults.
        inputs: port to artifact digests.
        outputs: output to artifact digests, without the manifest itself.
        digest: the job's digest.
        code: the code's digest.
        device: `cpu` or `cuda`.
        threads: CPU threads that the job was given.
        started_at: Unix time in seconds.
        wall_seconds: duration of this attempt.
        attempt: the attempt's number.
    """
    return {
        "format": FORMAT,
        "kind": kind,
        "spec": dict(spec),
        "seeds": seeds(spec),
        "inputs": {name: list(digests) for name, digests in inputs.items()},
        "outputs": {name: list(digests) for name, digests in outputs.items()},
        "digest": digest,
        "code": code,
        "git": git(),
        "capability": capability(device, threads),
        "determinism": determinism(),
        "job_id": job_id,
        "attempt": attempt,
        "command": f"husai rerun {job_id} --check",
        "started_at": datetime.fromtimestamp(started_at, UTC).isoformat(timespec="milliseconds"),
        "wall_seconds": round(wall_seconds, 3),
        "peak_memory_bytes": peak_memory(device),
    }


def comparable(document: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest without the fields that may differ between runs of one computation."""
    return {name: value for name, value in document.items() if name not in RUN_DEPENDENT}


def seeds(spec: Any, path: str = "") -> dict[str, Any]:
    """Every field of a spec whose name ends in `seed` or `seeds`, under its dotted path."""
    by_path: dict[str, Any] = {}
    if isinstance(spec, Mapping):
        for name, value in spec.items():
            where = f"{path}.{name}" if path else str(name)
            by_path |= {where: value} if str(name).endswith(("seed", "seeds")) else seeds(value, where)
    return by_path


def capability(device: str, threads: int) -> dict[str, Any]:
    """What bit-for-bit repetition depends on besides code, spec and inputs: equal capability, equal bytes."""
    return {
        "device": device,
        "threads": threads,
        "thread_variables": {name: os.environ.get(name) for name in THREADS},
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "libraries": identity.installed_versions(),
        "environment": environment_digest(),
        "lock": lock_digest(),
        "blas": blas(),
        "kernels": sorted(identity.KERNELS_USED),
        "cpu": cpu(),
        "cuda": cuda() if device == "cuda" else None,
    }


def determinism() -> dict[str, Any]:
    """The switches that decide whether torch repeats itself."""
    import torch

    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        **{name: os.environ.get(name) for name in DETERMINISM},
    }


@cache
def blas() -> dict[str, Any]:
    """The linear algebra libraries behind torch and NumPy."""
    import numpy as np
    import torch

    numpy_blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    return {
        "torch": [line for line in lines if line.startswith(("Intel(R)", "LAPACK", "OpenMP"))],
        "numpy": f"{numpy_blas['name']} {numpy_blas['version']}",
    }


@cache
def cpu() -> dict[str, str]:
    """The processor's name and the instruction set that torch uses on it."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return {"model": model, "capability": torch.backends.cpu.get_cpu_capability()}


@cache
def cuda() -> dict[str, Any]:
    """The GPU, its driver and the libraries that torch uses on it."""
    import torch

    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return {
        "device": torch.cuda.get_device_name(),
        "compute_capability": list(torch.cuda.get_device_capability()),
        "driver": _output(query),
        "runtime": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


@cache
def git() -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout that the package runs from; None when it is installed elsewhere."""
    if not (ROOT / ".git").exists():
        return None
    commit = _output(["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", "HEAD"])
    status = _output(["git", "-C", str(ROOT), "status", "--porcelain"])
    return {"commit": commit or None, "dirty": None if status is None else bool(status)}


@cache
def lock_digest() -> str | None:
    """SHA-256 of the checkout's `requirements.lock`, or None where there is none."""
    lock = ROOT / "requirements.lock"
    return identity.sha256(lock.read_bytes()) if lock.is_file() else None


@cache
def environment_digest() -> str:
    """Digest of the names and versions of everything that is installed, whatever a lock file says."""
    return identity.digest({str(library.name): library.version for library in metadata.distributions()})


def peak_memory(device: str) -> dict[str, int]:
    """Highest resident memory of this process, and highest memory that torch held on the GPU, in bytes."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = {"resident": resident if sys.platform == "darwin" else resident * 1024}
    if device == "cuda":
        import torch

        held["cuda"] = torch.cuda.max_memory_allocated()
    return held


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Dotted names of the comparable fields in which two manifests differ."""
    return _differences(comparable(a), comparable(b), "")


def _differences(a: Any, b: Any, path: str) -> list[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        names = sorted({*a, *b})
        return [d for n in names for d in _differences(a.get(n), b.get(n), f"{path}.{n}" if path else n)]
    return [] if json.dumps(a) == json.dumps(b) else [path]


def _output(command: list[str]) -> str | None:
    """What a command prints, or None when it is absent or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
