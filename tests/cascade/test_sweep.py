"""The tables of one case against what the pipeline itself makes of it under each policy."""

import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cascade.pipeline import Stopwatch, segment
from cascade.sweep import CANDIDATES, DICE, FALSE, FOUND, Candidates, _reached, sweep
from evaluate.detection import detection
from evaluate.lesions import match_lesions
from evaluate.overlap import class_overlaps
from preprocess.cases import Case
from preprocess.geometry import Grid
from preprocess.volume import LabelMap, Volume
from stage2_tumor.recipe import TumorPolicy

_spec = importlib.util.spec_from_file_location("fakes", Path(__file__).with_name("fakes.py"))
fakes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fakes)

GRID = Grid((20, 26, 32), (3.0, 2.0, 2.0), (10.0, -20.0, 30.0))
FEW = Candidates((0.3, 0.45, 0.6), (0.4, 0.7), (0.5, 0.8, 0.9), (0.0, 100.0, 400.0))
CASE = Case("a", Path("a.nii"), None, "p")


def unsure_liver(image, where=None):
    return (0.9 / (1 + np.exp(-8 * (image - fakes.prepared(60)))))[None].astype(np.float32)


def unsure_tumor(image, where=None):
    liver = 1 / (1 + np.exp(-6 * (image - fakes.prepared(70))))
    tumor = 1 / (1 + np.exp(-6 * (image - fakes.prepared(150))))
    return np.stack([liver, tumor]).astype(np.float32)


def unsure_dark_tumor(image, where=None):
    liver = 1 / (1 + np.exp(-6 * (image - fakes.prepared(0))))
    tumor = 1 / (1 + np.exp(-24 * (fakes.prepared(75) - image)))
    return np.stack([liver, liver * tumor]).astype(np.float32)


@pytest.fixture
def stages():
    runner = fakes.fake_runner()
    return replace(runner.liver, infer=unsure_liver), replace(runner.tumor, infer=unsure_tumor)


@pytest.fixture
def scan():
    """Blurred lesions of many HU in the liver of the scene; the truth knows some of them, one outside the liver,
    and one that is two only inside the region of interest, which begins at row 3."""
    rng = np.random.default_rng(3)
    hu = fakes.scene().astype(float)
    for z, y, x, size, value in (
        (5, 7, 18, 2, 170),
        (12, 15, 7, 3, 150),
        (9, 17, 20, 2, 190),
        (13, 8, 22, 1, 240),
        (9, 6, 15, 2, 240),
        (9, 6, 22, 2, 240),
    ):
        hu[z : z + size, y : y + size, x : x + size] = value
    hu += rng.normal(0, 15, hu.shape)
    truth = (fakes.scene() > 50).astype(np.uint8)
    truth[7:12, 9:15, 8:14] = 2
    truth[5:7, 7:9, 18:20] = 2
    truth[12:14, 15:18, 7:9] = 2
    truth[0:2, 23:26, 0:4] = 2
    truth[9:11, 0:8, [15, 16, 22, 23]] = 2
    truth[9:11, 0:2, 15:24] = 2
    return Volume(hu.astype(np.float32), GRID), LabelMap(truth, GRID)


def with_label(case, tumor_label="expert"):
    return replace(case, label=object(), tumor_label=tumor_label)


@pytest.mark.parametrize(  # with 60 one of the lesions is too faint
    "changes",
    [
        {},
        {"minimum_contrast_hu": 60.0},
        {"stage2_weight": 0.8},
        {"outline_threshold": 0.2, "outline_share": 0.5},
        {"fat_share": 0.9},
    ],
)
def test_each_number_is_that_of_the_mask_that_the_policy_gives(stages, scan, changes):
    volume, truth = scan
    stages = stages[0], replace(stages[1], policy=replace(stages[1].policy, **changes))
    tables = sweep(with_label(CASE), volume, truth, stages, FEW)
    assert (tables.case, tables.patient, tables.lesions) == ("a", "p", 5)
    assert len(agreeing(tables, volume, truth, stages)) > 10  # the policies do differ


