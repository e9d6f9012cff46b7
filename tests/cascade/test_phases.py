import numpy as np
import pytest
import torch

from cascade import phases
from cascade.phases import change_phase
from preprocess.preparation import Preparation

PREPARATION = Preparation((3.0, 2.0, 1.0), (-160.0, 240.0))
SHAPE = (12, 20, 30)
LIVER, VESSEL, TUMOR = np.s_[1:11, 3:18, 4:28], np.s_[3:9, 8:13, 10:16], np.s_[4:8, 12:16, 20:25]
MIDDLE, APART = np.s_[5:7, 10:11, 12:14], np.s_[4:8, 4:6, 20:26]  # of the vessel; of the liver, away from all else


def prepared(hu):
    return (hu + 160) / 200 - 1


def patch():
    """Liver of 100 HU with a vessel of 160 and a tumour of 50 in it, in fat with bone beside; and its regions."""
    hu = torch.full(SHAPE, -100.0)
    hu[LIVER] = 100
    hu[VESSEL], hu[TUMOR], hu[:, 19] = 160, 50, 900
    regions = torch.zeros(2, *SHAPE)
    regions[0][LIVER] = regions[1][TUMOR] = 1
    return prepared(hu).clamp(-1, 1), regions


def changed(seed, count=2):
    image, regions = patch()
    return change_phase(image, regions[:count], PREPARATION, np.random.default_rng(seed)), image


@pytest.fixture
def even(monkeypatch):
    monkeypatch.setattr(phases, "_UNEVEN_HU", 0.0)


@pytest.mark.parametrize(("left", "hu"), [(1.0, 160.0), (0.0, 106.0), (-0.5, 79.0)])  # counted from 106 on
def test_vessels_keep_their_share_of_the_contrast_or_turn_dark(monkeypatch, even, left, hu):
    monkeypatch.setattr(phases, "_LEFT", (left, left))
    out, image = changed(1)
    assert out[MIDDLE].numpy() == pytest.approx(prepared(hu), abs=1e-5)
    assert torch.equal(out[APART], image[APART])
    assert torch.equal(out[TUMOR], image[TUMOR])
    outside = torch.ones(SHAPE, dtype=torch.bool)
    outside[LIVER] = False
    assert torch.equal(out[outside], image[outside])


def test_a_liver_is_uneven_over_centimetres_and_its_tumours_with_it(monkeypatch):
    monkeypatch.setattr(phases, "_LEFT", (1.0, 1.0))
    out, image = changed(2)
    difference = 200 * (out - image)[LIVER]
    assert 1 < difference.std() < 30
    assert 200 * (out - image)[TUMOR].abs().max() > 1
    assert difference.diff(dim=2).abs().max() < 0.3 * difference.abs().max()  # smooth


def test_each_draw_is_another_and_each_seed_the_same():
    assert torch.equal(changed(3)[0], changed(3)[0])
    assert not torch.equal(changed(3)[0], changed(4)[0])


def test_what_is_uneven_beyond_the_window_is_clipped(monkeypatch):
    monkeypatch.setattr(phases, "_UNEVEN_HU", 500.0)
    assert changed(5)[0][LIVER].abs().max() == 1


def test_a_stage_that_tells_no_tumours_apart_has_them_in_its_liver(monkeypatch, even):
    monkeypatch.setattr(phases, "_LEFT", (0.0, 0.0))
    out, image = changed(1, count=1)
    assert out[MIDDLE].numpy() == pytest.approx(prepared(106.0), abs=1e-5)
    assert torch.equal(out[TUMOR], image[TUMOR])  # darker than the liver: no vessel


def test_with_hardly_any_liver_nothing_changes():
    image, regions = patch()
    regions[0] = 0
    regions[0][VESSEL] = 1
    assert torch.equal(change_phase(image, regions, PREPARATION, np.random.default_rng(1)), image)
