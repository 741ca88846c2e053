"""Names of hooks that are known without a network, against the networks."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from husai_core.errors import UserError
from husai_core.models import hooks, language, modular


@pytest.mark.parametrize("normalization", [None, "LN"])
def test_the_hooks_of_a_network_for_addition_are_those_that_it_has(normalization: str | None) -> None:
    cfg = modular.config(13, 2, 16, 2, 32, "relu", normalization)
    network = modular.ModularNetwork(modular.build(cfg, 0))
    assert sorted(hooks.known(cfg)) == sorted(network.hooks)
    widths = {name: width for name in network.hooks if (width := hooks.width(name, cfg)) is not None}
    assert widths == {name: network.hooks[name] for name in widths}
    assert {"blocks.1.hook_resid_post", "blocks.0.mlp.hook_pre", "hook_embed"} <= widths.keys()


def test_the_hooks_of_the_built_in_model_are_those_that_it_has() -> None:
    model = language.load(language.find("classics-2m"))
    assert sorted(hooks.known(hooks.built_in("classics-2m"))) == sorted(model.hooks)


def test_of_a_text_model_trained_here_the_recipe_tells() -> None:
    cfg = {"architecture": "GPTNeoXForCausalLM", "dataset": {"recipe": {"n_layers": 4}}}
    assert hooks.known(cfg) == hooks.known(hooks.built_in("classics-2m"))


@pytest.mark.parametrize("cfg", [{}, {"architecture": "GPT2LMHeadModel"}, {"n_layers": 2, "d_model": 8}])
def test_what_a_configuration_does_not_tell_is_not_refused(cfg: dict[str, Any]) -> None:
    assert hooks.known(cfg) == []
    hooks.check(["anything"], cfg)


def test_a_wrong_hook_is_refused_with_the_nearest() -> None:
    cfg = modular.config(13, 2, 16, 2, 32, "relu", None)
    hooks.check(["blocks.1.hook_resid_post"], cfg)
    with pytest.raises(
        UserError, match=r"no hook 'blocks.1.hook_resid_pots'; the nearest are blocks.1.hook_resid_post"
    ):
        hooks.check(["blocks.0.hook_resid_post", "blocks.1.hook_resid_pots"], cfg)
    with pytest.raises(UserError, match="it has 2 layers"):
        hooks.check(["blocks.7.hook_resid_post"], cfg)


def test_they_are_known_without_torch() -> None:
    program = "import json, sys; from husai_core.models import hooks; hooks.built_in('classics-2m')"
    program += "; print(json.dumps('torch' in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) is False
