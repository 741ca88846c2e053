"""Small SAEs that the peers themselves write, and what the peers compute with them.

    python benchmarks/peers/fixtures.py DIRECTORY

runs where `requirements.txt` is installed. It writes `saelens.zip`, `dictionary_learning.zip` and `sparsify.zip`, one
folder per SAE, and `expected.safetensors`: the rows `x`, and the latents and output of each SAE for them.
"""

import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

D, OTHER, N, K, ROWS = 8, 6, 32, 4, 3
EPOCH = (2026, 1, 1, 0, 0, 0)
Saves = Iterator[tuple[str, Callable[[Path], object]]]


def drawn(module: Any) -> Any:
    """The module with random parameters of every kind, so that nothing is at a start that hides a mistake.

    Thresholds are positive, and biases of encoders so low that some rows have fewer than `K` positive latents. Values
    are rounded, so that the files compress.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.randn(parameter.shape).bfloat16())
            if name in ("b_enc", "encoder.bias"):
                parameter.sub_(3)
            if name == "threshold":
                parameter.abs_()
        for name, buffer in module.named_buffers():
            if name == "threshold":
                buffer.fill_(1.5)
    return module


def saelens() -> Saves:
    """Each architecture that SAELens can run and HUSAI imports."""
    import sae_lens
    from sae_lens.saes import transcoder

    common: dict[str, Any] = {"d_in": D, "d_sae": N}
    other = common | {"d_out": OTHER, "apply_b_dec_to_input": False}
    for name, sae_class, config in (
        ("standard", sae_lens.StandardSAE, sae_lens.StandardSAEConfig(**common)),
        ("standard_raw", sae_lens.StandardSAE, sae_lens.StandardSAEConfig(**common, apply_b_dec_to_input=False)),
        ("topk", sae_lens.TopKSAE, sae_lens.TopKSAEConfig(**common, k=K, rescale_acts_by_decoder_norm=False)),
        ("topk_rescaled", sae_lens.TopKSAE, sae_lens.TopKSAEConfig(**common, k=K, rescale_acts_by_decoder_norm=True)),
        ("jumprelu", sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig(**common)),
        ("gated", sae_lens.GatedSAE, sae_lens.GatedSAEConfig(**common)),
        ("transcoder", transcoder.Transcoder, transcoder.TranscoderConfig(**other)),
        ("jumprelu_transcoder", transcoder.JumpReLUTranscoder, transcoder.JumpReLUTranscoderConfig(**other)),
    ):
        yield name, drawn(sae_class(config)).save_model


def run_saelens(directory: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and output of a saved SAE."""
    from sae_lens import SAE

    sae = SAE.load_from_disk(str(directory))
    return sae.encode(x), sae(x)


def dictionary_learning() -> Saves:
    """Each class that `load_dictionary` knows, with the configuration of its trainer."""
    from dictionary_learning import dictionary, trainers
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer

    common: dict[str, Any] = {"activation_dim": D, "dict_size": N}
    trained = common | {"steps": 10_000, "layer": 3, "lm_name": "none", "device": "cpu"}
    trained_by = [
        trainers.StandardTrainer(**trained),
        trainers.GatedSAETrainer(**trained),
        trainers.TopKTrainer(**trained, k=K),
        trainers.BatchTopKTrainer(**trained, k=K),
        trainers.JumpReluTrainer(**trained),
        MatryoshkaBatchTopKTrainer(**trained, k=K, group_fractions=[0.25, 0.75]),
    ]
    saes = [(trainer.ae, trainer.config) for trainer in trained_by]
    saes.append((dictionary.AutoEncoderNew(D, N), common | {"dict_class": "AutoEncoderNew"}))
    for sae, config in saes:
        drawn(sae)

        def save(directory: Path, sae: Any = sae, config: Any = config) -> None:
            directory.mkdir()
            torch.save(sae.state_dict(), directory / "ae.pt")
            (directory / "config.json").write_text(json.dumps({"trainer": config}))

        yield type(sae).__name__, save


def run_dictionary_learning(directory: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and output of a saved SAE."""
    from dictionary_learning.utils import load_dictionary

    sae, _ = load_dictionary(str(directory), "cpu")
    return sae.encode(x), sae(x)


def sparsify() -> Saves:
    """An SAE and a transcoder."""
    from sparsify import SparseCoder, SparseCoderConfig

    for name, transcode in (("sae", False), ("transcoder", True)):
        yield name, drawn(SparseCoder(D, SparseCoderConfig(num_latents=N, k=K, transcode=transcode))).save_to_disk


def run_sparsify(directory: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """Latents, which it lists, and output of a saved SAE."""
    from sparsify import SparseCoder

    sae = SparseCoder.load_from_disk(directory)
    values, indices, _ = sae.encode(x)
    return torch.zeros(len(x), N).scatter_(1, indices, values), sae.decode(values, indices)


def pack(source: Path, target: Path) -> None:
    """The folders below `source` as a zip file whose bytes depend on theirs alone."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(source).as_posix(), EPOCH)
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)


@torch.no_grad()
def main() -> None:
    """All peers in turn."""
    torch.manual_seed(0)
    target, x = Path(sys.argv[1]), 2 * torch.randn(ROWS, D)
    expected = {"x": x}
    for saves, run in (
        (saelens, run_saelens),
        (dictionary_learning, run_dictionary_learning),
        (sparsify, run_sparsify),
    ):
        with TemporaryDirectory() as scratch:
            for name, save in saves():
                directory = Path(scratch) / name
                save(directory)
                latents, output = run(directory, x)
                key = f"{saves.__name__}/{name}"
                expected |= {f"{key}/latents": latents.contiguous(), f"{key}/output": output.contiguous()}
            pack(Path(scratch), target / f"{saves.__name__}.zip")
    save_file(expected, target / "expected.safetensors")


if __name__ == "__main__":
    main()
