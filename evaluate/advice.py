"""The account of the stages in one sentence: which stage to work on."""

from __future__ import annotations

from evaluate.account import StageReport
from evaluate.text import number
from evaluate.waterfall import Step

#: What a kind of case (`StageReport.by_kind`) is called in texts.
KIND = {"held_out": "held out", "in_training": "seen in training", "unknown": "training unknown"}

#: What `held_out` of a case is called in tables.
HELD_OUT = {True: "yes", False: "no", None: "unknown"}

#: What a structure is called in texts.
NAME = {"liver": "liver", "tumor": "tumour"}


#: What to do where it is not the training of a stage, by structure and step.
_REMEDY = {
    ("tumor", "cleanup"): (
        " It drops what the policy's thresholds call too uncertain, faint or small, and draws the rest anew "
        "(outline_share): cascade tune chooses thresholds."
    )
}


def losses(report: StageReport) -> list[tuple[float, str, Step]]:
    """What each step loses in the mean over all cases of `report`: (loss in Dice, `liver` or `tumor`, step).

    No step counts for more than its structure loses in the end: what a later step gives back is no loss.
    """
    return [
        (float(min(loss, waterfall.loss)), structure, step)
        for structure in NAME
        if (waterfall := report.waterfall(structure)) is not None
        for step, loss in zip(waterfall.steps, waterfall.losses, strict=True)
    ]


def advice(report: StageReport) -> str:
    """One sentence: the step that loses most in the mean over the held-out cases, or the best kind there is.

    Raises StopIteration for a report without a case.
    """
    kind, group = next(iter(report.by_kind().items()))
    loss, structure, step = max(losses(group), key=lambda item: item[0])
    cases = f"{'1 case' if len(group.accounts) == 1 else f'{len(group.accounts)} cases'} ({KIND[kind]})"
    doubt = "" if kind == "held_out" else " No case is known to be held out: these numbers may flatter."
    if round(loss, 3) <= 0:
        return f"No stage loses anything over {cases}.{doubt}"
    what = f"{step.cause} costs {number(loss)} of {NAME[structure]} Dice"
    if step.key.startswith("false_") and structure == "tumor" and group.n_tumor_free:
        doubt = f" {group.n_tumor_free} without tumour: there one false voxel costs the whole Dice.{doubt}"
    return f"Work on {what}, the largest loss over {cases}.{_REMEDY.get((structure, step.key), '')}{doubt}"
