"""What training lowers: a cross entropy, an overlap, or both, over nested regions that are not trusted everywhere.

The loss is chosen by name (`LOSSES`). It is made of sums over the trusted voxels of a batch, so false voxels of a patch
without the region count against the patches that hold it. The sums come first (`deep_sums`) and the loss is a function
of them (`deep_loss`): of processes that share a batch each sums its own patches, and all have the loss of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.settings import Loss
from preprocess.errors import UsageError

_ByVoxel = Callable[[Tensor, float], tuple[Tensor, Tensor]]
#: Added to Dice in the logarithm: the slope of `log_dice` is at most six times that of a good prediction.
LOG_FLOOR = 0.2


@dataclass(frozen=True, eq=False)
class Counts:
    """Soft voxel counts of each region, each (regions): `both`, only `missed`, only `false`, and in `neither`.

    `smooth` voxels are added where a ratio is taken: a sliver of liver at the rim of a patch must not outweigh
    everything else.
    """

    both: Tensor
    missed: Tensor
    false: Tensor
    neither: Tensor
    smooth: float

    @staticmethod
    def of(sums: Tensor, smooth: float) -> Counts:
        """Counts from the sums of `region_sums`."""
        _, known, hit, claimed, wanted = sums.unbind()
        return Counts(hit, wanted - hit, claimed - hit, known - wanted - claimed + hit, smooth)

    def ratio(self, false: float, missed: float) -> Tensor:
        """The Tversky index: 1 where prediction and truth agree; `false` = `missed` = 1/2 is Dice, 1 is Jaccard."""
        both = self.both + self.smooth
        return both / (both + false * self.false + missed * self.missed)


def dice(counts: Counts) -> Tensor:
    """1 - Dice (Milletari et al., V-Net, 3DV 2016)."""
    return 1 - counts.ratio(0.5, 0.5)


def log_dice(counts: Counts) -> Tensor:
    """-ln Dice, softened below `LOG_FLOOR`, 0 where prediction and truth agree.

    While a region is still missed, the gradient of plain Dice all but vanishes, this one does not. The floor bounds it:
    without one, a batch whose region is nearly all missed would outweigh all others.
    """
    return -torch.log((counts.ratio(0.5, 0.5) + LOG_FLOOR) / (1 + LOG_FLOOR))


def exp_log_dice(counts: Counts) -> Tensor:
    """(-ln Dice)^0.3 (Wong et al., MICCAI 2018)."""
    return (-torch.log(counts.ratio(0.5, 0.5)) + 1e-6) ** 0.3


def jaccard(counts: Counts) -> Tensor:
    """1 - intersection over union."""
    return 1 - counts.ratio(1.0, 1.0)


def tversky(counts: Counts) -> Tensor:
    """1 - Tversky index, missed voxels counting more than false ones (Salehi et al., MLMI 2017)."""
    return 1 - counts.ratio(0.3, 0.7)


def sensitivity_specificity(counts: Counts) -> Tensor:
    """Missed share of the region and false share of the rest, 1 to 9 (after Brosch et al., MICCAI 2015)."""
    missed = counts.missed / (counts.both + counts.missed + counts.smooth)
    false = counts.false / (counts.neither + counts.false + counts.smooth)
    return 0.1 * missed + 0.9 * false


def cross_entropy(logits: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Binary cross entropy of every voxel if it were in the region, counted `weight` times, and if it were not."""
    absent = F.softplus(logits)
    return weight * (absent - logits), absent


