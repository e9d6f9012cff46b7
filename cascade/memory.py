"""How much memory a training takes, foreseen from the description of its network."""

from __future__ import annotations

import torch
from torch import Tensor

from cascade.losses import deep_loss, deep_sums
from cascade.settings import Settings
from cascade.unet import unet

#: What the libraries take with their first convolution.
LIBRARIES = 100_000_000
#: Saved tensors once, and while they are used up gradients and the convolutions' own copies.
PER_SAVED = 2.5
#: A weight is there five times in float32: itself, its gradient, two moments of AdamW (one of Muon), the running mean.
PER_WEIGHT = 5 * 4


def training_bytes(settings: Settings, regions: int, *, half: bool) -> int:
    """Memory that the steps of a training take beyond that of the program; `half`: it computes in bfloat16.

    The tensors that forward and loss save for backward are counted on torch's device "meta", which computes nothing, so
    whatever a network consists of is in it; the rest is proportional to them, to the weights and to the batch.

    Beside the peak of resident memory of real steps (`python -m benchmarks.training_memory`, one CPU with bfloat16) it
    is from 2 to 27 % too much in eight networks: the recipes (467 MB measured, 14 % too much; 749 MB, 11 %), stage 1
    with 64^3 patches, stage 2 with 32^3 (2 %) and 64^3, with 48^3 and `stem` 1 (27 %), residual with 64^3, and twice as
    wide. `PER_SAVED` is from when weights did not lie channels last there, which took that much more; in float32 it was
    not measured since.
    On a GPU nothing was measured.
    """
    with torch.device("meta"):
        network = unet(settings.network, regions, settings.loss.deep_levels)
        image = torch.zeros(settings.sampling.batch, 1, *settings.sampling.patch)
        target = torch.zeros(settings.sampling.batch, regions, *settings.sampling.patch)
    weights = sum(parameter.numel() for parameter in network.parameters())
    if half:
        network, image = network.bfloat16(), image.bfloat16()
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor  # held, or another could get its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        deep_loss(deep_sums(network.outputs(image), target, target, settings.loss), settings.loss)
    kept = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    batch = image.nbytes + 2 * target.nbytes
    return round(LIBRARIES + PER_SAVED * kept + PER_WEIGHT * weights + batch)
