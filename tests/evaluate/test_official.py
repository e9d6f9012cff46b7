"""Our figures beside those of the challenge's scorer: equal where it works, right where it does not."""

import numpy as np
import pytest

from evaluate.detection import detection
from evaluate.lesions import match_lesions
from evaluate.metrics import mask_score
from evaluate.overlap import overlap
from preprocess.geometry import Grid
from tests.evaluate import official
from tests.evaluate.shapes import rough_pair


def line(text):
    return np.array([[list(text)]]) == "#"


def ours(prediction, truth, above):
    grid = Grid(prediction.shape, (1.0, 1.0, 1.0))
    found = detection(match_lesions(prediction, truth, grid, "lits"), above)
    return found.detected, found.false, found.missed


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_overlap_and_surface_metrics_are_those_of_the_scorer(seed):
    prediction, truth, spacing = rough_pair(seed)
    expected = official.overlap_and_surface(prediction, truth, spacing)
    result = mask_score(prediction, truth, spacing, overlap(prediction, truth), "lits").values()
    assert {name: result[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "truth"),
    [
        ("###..##.......", "####.###......"),
        ("###..##.......", "####.###...###"),
        ("###......####.", "###.##...#####"),
        ("..............", "###..###......"),
        ("###..##...####", "####.###......"),
    ],
)
def test_detection_is_that_of_the_scorer_for_lesions_one_to_one(prediction, truth):
    for above in (0.0, 0.5):
        assert ours(line(prediction), line(truth), above) == official.detection(line(prediction), line(truth), above)


@pytest.mark.parametrize(
    ("prediction", "truth", "theirs", "right"),
    [
        ("#########", "##.....##", (-1, 2, 3), (0, 1, 2)),  # defect 2
        ("#######", "###.###", (1, 0, 1), (2, 0, 0)),  # defect 3
        ("###.###", "#######", (1, 1, 0), (1, 0, 0)),  # defect 4
    ],
)
def test_merges_and_splits_are_counted_right(prediction, truth, theirs, right):
    assert official.detection(line(prediction), line(truth), 0.5) == theirs
    assert ours(line(prediction), line(truth), 0.5) == right


def test_a_truth_without_tumour_stops_the_scorer():
    prediction, truth = line("##.#"), line("....")
    with pytest.raises(ValueError, match="too many values"):
        official.detection(prediction, truth, 0.5)
    assert ours(prediction, truth, 0.5) == (0, 2, 0)


def test_the_scorers_count_depends_on_numbers_and_ours_does_not():
    """Defect 5: an IoU of 1/3 is above 1/2 for the scorer as soon as a false lesion comes before the prediction."""
    first, truth = line("..#########"), line("..###......")
    second = line("#.#########")
    assert (official.detection(first, truth, 0.5), official.detection(second, truth, 0.5)) == ((0, 1, 1), (1, 1, 0))
    assert (ours(first, truth, 0.5), ours(second, truth, 0.5)) == ((0, 1, 1), (0, 2, 1))
