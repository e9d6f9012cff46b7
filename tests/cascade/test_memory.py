import pytest

from cascade.memory import LIBRARIES, PER_SAVED, PER_WEIGHT, training_bytes
from cascade.settings import load_settings
from cascade.unet import unet


def taken(*assignments, half=False, stage="tumor"):
    return training_bytes(load_settings(stage, assignments=assignments), 2, half=half)


def test_memory_by_hand():
    """One level, one voxel a value, 4 bytes each: image 1 channel; two blocks' convolutions, norms and activations."""
    settings = ["network.features=[2]", "network.stem=1", "sampling.patch=[2, 4, 8]", "loss.deep_levels=0"]
    chosen = load_settings("liver", assignments=[*settings, "sampling.batch=1", "loss.name='ce'"])
    weights = sum(p.numel() for p in unet(chosen.network, 1).parameters())
    voxels = 64
    batch = 3 * 4 * voxels
    kept = (training_bytes(chosen, 1, half=False) - LIBRARIES - PER_WEIGHT * weights - batch) / PER_SAVED
    # image 1; twice convolution and activation of 2 channels; of the loss logits, target and probabilities at least
    assert 4 * voxels * (1 + 2 * (2 + 2) + 3) <= kept <= 4 * voxels * (1 + 2 * (2 + 2) + 8)


def test_twice_the_batch_saves_twice_as_much():
    one, two, four = (taken(f"sampling.batch={n}") for n in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one), rel=0.01)


def test_half_precision_saves_nearly_half_of_the_activations():
    assert 0.5 < (taken(half=True) - LIBRARIES) / (taken() - LIBRARIES) < 0.75


def test_what_costs_more_is_known():
    plain = taken("network.encoder='plain'")
    assert taken("network.encoder='residual'") > plain
    assert taken("network.blocks=2") > plain
    assert taken("network.stem=1") > 3 * plain
    assert taken("loss.deep_levels=0") < plain


def test_the_shipped_recipes_fit_into_a_small_machine():
    assert taken(half=True) < 1.5e9
    assert taken(half=True, stage="liver") < 1.5e9
