"""`cascade report`: run every labelled case and keep what each stage left, for the account in `evaluate`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cascade.case import Runner
from cascade.machine import as_cascade_error
from cascade.merge import Fused, fuse, liver_alone, pasted
from cascade.pipeline import Segmentation, Stopwatch, refine, segment
from cascade.unseen import Choice, turns
from evaluate.account import StageAccount, StageReport, account
from evaluate.stage_masks import StageMasks
from preprocess.cases import Case
from preprocess.components import fill_holes, largest
from preprocess.errors import CascadeError
from preprocess.geometry import Box
from preprocess.layouts import read_label
from preprocess.resample import resample_labels
from preprocess.volume import LabelMap, Volume
from stage1_liver.predict import CoarseLiver

_LOG = logging.getLogger(__name__)

#: What went wrong with a case, by its name.
Failures = dict[str, CascadeError]

#: What is shown of a case that was run: its name, the scan, the truth and the final mask, all on one grid.
Look = Callable[[str, Volume, LabelMap, LabelMap], None]


def report_cases(
    cases: Sequence[Case],
    choice: Choice,
    *,
    held_out_only: bool,
    say: Callable[[str], None],
    look: Look = lambda *_: None,
) -> tuple[StageReport, Failures]:
    """The per-stage account of `cases`, which all have a label; with `held_out_only` of those that are held out.

    A case that fails does not keep the others from being done. `choice` says by what a case is run, and whether it is
    held out.
    """
    accounts: dict[str, StageAccount] = {}
    failures: Failures = {}
    chosen = []

    def fail(case: Case, error: CascadeError) -> None:
        failures[case.name] = error
        say(f"{case.name}: FAILED: {error}")

    for turn in turns(cases, choice, held_out_only=held_out_only, fail=fail):
        name = turn.case.name
        try:
            account, truth, labels = _account(turn.case, turn.volume, turn.runner)
            look(name, turn.volume, truth, labels)
        except Exception as error:  # want of memory, above all: no case may cost the others
            _LOG.info("%s", turn.case.name, exc_info=error)
            fail(turn.case, as_cascade_error(error))
            continue
        accounts[name] = replace(account, held_out=turn.held_out)
        say(f"{name}: done")
        if turn.runner.chosen_on.intersection(turn.known_by):
            chosen.append(name)
    if chosen:
        say(f"note: a model or its thresholds were chosen on {', '.join(chosen)}: slightly flattering there")
    return StageReport(tuple(accounts[case.name] for case in cases if case.name in accounts)), failures


def _account(case: Case, volume: Volume, runner: Runner) -> tuple[StageAccount, LabelMap, LabelMap]:
    """The account of one case, its truth and its final mask; whether it is held out is not known here."""
    truth = read_label(case, volume.grid)
    result = segment(volume, runner.liver, runner.tumor, Stopwatch())
    grid = volume.grid
    tumor, classes = np.zeros(grid.shape, bool), LabelMap(np.zeros(grid.shape, np.uint8), grid)
    if result.box is not None and result.fused is not None:
        tumor[result.box.slices] = result.fused.tumor
        classes = pasted(result.fused.labels, result.box, grid)
    masks = StageMasks(
        case=case.name,
        truth=truth,
        scores_tumor=case.scores_tumor and runner.tumor is not None,
        held_out=None,
        coarse_truth=resample_labels(truth, result.coarse.grid).array > 0,
        coarse_liver=result.coarse.mask,
        stage1_liver=_stage1_on(volume, result, runner),
        roi=result.box,
        stage2_true_roi=_true_roi(volume, truth, runner),
        stage2_tumor=tumor,
        stage2=classes,
        merged=result.labels,
    )
    return account(masks), truth, result.labels


def _stage1_on(volume: Volume, result: Segmentation, runner: Runner) -> NDArray[np.bool_]:
    """Stage 1's liver, cleaned, on the scan's grid."""
    out = np.zeros(volume.grid.shape, bool)
    if result.box is not None:
        liver = liver_alone(result.coarse, volume.grid, result.box, runner.liver.policy.threshold).liver
        out[result.box.slices] = fill_holes(largest(liver))
    return out


def _true_roi(volume: Volume, truth: LabelMap, runner: Runner) -> LabelMap | None:
    """What stage 2 says inside the region of interest of the true liver, with that liver in the place of stage 1's."""
    box = Box.around(truth.array)
    if box is None or runner.tumor is None:
        return None
    policy = runner.liver.policy
    box = box.grown(policy.margin_mm, volume.grid)
    true_liver = truth.cropped(box).array > 0
    fine = refine(volume.cropped(box), true_liver, runner.tumor)
    roi = volume.grid.cropped(box)
    perfect = CoarseLiver(true_liver.astype(np.float32), true_liver, roi, found=True)
    fused = fuse(perfect, fine, roi, Box.whole(roi), runner.tumor.policy)
    # The true liver bounds the tumour: what is lost by a wrong liver is counted elsewhere.
    return pasted(Fused(true_liver, fused.tumor, fused.grid).labels, box, volume.grid)
