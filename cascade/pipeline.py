"""One scan through both stages, in memory. Files are `cascade.cases_out`'s business."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from cascade.checkpoint import Model
from cascade.inference import as_infer
from cascade.merge import Fused, clean_up, fuse, liver_alone, pasted
from preprocess.geometry import Box
from preprocess.preparation import Infer, Preparation
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


def liver_stage(model: Model, device: torch.device) -> LiverStage:
    """Stage 1 from its model file."""
    infer = as_infer(model.network(), model.settings.window, device)
    return LiverStage(infer, model.preparation, cast(LiverPolicy, model.settings.policy))


def tumor_stage(model: Model, device: torch.device) -> TumorStage:
    """Stage 2 from its model file."""
    infer = as_infer(model.network(), model.settings.window, device)
    return TumorStage(infer, model.preparation, cast(TumorPolicy, model.settings.policy))


def segment(volume: Volume, liver: LiverStage, tumor: TumorStage | None, watch: Stopwatch) -> Segmentation:
    """Liver and tumour of one scan in canonical orientation; `tumor` None stops after stage 1.

    No liver: an empty mask and the status `liver not found`, never a whole-image guess.
    """
    with watch.step("stage1"):
        coarse = find_liver(volume, liver.infer, liver.preparation, liver.policy)
    # In a volume of one value there is nothing to see, whatever a network makes of it.
    if not coarse.found or volume.array.min() == volume.array.max():
        empty = LabelMap(np.zeros(volume.grid.shape, np.uint8), volume.grid)
        return Segmentation(NOT_FOUND, empty, coarse)
    box = coarse.roi(volume.grid, liver.policy.margin_mm)
    _LOG.info("region of interest %s..%s of %s (z, y, x)", box.start, box.stop, volume.grid.shape)
    if tumor is None:
        with watch.step("merge"):
            fused = liver_alone(coarse, volume.grid, box, liver.policy.threshold)
            labels, warnings = clean_up(fused, 0)
    else:
        with watch.step("stage2"):
            rough = liver_alone(coarse, volume.grid, box, liver.policy.threshold).liver
            fine = refine(volume.cropped(box), rough, tumor)
        with watch.step("merge"):
            fused = fuse(coarse, fine, volume.grid, box, tumor.policy)
            labels, warnings = clean_up(fused, tumor.policy.minimum_lesion_mm3)
    whole = pasted(labels, box, volume.grid)
    return Segmentation(OK, whole, coarse, box, fused, warnings + _border_warning(whole))


def refine(roi: Volume, liver: NDArray[np.bool_], tumor: TumorStage) -> RoiProbabilities:
    """Stage 2 on the region of interest, near the mask `liver` on the same grid."""
    return find_tumor(roi, liver, tumor.infer, tumor.preparation, tumor.policy.reach_mm)


def _border_warning(labels: LabelMap) -> tuple[str, ...]:
    faces = {
        "lower end": labels.array[0],
        "upper end": labels.array[-1],
        "front": labels.array[:, 0],
        "back": labels.array[:, -1],
        "right side": labels.array[:, :, 0],
        "left side": labels.array[:, :, -1],
    }
    cut = [name for name, face in faces.items() if face.any()]
    return (f"the liver is cut by the {' and '.join(cut)} of the scan",) if cut else ()
