import math

import pytest
import torch

from cascade.losses import region_loss, soft_dice

LN2 = math.log(2)


def tensor(values, *, grad=False):
    """(n, c, 1, 1, x) from nested lists (n, c, x)."""
    return torch.tensor(values, dtype=torch.float32)[:, :, None, None].requires_grad_(grad)


def test_soft_dice_by_hand():
    probability = tensor([[[1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5]]])
    target = tensor([[[1, 0, 0, 0], [1, 0, 0, 0]]])
    # (2 + 1) / (2 + 1 + 1) and (1 + 1) / (2 + 1 + 1)
    torch.testing.assert_close(soft_dice(probability, target, smooth=1.0), torch.tensor([[0.75, 0.5]]))


def test_soft_dice_without_smoothing_is_dice():
    assert soft_dice(tensor([[[1, 1, 0]]]), tensor([[[1, 0, 0]]]), smooth=0.0).item() == pytest.approx(2 / 3)


def test_soft_dice_of_nothing_and_nothing_is_one():
    assert soft_dice(tensor([[[0, 0]]]), tensor([[[0, 0]]])).item() == 1


def test_soft_dice_keeps_samples_and_regions_apart():
    ones = torch.ones(2, 3, 4, 5, 6)
    assert soft_dice(ones, ones).shape == (2, 3)


def test_loss_by_hand():
    # cross entropy ln 2 everywhere; Dice (1 + 100) / (2 + 1 + 100)
    loss = region_loss(tensor([[[0, 0, 0, 0]]]), tensor([[[1, 0, 0, 0]]]), torch.ones(1, 1))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(LN2 + math.log(103 / 101))


def test_dice_is_left_out_where_the_region_is_absent():
    loss = region_loss(tensor([[[0, 0, 0, 0]]]), tensor([[[0, 0, 0, 0]]]), torch.ones(1, 1))
    assert loss.item() == pytest.approx(LN2)


def test_means_are_over_what_is_trusted_and_present():
    logits = tensor([[[0, 0], [30, -30]], [[0, 0], [5, 5]]])
    target = tensor([[[1, 0], [0, 0]], [[1, 1], [1, 1]]])
    trust = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    # cross entropy ln 2, (30 + 0) / 2, ln 2; Dice 101/102 and 102/103 of the first region, of the second none
    expected = (2 * LN2 + 15) / 3 + (math.log(102 / 101) + math.log(103 / 102)) / 2
    assert region_loss(logits, target, trust).item() == pytest.approx(expected, rel=1e-6)


def test_regions_count_alike_however_many_patches_hold_them():
    logits = tensor([[[0, 0], [0, 0]], [[0, 0], [0, 0]]])
    target = tensor([[[1, 0], [1, 0]], [[1, 0], [0, 0]]])
    # cross entropy ln 2 three times and (4 ln 2 + ln 2) / 2, for a present voxel of region 1 counts four times;
    # Dice 101/102 wherever a region is present: once a region, not three halves
    expected = (3 + 2.5) / 4 * LN2 + 2 * math.log(102 / 101)
    assert region_loss(logits, target, torch.ones(2, 2)).item() == pytest.approx(expected, rel=1e-6)


def test_a_missed_lesion_has_a_gradient_worth_following():
    """Plain Dice would add a tenth to that of the cross entropy, its logarithm nearly doubles it."""
    logits = torch.full((1, 1, 20, 20, 20), -5.0, requires_grad=True)
    target = torch.zeros(1, 1, 20, 20, 20)
    target[..., 5:15, 5:15, 5:15] = 1
    region_loss(logits, target, torch.ones(1, 1)).backward()
    entropy_alone = 1000 / 8000
    assert -logits.grad[target > 0].sum().item() > 1.5 * entropy_alone


def test_a_sliver_at_the_rim_does_not_outweigh_the_rest():
    logits = torch.full((1, 1, 20, 20, 20), -5.0, requires_grad=True)
    target = torch.zeros(1, 1, 20, 20, 20)
    target[..., 0, 0, 0] = 1
    region_loss(logits, target, torch.ones(1, 1)).backward()
    assert -logits.grad[target > 0].sum().item() < 10 / 8000


def test_a_perfect_answer_costs_nothing():
    target = tensor([[[1, 0, 0, 1], [0, 0, 0, 1]]])
    assert region_loss((target - 0.5) * 60, target, torch.ones(1, 2)).item() == pytest.approx(0, abs=1e-6)


def test_a_batch_without_tumour_still_teaches():
    logits = tensor([[[0, 1, 2], [0, 3, 6]]], grad=True)
    loss = region_loss(logits, tensor([[[1, 1, 0], [0, 0, 0]]]), torch.ones(1, 2))
    loss.backward()
    assert torch.isfinite(loss)
    tumor = logits.grad[0, 1]
    assert (tumor > 0.05).all()  # every voxel is pushed down
    assert tumor[0, 0, 2] > tumor[0, 0, 0]  # the surest mistake the hardest


def test_a_present_region_is_pulled_up_and_the_rest_down():
    logits = tensor([[[0, 0, 0]]], grad=True)
    region_loss(logits, tensor([[[1, 0, 0]]]), torch.ones(1, 1)).backward()
    assert (logits.grad.flatten() < 0).tolist() == [True, False, False]


def test_an_untrusted_region_has_no_gradient_and_no_say():
    target = tensor([[[1, 0], [1, 0]], [[1, 0], [0, 0]]])
    trust = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    logits = tensor([[[0, 1], [2, 3]], [[0, 1], [2, 3]]], grad=True)
    loss = region_loss(logits, target, trust)
    loss.backward()
    assert (logits.grad[:, 1] == 0).all()
    assert (logits.grad[:, 0] != 0).all()
    alone = region_loss(logits[:, :1].detach(), target[:, :1], torch.ones(2, 1))
    assert loss.item() == pytest.approx(alone.item())


def test_a_batch_without_any_trust_costs_nothing_and_is_finite():
    logits = tensor([[[0, 1]]], grad=True)
    loss = region_loss(logits, tensor([[[1, 0]]]), torch.zeros(1, 1))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_large_logits_stay_finite():
    logits = tensor([[[1e4, -1e4]]], grad=True)
    loss = region_loss(logits, tensor([[[0, 1]]]), torch.ones(1, 1))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.zeros(1, 1, 40, 40, 50, dtype=torch.bfloat16)
    target = torch.zeros(1, 1, 40, 40, 50)
    target[:, :, :20] = 1
    loss = region_loss(logits, target, torch.ones(1, 1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(LN2 + math.log(80100 / 40100), rel=1e-4)
