"""Cases whose voxel counts are given, drawn as runs of voxels: the upper line for tumour, the lower for liver."""

import dataclasses

import numpy as np

from evaluate.overlap import Overlap
from evaluate.scores import score

#: Half a millilitre a voxel.
SPACING = (5.0, 10.0, 10.0)


def scored(case, liver, tumor=(0, 0, 0), *, patient=None, **options):
    """The score of a case whose liver and tumour have (common, predicted, true) voxels, tumours being liver too."""
    liver, tumor = Overlap(*liver), Overlap(*tumor)
    # Liver voxels that are not tumour; what is tumour in one mask only is liver in one only.
    rest = Overlap(*(a - b for a, b in zip(dataclasses.astuple(liver), dataclasses.astuple(tumor), strict=True)))
    assert all(o.both <= min(o.prediction, o.truth) for o in (rest, tumor))
    length = max(o.union for o in (rest, tumor)) + 1
    prediction, truth = np.zeros((1, 3, length), np.uint8), np.zeros((1, 3, length), np.uint8)
    for line, (overlap, value) in ((0, (tumor, 2)), (2, (rest, 1))):
        prediction[0, line, : overlap.prediction] = value
        truth[0, line, overlap.prediction - overlap.both : overlap.union] = value
    result = score(prediction, truth, SPACING, case=case, **options)
    return dataclasses.replace(result, patient=patient or case)
