"""Surface metrics of the liver in a 512 x 512 x 256 case: ours against the `surface-distance` package of DeepMind.

    python -m benchmarks.surface [rounds]

Also: distances by a k-d tree and by a distance transform of the box, the ways that ours replaces.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from benchmarks.masks import liver_pair
from benchmarks.process import asked_for_help
from benchmarks.timing import interleaved, markdown
from evaluate.metrics import NSD_TOLERANCES_MM, mask_score
from evaluate.overlap import overlap
from evaluate.surface import surface_distances, surface_voxels
from evaluate.surface_dice import surface_dice
from preprocess.geometry import Box

SHAPE, SPACING = (256, 512, 512), (1.0, 0.78, 0.78)


def main(rounds: int = 5) -> None:
    """Print the case, whether the values agree, and the times."""
    warnings.simplefilter("ignore", DeprecationWarning)  # the package uses old names of scipy
    import surface_distance

    prediction, truth = (labels > 0 for labels in liver_pair(SHAPE, SPACING))
    box = Box.around(prediction | truth)
    assert box is not None
    cut = np.ascontiguousarray(prediction[box.slices]), np.ascontiguousarray(truth[box.slices])
    scale = np.array(SPACING)

    def deepmind() -> list[float]:
        found = surface_distance.compute_surface_distances(truth, prediction, SPACING)
        return [surface_distance.compute_surface_dice_at_tolerance(found, t) for t in NSD_TOLERANCES_MM]

    def tree() -> float:
        points = [np.argwhere(surface_voxels(mask)) * scale for mask in cut]
        ways = (points, points[::-1])
        return float(np.concatenate([cKDTree(b).query(a)[0] for a, b in ways]).mean())

    def transform() -> float:
        a, b = (surface_voxels(mask) for mask in cut)
        ways = ((a, b), (b, a))
        return float(np.concatenate([ndimage.distance_transform_edt(~q, sampling=SPACING)[p] for p, q in ways]).mean())

    voxels = overlap(prediction, truth)
    print(f"liver {truth.sum() * np.prod(SPACING) / 1000:.0f} mL, Dice {voxels.dice():.3f}, box {cut[0].shape}\n")
    print("NSD, DeepMind:", *(f"{v:.12f}" for v in deepmind()))
    print("NSD, ours:    ", *(f"{v:.12f}" for v in surface_dice(*cut, SPACING, NSD_TOLERANCES_MM)))
    ours = surface_distances(*cut, SPACING).assd
    print(f"ASSD mm: ours {ours:.12f}, tree {tree():.12f}, transform {transform():.12f}\n")
    ways = {
        "DeepMind: surface distances, NSD": deepmind,
        "ours: NSD": lambda: surface_dice(*cut, SPACING, NSD_TOLERANCES_MM),
        "ours: all nine metrics, from the whole masks": lambda: mask_score(prediction, truth, SPACING, voxels, "lits"),
    }
    print(markdown(interleaved(ways, rounds)), "\n")
    ways = {
        "distance transform in the box: ASSD": transform,
        "k-d tree: ASSD": tree,
        "ours: ASSD": lambda: surface_distances(*cut, SPACING),
    }
    print(markdown(interleaved(ways, rounds)))


if __name__ == "__main__":
    asked_for_help(__doc__)
    main(*map(int, sys.argv[1:]))
