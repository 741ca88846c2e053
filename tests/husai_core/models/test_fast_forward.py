import pytest
import torch
import torch.nn.functional as F

from husai_core.data.modular import pairs
from husai_core.models import fast_forward, modular


def test_logits_and_gradients_equal_transformer_lens() -> None:
    data = pairs(13)
    model = modular.build(modular.config(13, 1, 32, 4, 64, "relu", None), 0)
    weights = dict(model.named_parameters())
    torch.manual_seed(0)
    for name, weight in weights.items():
        if ".b_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    gradients = {}
    for way in ("slow", "fast"):
        model.zero_grad()
        slow = way == "slow"
        logits = model(data.tokens)[:, 4] if slow else fast_forward.logits(weights, 13, *data.tokens[:, [1, 3]].T)
        F.cross_entropy(logits, data.label).backward()
        gradients[way] = {"logits": logits.detach()} | {
            k: v.grad.clone() for k, v in weights.items() if v.grad is not None
        }
    assert gradients["slow"].keys() == gradients["fast"].keys() == weights.keys() | {"logits"}
    for name, value in gradients["slow"].items():
        assert torch.allclose(value, gradients["fast"][name], atol=1e-5), name
        assert float(value.abs().max()) > 1e-4 or name.endswith("b_K"), name  # a key's bias cancels in the softmax


@pytest.mark.parametrize(
    ("change", "position"),
    [
        ({"n_layers": 2}, "answer"),
        ({"normalization_type": "LN"}, "answer"),
        ({"act_fn": "gelu"}, "answer"),
        ({}, "answer_token"),
    ],
)
def test_only_the_network_it_equals_takes_the_fast_path(change: dict[str, object], position: str) -> None:
    cfg = modular.config(13, 1, 32, 4, 64, "relu", None)
    assert fast_forward.applies(cfg, "answer")
    assert not fast_forward.applies(cfg | change, position)
