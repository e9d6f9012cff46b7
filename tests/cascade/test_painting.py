from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from cascade.painting import KNOWN_MM, Painted, paint_lesions
from preprocess.preparation import Preparation
from stage2_tumor.lesions import Lesions

PREPARATION = Preparation((1.5, 1.0, 0.8), (-160.0, 240.0))
HU = 1 / 200  # of prepared units
LESIONS = Lesions(
    share=1.0,
    most=1,
    diameter_mm=(12.0, 12.0),
    dark_hu=(60.0, 60.0),
    bright_hu=(40.0, 40.0),
    bright_share=0.0,
    rim_share=0.0,
    core_share=0.0,
    calcified_share=0.0,
    edge_mm=(0.5, 0.5),
)
SHAPE = (28, 40, 52)


def scan(noise_hu=0.0):
    """Liver of 100 HU in a box, -100 HU around it."""
    liver = np.zeros(SHAPE, bool)
    liver[3:25, 4:36, 5:47] = True
    hu = np.where(liver, 100.0, -100.0) + np.random.default_rng(0).normal(0, noise_hu or 1e-9, SHAPE)
    return PREPARATION.normalised(hu), liver


def paint(image, liver, taken, seed, lesions=LESIONS):
    """What `paint_lesions` makes, as arrays."""
    tensors = (torch.from_numpy(array) for array in (image, liver, taken))
    result = paint_lesions(*tensors, PREPARATION, np.random.default_rng(seed), lesions)
    return Painted(*(part.numpy() for part in (result.image, result.tumor, result.known)))


def painted(seed=0, lesions=LESIONS, noise_hu=0.0, taken=None):
    image, liver = scan(noise_hu)
    taken = np.zeros(SHAPE, bool) if taken is None else taken
    return image, liver, paint(image, liver, taken, seed, lesions)


@pytest.mark.parametrize("seed", range(8))
def test_a_lesion_is_liver_and_darker_and_nothing_else_changes(seed):
    image, liver, result = painted(seed)
    assert result.tumor.any()
    assert not (result.tumor & ~liver).any()
    far = ~ndimage.binary_dilation(result.tumor, iterations=6)
    np.testing.assert_allclose(result.image[far], image[far], atol=1e-4)
    np.testing.assert_array_equal(result.image[~liver], image[~liver])
    assert np.percentile((image - result.image)[result.tumor], 80) == pytest.approx(60 * HU, abs=20 * HU)


def test_the_size_is_the_one_asked_for():
    voxel_mm3 = 1.5 * 1.0 * 0.8
    for diameter in (6.0, 20.0):
        lesions = replace(LESIONS, diameter_mm=(diameter, diameter))
        volumes = [painted(seed, lesions)[2].tumor.sum() * voxel_mm3 for seed in range(12)]
        ball = np.pi / 6 * diameter**3
        assert 0.2 * ball < np.median(volumes) < 3 * ball


def test_a_bright_lesion_is_brighter():
    image, _, result = painted(lesions=replace(LESIONS, bright_share=1.0))
    assert np.percentile((result.image - image)[result.tumor], 80) == pytest.approx(40 * HU, abs=20 * HU)


def test_nothing_is_darker_than_fluid():
    _, _, result = painted(lesions=replace(LESIONS, dark_hu=(300.0, 300.0)))
    fluid = float(PREPARATION.normalised(np.array(0.0)))
    assert result.image[result.tumor].min() == pytest.approx(fluid, abs=0.06)


def test_the_noise_of_the_scanner_stays():
    """Tissue without noise would give a lesion away to the network."""
    _, _, result = painted(noise_hu=15.0)
    inside = ndimage.binary_erosion(result.tumor)
    rough = result.image - ndimage.uniform_filter(result.image, 3)
    assert rough[inside].std() > 0.6 * 15 * HU


def test_uneven_liver_shows_through():
    """Liver is never of one value, nor are true tumours."""
    image, liver = scan()
    wave = 8 * HU * np.sin(np.arange(SHAPE[2]) / 3) * liver  # 15 mm long, so coarser than the grain
    slopes = []
    for seed in range(8):
        result = paint((image + wave).astype(np.float32), liver, liver & False, seed)
        inside = ndimage.binary_erosion(result.tumor)
        slopes.append(np.polyfit(wave[inside], result.image[inside], 1)[0])
    assert np.mean(slopes) == pytest.approx(1, abs=0.3)


