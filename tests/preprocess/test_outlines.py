import numpy as np
import pytest

from preprocess import outlines
from preprocess.components import components
from preprocess.outlines import Seen, outlined

SPACING = (2.0, 1.5, 1.0)
SHAPE = (14, 24, 40)


def scene(*lesions, background=100):
    """HU with blocks (index expression, value), and where they are."""
    hu = np.full(SHAPE, background, np.int16)
    for where, value in lesions:
        hu[where] = value
    return hu, hu != background


def redrawn(parts, hu, possible=True, share=0.5, wanted=None, tissue=True):
    parts = np.asarray(parts, np.int32)
    wanted = np.ones(parts.max() + 1, bool) if wanted is None else np.array(wanted)
    everywhere = np.ones(SHAPE, bool)
    seen = Seen(everywhere & possible, everywhere & tissue & (parts == 0), hu, SPACING)
    return outlined(parts, wanted, seen, share)


def numbered(*places):
    parts = np.zeros(SHAPE, np.int32)
    for number, where in enumerate(places, 1):
        parts[where] = number
    return parts


BLOCK = np.s_[5:9, 8:14, 12:22]
MIDDLE = np.s_[6:8, 10:12, 14:20]


@pytest.mark.parametrize("value", [40, 190])
def test_a_part_that_is_too_small_grows_to_the_edge_of_what_differs(value):
    """Darker or brighter; along a face the edge lies where the block ends, corners are rounded off."""
    hu, block = scene((BLOCK, value))
    out = redrawn(numbered(MIDDLE), hu) == 1
    assert not (out & ~block).any()
    assert out[5:9, 10:12, 14:20].all()
    assert out[6:8, 8:14, 14:20].all()
    assert out[6:8, 10:12, 12:22].all()


def test_a_part_that_is_too_large_shrinks_to_it():
    hu, block = scene((BLOCK, 40))
    out = redrawn(numbered(np.s_[5:9, 7:15, 11:23]), hu) == 1
    assert not (out & ~block).any()
    assert out[MIDDLE].all()


def test_it_grows_by_3_mm_and_not_further():
    hu, _ = scene((np.s_[:, :, 10:28], 40))
    out = redrawn(numbered(np.s_[5:9, 8:14, 18:20]), hu, tissue=hu == 100) == 1
    assert (out.any(axis=(1, 2)).nonzero()[0][[0, -1]]).tolist() == [4, 9]  # slices of 2 mm
    assert (out.any(axis=(0, 1)).nonzero()[0][[0, -1]]).tolist() == [15, 22]  # columns of 1 mm


def test_the_share_is_of_the_way_from_the_tissue_to_the_part():
    """A rim of 80 HU around a core of 40 in 100: a third of the way."""
    hu, _ = scene((np.s_[2:12, 4:18, 8:26], 80), (BLOCK, 40))
    size = lambda share: int((redrawn(numbered(MIDDLE), hu, share=share) == 1).sum())  # noqa: E731
    assert size(0.2) > size(0.5) > size(0.9) > 0


def test_it_stays_within_what_is_possible_and_hangs_together():
    hu, _ = scene((np.s_[5:9, 8:14, 10:24], 40))
    possible = np.ones(SHAPE, bool)
    possible[:, :, 13] = False  # beyond it nothing hangs together with the part
    out = redrawn(numbered(MIDDLE), hu, possible) == 1
    assert out.any(axis=(0, 1)).nonzero()[0][0] == 14
    assert components(out)[1].size == 2


def test_of_two_each_takes_what_is_nearer_to_it_and_neither_depends_on_the_other_being_wanted():
    hu, _ = scene((np.s_[5:9, 8:14, 10:28], 40))
    parts = numbered(np.s_[6:8, 10:12, 13:16], np.s_[6:8, 10:12, 20:25])
    both = redrawn(parts, hu)
    assert (both[7, 11, 16], both[7, 11, 19]) == (1, 2)
    assert components(both > 0)[1].size == 3  # they stay two
    for wanted, number in (([True, True, False], 1), ([True, False, True], 2)):
        one = redrawn(parts, hu, wanted=wanted)
        np.testing.assert_array_equal(one == number, both == number)
        np.testing.assert_array_equal(one == 3 - number, parts == 3 - number)


@pytest.mark.parametrize("value", [91, 109])
def test_one_without_contrast_stays_as_it_is(value):
    hu, _ = scene((BLOCK, value))
    parts = numbered(MIDDLE)
    np.testing.assert_array_equal(redrawn(parts, hu), parts)


def test_one_without_tissue_around_stays_as_it_is():
    hu, _ = scene((BLOCK, 40))
    parts = numbered(MIDDLE)
    few = np.zeros(SHAPE, bool)
    few[7, 11, 25:30] = True
    np.testing.assert_array_equal(redrawn(parts, hu, tissue=few), parts)


