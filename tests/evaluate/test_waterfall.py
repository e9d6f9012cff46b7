"""Where the Dice went, on six voxels in a row a structure, and on random masks."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from evaluate.account import account
from evaluate.stage_masks import StageMasks
from evaluate.waterfall import LIVER_STEPS, TUMOR_STEPS, Waterfall, liver_waterfall, mean_waterfall, tumor_waterfall
from preprocess.geometry import Box, Grid
from preprocess.volume import LabelMap

SHAPE = (1, 2, 6)
ALL = Box((0, 0, 0), SHAPE)


def labels(text):
    """`labels("022000 111100")`: the classes of two rows."""
    array = np.array([[list(map(int, row)) for row in text.split()]], np.uint8)
    return LabelMap(array, Grid(array.shape, (2.0, 3.0, 5.0)))


def case(truth="022210 111110", roi=ALL, **changes):
    """A case in which nothing goes wrong, but for `changes` (in the notation of `labels`)."""
    maps = {"stage1": truth, "true_roi": truth, "raw": truth, "stage2": truth, "merged": truth, **changes}
    maps = {name: text if text is None else labels(text) for name, text in maps.items()}
    return StageMasks(
        case="planted",
        truth=labels(truth),
        scores_tumor=True,
        held_out=True,
        coarse_truth=np.ones((1, 1, 1), bool),
        coarse_liver=np.ones((1, 1, 1), bool),
        stage1_liver=maps["stage1"].array >= 1,
        roi=roi,
        stage2_true_roi=maps["true_roi"],
        stage2_tumor=maps["raw"].array == 2,
        stage2=maps["stage2"],
        merged=maps["merged"],
    )


def planted(waterfall):
    """The losses that are not 0, by step."""
    return {s.key: loss for s, loss in zip(waterfall.steps, waterfall.losses, strict=True) if loss}


def test_a_perfect_case_loses_nothing():
    assert tumor_waterfall(case()).dice == (1,) * 9
    assert liver_waterfall(case()).dice == (1,) * 6


# 3 tumour voxels; one lost leaves a Dice of 4/5, one added 6/7.
LOST, ADDED = Fraction(1, 5), Fraction(1, 7)
NOTHING = "000000 000000"


@pytest.mark.parametrize(
    ("step", "loss", "changes"),
    [
        ("liver_not_found", 1, {"roi": None, "stage1": NOTHING, "raw": NOTHING, "stage2": NOTHING, "merged": NOTHING}),
        (
            "outside_roi",
            LOST,
            {
                "roi": Box((0, 0, 2), (1, 2, 6)),
                "raw": "002210 111110",
                "stage2": "012210 111110",
                "merged": "012210 111110",
            },
        ),
        (
            "missed",
            LOST,
            {"true_roi": "012210 111110", "raw": "012210 111110", "stage2": "012210 111110", "merged": "012210 111110"},
        ),
        ("own_roi", LOST, {"raw": "012210 111110", "stage2": "012210 111110", "merged": "012210 111110"}),
        ("outside_liver", LOST, {"stage2": "002210 111110", "merged": "002210 111110"}),
        ("false_inside", ADDED, {"raw": "022220 111110", "stage2": "022220 111110", "merged": "022220 111110"}),
        ("false_outside", ADDED, {"raw": "222210 111110", "stage2": "222210 111110", "merged": "222210 111110"}),
        ("cleanup", LOST, {"merged": "012210 111110"}),
        ("cleanup", ADDED, {"merged": "022220 111110"}),
    ],
)
def test_a_planted_error_shows_in_its_own_step_of_the_tumours_only(step, loss, changes):
    assert planted(tumor_waterfall(case(**changes))) == {step: loss}


# 9 liver voxels; one lost leaves 16/17, one added 18/19.
@pytest.mark.parametrize(
    ("losses", "changes"),
    [
        ({"missed_by_stage1": Fraction(1, 17), "stage2_inside": Fraction(-1, 17)}, {"stage1": "011110 111100"}),
        ({"false_of_stage1": Fraction(1, 19), "stage2_outside": Fraction(-1, 19)}, {"stage1": "111110 111110"}),
        ({"stage2_inside": Fraction(1, 17)}, {"stage2": "022210 111100", "merged": "022210 111100"}),
        ({"stage2_outside": Fraction(1, 19)}, {"stage2": "022210 111111", "merged": "022210 111111"}),
        ({"cleanup": Fraction(1, 17)}, {"merged": "022210 111100"}),
        ({"cleanup": Fraction(-1, 19), "stage2_outside": Fraction(1, 19)}, {"stage2": "022210 111111"}),
        # A wrong class is not a wrong liver.
        ({}, {"raw": "000000 222220", "stage2": "011110 222220", "merged": "011110 222220"}),
    ],
)
def test_a_planted_error_shows_in_its_own_step_of_the_liver_only(losses, changes):
    assert planted(liver_waterfall(case(**changes))) == losses


def test_what_a_later_step_gives_back_is_a_gain():
    regained = tumor_waterfall(case(true_roi="012210 111110"))
    assert planted(regained) == {"missed": LOST, "own_roi": -LOST}
    cleaned = tumor_waterfall(case(raw="222210 111110", stage2="222210 111110"))
    assert planted(cleaned) == {"false_outside": ADDED, "cleanup": -ADDED}


def test_without_a_true_roi_all_that_stage_2_misses_is_missed_in_a_perfect_one():
    missed = "012210 111110"
    assert planted(tumor_waterfall(case(true_roi=None, raw=missed, stage2=missed, merged=missed))) == {"missed": LOST}


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ("false_inside", "012110 111110"),
        ("false_outside", "211110 111110"),
        # Who comes first takes it all: 1 -> 0 is one fall, however many voxels are false.
        ("false_inside", "212110 211112"),
    ],
)
def test_in_a_case_without_tumour_the_first_false_voxel_takes_the_whole_dice(step, found):
    healthy = case("011110 111110", raw=found, stage2=found, merged=found)
    assert planted(tumor_waterfall(healthy)) == {step: 1}
    cleaned = case("011110 111110", raw=found, stage2=found)
    assert planted(tumor_waterfall(cleaned)) == {step: 1, "cleanup": -1}


def test_in_a_scan_without_liver_the_first_false_voxel_takes_the_whole_dice():
    false = "010000 000000"
    assert planted(liver_waterfall(case(NOTHING, stage1=false, stage2=false, merged=false))) == {"false_of_stage1": 1}
    assert planted(liver_waterfall(case(NOTHING, roi=None))) == {}


def test_tumours_that_nobody_drew_have_no_waterfall():
    undrawn = dataclasses.replace(case(stage2="011110 111110"), scores_tumor=False)
    assert tumor_waterfall(undrawn) is None
    assert liver_waterfall(undrawn).loss == 0


def random_case(seed):
    """Masks that agree now and then, of any density, some empty; in 3D, with a ROI that may cut anything."""
    rng = np.random.default_rng(seed)
    grid = Grid((3, 4, 5), (2.0, 3.0, 5.0))

    def classes():
        return LabelMap(rng.choice(3, grid.shape, p=rng.dirichlet((1, 1, 1))).astype(np.uint8), grid)

    start = rng.integers(0, 2, 3)
    stop = start + rng.integers(1, 3, 3)
    return StageMasks(
        case=f"random {seed}",
        truth=classes() if seed % 5 else LabelMap(np.zeros(grid.shape, np.uint8), grid),
        scores_tumor=True,
        held_out=True,
        coarse_truth=np.ones((1, 1, 1), bool),
        coarse_liver=np.ones((1, 1, 1), bool),
        stage1_liver=rng.random(grid.shape) < rng.random(),
        roi=Box(tuple(start), tuple(stop)) if seed % 3 else None,
        stage2_true_roi=classes() if seed % 4 else None,
        stage2_tumor=rng.random(grid.shape) < rng.random(),
        stage2=classes(),
        merged=classes(),
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_losses_add_up_to_the_final_dice_exactly(seed):
    result = account(random_case(seed))
    for waterfall, final in ((result.liver, result.merged_liver_dice), (result.tumor, result.merged_tumor_dice)):
        assert 1 - sum(waterfall.losses) == waterfall.dice[-1]
        assert float(waterfall.dice[-1]) == final
        assert sum(waterfall.losses) == waterfall.loss
    assert result.tumor.losses[1] >= 0  # a ROI only ever takes away
    assert min(result.tumor.losses[5:7]) >= 0  # and false tumour never helps


def test_the_mean_adds_up_as_its_cases_do():
    waterfalls = [tumor_waterfall(random_case(seed)) for seed in range(7)]
    mean = mean_waterfall(waterfalls)
    assert mean.losses == tuple(sum(losses) / 7 for losses in zip(*(w.losses for w in waterfalls), strict=True))
    assert sum(mean.losses) == 1 - sum(w.dice[-1] for w in waterfalls) / 7
    assert mean_waterfall([]) is None


def test_there_is_one_dice_more_than_steps():
    assert len(case().tumor_sequence(0)) == len(TUMOR_STEPS) + 1
    assert len(case().liver_sequence(0)) == len(LIVER_STEPS) + 1
    with pytest.raises(ValueError, match="5 steps need one Dice more, not 2"):
        Waterfall(LIVER_STEPS, (Fraction(1), Fraction(1)))
