"""Checkpoints of ours in SAELens itself, and its trained SAEs here."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from husai_core.errors import UserError
from husai_core.saes import checkpoint
from husai_core.saes.sae import PARAMETERS, SAE, Architecture

sae_lens = pytest.importorskip("sae_lens", reason="the environment is behind requirements.lock")
D, N, K = 16, 64, 6
X = torch.randn(100, D, generator=torch.Generator().manual_seed(1))


def drawn(architecture: Architecture, transcoder: bool = False) -> SAE:
    source = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, N), "W_dec": (N, D), "b_dec": (D,)}
    tensors = {name: torch.randn(*shapes.get(name, (N,)), generator=source) / 3 for name in PARAMETERS[architecture]}
    k = K if architecture == "topk" else None
    how = {"k": k, "transcoder": transcoder, "apply_b_dec_to_input": not transcoder}
    return SAE(architecture=architecture, hook_name="blocks.1.hook_mlp_out", **tensors, **how)


EXPRESSIBLE = {
    "topk": drawn("topk"),
    "relu": drawn("relu"),
    "jumprelu": drawn("jumprelu"),
    "gated": drawn("gated"),
    "relu transcoder": drawn("relu", transcoder=True),
    "jumprelu transcoder": drawn("jumprelu", transcoder=True),
    "heads": replace(drawn("jumprelu"), hook_name="blocks.1.attn.hook_z", reshape_activations="hook_z"),
}


def dense(latents: Tensor) -> Tensor:
    return latents.to_dense() if latents.is_sparse else latents


@pytest.mark.parametrize("name", EXPRESSIBLE)
@torch.no_grad()
def test_saelens_computes_what_the_checkpoint_does(tmp_path: Path, name: str) -> None:
    sae = EXPRESSIBLE[name]
    checkpoint.save(sae, tmp_path, {})
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    rows = X.view(-1, 4, 4) if name == "heads" else X
    torch.testing.assert_close(dense(theirs.encode(rows)), sae.encode(X), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(theirs(rows).reshape(X.shape), sae(X), atol=1e-4, rtol=1e-4)
    assert theirs.cfg.metadata["hook_name"] == sae.hook_name


@pytest.mark.parametrize("architecture", ["topk", "gated"])
def test_saelens_refuses_what_it_cannot_express(tmp_path: Path, architecture: Architecture) -> None:
    checkpoint.save(drawn(architecture, transcoder=True), tmp_path, {})
    with pytest.raises(KeyError, match="husai_"):
        sae_lens.SAE.load_from_disk(tmp_path)


@torch.no_grad()
def test_a_training_form_is_read_once_it_is_saved_as_the_message_says(tmp_path: Path) -> None:
    training = sae_lens.BatchTopKTrainingSAE(sae_lens.BatchTopKTrainingSAEConfig(d_in=D, d_sae=N, k=K))
    training.topk_threshold.fill_(0.001)
    training.save_model(tmp_path / "training")
    with pytest.raises(UserError, match=r"TrainingSAE\.load_from_disk\(FOLDER\)\.save_inference_model\(NEW_FOLDER\)"):
        checkpoint.load(tmp_path / "training")
    sae_lens.TrainingSAE.load_from_disk(tmp_path / "training").save_inference_model(tmp_path / "inference")
    ours, theirs = checkpoint.load(tmp_path / "inference"), sae_lens.SAE.load_from_disk(tmp_path / "inference")
    assert ours.architecture == "jumprelu"
    assert 0 < ours.encode(X).count_nonzero() < N * len(X)
    torch.testing.assert_close(ours(X), theirs(X))
