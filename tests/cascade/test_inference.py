import numpy as np
import pytest
import torch
from torch import nn

from cascade.inference import as_infer, gaussian, window_starts
from cascade.settings import Window
from cascade.unet import UNet3d

CPU = torch.device("cpu")
WINDOWS = Window(size=(4, 6, 8), step=0.5, one_pass_voxels=0)
ONE_PASS = Window(size=(4, 6, 8), step=0.5, one_pass_voxels=10**6)


class Pointwise(nn.Module):
    """Two regions, each voxel on its own: sigmoid(2 v) and sigmoid(-v). Remembers what it was given."""

    multiple = 2

    def __init__(self):
        super().__init__()
        self.regions = 2
        self.seen = []

    def forward(self, image):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen.append(image.clone())
        return torch.cat([2 * image, -image], dim=1)


def picture(*shape):
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def answer(image):
    return 1 / (1 + np.exp(np.stack([-2 * image, image])))


def covered(shape, size, step):
    hits = np.zeros(shape, int)
    for start in window_starts(shape, size, step):
        stop = [a + n for a, n in zip(start, size, strict=True)]
        assert all(a >= 0 and b <= n for a, b, n in zip(start, stop, shape, strict=True))
        hits[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] += 1
    return hits


def test_window_starts_by_hand():
    # z: 4 of 4; y: 6 of 9, at most 3 apart; x: 4 of 9, at most 2 apart, 5 evenly spread over 3 gaps
    assert window_starts((4, 9, 9), (4, 6, 4), 0.5) == [
        (0, 0, 0), (0, 0, 2), (0, 0, 3), (0, 0, 5), (0, 3, 0), (0, 3, 2), (0, 3, 3), (0, 3, 5),
    ]  # fmt: skip


@pytest.mark.parametrize("step", [0.01, 0.3, 0.5, 0.99, 1.0])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((4, 6, 8), (4, 6, 8)), ((7, 11, 13), (4, 6, 8)), ((1, 5, 17), (1, 3, 2)), ((5, 7, 9), (1, 1, 1))],
)
def test_windows_cover_every_voxel_and_stay_inside(shape, size, step):
    assert covered(shape, size, step).min() >= 1
    for axis in range(3):
        places = sorted({start[axis] for start in window_starts(shape, size, step)})
        assert places[0] == 0
        assert places[-1] == shape[axis] - size[axis]
        gaps = np.diff(places)
        assert gaps.size == 0 or gaps.max() <= max(1, int(size[axis] * step))


def test_gaussian_is_highest_in_the_middle_and_never_zero():
    weight = gaussian((5, 7, 9))
    assert (weight.shape, weight.dtype) == ((5, 7, 9), np.float32)
    assert weight[2, 3, 4] == weight.max() == 1
    assert weight.min() == pytest.approx(1e-4)
    # one voxel off the middle at sigma 5/8, 7/8, 9/8
    for index, sigma in (((1, 3, 4), 5 / 8), ((2, 4, 4), 7 / 8), ((2, 3, 3), 9 / 8)):
        assert weight[index] == pytest.approx(np.exp(-0.5 / sigma**2))
    np.testing.assert_array_equal(weight, weight[::-1, ::-1, ::-1])
    assert gaussian((1, 1, 1)).tolist() == [[[1.0]]]


@pytest.mark.parametrize("shape", [(7, 11, 13), (4, 6, 8), (1, 1, 1), (3, 5, 23), (16, 3, 9)])
@pytest.mark.parametrize("window", [WINDOWS, ONE_PASS, Window((5, 5, 5), 1.0, 0), Window((64, 64, 64), 0.5, 0)])
def test_windows_and_one_pass_give_the_voxelwise_answer(shape, window):
    image = picture(*shape)
    out = as_infer(Pointwise(), window, CPU)(image, None)
    assert (type(out), out.dtype) == (np.ndarray, np.float32)
    np.testing.assert_allclose(out, answer(image), rtol=1e-4, atol=1e-5)


def test_one_pass_is_one_call_up_to_its_limit():
    image = picture(3, 5, 7)
    for limit, calls in ((105, 1), (104, 3 * 7)):
        network = Pointwise()
        as_infer(network, Window((3, 3, 1), 1.0, limit), CPU)(image, None)
        assert len(network.seen) == (calls if calls == 1 else len(window_starts((3, 5, 7), (3, 3, 1), 1.0)))