def test_one_that_lies_where_nothing_is_possible_stays_as_it_is():
    hu, _ = scene((BLOCK, 40))
    parts = numbered(MIDDLE)
    np.testing.assert_array_equal(redrawn(parts, hu, possible=False), parts)


def test_noise_of_single_voxels_does_not_fray_the_edge():
    hu, _ = scene((BLOCK, 40))
    noisy = hu + np.random.default_rng(1).normal(0, 25, SHAPE).round().astype(np.int16)
    clean, out = (redrawn(numbered(MIDDLE), image) == 1 for image in (hu, noisy))
    assert 2 * (clean & out).sum() / (clean.sum() + out.sum()) > 0.9


def test_a_large_one_is_compared_in_few_voxels_and_drawn_in_slabs(monkeypatch):
    hu, _ = scene((np.s_[3:11, 6:18, 8:34], 40))
    parts = numbered(np.s_[4:10, 8:16, 10:20], np.s_[5:9, 8:16, 24:30])
    whole = redrawn(parts, hu)
    monkeypatch.setattr(outlines, "COMPARED", 1500)
    monkeypatch.setattr(outlines, "AT_A_TIME", 3000)
    assert len(list(outlines._slabs(SHAPE, SPACING))) == 5
    np.testing.assert_array_equal(redrawn(parts, hu), whole)
    assert (whole != parts).any()


def test_of_several_pieces_the_largest_stays():
    hu, _ = scene((np.s_[5:7, 8:12, 10:14], 40), (np.s_[5:7, 8:12, 17:26], 40))
    out = redrawn(numbered(np.s_[5:7, 8:12, 10:26]), hu) == 1
    assert out.any(axis=(0, 1)).nonzero()[0].tolist() == list(range(17, 26))


def test_a_larger_piece_that_does_not_hang_together_with_it_is_none_of_it():
    hu, _ = scene((np.s_[4:10, 6:16, 8:22], 40))
    parts = numbered(np.s_[6:8, 10:12, 14:16])
    possible = parts == 1
    possible[:, :, :13] = True
    np.testing.assert_array_equal(redrawn(parts, hu, possible), parts)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parts_with_one_voxel_between_them_stay_apart(axis):
    """Which of them is nearer to that voxel is for the rounding to say."""
    hu, _ = scene((np.s_[2:12, 5:19, 10:30], 40))
    one, other = np.zeros((2, *SHAPE), bool)
    one[5:9, 10:14, 17:21] = other[5:9, 10:14, 17:21] = True
    np.moveaxis(one, axis, 0)[[7, 12, 19][axis] :] = False
    np.moveaxis(other, axis, 0)[: [8, 13, 20][axis]] = False
    for first, second in ((one, other), (other, one)):
        out = redrawn(numbered(first, second), hu, tissue=hu == 100)
        assert components(out > 0)[1].size == 3
        assert (out > 0).sum() > (first | second).sum()


def test_a_part_does_not_grow_onto_another_either():
    """The voxels below the upper one are nearer to it, by 1.5 mm, than to the lower one, by the 2 mm of a slice."""
    hu, _ = scene((np.s_[2:12, 5:19, 10:30], 40))
    parts = numbered(np.s_[5:8, 10:12, 17:21], np.s_[8:11, 12:14, 17:21])
    assert components(redrawn(parts, hu, tissue=hu == 100) > 0)[1].size == 3


def test_what_lies_deeper_than_3_mm_stays():
    """A vessel runs through a part from end to end."""
    hu, _ = scene((np.s_[2:12, 4:20, 8:32], 40))
    hu[6:8, 11:13] = 100
    out = redrawn(numbered(np.s_[2:12, 4:20, 8:32]), hu, tissue=hu == 100) == 1
    assert out[6:8, 11:13, 12:28].all()
    assert not out[6:8, 11:13, 8].any()


def test_holes_are_filled():
    """A bright spot near the edge."""
    hu, _ = scene((np.s_[2:12, 4:20, 8:32], 40), (np.s_[6, 5, 19:21], 220))
    out = redrawn(numbered(np.s_[2:12, 4:20, 8:32]), hu, tissue=hu == 100) == 1
    assert out[6, 5, 19:21].all()


def test_a_hole_that_holds_another_one_is_not_filled():
    hu, _ = scene((np.s_[1:13, 3:21, 5:35], 40), (np.s_[4:10, 8:16, 12:28], 100), (np.s_[6:8, 11:13, 18:22], 40))
    ring = np.zeros(SHAPE, bool)
    ring[1:13, 3:21, 5:35] = True
    ring[4:10, 8:16, 12:28] = False
    parts = numbered(np.s_[6:8, 11:13, 18:22])
    parts[ring] = 2
    out = redrawn(parts, hu, tissue=hu == 100)
    assert (out[6:8, 11:13, 19:21] == 1).all()
    assert (out == 2).any()
