"""What SAELens computes with checkpoints that HUSAI wrote.

    python benchmarks/peers/load.py DIRECTORY

runs where `requirements.txt` is installed. Each folder of DIRECTORY holds a checkpoint and `x.safetensors`; beside them
it writes `peer.safetensors` (`latents`, `output`), or `refused.txt` where SAELens does not load the checkpoint.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main() -> None:
    """Every folder in turn."""
    from sae_lens import SAE

    for directory in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        x = load_file(directory / "x.safetensors")["x"]
        try:
            sae = SAE.load_from_disk(str(directory))
        except Exception as error:
            (directory / "refused.txt").write_text(f"{type(error).__name__}: {error}")
            continue
        with torch.no_grad():
            latents = sae.encode(x)
            computed = {"latents": latents.contiguous(), "output": sae.decode(latents).contiguous()}
        save_file(computed, directory / "peer.safetensors")


if __name__ == "__main__":
    main()