def test_so_it_is_where_dark_lesions_count_for_being_clear_to_see(stages, scan):
    volume, truth = scan
    darker = np.where(volume.array > 100, 100 - 0.4 * (volume.array - 100), volume.array)  # what was brighter
    volume = replace(volume, array=darker.astype(np.float32))
    clear = {"clear_peak": 0.45, "clear_contrast_hu": (15.0, 40.0), "clear_mm3": 100.0, "minimum_contrast_hu": 12.0}
    every = []
    for changes in (clear, {**clear, "clear_peak": 1.0}):
        policy = replace(stages[1].policy, **changes)
        dark = stages[0], replace(stages[1], infer=unsure_dark_tumor, policy=policy)
        every.append(sweep(with_label(CASE), volume, truth, dark, FEW))
        agreeing(every[-1], volume, truth, dark)
    assert (every[0].tumors[FOUND] >= every[1].tumors[FOUND]).all()
    assert (every[0].tumors[FOUND] > every[1].tumors[FOUND]).any()


def test_so_it_is_where_something_is_the_gallbladder(stages, scan, monkeypatch):
    volume, truth = scan
    monkeypatch.setattr("stage2_tumor.gallbladder.LEAST_ML", 0.05)
    tables = []
    for hu in (-1024.0, 250.0):
        policy = replace(stages[1].policy, gallbladder_hu=hu)
        monkeypatch.setattr("stage2_tumor.gallbladder.DARKER_HU", -hu)
        tables.append(sweep(with_label(CASE), volume, truth, (stages[0], replace(stages[1], policy=policy)), FEW))
        agreeing(tables[-1], volume, truth, (stages[0], replace(stages[1], policy=policy)))
    assert (tables[0].liver != tables[1].liver).any()


def agreeing(tables, volume, truth, stages):
    """The different scores in `tables`, each of which is that of the mask which the pipeline makes with that policy."""
    seen = set()
    for place in itertools.product(*map(range, FEW.shape)):
        policy = FEW.policy(place, stages[1].policy)
        labels = segment(volume, stages[0], replace(stages[1], policy=policy), Stopwatch()).labels
        liver, tumor = class_overlaps(labels.array, truth.array)
        counts = detection(match_lesions(labels.array == 2, truth.array == 2, GRID, "lits"), 0.0)
        assert tables.liver[place[0]] == pytest.approx(liver.dice())
        assert tables.tumors[(DICE, *place)] == pytest.approx(tumor.dice())
        assert (tables.tumors[(FALSE, *place)], tables.tumors[(FOUND, *place)]) == (counts.false, counts.detected)
        seen.add((liver.dice(), tumor.dice(), counts.false, counts.detected))
    assert len({row[2] for row in seen}) > 1
    return seen


def test_a_liver_that_counts_as_not_found_leaves_an_empty_mask(stages, scan):
    volume, truth = scan
    strict = replace(stages[0], policy=replace(stages[0].policy, minimum_ml=24.0))
    tables = sweep(with_label(CASE), volume, truth, (strict, stages[1]), replace(FEW, liver_threshold=(0.3, 0.94)))
    assert tables.liver[0] > 0.5
    assert tables.liver[1] == 0
    assert tables.tumors[DICE, 0].max() > 0.5
    assert not tables.tumors[:, 1].any()


def test_no_liver_at_all_scores_as_an_empty_mask(stages):
    nothing = Volume(np.full(GRID.shape, -100.0, np.float32), GRID)
    healthy = LabelMap((fakes.scene() > 50).astype(np.uint8), GRID)
    tables = sweep(with_label(CASE), nothing, healthy, stages, FEW)
    assert not tables.liver.any()
    assert (tables.tumors[DICE] == 1).all()  # no tumour, none found
    assert not tables.tumors[FALSE].any()


def test_tumours_that_nobody_drew_have_no_table(stages, scan):
    tables = sweep(with_label(CASE, "none"), *scan, stages, FEW)
    assert tables.tumors is None
    assert tables.liver.max() > 0.5


def test_the_present_policy_is_among_the_candidates():
    policy = TumorPolicy(0.8, 0.27, 0.5, 0.4, 50.0, 10.0, 15.0, 0.75, (30.0, 55.0), 250.0, 0.02, 0.5, 0.5, 20.0)
    tried = CANDIDATES.including(policy)
    assert tried.shape == (8, 6, 9, 5)
    place = tried.place(policy)
    assert place == (3, 2, 0, 2)
    assert tried.policy(place, policy) == replace(policy, tumor_peak=0.5)  # no lesion reaches less than the threshold


def test_a_probability_of_exactly_a_threshold_reaches_it():
    products = np.array([0.0, 0.0899, 0.3**2, 0.2499, 0.25, 1.0], np.float32)
    assert _reached(products, (0.3, 0.5)).tolist() == [0, 0, 1, 1, 2, 2]
    assert [int((products >= t**2).sum()) for t in (0.3, 0.5)] == [4, 2]  # as `fuse` compares
