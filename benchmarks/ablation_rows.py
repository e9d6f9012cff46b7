"""What the rows of `benchmarks.ablation` change, and how each predicts a whole scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cascade import sampler
from cascade.checkpoint import Model
from cascade.engine import pick_engine
from cascade.merge import Fused, clean_up, credible, fuse, probabilities
from cascade.pipeline import Stopwatch, TumorStage, liver_stage, refine, segment, tumor_stage
from cascade.sampler import Sampler
from cascade.stages import TUMOR, Stage
from cascade.unet import UNet3d
from preprocess.geometry import Box, Grid
from preprocess.prepared import PreparedCase
from preprocess.resample import FloatArray, resampled
from preprocess.volume import LabelMap, Volume
from stage1_liver.predict import CoarseLiver
from stage2_tumor.predict import RoiProbabilities
from stage2_tumor.recipe import TumorPolicy


@dataclass(frozen=True)
class Row:
    """A line of the table: what it says there, and the settings of stage 2 that it changes."""

    label: str
    changes: tuple[str, ...] = ()


#: What a row does beyond its settings is in `as_row`, by its name.
ROWS = {
    "cascade": Row("the cascade"),
    "whole": Row("one network of three classes on the whole scan"),
    "channel": Row("stage 1's liver is an input of stage 2"),
    "exclusive": Row("disjoint targets for nested regions"),
    "no-lesions": Row("no synthetic tumours", ("lesions.share=0",)),
    "small-lesions": Row("synthetic tumours from 3 mm, not 4", ("lesions.diameter_mm=[3.0, 110.0]",)),
    "by-voxel": Row("all voxels of a scan's tumours alike, for all its lesions alike"),
    "still": Row(
        "no bending, mirroring, tone",
        ("augmentation.bend_share=0", "augmentation.mirror_share=0", "augmentation.tone=0"),
    ),
    "unmirrored": Row("no mirroring", ("augmentation.mirror_share=0",)),
    "uneven": Row("a tumour counts for its voxels, not for their root", ("loss.even_ml=0",)),
    "adamw": Row("stage 2 by AdamW", ('optimizer.name="adamw"',)),
    "large-pixels": Row("lower resolution in a sixth of the patches", ("augmentation.large_pixels_share=0.15",)),
    "narrow-window": Row("a narrower HU window in a third", ("augmentation.narrow_window_share=0.3",)),
    "field": Row("a small field of view in a tenth", ("augmentation.field_share=0.1",)),
    **{
        name.replace("_", "-"): Row(f"loss `{name}`", (f'loss.name="{name}"',))
        for name in ("dice_ce", "focal", "exp_log_dice", "jaccard", "tversky", "sensitivity_specificity")
    },
}

#: A prepared image lies in -1..1; where the liver is given as an input it is raised by this much.
_RAISED = 4.0


def whole_scan(labels: NDArray[np.uint8], grid: Grid) -> Box:
    """All of a scan, where the cascade's stage 2 keeps the surroundings of the liver."""
    return Box.whole(grid)


def _elsewhere(labels: NDArray[np.uint8]) -> NDArray[Any]:
    return np.flatnonzero(labels == 0)


#: Stage 2's regions and shares of patches, from anywhere in the scan.
WHOLE = replace(TUMOR, training_box=whole_scan, validation_box=whole_scan, pools={**TUMOR.pools, "outside": _elsewhere})


def _by_voxel(labels: NDArray[np.uint8]) -> NDArray[Any]:
    return np.flatnonzero(labels == 2)


#: Stage 2 as it is, but that a large tumour takes the patches of the small ones beside it.
BY_VOXEL = replace(TUMOR, pools={**TUMOR.pools, "lesion": _by_voxel})


@contextmanager
def as_row(name: str) -> Iterator[None]:
    """Training, loading and predicting as the row or network `name` has it; most change nothing but settings."""
    with ExitStack() as stack:
        if name in ("whole", "exclusive"):
            stack.enter_context(patch.object(Sampler, "_patch", _with_classes))
        if name == "exclusive":
            stack.enter_context(patch("cascade.pipeline.refine", _refined_exclusive))
        if name == "channel":
            stack.enter_context(patch.object(Sampler, "_patch", _with_liver))
            stack.enter_context(patch("cascade.training_state.unet", _given_liver))
            stack.enter_context(patch("cascade.checkpoint.unet", _given_liver_at_stage_2))
            stack.enter_context(patch("cascade.pipeline.refine", _refined_with_liver))
        yield


@contextmanager
def painted_only() -> Iterator[None]:
    """Training that learns tumours from synthetic ones alone: at true ones nothing is trusted, nor are they sought."""
    with patch("cascade.sampler._trust", _untold), patch("cascade.sampler._load", _without_lesions):
        yield


_drawn_trust, _all_pools = sampler._trust, sampler._load


def _untold(regions: Tensor, drawn: Sequence[bool]) -> Tensor:
    """As a training trusts labels, but for the true tumours and one voxel around them."""
    trust = _drawn_trust(regions, drawn)
    if len(regions) > 1:
        trust[1] *= 1 - nn.functional.max_pool3d(regions[1:2, None], 3, 1, 1)[0, 0]
    return trust


def _without_lesions(case: PreparedCase, stage: Stage) -> Any:
    source = _all_pools(case, stage)
    return replace(source, centres={name: pool for name, pool in source.centres.items() if name != "lesion"})


