"""The choice among tables of literal scores."""

import numpy as np
import pytest

from cascade.sweep import CaseTables
from cascade.tuning import Score, choose, left_out, score

PRESENT = (0, 0, 0, 0)


def case(name, liver, dice=None, false=None, patient=None, lesions=4):
    """A case of `liver` by liver threshold, and of `dice` and `false` by tumour threshold, alike in all else."""
    tumors = None
    if dice is not None:
        shape = (len(liver), len(dice), 1, 1)
        rows = (dice, false if false is not None else np.zeros(len(dice)), np.full(len(dice), 2.0))
        tumors = np.stack([np.broadcast_to(np.array(row)[None, :, None, None], shape) for row in rows])
    return CaseTables(name, patient or name, np.array(liver, float), tumors, lesions)


def test_a_plateau_is_preferred_to_a_spike():
    liver = [0.9, 0.5, 0.5, 0.85, 0.86, 0.85, 0.5]
    assert choose([case("a", liver)], PRESENT)[0] == 4
    tumors = [0.1, 0.8, 0.1, 0.6, 0.6, 0.6, 0.1]
    assert choose([case("a", [0.9], tumors)], PRESENT) == (0, 4, 0, 0)


def test_of_places_that_are_worth_the_same_the_nearest_to_the_present_is_taken():
    flat = case("a", [0.9, 0.9, 0.9, 0.9, 0.9], [0.5, 0.5, 0.5, 0.501, 0.5])
    assert choose([flat], (3, 1, 0, 0)) == (3, 1, 0, 0)


def test_false_lesions_beyond_five_cost():
    free = case("a", [0.9], [0.5, 0.5, 0.6, 0.6, 0.6], [0, 0, 5, 5, 5])
    dear = case("a", [0.9], [0.5, 0.5, 0.6, 0.6, 0.6], [0, 0, 8, 8, 8])
    assert choose([free], PRESENT)[1] > 2
    assert choose([dear], PRESENT)[1] == 0


def test_every_patient_counts_once():
    many = [case(f"a{k}", [0.9, 0.9, 0.1, 0.1], patient="a") for k in range(3)]
    other = case("b", [0.0, 0.0, 0.95, 0.95])
    assert choose([*many, other], PRESENT)[0] == 3  # 0.525 against 0.45 in the mean of patients; of cases 0.31 and 0.68


def test_cases_without_labelled_tumours_count_for_the_liver_alone():
    one = case("a", [0.2, 0.2, 0.3, 0.3], [0.1, 0.2, 0.9, 0.9])
    none = case("b", [0.9, 0.9, 0.1, 0.1])
    assert choose([one, none], (1, 0, 0, 0)) == (0, 3, 0, 0)
    assert choose([none], (3, 1, 0, 0)) == (0, 1, 0, 0)


def test_the_liver_threshold_decides_which_tumours_there_are():
    better_tumours = case("a", [0.9, 0.9, 0.2, 0.2], [0.1, 0.1, 0.1])
    better_tumours.tumors[0, 3] = 0.9  # where the liver is bad
    better_tumours.tumors[0, 0, 2] = 0.3
    assert choose([better_tumours], PRESENT) == (0, 2, 0, 0)


def test_left_out_a_patient_is_scored_by_the_choice_of_the_others():
    high, low = [0.1, 0.1, 0.8, 0.8], [0.95, 0.95, 0.2, 0.2]
    cases = [case("a", high), case("b", high), case("c", low, patient="q"), case("d", low, patient="q")]
    places = left_out(cases, PRESENT)
    assert {patient: place[0] for patient, place in places.items()} == {"a": 0, "b": 0, "q": 3}
    assert score(cases, places).liver_dice == pytest.approx((0.1 + 0.1 + 0.2) / 3)


def test_the_place_of_a_patient_does_not_depend_on_its_own_scans():
    cases = [case("a", [0.9, 0.1, 0.1]), case("b", [0.1, 0.1, 0.8])]
    assert (
        left_out(cases, PRESENT)["a"] == left_out([case("a", [0.0, 0.0, 0.0]), cases[1]], PRESENT)["a"] == (2, 0, 0, 0)
    )


def test_too_few_patients_leave_nobody_out():
    assert left_out([case("a", [0.5]), case("b", [0.5], patient="a")], PRESENT) is None
    # without a, no patient with labelled tumours is left to choose by
    assert left_out([case("a", [0.5], [0.5]), case("b", [0.5])], PRESENT) is None


def test_a_score_counts_lesions_of_labelled_cases_and_means_over_patients():
    cases = [
        case("a", [0.9], [0.5], [3], patient="p", lesions=5),
        case("b", [0.7], [0.1], [1], patient="p", lesions=4),
        case("c", [0.6], [0.9], [0], lesions=2),
        case("d", [0.5], lesions=7),
    ]
    found = score(cases, PRESENT)
    assert found.liver_dice == pytest.approx((0.8 + 0.6 + 0.5) / 3)
    assert found.tumor_dice == pytest.approx((0.3 + 0.9) / 2)
    assert (found.found, found.lesions, found.false, found.most_false) == (6, 11, 4, 3)
    assert score(cases[3:], PRESENT) == Score(0.5, None, 0, 0, 0, 0)
