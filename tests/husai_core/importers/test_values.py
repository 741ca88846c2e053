import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from husai_core.errors import UserError
from husai_core.importers import plain
from husai_core.importers.values import read_pt


def shared(levels: int, leaf: Any) -> Any:
    """A few objects that are a tree of 2^levels leaves when each is written out where it is referred to."""
    for _ in range(levels):
        leaf = [leaf, leaf]
    return leaf


@pytest.mark.parametrize("value", [shared(60, 1), ["x" * 10**6] * 1000, {"a": shared(60, {})}, [{"x" * 10**6: 1}] * 11])
def test_what_is_small_only_because_it_is_shared_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match="more than 100000 plain values"):
        plain(value)


def test_the_count_is_of_one_call() -> None:
    for _ in range(3):
        assert plain(list(range(60_000))) == list(range(60_000))


def test_what_is_not_json_becomes_its_text_or_the_name_of_its_type() -> None:
    odd = [torch.float16, float("nan"), 2**60, torch.ones(1), torch.ones(2), {1, 2}, torch.ones(2).untyped_storage()]
    texts = ["torch.float16", "nan", str(2**60), 1.0, "tensor of shape (2,)", "set", "UntypedStorage"]
    assert plain(odd) == texts
    assert plain({1: "a", None: "b", (1, 2): "c"}) == {"1": "a", "None": "b", "tuple": "c"}
    jagged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    assert plain(jagged) == "a nested tensor"


def test_a_file_that_its_disk_does_not_give_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "model.pt").symlink_to("/proc/self/mem")  # nothing is mapped at its start: EIO
    with pytest.raises(OSError, match="Input/output error") as failed:
        read_pt(tmp_path / "model.pt")
    assert failed.value.errno == errno.EIO
    (tmp_path / "damaged.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        read_pt(tmp_path / "damaged.pt")
