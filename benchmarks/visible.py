"""How well a lesion can be seen, of what stage 2 takes for one: its contrast to the liver around, and the HU inside.

    python -m benchmarks.visible CASES --liver MODEL ... --tumor MODEL ... [--least-ml 0.25]

CASES is what `cascade report` takes. Each part of what is called tumour before any rule of `policy` about peaks, sizes
and contrasts (`stage2_tumor.visibility`) and the gallbladder, by models that have not seen the patient; a part is true
if it touches a true lesion. Cases whose tumours nobody drew are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cascade.engine import pick_engine
from cascade.machine import tune_allocator
from cascade.merge import fuse, liver_alone, probabilities
from cascade.pipeline import policy_for, refine
from cascade.unseen import Panel, Turn, turns
from preprocess.cases import Case
from preprocess.components import components
from preprocess.edges import without_fat
from preprocess.errors import CascadeError
from preprocess.layouts import find_cases, read_label
from preprocess.lesions import contrasts, cores_hu
from preprocess.volume import TUMOR
from stage1_liver.predict import find_liver


def main() -> None:
    """Print a Markdown table, the surest first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("--liver", type=Path, nargs="+", required=True)
    parser.add_argument("--tumor", type=Path, nargs="+", required=True)
    parser.add_argument("--least-ml", type=float, default=0.25)
    options = parser.parse_args()
    tune_allocator()
    panel = Panel.load(options.liver, options.tumor, pick_engine("cpu"))
    cases = [case for case in find_cases(options.cases) if case.label is not None and case.scores_tumor]
    found = [
        (turn.case.name, *lesion)
        for turn in turns(cases, panel.runner, held_out_only=True, fail=_give_up)
        for lesion in lesions(turn)
        if lesion[1] >= options.least_ml
    ]
    print("| case | lesion | mL | peak | HU to the liver around | HU inside |\n|---|---|---:|---:|---:|---:|")
    for case, true, ml, peak, contrast, hu in sorted(found, key=lambda lesion: -lesion[3]):
        print(f"| {case} | {'true' if true else '**false**'} | {ml:.2f} | {peak:.3f} | {contrast:.0f} | {hu:.0f} |")


def lesions(turn: Turn) -> Iterator[tuple[bool, float, float, float, float]]:
    """Of each candidate whether it is true, its mL, its highest probability, its contrast in HU and the HU inside."""
    liver, tumor = turn.runner.liver, turn.runner.tumor
    assert tumor is not None
    volume, policy = turn.volume, policy_for(turn.volume.grid, liver)
    coarse = find_liver(volume, liver.infer, liver.preparation, policy)
    if not coarse.found:
        return
    box = coarse.roi(volume.grid, policy.margin_mm)
    roi = volume.cropped(box)
    fine = refine(roi, liver_alone(coarse, volume.grid, box, policy.threshold).liver, tumor)
    fused = fuse(coarse, fine, volume.grid, box, tumor.policy)
    assert fused.possible is not None
    spacing_mm = roi.grid.spacing_mm
    inside = without_fat(fused.liver, fused.possible, roi.array, spacing_mm, tumor.policy.fat_share)
    numbered, sizes = components(fused.tumor & inside)
    contrast = contrasts(numbered, inside & ~fused.tumor, roi.array, spacing_mm)
    hu = cores_hu(numbered, roi.array, spacing_mm)
    peaks = np.zeros(len(sizes))
    for plane, (p1, _, p_tumor) in zip(numbered, probabilities(coarse, fine, volume.grid, box), strict=True):
        np.maximum.at(peaks, plane, np.sqrt(p1 * p_tumor))
    true = read_label(turn.case, volume.grid).array[box.slices] == TUMOR
    touched = np.bincount(numbered[true], minlength=len(sizes)) > 0
    for number in range(1, len(sizes)):
        ml = float(sizes[number] * roi.grid.voxel_ml)
        yield bool(touched[number]), ml, float(peaks[number]), float(contrast[number]), float(hu[number])


def _give_up(case: Case, error: CascadeError) -> None:
    sys.exit(f"{case.name}: {error}")


if __name__ == "__main__":
    main()
