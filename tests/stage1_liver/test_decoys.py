import numpy as np

from stage1_liver.decoys import decoy_hu

SHAPE, SPACING = (30, 50, 60), (9.0, 8.0, 7.0)


def decoys(count=12):
    return [decoy_hu(SHAPE, SPACING, np.random.default_rng(seed)) for seed in range(count)]


def test_an_object_lies_in_air_and_its_size_is_in_millimetres():
    for hu in decoys():
        assert hu.shape == SHAPE
        assert hu.dtype == np.float32
        assert hu[15, 0, 0] < -850  # air in the corner
        width_mm = np.count_nonzero(hu[15, 25] > -600) * 7.0
        assert 80 < width_mm <= 2 * 170 + 14


def test_no_two_are_alike_and_a_seed_is_always_the_same():
    first, *others = decoys()
    assert all(not np.array_equal(first, other) for other in others)
    assert np.array_equal(first, decoys(1)[0])
    assert any(hu.max() > 280 for hu in others)  # shells and rods of bone
    assert np.ptp([np.median(hu[14:16, 20:30, 25:35]) for hu in others]) > 60
