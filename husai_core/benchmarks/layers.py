"""Where in a network an SAE fits: at the hook where it is said to read, or at the same one of another layer."""

from __future__ import annotations

import re
from math import ceil, isfinite

from husai_core.benchmarks.splice import Reading
from husai_core.saes.evaluate import evaluate
from husai_core.saes.sae import SAE

ROWS = 512
LAYER = re.compile(r"(blocks\.)\d+(\..+)")


def explained_by_layer(reading: Reading, sae: SAE) -> dict[str, float]:
    """Explained variance of an SAE on about `ROWS` rows at the hook of a reading and at the same one of other layers.

    Each is the lower of the figure over all rows and that without outliers. Hooks without rows of the SAE's width, or
    where the figure does not exist, are left out; so is everything where the hook lies in no layer.
    """
    layer, model, sample = LAYER.fullmatch(reading.hook), reading.model, reading.sample
    if layer is None:
        return {}
    names = [f"{layer[1]}{number}{layer[2]}" for number in range(model.n_layers)]
    names = [name for name in names if model.has_hook(name)]
    block = slice(0, ceil(ROWS * len(sample) / max(1, int(sample.rows.sum()))))
    activations = model.activations(model.inputs(sample.tokens[block]), names)
    at = sample.rows[block].to(reading.device)
    rows = {name: values[at].cpu() for name, values in activations.items() if values.shape[2] == sae.d_in}
    explained = {name: evaluate(sae, of_layer).lower_explained_variance for name, of_layer in rows.items()}
    return {name: figure for name, figure in explained.items() if isfinite(figure)}