def test_a_vessel_below_a_lesion_is_gone():
    image, liver = scan()
    image[:, 17:23, 5:47] = PREPARATION.normalised(np.array(180.0))
    large, middle = replace(LESIONS, diameter_mm=(30.0, 30.0)), np.zeros(SHAPE, bool)
    middle[:, 19:21] = True
    left = []
    for seed in range(8):
        result = paint(image, liver, liver & False, seed, large)
        left.append(result.image[ndimage.binary_erosion(result.tumor) & middle])
    assert np.concatenate(left).mean() < PREPARATION.normalised(np.array(80.0))


def test_lesions_lie_at_the_surface_too():
    lesions = replace(LESIONS, diameter_mm=(1.5, 1.5))
    _, liver = scan()
    surface = liver & ~ndimage.binary_erosion(liver)
    hits = [(painted(seed, lesions)[2].tumor & surface).any() for seed in range(40)]
    share = np.count_nonzero(surface) / np.count_nonzero(liver)
    assert np.mean(hits) > 0.5 * share


def test_a_lesion_at_the_surface_has_no_bright_rim():
    """The fat outside is no vessel that would have to be taken off the liver beside it."""
    image, liver = scan()
    large = replace(LESIONS, diameter_mm=(40.0, 40.0))
    second = ndimage.binary_erosion(liver) & ~ndimage.binary_erosion(liver, iterations=2)
    for seed in range(4):
        result = paint(image, liver, liver & False, seed, large)
        rim = result.tumor & second & ~ndimage.binary_dilation(liver & ~result.tumor, iterations=3)
        assert rim.any()
        assert (result.image[rim] - image[rim]).mean() == pytest.approx(-60 * HU, abs=20 * HU)


def test_true_tumours_are_left_alone():
    taken = np.zeros(SHAPE, bool)
    taken[3:25, 4:36, 5:30] = True
    for seed in range(6):
        image, _, result = painted(seed, taken=taken)
        np.testing.assert_array_equal(result.image[taken], image[taken])
        assert not (result.tumor & taken).any()
        assert not (result.known & taken).any()


def test_what_is_known_is_the_lesion_and_the_liver_close_to_it():
    _, liver, result = painted()
    assert (result.known[result.tumor]).all()
    assert not (result.known & ~liver).any()
    apart = ndimage.distance_transform_edt(~result.tumor, PREPARATION.spacing_mm)
    assert result.known[liver & (apart < 0.5 * KNOWN_MM)].all()
    assert not result.known[apart > 2.5 * KNOWN_MM].any()


def test_a_vessel_is_no_place_for_a_lesion():
    image, liver = scan()
    bright = image.copy()
    bright[:, :, 20:] = PREPARATION.normalised(np.array(200.0))
    bright[:, :, 34:] = image[:, :, 34:]
    none = np.zeros(SHAPE, bool)
    lesions = replace(LESIONS, diameter_mm=(1.0, 1.0))
    for seed in range(10):
        result = paint(bright, liver, none, seed, lesions)
        assert not result.tumor[:, :, 22:32].any()


def test_without_liver_nothing_is_painted():
    image, liver = scan()
    result = paint(image, liver & False, liver & False, 0)
    np.testing.assert_array_equal(result.image, image)
    assert not result.tumor.any()
    assert not result.known.any()


def test_a_lesion_is_a_function_of_the_generator():
    one, again, other = (painted(seed)[2] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.image, again.image)
    assert not np.array_equal(one.image, other.image)


def test_many_looks_stay_finite_and_inside_the_window():
    lesions = replace(LESIONS, most=3, diameter_mm=(3.0, 60.0), rim_share=0.5, core_share=0.5, calcified_share=0.5)
    for seed in range(20):
        image = painted(seed, lesions, noise_hu=20.0)[2].image
        assert np.isfinite(image).all()
        assert np.abs(image).max() <= 1
