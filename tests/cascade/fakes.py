"""A runner whose networks are thresholds on the prepared image: geometry without training."""

import numpy as np

from cascade.case import Runner
from cascade.pipeline import LiverStage, TumorStage
from preprocess.preparation import Preparation
from stage1_liver.recipe import LiverPolicy
from stage2_tumor.recipe import TumorPolicy

WINDOW_HU = (-160.0, 240.0)


def prepared(hu):
    return (hu + 160) / 200 - 1


def bright(image, where=None):
    """Liver: everything above 50 HU."""
    return (image > prepared(50))[None].astype(np.float32)


def bright_and_brighter(image, where=None):
    """Liver above 50 HU, tumour above 150 HU."""
    return np.stack([image > prepared(50), image > prepared(150)]).astype(np.float32)


def fake_runner(spacing_mm=(2.0, 2.0, 2.0), minimum_lesion_mm3=0.0, tumor=True):
    coarse, fine = Preparation((3.0, 3.0, 3.0), WINDOW_HU), Preparation(spacing_mm, WINDOW_HU)
    return Runner(
        liver=LiverStage(bright, coarse, LiverPolicy(threshold=0.5, minimum_ml=0.1, margin_mm=6.0)),
        tumor=TumorStage(
            bright_and_brighter,
            fine,
            TumorPolicy(
                0.5, 0.25, 0.5, 0.5, minimum_lesion_mm3, 10.0, 0.0, 1.0, (0.0, 0.0), 0.0, 0.5, 0.0, 0.0, -1024.0
            ),
        )
        if tumor
        else None,
        models={"liver": "aa"} | ({"tumor": "bb"} if tumor else {}),
        trained_on=frozenset(),
        chosen_on=frozenset(),
    )


def choice(runner):
    """What runs each patient with `runner`, as `cascade.unseen.Panel` does where it has one model of each stage."""
    return lambda known_by: (runner, known_by.isdisjoint(runner.trained_on))


def scene():
    """HU (z, y, x) = (20, 26, 32) with an off-centre liver of 100 HU and in it a tumour of 200 HU."""
    hu = np.full((20, 26, 32), -100, np.int16)
    hu[4:16, 6:20, 5:25] = 100
    hu[7:12, 9:15, 8:14] = 200
    return hu
