"""One scan through both stages, in memory. Files are `cascade.outputs`'s business."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cascade.checkpoint import Model
from cascade.engine import Engine
from cascade.merge import Fused, clean_up, credible, fuse, liver_alone, pasted
from cascade.plausibility import NOTABLE_ML, doubts, overlooked
from preprocess.geometry import Box, Grid
from preprocess.preparation import Infer, Preparation, continued, share_shown
from preprocess.resample import FloatArray, slabs
from preprocess.volume import LabelMap, Volume
from stage1_liver.predict import CoarseLiver, find_liver
from stage1_liver.recipe import LiverPolicy
from stage2_tumor.predict import RoiProbabilities, find_tumor
from stage2_tumor.recipe import TumorPolicy

_LOG = logging.getLogger(__name__)

OK, NOT_FOUND = "ok", "liver not found"


@dataclass(frozen=True, eq=False)
class LiverStage:
    """Stage 1 ready to use: a network, how its input is prepared, its thresholds."""

    infer: Infer
    preparation: Preparation
    policy: LiverPolicy


@dataclass(frozen=True, eq=False)
class TumorStage:
    """Stage 2 ready to use."""

    infer: Infer
    preparation: Preparation
    policy: TumorPolicy


@dataclass
class Stopwatch:
    """Seconds by step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the enclosed block to `name`."""
        start = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
        _LOG.info("%s: %.2f s", name, self.seconds[name])


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What came of one scan; everything on the scan's canonical grid except `coarse`.

    `labels` is the result; `fused` the classes inside `box` before clean-up, None where no liver was found.
    """

    status: str
    labels: LabelMap
    coarse: CoarseLiver
    box: Box | None = None
    fused: Fused | None = None
    warnings: tuple[str, ...] = ()


def liver_stage(models: Sequence[Model], engine: Engine) -> LiverStage:
    """Stage 1 from its model, or from several that are alike but for their weights."""
    return LiverStage(_infer(models, engine), models[0].preparation, cast(LiverPolicy, models[0].settings.policy))


def tumor_stage(models: Sequence[Model], engine: Engine) -> TumorStage:
    """Stage 2 from its model, or from several that are alike but for their weights."""
    return TumorStage(_infer(models, engine), models[0].preparation, cast(TumorPolicy, models[0].settings.policy))


def _infer(models: Sequence[Model], engine: Engine) -> Infer:
    return continued(_joint(models, engine), models[0].preparation.spacing_mm[0])


def _joint(models: Sequence[Model], engine: Engine) -> Infer:
    """The mean of the models' probabilities."""
    each = [engine(model) for model in models]

    def infer(image: FloatArray, where: NDArray[np.bool_] | None = None) -> FloatArray:
        total = each[0](image, where)
        for other in each[1:]:
            total += other(image, where)
        return total / np.float32(len(each))

    return each[0] if len(each) == 1 else infer


def segment(volume: Volume, liver: LiverStage, tumor: TumorStage | None, watch: Stopwatch) -> Segmentation:
    """Liver and tumour of one scan in canonical orientation; `tumor` None stops after stage 1.

    No liver, or less than the least that counts after both stages were fused: an empty mask and the status `liver not
    found`, never a whole-image guess.
    """
    policy = policy_for(volume.grid, liver)
    with watch.step("stage1"):
        coarse = find_liver(volume, liver.infer, liver.preparation, policy)
    nothing = Segmentation(NOT_FOUND, LabelMap(np.zeros(volume.grid.shape, np.uint8), volume.grid), coarse)
    # In a volume of one value there is nothing to see, whatever a network makes of it.
    if volume.array.min() == volume.array.max():
        return nothing
    if not coarse.found:
        return replace(nothing, warnings=_overlooked(coarse, volume, watch))
    box = coarse.roi(volume.grid, policy.margin_mm)
    _LOG.info("region of interest %s..%s of %s (z, y, x)", box.start, box.stop, volume.grid.shape)
    fused = _fused(volume, coarse, box, (liver, tumor), watch)
    with watch.step("merge"):
        least, share = (tumor.policy.minimum_lesion_mm3, tumor.policy.outline_share) if tumor else (0.0, 0.0)
        labels, warnings = clean_up(fused, least, volume.cropped(box), share)
    if not labels.array.any() or labels.ml(1) < policy.minimum_ml:  # stage 2 denies most of it
        doubt = _overlooked(coarse, volume, watch, fused.agreement)
        return replace(nothing, box=box, fused=fused, warnings=doubt)
    whole = pasted(labels, box, volume.grid)
    return Segmentation(OK, whole, coarse, box, fused, warnings + doubts(whole, volume, fused.agreement))


def policy_for(grid: Grid, liver: LiverStage) -> LiverPolicy:
    """Stage 1's policy for a scan on `grid`: of one so low that it is continued, as much less is enough of a liver."""
    shown = share_shown(liver.preparation.working_grid(grid))  # as high as the image that is continued
    return replace(liver.policy, minimum_ml=liver.policy.minimum_ml * shown)


def _overlooked(
    coarse: CoarseLiver, volume: Volume, watch: Stopwatch, agreement: float | None = None
) -> tuple[str, ...]:
    """What is to be said of the largest part that stage 1 took for liver."""
    if np.count_nonzero(coarse.part) * coarse.grid.voxel_ml < NOTABLE_ML:
        return ()
    with watch.step("merge"):
        part = np.empty(volume.grid.shape, np.uint8)
        for z, slab in enumerate(slabs(coarse.part, coarse.grid, volume.grid)):
            part[z] = slab >= 0.5
        return overlooked(LabelMap(part, volume.grid), volume, agreement)


def _fused(
    volume: Volume, coarse: CoarseLiver, box: Box, stages: tuple[LiverStage, TumorStage | None], watch: Stopwatch
) -> Fused:
    """The classes inside `box` before clean-up."""
    liver, tumor = stages
    with watch.step("merge"):
        rough = liver_alone(coarse, volume.grid, box, liver.policy.threshold)
    if tumor is None:
        return rough
    roi = volume.cropped(box)
    with watch.step("stage2"):
        fine = refine(roi, rough.liver, tumor)
    with watch.step("merge"):
        # Not by a name, which would keep what is replaced in it in memory.
        return credible(fuse(coarse, fine, volume.grid, box, tumor.policy), roi, tumor.policy)


def refine(roi: Volume, liver: NDArray[np.bool_], tumor: TumorStage) -> RoiProbabilities:
    """Stage 2 on the region of interest, near the mask `liver` on the same grid."""
    return find_tumor(roi, liver, tumor.infer, tumor.preparation, tumor.policy.reach_mm)
