from dataclasses import replace

import numpy as np
import pytest

from cascade.settings import load_settings
from cascade.sizing import Budget, Sizer

#: Like ten scans of the abdomen at 3 mm.
SCANS = [(50, 110, 120), (64, 130, 140), (90, 140, 150)]


def work(settings):
    """As memory goes: voxels of a batch times the width."""
    return int(np.prod(settings.sampling.patch)) * settings.sampling.batch * settings.network.features[0]


def sized(budget, *, grows=True, scans=SCANS, fixed=(), recipe=None):
    recipe = recipe or load_settings("liver")
    return Sizer(recipe, scans, frozenset(fixed), work).sized(Budget(budget, grows, ""))


RECIPE = load_settings("liver")
COST = work(RECIPE)


@pytest.mark.parametrize("budget", [1.0, 1.7])
def test_a_budget_that_does_not_hold_twice_the_recipe_leaves_it(budget):
    assert sized(budget * COST) == RECIPE


def test_more_memory_changes_nothing_where_time_is_short():
    assert sized(1000 * COST, grows=False) == RECIPE


def test_the_patch_grows_first_where_least_is_seen_up_to_the_median_scan():
    chosen = sized(2.5 * COST)
    # from 64 of 64, 96 of 144 (130 in steps of 16) and 96 of 144 to twice the voxels
    assert chosen.sampling.patch == (64, 144, 128)
    assert (chosen.sampling.batch, chosen.network) == (2, RECIPE.network)
    assert chosen.window.size == (96, 176, 160)  # to the patch as 96 to 64, 112 to 96 and 112 to 96, in steps of 16


def test_then_the_batch_then_the_width_each_to_twice_the_recipe():
    assert (sized(5 * COST).sampling.batch, sized(5 * COST).network.features[0]) == (4, 32)
    most = sized(1e6 * COST)
    assert (most.sampling.patch, most.sampling.batch) == ((64, 144, 128), 4)
    assert most.network.features[0] == 64
    assert max(most.network.features) <= 320


def test_a_large_patch_gets_a_level_more():
    chosen = sized(1e6 * COST, scans=[(300, 300, 300)])
    assert len(chosen.network.features) == 5
    assert all(n % 32 == 0 for n in chosen.sampling.patch)
    assert min(chosen.sampling.patch) // chosen.network.multiple >= 4


def test_little_memory_takes_the_batch_then_the_patch_then_the_width():
    assert sized(0.5 * COST).sampling == replace(RECIPE.sampling, batch=1)
    assert sized(0.5 * COST).network == RECIPE.network
    smaller = sized(0.25 * COST)
    assert (smaller.sampling.batch, smaller.network) == (1, RECIPE.network)
    assert work(smaller) <= 0.25 * COST
    assert smaller.sampling.patch == (64, 64, 64)
    assert smaller.window.size == (96, 80, 80)  # of 75 the next multiple


def test_what_cannot_shrink_any_further_is_given_as_it_is():
    least = sized(1)
    assert (least.sampling.patch, least.sampling.batch) == ((32, 32, 32), 1)
    assert least.network.features == (8, 8, 8, 8)


def test_a_patch_is_no_larger_than_the_largest_scan():
    assert sized(COST, scans=[(20, 30, 100), (40, 60, 90)]).sampling.patch == (48, 64, 96)


@pytest.mark.parametrize("budget", [0.01, 1e6])
def test_what_the_user_has_set_stays(budget):
    fixed = ("sampling.patch", "sampling.batch", "network.features")
    assert sized(budget * COST, fixed=fixed) == RECIPE
    chosen = sized(budget * COST, fixed=fixed[:1])
    assert (chosen.sampling.patch, chosen.window) == (RECIPE.sampling.patch, RECIPE.window)
    assert chosen.sampling.batch != 2
    assert chosen.network.features != RECIPE.network.features


def test_a_window_that_the_user_has_set_stays():
    recipe = replace(RECIPE, window=replace(RECIPE.window, size=(80, 80, 80)))
    assert sized(2.5 * COST, recipe=recipe, fixed=["window.size"]).window.size == (80, 80, 80)
