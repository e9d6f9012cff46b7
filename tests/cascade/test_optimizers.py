"""Muon: which weights it moves, and how far."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cascade.optimizers import Muon, optimizer_for, orthogonal
from cascade.settings import load_settings
from cascade.unet import UNet3d


def test_orthogonal_brings_all_singular_values_to_about_one() -> None:
    found = orthogonal(torch.tensor([[0.0, 3.0, 0.0], [0.2, 0.0, 0.0]]))
    assert found[0, 1].item() == pytest.approx(1, abs=0.35)
    assert found[1, 0].item() == pytest.approx(1, abs=0.35)  # a fifteenth of the other before
    assert found[[0, 0, 1, 1], [0, 2, 1, 2]].abs().max() < 1e-6


def test_orthogonal_of_a_tall_matrix_is_that_of_the_wide_one_turned() -> None:
    tall = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(orthogonal(tall), orthogonal(tall.T).T)
    assert torch.allclose(torch.linalg.svdvals(orthogonal(tall)), torch.ones(3), atol=0.35)


def test_orthogonal_keeps_the_singular_vectors() -> None:
    matrix = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ orthogonal(matrix) @ right.T
    assert (inside - inside.diagonal().diag()).abs().max() < 1e-4
    assert inside.diagonal().min() > 0.6


def test_no_gradient_no_step() -> None:
    assert torch.equal(orthogonal(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_only_convolutions_between_features_are_moved_by_muon() -> None:
    network = UNet3d((4, 6, 8), 2, stem=2, deep_levels=1)
    optimizer = optimizer_for(network, load_settings("tumor").optimizer)
    assert isinstance(optimizer, Muon)
    inner, others = ({id(weight) for weight in group["params"]} for group in optimizer.param_groups)
    names = {name: id(weight) for name, weight in network.named_parameters()}
    assert inner.isdisjoint(others)
    assert inner | others == set(names.values())
    for name in ("down.0.3.weight", "down.1.0.weight", "up.0.weight", "join.0.0.weight"):
        assert names[name] in inner, name
    for name in ("down.0.0.weight", "head.weight", "deep_heads.0.weight", "down.1.1.weight", "up.0.bias"):
        assert names[name] in others, name


def test_a_first_step_turns_a_gradient_and_adamw_moves_the_rest() -> None:
    inner = nn.Parameter(torch.ones(2, 3, 1, 1, 1))
    other = nn.Parameter(torch.ones(2))
    optimizer = Muon([inner], [other], rate=0.1, decay=0.0)
    gradient = torch.tensor([[0.0, 3.0, 0.0], [0.2, 0.0, 0.0]])
    inner.grad, other.grad = gradient.reshape(2, 3, 1, 1, 1).clone(), torch.tensor([0.5, -0.5])
    optimizer.step()
    moved = (1 - inner.detach()).flatten(1)
    # At rate 1 an update has a root mean square of .2, that of AdamW: 2 of 6 entries, each .2 times the root of 3.
    assert torch.allclose(moved, 0.1 * 0.2 * 3**0.5 * orthogonal(gradient), atol=1e-6)
    assert torch.allclose(other.detach(), torch.tensor([0.9, 1.1]), atol=1e-6)


def test_rate_and_decay_are_those_of_the_groups() -> None:
    weight = nn.Parameter(torch.ones(1, 2, 1, 1, 1))
    optimizer = Muon([weight], [], rate=0.1, decay=0.5)
    for group in optimizer.param_groups:
        group["lr"] = 0.2  # as the training's schedule does
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.allclose(weight.detach(), torch.full((1, 2, 1, 1, 1), 0.9))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    step = 0.2 * 0.2 * 2**0.5 * orthogonal(torch.ones(1, 2))
    assert torch.allclose(weight.detach().flatten(1), 0.81 - step)


def test_a_step_remembers_the_gradients_before() -> None:
    weight = nn.Parameter(torch.zeros(1, 2, 1, 1, 1))
    optimizer = Muon([weight], [], rate=0.1, decay=0.0)
    for gradient in ([1.0, 0.0], [0.0, 1.0]):
        before = weight.detach().clone()
        weight.grad = torch.tensor(gradient).reshape(weight.shape)
        optimizer.step()
    one, two = (before - weight.detach()).flatten().tolist()
    # The momentum is .95 (.05, 0) + .05 (0, 1) = (.0475, .05); ahead of it lies .05 (0, 1) + .95 of that.
    assert one / two == pytest.approx(0.045125 / 0.0975, rel=1e-4)


def test_the_order_of_memory_changes_nothing() -> None:
    weights = torch.randn(4, 3, 2, 3, 2, generator=torch.Generator().manual_seed(1))
    plain, last = nn.Parameter(weights.clone()), nn.Parameter(weights.to(memory_format=torch.channels_last_3d))
    for weight in (plain, last):
        optimizer = Muon([weight], [], rate=0.1, decay=0.1)
        for _ in range(2):
            weight.grad = weights.square().contiguous()
            optimizer.step()
    assert last.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(plain, last, atol=1e-6)


def test_goes_on_from_its_state() -> None:
    def begun() -> tuple[list[nn.Parameter], Muon]:
        weights = [nn.Parameter(torch.ones(2, 3, 1, 1, 1)), nn.Parameter(torch.ones(2))]
        return weights, Muon(weights[:1], weights[1:], rate=0.1, decay=0.1)

    def step(weights: list[nn.Parameter], optimizer: Muon, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()

    weights, optimizer = begun()
    step(weights, optimizer, 1)
    others, resumed = begun()
    for other, weight in zip(others, weights, strict=True):
        other.data.copy_(weight.data)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(weights, optimizer, 2)
    step(others, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
