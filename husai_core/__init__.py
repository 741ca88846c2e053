"""The science of HUSAI: data, models, sparse autoencoders, stability statistics and the release decision.

    import husai_core as hc

What a notebook needs stands here: `load_sae`, `save_sae`, `load_rows`, `train`, `evaluate`, `compare_seeds`, `run`
(any job kind, without a server) and `show`. Nothing is imported before it is used, so this costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from husai_core.local_job import LocalJob, LocalResult, LocalRunner, run
    from husai_core.notebook import compare_seeds, evaluate, load_rows, load_sae, save_sae, show, train

__all__ = [
    "LocalJob",
    "LocalResult",
    "LocalRunner",
    "compare_seeds",
    "evaluate",
    "load_rows",
    "load_sae",
    "run",
    "save_sae",
    "show",
    "train",
]
LOCAL_JOB = ("LocalJob", "LocalResult", "LocalRunner", "run")


def __getattr__(name: str) -> Any:
    """Import what is asked for. By name, so that no module is taken to depend on the whole package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'local_job' if name in LOCAL_JOB else 'notebook'}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
