"""Named places between two durable effects where a test may kill the process.

`HUSAI_FAILPOINTS` names a folder. A process that passes the point `name` while the folder holds a file of that name
removes the file and dies by SIGKILL, so that each armed point kills once.
"""

import os
import signal
from contextlib import suppress

_FOLDER = os.environ.get("HUSAI_FAILPOINTS")


def failpoint(name: str) -> None:
    """Die here if a test asked for it; otherwise do nothing."""
    if _FOLDER:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(_FOLDER, name))
            os.kill(os.getpid(), signal.SIGKILL)
