"""`cascade report`: run every labelled case and keep what each stage left, for the account in `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cascade.case import Runner
from cascade.merge import Fused, fuse, liver_alone, pasted
from cascade.pipeline import Segmentation, Stopwatch, refine, segment
from evaluate.account import StageAccount, StageMasks, StageReport, account
from preprocess.cases import Case
from preprocess.components import fill_holes, largest
from preprocess.geometry import Box
from preprocess.io import read_scan
from preprocess.layouts import read_label
from preprocess.prepared import content_id
from preprocess.resample import resample_labels
from preprocess.volume import LabelMap, Volume
from stage1_liver.predict import CoarseLiver


def report_cases(
    cases: Sequence[Case], runner: Runner, *, held_out_only: bool, say: Callable[[str], None]
) -> StageReport:
    """The per-stage account of `cases`, which all have a label; with `held_out_only` of those that are held out.

    A case is held out when neither model was trained on it or on another of these cases that is of the same patient.
    """
    contents = {case.name: content_id(read_scan(case.image).volume) for case in cases}
    known = {case.patient for case in cases if contents[case.name] in runner.trained_on}
    chosen = [case.name for case in cases if contents[case.name] in runner.chosen_on]
    if chosen:
        say(f"note: a model was picked as the best of its training on {', '.join(chosen)}: slightly flattering there")
    accounts = []
    for case in cases:
        if held_out_only and case.patient in known:
            continue
        accounts.append(_account(case, runner, held_out=case.patient not in known))
        say(f"{case.name}: done")
    return StageReport(tuple(accounts))


def _account(case: Case, runner: Runner, *, held_out: bool) -> StageAccount:
    volume = read_scan(case.image).volume
    truth = read_label(case, volume.grid)
    result = segment(volume, runner.liver, runner.tumor, Stopwatch())
    grid = volume.grid
    empty = LabelMap(np.zeros(grid.shape, np.uint8), grid)
    found = result.box is not None and result.fused is not None
    masks = StageMasks(
        case=case.name,
        truth=truth,
        scores_tumor=case.scores_tumor and runner.tumor is not None,
        held_out=held_out,
        coarse_truth=resample_labels(truth, result.coarse.grid).array > 0,
        coarse_liver=result.coarse.mask,
        stage1_liver=_stage1_on(volume, result, runner),
        roi=result.box,
        stage2_true_roi=_true_roi(volume, truth, result.coarse, runner),
        stage2=pasted(result.fused.labels, result.box, grid) if found else empty,  # type: ignore[union-attr, arg-type]
        merged=result.labels,
    )
    return account(masks)


def _stage1_on(volume: Volume, result: Segmentation, runner: Runner) -> NDArray[np.bool_]:
    """Stage 1's liver, cleaned, on the scan's grid."""
    out = np.zeros(volume.grid.shape, bool)
    if result.box is not None:
        liver = liver_alone(result.coarse, volume.grid, result.box, runner.liver.policy.threshold).liver
        out[result.box.slices] = fill_holes(largest(liver))
    return out


def _true_roi(volume: Volume, truth: LabelMap, coarse: CoarseLiver, runner: Runner) -> LabelMap | None:
    """What stage 2 says inside the region of interest of the true liver, given the true liver as where to look."""
    box = Box.around(truth.array)
    if box is None or runner.tumor is None:
        return None
    policy = runner.liver.policy
    box = box.grown(policy.margin_mm, volume.grid)
    true_liver = truth.cropped(box).array > 0
    fine = refine(volume.cropped(box), true_liver, runner.tumor)
    fused = fuse(coarse, fine, volume.grid, box, runner.tumor.policy)
    # The true liver bounds the tumour: what is lost by a wrong liver is counted elsewhere.
    return pasted(Fused(true_liver, fused.tumor, fused.grid).labels, box, volume.grid)
