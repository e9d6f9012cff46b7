"""What became of each true tumour: found, or lost for good at which step of the cascade."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from evaluate.stage_masks import StageMasks
from evaluate.waterfall import TUMOR_STEPS
from preprocess.components import components
from preprocess.geometry import Box
from preprocess.volume import TUMOR

FOUND = "found"

#: What can become of a tumour: key and label. Steps that only add false tumour lose none.
FATES = {FOUND: FOUND} | {s.key: s.label for s in TUMOR_STEPS if not s.key.startswith("false_")}


@dataclass(frozen=True)
class LesionFate:
    """One true tumour (6-connected part of label 2), numbered from 1, the largest first.

    `found_share` is the share of its voxels in the final mask; `fate` is `found` when that is above 0, or else the key
    of the step of `TUMOR_STEPS` after which no mask holds a voxel of it any more.
    """

    lesion: int
    volume_ml: float
    found_share: float
    fate: str


def lesion_fates(masks: StageMasks) -> tuple[LesionFate, ...]:
    """The fate of every true tumour of a case; empty when tumours are not scored or there are none."""
    box = Box.around(masks.truth.array == TUMOR) if masks.scores_tumor else None
    if box is None:
        return ()
    numbered, sizes = components(masks.truth.array[box.slices] == TUMOR)
    hits = np.zeros((len(TUMOR_STEPS) + 1, len(sizes)), int)
    for z, lesions in enumerate(numbered, box.start[0]):
        for row, mask in zip(hits, masks.tumor_sequence(z), strict=True):
            row += np.bincount(lesions[mask[box.slices[1:]]], minlength=len(sizes))
    order = np.argsort(-sizes[1:], kind="stable") + 1
    return tuple(
        LesionFate(
            lesion=number,
            volume_ml=float(sizes[k] * masks.truth.grid.voxel_ml),
            found_share=float(hits[-1, k] / sizes[k]),
            fate=_fate(int(np.flatnonzero(hits[:, k])[-1])),
        )
        for number, k in enumerate(order, 1)
    )


def _fate(last_hit: int) -> str:
    return FOUND if last_hit == len(TUMOR_STEPS) else TUMOR_STEPS[last_hit].key


def fate_counts(lesions: Iterable[LesionFate]) -> dict[str, int]:
    """How many tumours had each fate of `FATES`, in that order, zeros included."""
    fates = [lesion.fate for lesion in lesions]
    return {fate: fates.count(fate) for fate in FATES}