_nested = Sampler._patch


def _with_classes(self: Sampler, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A patch whose liver and tumour exclude each other."""
    image, regions, trust = _nested(self, rng)
    regions[0] *= 1 - regions[1]
    return image, regions, trust


def _with_liver(self: Sampler, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A patch whose image is raised in the liver, as a coarse network would find it: some voxels too large or small."""
    image, regions, trust = _nested(self, rng)
    reach = int(rng.integers(-3, 4))
    liver = regions[:1, None]
    width = 2 * abs(reach) + 1
    grown = nn.functional.max_pool3d(liver if reach >= 0 else 1 - liver, width, 1, abs(reach))
    rough = (grown if reach >= 0 else 1 - grown)[0, 0]
    return image + _RAISED * rough, regions, trust


class GivenLiver(nn.Module):
    """The first convolution of a network that sees image and liver, from the image that is raised in the liver."""

    def __init__(self, first: nn.Conv3d) -> None:
        super().__init__()
        size, stride, padding = first.kernel_size, first.stride, first.padding
        self.both = nn.Conv3d(2, first.out_channels, size, stride, padding, bias=False)  # type: ignore[arg-type]
        nn.init.kaiming_normal_(self.both.weight, a=0.01)

    def forward(self, image: Tensor) -> Tensor:
        """(n, 1, z, y, x) to (n, channels, z, y, x)."""
        liver = (image > _RAISED / 2).to(image.dtype)
        return cast(Tensor, self.both(torch.cat((image - _RAISED * liver, 2 * liver - 1), 1)))


def _given_liver(described: Any, regions: int, deep_levels: int = 0) -> UNet3d:
    from cascade.unet import unet

    network = unet(described, regions, deep_levels)
    block = cast(nn.Sequential, network.down[0])
    block[0] = GivenLiver(cast(nn.Conv3d, block[0]))
    return network


def _given_liver_at_stage_2(described: Any, regions: int, deep_levels: int = 0) -> UNet3d:
    from cascade.unet import unet

    return (_given_liver if regions == len(TUMOR.regions) else unet)(described, regions, deep_levels)


def _refined_with_liver(roi: Volume, liver: NDArray[np.bool_], tumor: TumorStage) -> RoiProbabilities:
    grid = tumor.preparation.working_grid(roi.grid)
    given = resampled(liver, roi.grid, grid) > 0.5
    raised = np.asarray(tumor.preparation.prepared(roi) + _RAISED * given, np.float32)
    both = tumor.infer(raised, None)
    return RoiProbabilities(both[0], both[1], grid)


def _refined_exclusive(roi: Volume, liver: NDArray[np.bool_], tumor: TumorStage) -> RoiProbabilities:
    found = refine(roi, liver, tumor)
    return replace(found, liver=np.minimum(1, found.liver + found.tumor))


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a row makes of a whole scan: the classes, and the probability of tumour (z, y, x) inside its liver."""

    labels: LabelMap
    tumor: FloatArray


def predicted(volume: Volume, models: Sequence[Model]) -> Predicted:
    """By the cascade from two models, else by the one for everything."""
    engine, kept = pick_engine("cpu"), _Kept()
    with patch("cascade.pipeline.fuse", kept.fuse):
        if len(models) == 2:
            stages = liver_stage(models[:1], engine), tumor_stage(models[1:], engine)
            labels = segment(volume, *stages, Stopwatch()).labels
        else:
            labels = _by_one(volume, tumor_stage(models, engine), kept)
    return Predicted(labels, kept.within(labels))


class _Kept:
    """Fuses two stages, and keeps the probabilities that the classes come from."""

    def __init__(self) -> None:
        self._box: Box | None = None
        self._tumor: list[FloatArray] = []

    def fuse(self, coarse: CoarseLiver, fine: RoiProbabilities, full: Grid, box: Box, policy: TumorPolicy) -> Fused:
        """`cascade.merge.fuse`."""
        self._box = box
        self._tumor = [np.sqrt(p1 * p_tumor) for p1, _, p_tumor in probabilities(coarse, fine, full, box)]
        return fuse(coarse, fine, full, box, policy)

    def within(self, labels: LabelMap) -> FloatArray:
        """The probability of tumour in the liver of `labels`; 0 everywhere where none was found."""
        tumor = np.zeros(labels.array.shape, np.float32)
        if self._box is not None:
            tumor[self._box.slices] = self._tumor
        return np.where(labels.array > 0, tumor, np.float32(0))


def _by_one(volume: Volume, stage: TumorStage, kept: _Kept) -> LabelMap:
    """As the cascade merges its stages, the network's own liver in place of stage 1's."""
    grid = stage.preparation.working_grid(volume.grid)
    classes = stage.infer(stage.preparation.prepared(volume), None)
    liver = np.minimum(1, classes[0] + classes[1])
    coarse = CoarseLiver(liver, liver >= stage.policy.liver_threshold, grid, found=True)
    box = Box.whole(volume.grid)
    fused = kept.fuse(coarse, RoiProbabilities(liver, classes[1], grid), volume.grid, box, stage.policy)
    policy = stage.policy
    fused = credible(fused, volume, policy)
    return clean_up(fused, policy.minimum_lesion_mm3, volume, policy.outline_share)[0]
