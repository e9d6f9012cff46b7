"""Distances between point sets: against every distance there is, on every way through the search."""

import numpy as np
import pytest

from evaluate import nearest
from evaluate.nearest import nearest_mm

SPACING = (2.5, 0.7, 1.1)
EMPTY = np.zeros((3, 4, 5), bool)


@pytest.fixture(autouse=True, params=["few points", "many points"])
def _way(request, monkeypatch):
    """Every test by the tree alone, and by trying neighbours first."""
    if request.param == "many points":
        monkeypatch.setattr(nearest, "_FEW", 0)


def one(*index, shape=(3, 4, 5)):
    mask = np.zeros(shape, bool)
    mask[index] = True
    return mask


def every_distance(points, others, spacing_mm):
    a, b = (np.argwhere(mask) * np.array(spacing_mm) for mask in (points, others))
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1)).min(axis=1)


def sprinkled(seed, share, shape=(7, 20, 12)):
    return np.random.default_rng(seed).random(shape) < share


def test_a_distance_is_in_millimetres_along_each_axis():
    for index, expected in (((2, 0, 0), 5.0), ((0, 3, 0), 2.1), ((0, 0, 4), 4.4), ((1, 1, 1), 2.819574)):
        assert nearest_mm(one(0, 0, 0), one(*index), SPACING) == pytest.approx([expected])


@pytest.mark.parametrize("share", [0.3, 0.02, 0.002])
def test_near_and_far_points_alike(share):
    points, others = sprinkled(1, 0.1), sprinkled(2, share)
    np.testing.assert_allclose(nearest_mm(points, others, SPACING), every_distance(points, others, SPACING), atol=1e-9)


def test_what_the_near_search_cannot_afford_goes_to_the_tree(monkeypatch):
    points, others = sprinkled(3, 0.1), sprinkled(4, 0.02)
    expected = every_distance(points, others, SPACING)
    for name, value in (("_LOOKS_PER_POINT", 3), ("_NEAR_MM", 1.2), ("_MOST_NEIGHBOURS", 10)):
        with monkeypatch.context() as changed:
            changed.setattr(nearest, name, value)
            np.testing.assert_allclose(nearest_mm(points, others, SPACING), expected, atol=1e-9)


def test_a_limit_keeps_what_is_within_and_may_drop_the_rest(monkeypatch):
    points, others = sprinkled(5, 0.1), sprinkled(6, 0.005)
    expected = every_distance(points, others, SPACING)
    assert (expected > 3).any()
    for looks in (150, 2):
        monkeypatch.setattr(nearest, "_LOOKS_PER_POINT", looks)
        found = nearest_mm(points, others, SPACING, limit_mm=3.0)
        np.testing.assert_allclose(found[expected <= 3], expected[expected <= 3], atol=1e-9)
        assert (found[expected > 3] > 3).all()


def test_a_point_exactly_at_the_limit_is_found_by_both_searches(monkeypatch):
    for looks in (150, 0):
        monkeypatch.setattr(nearest, "_LOOKS_PER_POINT", looks)
        assert nearest_mm(one(0, 0, 0), one(0, 0, 3), (1.0, 1.0, 1.0), limit_mm=3.0) == [3.0]


def test_tiny_voxels_need_no_memory_for_all_neighbours():
    assert nearest_mm(one(0, 0, 0), one(0, 0, 4), (1e-3, 1e-3, 1e-3)) == pytest.approx([0.004])


def test_no_point_and_nothing_near():
    assert nearest_mm(EMPTY, one(0, 0, 0), SPACING).size == 0
    assert nearest_mm(one(1, 1, 1), EMPTY, SPACING) == [np.inf]