def focal(logits: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Cross entropy, sure voxels counted less: (1 - p)^2 (Lin et al., ICCV 2017)."""
    present, absent = cross_entropy(logits, weight)
    chance = torch.sigmoid(logits)
    return (1 - chance) ** 2 * present, chance**2 * absent


#: By name: the part that is a mean over voxels and the part that is a ratio of counts.
LOSSES: Mapping[str, tuple[_ByVoxel | None, Callable[[Counts], Tensor] | None]] = {
    "log_dice_ce": (cross_entropy, log_dice),
    "dice_ce": (cross_entropy, dice),
    "dice_focal": (focal, dice),
    "ce": (cross_entropy, None),
    "focal": (focal, None),
    "dice": (None, dice),
    "exp_log_dice": (None, exp_log_dice),
    "jaccard": (None, jaccard),
    "tversky": (None, tversky),
    "sensitivity_specificity": (None, sensitivity_specificity),
}


def require_loss(name: str) -> None:
    """Raises UsageError for a `loss.name` that nobody knows."""
    if name not in LOSSES:
        raise UsageError(f"loss.name = {name!r} is unknown; known: {', '.join(LOSSES)}")


def region_sums(logits: Tensor, target: Tensor, trust: Tensor, settings: Loss) -> Tensor:
    """What the loss of a batch is made of, added up over its trusted voxels: (5, regions).

    They are the voxels' part of the loss, the voxels, and those of the region both in prediction and truth, in the
    prediction, and in the truth. `logits`, `target` and `trust` are (n, regions, z, y, x); `target` is the share of a
    voxel in the region, `trust` 0 where the label of that region is not known (the liver of a case whose tumours nobody
    drew), else what a voxel counts for. All are products of vectors, which take a fraction of the time of products of
    voxels that are then added up.
    """
    by_voxel, _ = LOSSES[settings.name]
    wanted = target * trust
    columns = []
    for region in range(logits.shape[1]):
        logit, inside, known = (_flat(part[:, region]) for part in (logits, wanted, trust))
        claimed = torch.sigmoid(logit)
        cost = logit.sum() * 0  # keeps the graph where nothing else does
        if by_voxel:
            present, absent = by_voxel(logit, settings.rarity_weight**region)
            cost = present @ inside + absent @ (known - inside)
        columns.append(torch.stack([cost, known.sum(), claimed @ inside, claimed @ known, inside.sum()]))
    return torch.stack(columns, 1)


def _flat(part: Tensor) -> Tensor:
    return part.float().flatten()


def region_loss(sums: Tensor, settings: Loss) -> Tensor:
    """The loss `settings.name` from `region_sums`, a scalar: a mean over the regions of its voxels' part, and a sum of
    that of the counts.

    A ratio is left out for a region that the batch does not hold, where it has no useful gradient; a loss without a
    voxels' part takes the share of false voxels instead. Finite for every batch, also for one that is trusted nowhere.
    """
    by_voxel, by_count = LOSSES[settings.name]
    cost, known, _, _, wanted = sums.unbind()
    known = known.clamp(min=1)
    total = (cost / known).mean()
    if by_count:
        counts = Counts.of(sums, settings.smooth_voxels)
        absent = torch.zeros_like(known) if by_voxel else counts.false / known
        total = total + torch.where(wanted > 0, by_count(counts), absent).sum()
    return total


def deep_sums(outputs: Sequence[Tensor], target: Tensor, trust: Tensor, settings: Loss) -> Tensor:
    """`region_sums` at every resolution of `outputs`, finest first, each halved in size: (levels, 5, regions).

    A coarse voxel's target is the share of its voxels in the region. It counts for as much as they do in the mean, and
    for nothing where one of them is not trusted.
    """
    levels = []
    for level, logits in enumerate(outputs):
        if level:
            known = _halved(trust, torch.minimum) > 0
            target, trust = _halved(target, torch.add) / 8, _halved(trust, torch.add) / 8 * known
        levels.append(region_sums(logits, target, trust, settings))
    return torch.stack(levels)


def _halved(values: Tensor, joined: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(..., z, y, x) with each block of 2x2x2 `joined` to one voxel; torch's pooling takes three times as long."""
    for axis in (-3, -2, -1):
        pairs = values.movedim(axis, 0)
        values = joined(pairs[::2], pairs[1::2]).movedim(0, axis)
    return values


def deep_loss(sums: Tensor, settings: Loss) -> Tensor:
    """The mean of `region_loss` over the levels of `deep_sums`, each of half the weight of the one before (Lee et al.,
    Deeply-Supervised Nets, AISTATS 2015).
    """
    weights = [0.5**level for level in range(len(sums))]
    losses = [region_loss(level, settings) * weight for level, weight in zip(sums, weights, strict=True)]
    return torch.stack(losses).sum() / sum(weights)