def test_windows_overlap_with_gaussian_weights():
    class Counting(Pointwise):
        def forward(self, image):
            super().forward(image)
            return torch.full((1, 2, *image.shape[2:]), float(len(self.seen) - 1) * 50 - 25)

    # two windows of 4 along x that overlap in voxels 2 and 3: the first says 0, the second 1
    out = as_infer(Counting(), Window((1, 1, 4), 0.5, 0), CPU)(picture(1, 1, 6), None)
    weight = gaussian((1, 1, 4))[0, 0]
    share = [weight[0] / (weight[0] + weight[2]), weight[1] / (weight[1] + weight[3])]
    np.testing.assert_allclose(out[0, 0, 0], [0, 0, *share, 1, 1], atol=1e-6)


def test_windows_that_miss_where_are_skipped_and_zero():
    image = picture(4, 6, 24)
    where = np.zeros(image.shape, bool)
    where[1, 2, 23] = True
    network = Pointwise()
    out = as_infer(network, WINDOWS, CPU)(image, where)
    # of the windows at 0, 4, 8, 12, 16 only the last holds voxel 23
    assert len(network.seen) == 1
    assert not out[:, :, :, :16].any()
    np.testing.assert_allclose(out[:, :, :, 16:], answer(image[:, :, 16:]), rtol=1e-4)


def test_two_windows_that_share_the_voxel_are_both_taken():
    where = np.zeros((4, 6, 24), bool)
    where[0, 0, 9] = True
    network = Pointwise()
    out = as_infer(network, WINDOWS, CPU)(picture(4, 6, 24), where)
    assert len(network.seen) == 2
    assert np.argwhere(out.any(axis=(0, 1, 2))).ravel().tolist() == list(range(4, 16))


def test_nowhere_calls_nothing_and_is_zero():
    network = Pointwise()
    out = as_infer(network, WINDOWS, CPU)(picture(4, 6, 24), np.zeros((4, 6, 24), bool))
    assert network.seen == []
    assert (out.shape, out.dtype, out.any()) == ((2, 4, 6, 24), np.float32, False)


def test_pieces_are_padded_with_air_to_what_the_network_can_halve():
    network = Pointwise()
    network.multiple = 4
    image = np.ones((3, 5, 8), np.float32)
    as_infer(network, ONE_PASS, CPU)(image, None)
    seen = network.seen[0][0, 0].numpy()
    # at least two voxels on the deepest level: 3 becomes 8, not 4
    assert seen.shape == (8, 8, 8)
    expected = np.full((8, 8, 8), -1, np.float32)
    expected[:3, :5, :8] = 1
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("window", [WINDOWS, ONE_PASS])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 11, 13), (2, 1, 9)])
def test_the_real_network_takes_any_size(shape, window):
    torch.manual_seed(1)
    out = as_infer(UNet3d((2, 3, 4), 2), window, CPU)(picture(*shape), None)
    assert (out.shape, out.dtype) == ((2, *shape), np.float32)
    assert np.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1


def test_the_same_image_gives_the_same_answer():
    torch.manual_seed(1)
    infer = as_infer(UNet3d((2, 3), 1), WINDOWS, CPU)
    image = picture(7, 11, 13)
    before = image.copy()
    np.testing.assert_array_equal(infer(image, None), infer(image, None))
    np.testing.assert_array_equal(image, before)


def test_windows_in_batches_give_what_they_give_one_by_one():
    image = picture(7, 11, 24)
    where = np.zeros(image.shape, bool)
    where[:, 2, 3:20] = True
    one, four = Pointwise(), Pointwise()
    wanted = as_infer(one, WINDOWS, CPU)(image, where)
    np.testing.assert_allclose(as_infer(four, WINDOWS, CPU, 4)(image, where), wanted, atol=1e-6)
    assert {len(seen) for seen in one.seen} == {1}
    sizes = [len(seen) for seen in four.seen]
    assert sizes[0] == 4
    assert sum(sizes) == len(one.seen)  # and the rest in a smaller one


def test_what_float16_cannot_hold_is_computed_in_float32(monkeypatch):
    class Large(Pointwise):
        def forward(self, image):
            wide = image * 1e5
            wide = wide.half() if torch.is_autocast_enabled("cpu") else wide
            return super().forward(image) + 0 * wide  # infinity times 0 is no number

    monkeypatch.setattr("cascade.inference.autocast_dtype", lambda device: torch.float16)
    image = picture(3, 5, 7)
    assert np.allclose(as_infer(Large(), ONE_PASS, CPU)(image, None), answer(image), atol=1e-6)
