"""What the forkserver imports once, so that a job starts in a fraction of a second.

Nothing here may execute a tensor operation or touch CUDA: a process forked after that would hang. `HUSAI_WARM=light`
leaves out the libraries of language models and of statistics, for workers that train on given activations or only sum
studies up.
"""

import importlib
import os
import signal

import numpy  # noqa: F401
import safetensors.torch  # noqa: F401

from husai_core import kinds, manifest
from worker import attempt_process  # noqa: F401

LIBRARIES = ("scipy.optimize", "scipy.stats", "torch._dynamo", "transformer_lens")
"""Torch's optimizers import `torch._dynamo`."""

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while its supervisor drains, it is needed; it ends with its supervisor
kinds.all_kinds()
if os.environ.get("HUSAI_WARM") != "light":
    for name in LIBRARIES:
        importlib.import_module(name)
manifest.environment_digest()
for name in kinds.names():
    kinds.code_digest(name)
