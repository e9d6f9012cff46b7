"""Logarithmic Dice plus cross entropy over nested regions, for labels that are not all to be trusted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_VOXELS = (2, 3, 4)

#: Voxels added to both sides of Dice: a sliver of liver at the rim of a patch must not outweigh everything else.
SMOOTH_VOXELS = 100.0
#: Cross entropy counts a present voxel of region k this many times per region before it: each is rarer than the last.
RARITY_WEIGHT = 4.0


def soft_dice(probability: Tensor, target: Tensor, smooth: float = SMOOTH_VOXELS) -> Tensor:
    """Soft Dice (Milletari et al., V-Net, 3DV 2016) of each sample and region: (n, c, z, y, x) to (n, c).

    `smooth` (in voxels) keeps the ratio finite where both are empty, and near 1 where both are tiny.
    """
    overlap = (probability * target).sum(_VOXELS)
    return (2 * overlap + smooth) / (probability.sum(_VOXELS) + target.sum(_VOXELS) + smooth)


def region_loss(logits: Tensor, target: Tensor, trust: Tensor) -> Tensor:
    """Weighted cross entropy on every trusted region, plus -ln Dice where the region is present; a scalar.

    The logarithm (Wong et al., MICCAI 2018) is what gets small lesions going: while a region is still missed, the
    gradient of plain Dice all but vanishes, that of its logarithm does not. Regions count alike, however many patches
    of the batch hold them.

    `logits` and `target` (0/1) are (n, c, z, y, x); `trust` (n, c) is 1 where the label of that region is known and 0
    where it is not (a case whose tumours nobody drew). Dice is left out on patches without the region: there it has no
    useful gradient and keeps the loss near 1. Finite for every batch, also for one without any trusted region.
    """
    logits = logits.float()
    weight = RARITY_WEIGHT ** torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1, 1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none").mean(_VOXELS)
    present = (target.sum(_VOXELS) > 0) * trust
    missed = -torch.log(soft_dice(torch.sigmoid(logits), target)) * present
    by_region = missed.sum(0) / present.sum(0).clamp(min=1)
    return (entropy * trust).sum() / trust.sum().clamp(min=1) + by_region.sum()
