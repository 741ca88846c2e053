"""What the forkserver imports once, so that a job starts in a fraction of a second.

Nothing here may execute a tensor operation or touch CUDA: a process forked after that would hang. `HUSAI_WARM=light`
leaves the language-model library out, for hosts that run no transformer jobs.
"""

import importlib
import os

import numpy  # noqa: F401
import safetensors.torch  # noqa: F401
import scipy.optimize
import scipy.stats  # noqa: F401

from husai_core import identity, kinds, manifest
from worker import child  # noqa: F401

kinds.all_kinds()
if os.environ.get("HUSAI_WARM") != "light":
    importlib.import_module("torch._dynamo")  # torch's optimizers import it
    importlib.import_module("transformer_lens")
manifest.environment_digest()
for name in kinds.names():
    identity.code_digest(name)
