"""Where the processes of attempts come from: a forkserver with warm imports, or, until that is warm, a fresh start."""

import os
import threading
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext, SpawnContext

CHILD_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # one parallel region before a fork makes every child hang
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait slow their neighbours down
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS does not repeat itself
}
_warm = threading.Event()


def open_(warm: str) -> None:
    """Start the forkserver and let it import. Nothing may have been computed before.

    Returns at once where a cold start of the first jobs is much sooner than the imports, and after them where both take
    about as long: a host would do the work twice.
    """
    os.environ |= CHILD_ENVIRONMENT | {"HUSAI_WARM": warm}
    if warm == "none":
        return
    get_context("forkserver").set_forkserver_preload(["worker.warm"])
    forkserver.ensure_running()
    if warm == "light":
        _wait_until_warm()
    else:
        threading.Thread(target=_wait_until_warm, name="warm-up", daemon=True).start()


def context() -> ForkServerContext | SpawnContext:
    """How to start the next process soonest: a cold start needs its own imports only, the forkserver all of them."""
    return get_context("forkserver") if _warm.is_set() else get_context("spawn")


def _wait_until_warm() -> None:
    """The forkserver answers once it has imported everything."""
    process = get_context("forkserver").Process(target=_nothing, daemon=True)
    process.start()
    process.join()
    _warm.set()


def _nothing() -> None:
    """What the first process does."""
