import dataclasses
import math

import numpy as np
import pytest
import torch

from cascade import augment
from cascade.augment import (
    AIR,
    Warp,
    change_intensity,
    cut_field,
    cut_patch,
    cut_scan,
    mirrored,
    random_affine,
    random_bend,
)
from cascade.settings import Augmentation

SHAPE = (7, 9, 11)
OFF = Augmentation(*[0.0] * len(dataclasses.fields(Augmentation)))


def on(**changes):
    return dataclasses.replace(OFF, **changes)


def rng(seed=1):
    return np.random.default_rng(seed)


def scan():
    return rng(3).uniform(-1, 1, SHAPE).astype(np.float32), rng(4).integers(0, 3, SHAPE).astype(np.uint8)


def around(array, centre, size, fill):
    """The crop of `size` with voxel size // 2 at `centre`, `fill` beyond the array."""
    reach = 20
    padded = np.pad(array, reach, constant_values=fill)
    return padded[tuple(slice(c - s // 2 + reach, c - s // 2 + s + reach) for c, s in zip(centre, size, strict=True))]


@pytest.mark.parametrize("centre", [(3, 4, 5), (0, 0, 0), (6, 8, 10), (1, 8, 3), (-4, 4, 14)])
@pytest.mark.parametrize("size", [(3, 5, 7), (2, 4, 6), (1, 1, 1), (8, 3, 2)])
def test_the_identity_cuts_the_crop(centre, size):
    image, labels = scan()
    patch, regions = cut_patch(image, labels, centre, size, Warp(np.eye(3)), 2)
    assert (patch.shape, regions.shape) == (size, (2, *size))
    assert patch.dtype == regions.dtype == torch.float32
    np.testing.assert_allclose(patch, around(image, centre, size, AIR), atol=1e-5)
    wanted = around(labels, centre, size, 0)
    np.testing.assert_array_equal(regions, np.stack([wanted > 0, wanted > 1]))


def test_far_outside_is_air_without_label():
    patch, regions = cut_patch(*scan(), (100, -50, 200), (3, 4, 5), Warp(np.eye(3)), 1)
    assert (patch == AIR).all()
    assert not regions.any()


def test_a_quarter_turn_by_hand():
    image = np.zeros((3, 5, 7), np.float32)
    image[1, 1:4, 2:5] = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]) / 10
    labels = (image > 0.45).astype(np.uint8) + (image > 0.75)
    # voxel (dy, dx) of the patch shows the scan at (-dx, dy)
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    patch, regions = cut_patch(image, labels.astype(np.uint8), (1, 2, 3), (1, 3, 3), Warp(turn), 2)
    np.testing.assert_allclose(patch[0] * 10, [[7, 4, 1], [8, 5, 2], [9, 6, 3]], atol=1e-5)
    assert regions[0, 0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    assert regions[1, 0].tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_scaling_by_hand():
    image = np.broadcast_to(np.arange(11) / 10, SHAPE).astype(np.float32)
    patch, _ = cut_patch(image, np.zeros(SHAPE, np.uint8), (3, 4, 5), (1, 1, 4), Warp(np.diag([1.0, 1.0, 1.5])), 1)
    # voxels 5 + 1.5 * (-2, -1, 0, 1)
    np.testing.assert_allclose(patch[0, 0], [0.2, 0.35, 0.5, 0.65], atol=1e-5)


@pytest.mark.parametrize("size", [(3, 5, 7), (4, 6, 2)])
@pytest.mark.parametrize("seed", range(5))
def test_any_matrix_shows_the_scan_at_centre_plus_matrix_times_offset(size, seed):
    shape, centre = (40, 44, 48), np.array((19, 22, 25))
    slope = np.array([0.01, -0.005, 0.002])
    image = np.tensordot(slope, np.indices(shape), 1).astype(np.float32)
    matrix = random_affine(rng(seed), on(rotation_deg=40.0, scale=0.3))
    patch, _ = cut_patch(image, np.zeros(shape, np.uint8), tuple(centre), size, Warp(matrix), 1)
    for index in np.ndindex(size):
        place = centre + matrix @ (np.array(index) - np.array(size) // 2)
        assert patch[index].item() == pytest.approx(slope @ place, abs=1e-4)


def test_tumour_stays_inside_liver_under_any_matrix():
    image, labels = scan()
    matrix = random_affine(rng(), on(rotation_deg=30.0, scale=0.2))
    _, regions = cut_patch(image, labels, (3, 4, 5), (6, 7, 8), Warp(matrix), 2)
    assert set(regions.unique().tolist()) == {0, 1}
    assert (regions[1] <= regions[0]).all()


def test_half_precision_memory_maps_are_read(tmp_path):
    image, labels = scan()
    np.save(tmp_path / "image.npy", image.astype(np.float16))
    stored = np.load(tmp_path / "image.npy", mmap_mode="r")
    patch, _ = cut_patch(stored, labels, (3, 4, 5), (3, 5, 7), Warp(np.eye(3)), 1)
    np.testing.assert_allclose(patch, around(image, (3, 4, 5), (3, 5, 7), AIR), atol=1e-3)


def test_no_rotation_and_no_scale_is_the_identity():
    np.testing.assert_allclose(random_affine(rng(), OFF), np.eye(3))


def test_rotation_turns_about_every_axis_without_stretching():
    for seed in range(20):
        matrix = random_affine(rng(seed), on(rotation_deg=20.0))
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)
        assert (np.abs(matrix[~np.eye(3, dtype=bool)]) > 0).all()
        # three turns of up to 20 degrees are at most one of 60
        assert (np.trace(matrix) - 1) / 2 >= math.cos(math.radians(60))


def test_scale_stretches_each_axis_on_its_own_within_its_limit():
    drawn = np.array([np.diag(random_affine(rng(seed), on(scale=0.2))) for seed in range(200)])
    assert drawn.min() >= 0.8
    assert drawn.max() <= 1.2
    assert (np.ptp(drawn, axis=0) > 0.35).all()
    assert (np.ptp(drawn, axis=1) > 0).all()


def test_the_matrix_is_a_function_of_the_generator():
    settings = on(rotation_deg=20.0, scale=0.2)
    np.testing.assert_array_equal(random_affine(rng(5), settings), random_affine(rng(5), settings))
    assert not np.allclose(random_affine(rng(5), settings), random_affine(rng(6), settings))


def test_a_bend_moves_each_voxel_by_its_own_offset():
    image = np.tensordot(np.array([0.01, -0.005, 0.002]), np.indices((20, 22, 24)), 1).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[12:] = 1
    bend = torch.zeros(3, 2, 3, 4)
    bend[0, 1, 2, 3], bend[1, 0, 1, 2], bend[2, 1, 0, 1] = 2.5, -3.0, 4.0
    straight, _ = cut_patch(image, labels, (9, 11, 13), (2, 3, 4), Warp(np.eye(3)), 1)
    patch, regions = cut_patch(image, labels, (9, 11, 13), (2, 3, 4), Warp(np.eye(3), bend), 1)
    wanted = straight.clone()
    wanted[1, 2, 3] += 2.5 * 0.01
    wanted[0, 1, 2] += 3.0 * 0.005
    wanted[1, 0, 1] += 4.0 * 0.002
    torch.testing.assert_close(patch, wanted, rtol=0, atol=1e-4)
    assert np.argwhere(regions[0].numpy()).tolist() == [[1, 2, 3]]  # z = 9 + 2.5, and the liver begins at 12


def test_a_bend_shows_what_lies_beyond_the_patch():
    image = np.zeros((9, 9, 9), np.float32)
    image[:, :, 8] = 0.5
    bend = torch.zeros(3, 1, 1, 2)
    bend[2] = 4
    patch, _ = cut_patch(image, np.zeros((9, 9, 9), np.uint8), (4, 4, 4), (1, 1, 2), Warp(np.eye(3), bend), 1)
    torch.testing.assert_close(patch[0, 0], torch.tensor([0.0, 0.5]), rtol=0, atol=1e-4)


def test_a_random_bend_is_smooth_and_within_its_reach_on_each_axis():
    reach = np.array([1.0, 3.0, 6.0])
    bends = torch.stack([random_bend(rng(seed), (40, 48, 56), reach) for seed in range(10)])
    assert bends.shape == (10, 3, 40, 48, 56)
    for axis in range(3):
        assert 0.4 * reach[axis] < bends[:, axis].abs().max() <= reach[axis]
    for axis in (2, 3, 4):  # no voxel folds over its neighbour
        assert bends.diff(dim=axis).abs().amax() < 0.6
    assert torch.equal(bends[3], random_bend(rng(3), (40, 48, 56), reach))


def test_mirrored_reverses_image_and_regions_alike_along_the_chosen_axes():
    image = torch.arange(24.0).view(2, 3, 4)
    regions = torch.stack([image > 5, image > 20]).float()
    turned, both = mirrored(image, regions, np.array([True, False, True]))
    assert turned[0, 0].tolist() == [15, 14, 13, 12]
    assert torch.equal(both[0], (turned > 5).float())
    assert torch.equal(both[1], (turned > 20).float())
    same, _ = mirrored(image, regions, np.zeros(3, bool))
    assert torch.equal(same, image)


def test_a_tone_curve_rises_from_end_to_end():
    patch = torch.linspace(-1, 1, 41).view(1, 1, 41)
    curves = torch.stack([change_intensity(patch, rng(seed), on(tone=0.5)).flatten() for seed in range(30)])
    torch.testing.assert_close(curves[:, [0, 40]], torch.tensor([[-1.0, 1.0]]).expand(30, 2), rtol=0, atol=1e-5)
    slopes = curves.diff(dim=1) / 0.05
    assert (slopes > math.exp(-1.01)).all()
    assert (slopes < math.exp(1.01)).all()
    assert slopes.max() > 1.4  # they differ
    assert slopes.min() < 0.7
    # five straight pieces: within one all steps are alike
    torch.testing.assert_close(slopes[:, 0:8].amax(1), slopes[:, 0:8].amin(1), rtol=0, atol=1e-3)


SHARES = dict.fromkeys(("blur_share", "thick_slices_share", "large_pixels_share", "narrow_window_share"), 0.5)
TENTH_HU = 0.1 / 200  # in -1..1: what values are rounded to
ALL = on(tone=0.3, contrast=0.25, brightness=0.15, gamma=0.3, noise=0.1, **SHARES)


def test_everything_off_changes_nothing():
    patch = torch.from_numpy(scan()[0])
    torch.testing.assert_close(change_intensity(patch, rng(), OFF), patch, rtol=0, atol=0.51 * TENTH_HU)


def test_intensities_stay_in_range_and_the_input_stays_as_it_was():
    patch = torch.from_numpy(scan()[0])
    before = patch.clone()
    for seed in range(30):
        out = change_intensity(patch, rng(seed), ALL)
        assert out.shape == patch.shape
        assert out.dtype == torch.float32
        assert torch.isfinite(out).all()
        assert out.abs().max() <= 1
    assert torch.equal(patch, before)


def test_intensities_are_a_function_of_the_generator():
    patch = torch.from_numpy(scan()[0])
    torch.manual_seed(1)
    one = change_intensity(patch, rng(5), ALL)
    torch.manual_seed(2)
    assert torch.equal(one, change_intensity(patch, rng(5), ALL))
    assert not torch.allclose(one, change_intensity(patch, rng(6), ALL))


def test_contrast_scales_and_brightness_shifts():
    patch = torch.tensor([-0.4, 0.2, 0.4]).reshape(1, 1, 3)
    factors = [(change_intensity(patch, rng(s), on(contrast=0.5)) / patch).flatten() for s in range(50)]
    shifts = [(change_intensity(patch, rng(s), on(brightness=0.3)) - patch).flatten() for s in range(50)]
    for values, low, high in ((factors, 0.5, 1.5), (shifts, -0.3, 0.3)):
        drawn = torch.stack(values)
        torch.testing.assert_close(drawn, drawn[:, :1].expand(-1, 3), rtol=1e-4, atol=1e-5)
        assert low <= drawn.min() < low + (high - low) / 4
        assert high >= drawn.max() > high - (high - low) / 4


def test_gamma_bends_and_keeps_black_and_white():
    patch = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 1, 3)
    middles = []
    for seed in range(50):
        low, middle, high = change_intensity(patch, rng(seed), on(gamma=0.5)).flatten().tolist()
        assert (low, high) == (-1, 1)
        middles.append((middle + 1) / 2)
    exponents = np.log(middles) / math.log(0.5)
    assert math.exp(-0.5) <= exponents.min() < 0.8
    assert math.exp(0.5) >= exponents.max() > 1.3


def test_noise_is_fresh_in_every_voxel():
    out = change_intensity(torch.zeros(20, 20, 20), rng(2), on(noise=0.1))
    assert 0.001 < out.std() < 0.2
    assert abs(out.mean()) < 0.01
    assert out.unique().numel() > 7000


def test_blur_is_the_mean_of_27_voxels():
    patch = torch.zeros(5, 6, 7)
    patch[2, 3, 4] = 0.54
    out = change_intensity(patch, rng(), on(blur_share=1.0))
    expected = torch.zeros(5, 6, 7)
    expected[1:4, 2:5, 3:6] = 0.02
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_thick_slices_smear_along_z_only():
    patch = torch.zeros(12, 5, 6)
    patch[:, 2, 3] = torch.tensor([0.9, 0.0] * 6)
    out = change_intensity(patch, rng(), on(thick_slices_share=1.0))
    outside = torch.ones(5, 6, dtype=torch.bool)
    outside[2, 3] = False
    assert out[:, outside].abs().max() < 1e-6
    column = out[:, 2, 3]
    assert column.min() > 0.1
    assert column.max() < 0.8


@pytest.mark.parametrize("slices", [24, 64])  # 3 does not divide 64
def test_thick_slices_stay_where_they_are(slices):
    ramp = torch.linspace(-0.9, 0.9, slices)
    patch = ramp[:, None, None].expand(slices, 2, 3).contiguous()
    step = (ramp[1] - ramp[0]).item()
    for seed in range(12):  # 2, 3 and 4 slices thick
        out = change_intensity(patch, rng(seed), on(thick_slices_share=1.0))
        moved = (out - patch).abs()[4:-4].max().item() / step
        assert moved < 0.1


def test_large_pixels_smear_in_y_and_x_only():
    patch = torch.zeros(4, 40, 30)
    patch[1] = torch.arange(30) % 2 * 0.8
    patch[2] = torch.arange(40)[:, None] % 2 * 0.8
    patch[3] = 0.3
    for seed in range(12):
        out = change_intensity(patch, rng(seed), on(large_pixels_share=1.0))
        assert out.shape == patch.shape
        torch.testing.assert_close(out[[0, 3]], patch[[0, 3]], rtol=0, atol=1e-6)
        assert (out[1:3] - 0.4).abs().mean() < 0.28  # of 0.4


@pytest.mark.parametrize("axis", [1, 2])
def test_large_pixels_stay_where_they_are(axis):
    size = (2, 37, 64)
    ramp = torch.linspace(-0.9, 0.9, size[axis])
    patch = ramp.view([-1 if a == axis else 1 for a in range(3)]).expand(size).contiguous()
    step = (ramp[1] - ramp[0]).item()
    for seed in range(12):
        out = change_intensity(patch, rng(seed), on(large_pixels_share=1.0))
        assert (out - patch).abs()[:, 4:-4, 4:-4].max().item() / step < 0.1


def test_a_patch_of_one_voxel_has_pixels_large_enough():
    patch = torch.full((1, 1, 1), 0.3)
    assert torch.allclose(change_intensity(patch, rng(), on(large_pixels_share=1.0)), patch)


def test_a_narrow_window_clips_both_ends_and_moves_nothing_between():
    patch = torch.linspace(-1, 1, 201).reshape(1, 1, -1)
    ends = []
    for seed in range(60):
        out = change_intensity(patch, rng(seed), on(narrow_window_share=1.0))
        low, high = out.min().item(), out.max().item()
        torch.testing.assert_close(out, patch.clamp(low, high), rtol=0, atol=1e-6)
        ends.append((low, high))
    lows, highs = np.array(ends).T
    assert -1 <= lows.min() < -0.95
    assert -0.6 >= lows.max() > -0.65
    assert 1 >= highs.max() > 0.95
    assert 0.6 <= highs.min() < 0.65


def test_a_share_of_nothing_draws_nothing():
    """So patches of a recipe without a setting are those of before there was the setting."""
    generator = rng()
    assert not augment.drawn(generator, 0.0)
    assert generator.random() == rng().random()
    assert augment.drawn(generator, 1.0)
    generator, by_hand = rng(), rng()
    change_intensity(torch.zeros(2, 3, 4), generator, OFF)
    by_hand.random(5)  # contrast, brightness, gamma, blur, thick slices
    by_hand.normal()
    by_hand.integers(2**31)
    assert generator.random() == by_hand.random()


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_patches_of_few_slices_are_augmented(slices):
    patch = torch.full((slices, 4, 5), 0.5)
    for seed in range(12):
        thick = change_intensity(patch, rng(seed), on(thick_slices_share=1.0))
        torch.testing.assert_close(thick, patch, rtol=0, atol=1e-6)
        image, regions = cut_scan(patch, torch.ones(2, slices, 4, 5), rng(seed))
        assert (image.shape, regions.shape) == (patch.shape, (2, slices, 4, 5))
        assert (image == AIR).all(dim=(1, 2)).sum() == slices // 2


def test_a_single_slice_is_not_cut():
    image, regions = torch.full((1, 3, 4), 0.5), torch.ones(2, 1, 3, 4)
    for seed in range(12):
        cut, left = cut_scan(image, regions, rng(seed))
        assert torch.equal(cut, image)
        assert torch.equal(left, regions)


def test_shares_are_shares():
    patch = torch.from_numpy(scan()[0])
    blurred = [change_intensity(patch, rng(seed), on(blur_share=0.3)) for seed in range(300)]
    changed = [not torch.allclose(each, patch, rtol=0, atol=TENTH_HU) for each in blurred]
    assert 60 < sum(changed) < 120


def test_a_cut_scan_ends_early_above_or_below():
    image, regions = torch.full((6, 3, 4), 0.5), torch.ones(2, 6, 3, 4)
    seen = set()
    for seed in range(100):
        cut, left = cut_scan(image, regions, rng(seed))
        gone = (cut == AIR).all(dim=(1, 2))
        assert torch.equal(cut == AIR, gone[:, None, None].expand(6, 3, 4))
        assert torch.equal(cut[~gone], image[~gone])
        for region in left:
            assert torch.equal(region == 0, gone[:, None, None].expand(6, 3, 4))
        seen.add("".join(".#"[g] for g in gone.int()))
    assert seen == {"#.....", "##....", "###...", ".....#", "....##", "...###"}
    assert (image == 0.5).all()
    assert (regions == 1).all()


def test_a_cut_is_a_function_of_the_generator():
    image, regions = torch.zeros(6, 3, 4), torch.ones(1, 6, 3, 4)
    one, other = (cut_scan(image, regions, rng(7)) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


#: A device that computes nothing but shapes, and refuses tensors of another one as a GPU does.
META = torch.device("meta")


def test_a_patch_is_cut_on_the_device_it_is_for():
    for warp in (Warp(np.eye(3), device=META), Warp(np.diag([1.0, 1.0, 1.5]), device=META)):
        patch, regions = cut_patch(*scan(), (3, 4, 5), (4, 5, 6), warp, 2)
        assert (patch.device, regions.device) == (META, META)
        assert (patch.shape, regions.shape) == ((4, 5, 6), (2, 4, 5, 6))


def test_a_bend_and_a_tone_curve_are_made_on_the_device_they_are_for():
    assert random_bend(rng(), (40, 48, 56), np.array([1.0, 2.0, 3.0]), META).device == META
    assert augment._toned(torch.zeros(4, 5, 6, device=META), np.ones(5)).device == META


def test_a_small_field_of_view_ends_along_an_arc_at_one_side():
    image, regions = torch.full((2, 30, 40), 0.5), torch.ones(2, 2, 30, 40)
    sides = set()
    for seed in range(60):
        cut, left = cut_field(image, regions, rng(seed))
        gone = cut[0] == AIR
        assert torch.equal(cut == AIR, gone.expand(2, 30, 40))
        assert torch.equal(left == 0, gone.expand(2, 2, 30, 40))
        assert (cut[0][~gone] == 0.5).all()
        assert 0 < gone.float().mean() < 0.6
        assert not gone[15, 20]
        corners = gone[[0, 0, 29, 29], [0, 39, 0, 39]]
        sides.add("".join(".#"[c] for c in corners.int()))
    assert {"##..", "..##", "#.#.", ".#.#"} <= sides  # above, below, left, right
    assert "####" not in sides
    assert (image == 0.5).all()
    assert (regions == 1).all()
