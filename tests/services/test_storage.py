"""Errors of disks are told from errors of jobs, whichever library reports them."""

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from husai_core.errors import HOST_ERRORS
from services.artifacts import Store
from services.storage import FAULTS, HostFault, describe, disk_fault


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError(errno.EROFS, "Read-only file system"), errno.EROFS),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), None),
        (PermissionError(errno.EACCES, "Permission denied"), None),
        (ValueError("a field is wrong"), None),
        (ValueError("the label reads (os error 28)"), None),
    ],
)
def test_only_errors_that_speak_of_a_disk_are_the_hosts(error: Exception, number: int | None) -> None:
    assert disk_fault(error) == number


def test_both_sides_agree_on_what_a_host_does_wrong() -> None:
    assert set(FAULTS) == HOST_ERRORS


def test_an_error_is_seen_behind_the_one_that_it_led_to() -> None:
    error = RuntimeError("the checkpoint could not be written")
    error.__cause__ = OSError(errno.EIO, "Input/output error")
    assert disk_fault(error) == errno.EIO
    assert describe(error) == "gives errors"
    assert str(HostFault(errno.EROFS)) == "the disk of this worker is read-only"


def test_a_probe_leaves_nothing_and_fails_where_nothing_can_be_written(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.probe()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as failed:
        Store(str(tmp_path / "file")).probe()
    assert describe(failed.value).startswith("fails: ")
    remote = Store("memory://bucket")
    remote.probe()
    assert remote.fs.find("/bucket") == []
