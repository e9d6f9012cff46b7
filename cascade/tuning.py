"""Which thresholds of stage 2 are best over cases that the models have not seen, and how well that choice carries over.

The liver threshold is the one with the best mean liver Dice. With it, the other three are those with the best mean of
a case's tumour Dice less `COST` for every false lesion beyond `TOLERATED`; in a liver without tumour one false lesion
makes that Dice 0. Means are over patients. Cases are few and their best place may be a spike, so each place counts with
its neighbours; of places as good as the best, less `WORTH`, the nearest to the present policy is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from cascade.sweep import DICE, FALSE, FOUND, CaseTables, Place, Table

#: False lesions in one case that are not punished but for the Dice they cost.
TOLERATED = 5
#: What every further one takes from the Dice of the case.
COST = 0.1
#: A difference of mean Dice that is worth no change of policy.
WORTH = 0.002

GOAL = (
    f"liver: mean Dice; tumour: mean of Dice - {COST} for each false lesion beyond {TOLERATED} in a case; "
    "over patients, each place of the grid smoothed with its neighbours"
)


@dataclass(frozen=True)
class Score:
    """What some cases score: means over patients of the final Dice, and lesions of all cases together.

    `tumor_dice` is None when no case has labelled tumours; the counts are of the cases that have. `most_false` is the
    largest number of false lesions in one case.
    """

    liver_dice: float
    tumor_dice: float | None
    found: int
    lesions: int
    false: int
    most_false: int


def choose(cases: Sequence[CaseTables], present: Place) -> Place:
    """The best place for `cases`; the tumours' thresholds stay at `present` when no case has labelled tumours."""
    (liver,) = _best(_mean(cases, lambda case: case.liver), present[:1])
    scored = [case for case in cases if case.tumors is not None]
    if not scored:
        return (liver, *present[1:])
    threshold, peak, minimum = _best(_mean(scored, lambda case: _goal(case, liver)), present[1:])
    return liver, threshold, peak, minimum


def left_out(cases: Sequence[CaseTables], present: Place) -> dict[str, Place] | None:
    """For each patient the place that the others choose: what the choice is worth to a patient it does not know.

    None when there are no others, or when only one patient has labelled tumours.
    """
    patients = {case.patient for case in cases}
    labelled = {case.patient for case in cases if case.tumors is not None}
    if len(patients) < 2 or len(labelled) == 1:
        return None
    return {p: choose([case for case in cases if case.patient != p], present) for p in sorted(patients)}


def score(cases: Sequence[CaseTables], place: Place | Mapping[str, Place]) -> Score:
    """What `cases` score at one place, or each at that of its patient."""
    places = {case.case: place if isinstance(place, tuple) else place[case.patient] for case in cases}
    scored = {case.case: case.tumors[:, *places[case.case]] for case in cases if case.tumors is not None}
    false = [int(row[FALSE]) for row in scored.values()]
    labelled = [case for case in cases if case.case in scored]
    return Score(
        liver_dice=float(_mean(cases, lambda case: case.liver[places[case.case][0]])),
        tumor_dice=float(_mean(labelled, lambda case: scored[case.case][DICE])) if labelled else None,
        found=sum(int(row[FOUND]) for row in scored.values()),
        lesions=sum(case.lesions for case in labelled),
        false=sum(false),
        most_false=max(false, default=0),
    )


def _goal(case: CaseTables, liver: int) -> Table:
    assert case.tumors is not None
    beyond = np.maximum(0, case.tumors[FALSE, liver] - TOLERATED)
    return np.asarray(case.tumors[DICE, liver] - COST * beyond)


def _mean(cases: Sequence[CaseTables], of: Callable[[CaseTables], Any]) -> Any:
    """The mean over patients of the means over their scans."""
    patients: dict[str, list[Any]] = {}
    for case in cases:
        patients.setdefault(case.patient, []).append(of(case))
    return np.mean([np.mean(values, axis=0) for values in patients.values()], axis=0)


def _best(table: Table, present: tuple[int, ...]) -> tuple[int, ...]:
    """The place of the highest plateau of `table`, near `present`."""
    smooth = ndimage.uniform_filter(table, 3, mode="nearest")
    places = np.argwhere(smooth >= smooth.max() - WORTH)
    steps = np.abs(places - np.array(present)).sum(axis=1)
    # Of equally near ones the higher.
    order = np.lexsort([-smooth[tuple(places.T)], steps])
    return tuple(int(i) for i in places[order[0]])
