"""Matching of lesions on maps drawn by hand; the six defects of the challenge's scorer, each with the right answer."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import ndimage

from evaluate.detection import detection
from evaluate.lesions import Lesion, LesionMatch, match_lesions, sphere_diameter_mm
from preprocess.geometry import Grid

SPACING = (5.0, 2.0, 0.5)


def drawn(text):
    """Slices (y, x) of a mask: `#` is inside, a blank line starts the next slice."""
    slices = [[list(line.strip()) for line in part.splitlines() if line.strip()] for part in text.split("\n\n")]
    return np.array(slices) == "#"


def matched(prediction, truth):
    prediction, truth = (mask if isinstance(mask, np.ndarray) else drawn(mask) for mask in (prediction, truth))
    grid = Grid(prediction.shape, SPACING, origin_mm=(10.0, -20.0, 30.0))
    return match_lesions(prediction, truth, grid, "lits")


def counts(match, above):
    found = detection(match, above)
    return found.detected, found.missed, found.correct, found.false


def test_one_prediction_over_two_references_with_little_overlap():
    """Defect 2: the scorer counts -1 true positives, 2 false positives and 3 false negatives."""
    match = matched("#########", "##.....##")  # IoU 4 / 9
    assert counts(match, 0.5) == (0, 2, 0, 1)
    assert counts(match, 0.0) == (2, 0, 1, 0)


def test_a_merge_that_overlaps_enough_detects_both_references():
    """Defect 3: the scorer counts one true positive and one false negative."""
    match = matched("#######", "###.###")  # IoU 6 / 7
    assert counts(match, 0.5) == (2, 0, 1, 0)
    assert [pair.kind for pair in match.pairs] == ["merge"]


def test_a_split_counts_its_reference_once_and_no_part_as_false():
    """Defect 4: the scorer counts a false positive more."""
    match = matched("###.###", "#######")
    assert counts(match, 0.5) == (1, 0, 2, 0)
    assert [pair.kind for pair in match.pairs] == ["split"]


def test_a_reference_without_any_tumour():
    """Defect 1: the scorer stops with a ValueError."""
    match = matched("##.#...", ".......")
    assert counts(match, 0.0) == counts(match, 0.5) == (0, 0, 0, 2)


def test_a_prediction_without_any_tumour():
    assert counts(matched(".......", "##.#..."), 0.0) == (0, 2, 0, 0)


def test_no_tumour_at_all():
    assert matched("...", "...") == LesionMatch((), (), ())


def test_the_iou_of_a_pair_is_that_of_its_masks_whatever_the_numbers_are():
    """Defect 5: the scorer takes the IoU on relabelled masks, so an IoU of 1/3 is "detected" by some numberings.

    Flipping and transposing the maps turns the numbering of the components around.
    """
    prediction = drawn("##..##...\n.....#...\n........#")
    truth = drawn(".##..##..\n......#..\n#.......#")
    for flips in itertools.product((1, -1), repeat=2):
        for order in ((0, 1, 2), (0, 2, 1)):
            turned = [mask[:, :: flips[0], :: flips[1]].transpose(order) for mask in (prediction, truth)]
            match = matched(*turned)
            assert sorted(pair.iou for pair in match.pairs) == pytest.approx([1 / 5, 1 / 3, 1.0])
            assert counts(match, 0.5) == (1, 3, 1, 2)
            assert counts(match, 0.0) == (3, 1, 3, 0)


def test_labels_in_current_numpy():
    """Defect 6: the scorer calls what numpy has not had since 1.24; ours runs with warnings as errors."""
    assert counts(matched("##", "##"), 0.5) == (1, 0, 1, 0)


def test_an_iou_of_exactly_a_half_is_not_above_it():
    match = matched("##..", "####")
    assert match.pairs[0].iou == 0.5
    assert counts(match, 0.5) == (0, 1, 0, 1)


def test_a_small_lesion_barely_touched_is_not_found_because_its_large_neighbour_is():
    # One prediction over all of a large lesion and one voxel of a small one: a merge of IoU 10 / 13.
    match = matched("###########..", "#########.###")
    assert match.pairs[0].kind == "merge"
    assert match.pairs[0].iou == 10 / 13
    assert [lesion.covered for lesion in match.truth] == [1.0, pytest.approx(1 / 3)]
    assert counts(match, 0.5) == (1, 1, 1, 0)
    assert counts(match, 0.0) == (2, 0, 1, 0)


def test_a_lesion_goes_with_the_one_it_overlaps_most():
    # The second prediction overlaps the first reference by 1 voxel and the second by 3; the first has a better one.
    match = matched("####.#####..", "######.#####")
    assert [(pair.prediction, pair.truth, pair.kind) for pair in match.pairs] == [
        ((2,), (1,), "single"),
        ((1,), (2,), "single"),
    ]


def test_a_tie_ties_to_all_so_that_no_order_decides():
    match = matched("##.##", "#####")
    assert match.pairs[0].prediction == (1, 2)
    match = matched(".###.", "##.##")
    assert (match.pairs[0].truth, match.pairs[0].iou) == ((1, 2), 2 / 5)


def test_lesions_touch_by_faces_only():
    match = matched("#.\n.#", "#.\n.#")
    assert [len(match.prediction), len(match.truth)] == [2, 2]
    assert len(matched("##\n.#", "##\n.#").truth) == 1


def test_lesions_are_numbered_by_size_and_placed_in_the_world():
    empty = ".......\n.......\n\n"
    match = matched(empty + "#......\n.......", empty + "#......\n...###.")
    first, second = match.truth
    assert first == Lesion(1, pytest.approx(0.015), pytest.approx(3.059832), pytest.approx((12.0, -18.0, 35.0)))
    assert second == Lesion(
        2, pytest.approx(0.005), pytest.approx(2.121569), pytest.approx((10.0, -20.0, 35.0)), covered=1.0, pair=1
    )
    assert match.prediction == (dataclasses.replace(second, number=1),)


def test_the_diameter_is_that_of_the_sphere_of_the_same_volume():
    assert sphere_diameter_mm(4 / 3 * np.pi * 10**3 / 1000) == pytest.approx(20.0)


def test_the_metrics_of_a_pair_are_of_its_joined_masks_alone():
    match = matched("###.###....#", "#######...##")
    split = next(pair for pair in match.pairs if pair.kind == "split")
    assert split.score.dice == pytest.approx(2 * 6 / (6 + 7))
    assert split.score.rvd == pytest.approx(-1 / 7)
    assert split.score.msd == pytest.approx(0.5)
    single = next(pair for pair in match.pairs if pair.kind == "single")
    assert (single.score.dice, single.score.msd) == (pytest.approx(2 / 3), pytest.approx(0.5))


@pytest.mark.parametrize("seed", range(5))
def test_every_lesion_counts_exactly_once(seed):
    rng = np.random.default_rng(seed)
    prediction, truth = (rng.random((4, 9, 12)) < 0.25 for _ in range(2))
    match = matched(prediction, truth)
    for above in (0.0, 0.5):
        found = detection(match, above)
        assert (found.truth, found.predicted) == (len(match.truth), len(match.prediction))
        assert 0 <= found.detected <= found.truth
        assert 0 <= found.correct <= found.predicted
    # Above 0, a lesion is detected when it touches the other mask at all, and then it is in exactly one pair.
    found = detection(match, 0.0)
    for side, mask, other, number in (
        ("prediction", prediction, truth, found.correct),
        ("truth", truth, prediction, found.detected),
    ):
        touched = np.unique(ndimage.label(mask)[0][mask & other]).size
        members = [lesion for pair in match.pairs for lesion in getattr(pair, side)]
        assert len(members) == len(set(members)) == touched == number


@pytest.mark.parametrize("seed", range(3))
def test_prediction_and_truth_are_treated_alike(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.random((4, 9, 12)) < 0.3 for _ in range(2))
    for above in (0.0, 0.5):
        one, other = (detection(matched(*pair), above) for pair in ((a, b), (b, a)))
        assert (one.detected, one.correct) == (other.correct, other.detected)
