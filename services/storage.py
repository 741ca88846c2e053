"""What a host does wrong, told apart from what a job does wrong: full, read-only and broken disks."""

import errno

from husai_core.errors import causes, system_number

FAULTS = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is over its quota",
    errno.EROFS: "is read-only",
    errno.EIO: "gives errors",
    errno.ESTALE: "is gone",
    errno.ENOTCONN: "is gone",
    errno.ENODEV: "is gone",
    errno.ENXIO: "is gone",
}
"""What an error of the operating system says about a disk."""
SIZE = {errno.ENOSPC, errno.EDQUOT}
"""Errors that a job which writes too much causes on a sound host."""


class HostFault(Exception):
    """The disk of this host is at fault, not the job; `number` is the operating system's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the disk of this worker {FAULTS[number]}")
        self.number = number


def error_number(error: BaseException | None) -> int | None:
    """The operating system's number of an error or of what led to it."""
    for cause in causes(error):
        number = cause.number if isinstance(cause, HostFault) else system_number(cause)
        if number is not None:
            return number
    return None


def disk_fault(error: BaseException) -> int | None:
    """The number of an error that speaks of a disk; None for any other."""
    number = error_number(error)
    return number if number in FAULTS else None


def describe(error: BaseException) -> str:
    """What a store that failed with this error does."""
    number = disk_fault(error)
    if number is not None:
        return FAULTS[number]
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"fails: {words or type(error).__name__}".splitlines()[0]
