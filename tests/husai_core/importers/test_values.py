from typing import Any

import pytest
import torch

from husai_core.errors import UserError
from husai_core.importers import plain


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
