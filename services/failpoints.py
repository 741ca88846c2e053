"""Named places between two durable effects where a test may stop or kill the process.

`HUSAI_FAILPOINTS` names a folder. A process that passes the point `name` while the folder holds a file of that name
removes the file and sends itself the signal whose number the file holds (SIGKILL if it is empty), so that each armed
point acts once.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

_FOLDER = os.environ.get("HUSAI_FAILPOINTS")


def failpoint(name: str) -> None:
    """Stop or die here if a test asked for it; otherwise do nothing."""
    if _FOLDER:
        with suppress(FileNotFoundError):
            armed = Path(_FOLDER, name)
            number = int(armed.read_text() or signal.SIGKILL)
            armed.unlink()
            os.kill(os.getpid(), number)
