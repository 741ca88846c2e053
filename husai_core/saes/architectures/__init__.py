"""How SAEs of each architecture are trained, a file each; the losses are in `losses`."""

from husai_core.saes.architectures.base import StackedSAEs
from husai_core.saes.architectures.batchtopk import BatchTopK
from husai_core.saes.architectures.gated import Gated
from husai_core.saes.architectures.jumprelu import JumpReLU
from husai_core.saes.architectures.matryoshka import Matryoshka
from husai_core.saes.architectures.relu import ReLU
from husai_core.saes.architectures.switch import Switch
from husai_core.saes.architectures.topk import TopK

ARCHITECTURES: dict[str, type[StackedSAEs]] = {
    "topk": TopK,
    "batchtopk": BatchTopK,
    "matryoshka": Matryoshka,
    "switch": Switch,
    "relu": ReLU,
    "jumprelu": JumpReLU,
    "gated": Gated,
}
"""The class that trains each architecture of a recipe."""
