"""What about a result should make a person look at it: a liver that is cut, too small, too large, not enhanced, or no
liver tissue; tumours as dark as water.

A network answers every image. These checks need no network: they compare the answer with what a liver can be.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from preprocess.anatomy import misplaced
from preprocess.components import components
from preprocess.enhancement import vessel_hu
from preprocess.geometry import Box
from preprocess.lesions import cores_hu
from preprocess.volume import LIVER, TUMOR, LabelMap, Volume

#: Whole adult livers are 0.6 to 3.5 L with hardly an exception (means are 1.2 to 1.8 L); tumours can make them larger.
LIVER_ML = (600.0, 4500.0)
#: Liver in CT: -20 (severe steatosis) to 200 HU (arterial phase, iron, amiodarone); half of the voxels lie here.
LIVER_HU = (-20.0, 200.0)
#: Vessels of the liver are so much brighter than it at least where contrast medium has reached them: 19 to 72 HU in
#: fourteen scans, 10 in one without contrast medium. Noise may hide that there is none.
ENHANCED_HU = 15.0
#: Bile, and what is in simple cysts, has 0 to 20 HU. True tumours of 0.25 mL and more have 27 to 96 in their deeper
#: half in six scans, so the least is not far from it: what has died inside may be as dark.
WATER_HU = 20.0
#: Nothing is said of smaller tumours: what lies beside them is in their HU too.
WATERY_ML = 0.25
#: Dice of both stages' livers below which they saw different things.
AGREEMENT = 0.75
#: What looks like so much liver is said where none was found: scans without liver have less.
NOTABLE_ML = 5.0


def doubts(labels: LabelMap, volume: Volume, agreement: float | None = None) -> tuple[str, ...]:
    """Warnings about the liver of `labels`, on the canonical grid of `volume` (HU); none for an empty mask.

    `agreement` is the Dice of both stages' livers, None where there was one stage.
    """
    return tuple(_doubts(labels, volume, agreement))


def _doubts(labels: LabelMap, volume: Volume, agreement: float | None) -> Iterator[str]:
    box = Box.around(labels.array)
    if box is None:
        return
    inside, around = labels.cropped(box), volume.cropped(box)
    ml = labels.ml(LIVER)
    cut = _cut_by(labels)
    if cut:
        yield f"the liver is cut by the {' and '.join(cut)} of the scan"
    elif ml < LIVER_ML[0]:
        yield f"the liver of {ml:.0f} mL is smaller than whole adult livers ({LIVER_ML[0]:.0f} mL): look at the mask"
    if ml > LIVER_ML[1]:
        yield f"the liver of {ml:.0f} mL is larger than livers are ({LIVER_ML[1]:.0f} mL): look at the mask"
    hu, (low, high) = float(np.median(around.array[inside.array >= LIVER])), LIVER_HU
    if not low <= hu <= high:
        yield f"what was taken for the liver has {hu:.0f} HU in the median, liver has {low:.0f} to {high:.0f}"
    vessels = vessel_hu(inside, around)
    if vessels is not None and round(vessels) < ENHANCED_HU:
        yield (
            f"no contrast medium shows in the liver: its vessels are {vessels:.0f} HU brighter than it, enhanced ones "
            f"{ENHANCED_HU:.0f} and more; tumours may be missed, and vessels taken for some"
        )
    if agreement is not None and agreement < AGREEMENT:
        yield f"the two stages disagree about the liver (Dice {agreement:.2f}): the scan is unlike the training scans"
    wide = box.grown(min(labels.grid.spacing_mm), labels.grid)  # so that a tumour at its face has an outside there
    yield from _watery(labels.cropped(wide), volume.cropped(wide))
    yield from misplaced(volume, labels)


def _watery(labels: LabelMap, volume: Volume) -> Iterator[str]:
    """A warning about tumours that are as dark as water, so may be none."""
    box = Box.around(labels.array == TUMOR)
    if box is None:
        return
    near = box.grown(min(labels.grid.spacing_mm), labels.grid).slices
    numbered, sizes = components(labels.array[near] == TUMOR)
    ml = sizes * labels.grid.voxel_ml
    hu = cores_hu(numbered, volume.array[near], labels.grid.spacing_mm)
    dark = np.flatnonzero((hu <= WATER_HU) & (ml >= WATERY_ML))  # not 0, whose HU are NaN
    if dark.size:
        largest = dark[np.argmax(ml[dark])]
        more = f", and {dark.size - 1} more" if dark.size > 1 else ""
        yield (
            f"a tumour of {ml[largest]:.1f} mL is as dark as water ({round(hu[largest])} HU inside){more}: "
            "it may be the gallbladder or a cyst"
        )


def overlooked(part: LabelMap, volume: Volume, agreement: float | None = None) -> tuple[str, ...]:
    """Warnings where no liver was found in `volume` (HU), but stage 1 saw the `part`, on the same grid.

    `agreement` is the Dice of both stages' livers where stage 2 denied it, None where it was too little.
    """
    ml = part.ml(LIVER)
    if ml < NOTABLE_ML:
        return ()
    why = "too little of it counts"
    if agreement is not None and agreement < AGREEMENT:
        why = f"the two stages disagree (Dice {agreement:.2f})"
    told = f"stage 1 saw {ml:.0f} mL of liver, but {why}: is the liver cut, or the scan turned? Look at it"
    return (told, *misplaced(volume, part))


def _cut_by(labels: LabelMap) -> list[str]:
    faces = {
        "lower end": labels.array[0],
        "upper end": labels.array[-1],
        "front": labels.array[:, 0],
        "back": labels.array[:, -1],
        "right side": labels.array[:, :, 0],
        "left side": labels.array[:, :, -1],
    }
    return [name for name, face in faces.items() if face.any()]
