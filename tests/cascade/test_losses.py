import math

import pytest
import torch

from cascade.losses import LOSSES, Counts, deep_loss, deep_sums, region_loss, region_sums, require_loss
from cascade.settings import Loss
from preprocess.errors import UsageError

LN2 = math.log(2)


def loss_of(name="log_dice_ce", *, rarity_weight=4.0, smooth_voxels=50.0, deep_levels=0):
    return Loss(name, rarity_weight, even_ml=0.0, smooth_voxels=smooth_voxels, deep_levels=deep_levels)


def tensor(values, *, grad=False):
    """(n, c, 1, 1, x) from nested lists (n, c, x)."""
    return torch.tensor(values, dtype=torch.float32)[:, :, None, None].requires_grad_(grad)


def known(like):
    return torch.ones_like(like)


def cost(logits, target, trust=None, **settings):
    chosen = loss_of(**settings)
    return region_loss(region_sums(logits, target, known(target) if trust is None else trust, chosen), chosen)


def deep_cost(outputs, target, trust):
    return deep_loss(deep_sums(outputs, target, trust, loss_of()), loss_of())


def test_counts_by_hand():
    logits = tensor([[[99, 99, -99, -99]], [[0, 0, 0, 0]]])  # probabilities 1, 0 and 0.5
    target = tensor([[[1, 0, 0, 0]], [[1, 0, 1, 0]]])
    trust = tensor([[[1, 1, 1, 1]], [[1, 1, 0, 0]]])
    counts = Counts.of(region_sums(logits, target, trust, loss_of()), smooth=0.0)
    found = [part.item() for part in (counts.both, counts.missed, counts.false, counts.neither)]
    assert found == [1.5, 0.5, 1.5, 2.5]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # both 1.5, missed 0.5, false 1.5, neither 2.5 (see above)
        ("dice", 1 - 1.5 / 2.5),
        ("exp_log_dice", (-math.log(1.5 / 2.5)) ** 0.3),
        ("jaccard", 1 - 1.5 / 3.5),
        ("tversky", 1 - 1.5 / (1.5 + 0.3 * 1.5 + 0.7 * 0.5)),
        ("sensitivity_specificity", 0.1 * 0.5 / 2 + 0.9 * 1.5 / 4),
    ],
)
def test_ratios_by_hand(name, expected):
    counts = Counts(*(torch.tensor([v]) for v in (1.5, 0.5, 1.5, 2.5)), smooth=0.0)
    by_count = LOSSES[name][1]
    assert by_count(counts).item() == pytest.approx(expected, rel=1e-4)


def test_the_losses_that_are_promised_are_there():
    assert {"jaccard", "tversky", "exp_log_dice", "sensitivity_specificity", "focal", "dice_ce", "log_dice_ce"} <= {
        *LOSSES
    }


def test_smoothing_keeps_the_ratio_of_a_sliver_near_one():
    counts = Counts(*(torch.tensor([v]) for v in (0.0, 1.0, 0.0, 9.0)), smooth=50.0)
    assert counts.ratio(0.5, 0.5).item() == pytest.approx(50 / 50.5)


def test_cross_entropy_and_log_dice_by_hand():
    # cross entropy ln 2 everywhere; Dice (1 + 100) / (2 + 1 + 100), with the floor of 0.2
    loss = cost(tensor([[[0, 0, 0, 0]]]), tensor([[[1, 0, 0, 0]]]))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(LN2 + math.log(1.2 / (101 / 103 + 0.2)))


def test_focal_counts_sure_voxels_less():
    logits = tensor([[[0, math.log(9)]]])  # probabilities 0.5 and 0.9
    loss = cost(logits, tensor([[[0, 1]]]), name="focal")
    assert loss.item() == pytest.approx((0.25 * LN2 + 0.01 * -math.log(0.9)) / 2, rel=1e-5)


def test_the_ratio_is_left_out_where_the_region_is_absent():
    assert cost(tensor([[[0, 0, 0, 0]]]), tensor([[[0, 0, 0, 0]]])).item() == pytest.approx(LN2)


def test_false_voxels_of_a_patch_without_the_region_count_against_the_others():
    """Two patches, the region in the first; the second is called region or not."""
    target = tensor([[[1, 1, 0, 0]], [[0, 0, 0, 0]]])
    clean, false = tensor([[[30, 30, -30, -30]], [[-30] * 4]]), tensor([[[30, 30, -30, -30]], [[30] * 4]])
    one, other = (cost(logits, target, name="dice", smooth_voxels=1e-6).item() for logits in (clean, false))
    assert one == pytest.approx(0, abs=1e-6)
    assert other == pytest.approx(1 - 2 / (2 + 0.5 * 4))


def test_a_missed_lesion_has_a_gradient_worth_following():
    """Plain Dice would add a tenth to that of the cross entropy, its logarithm adds three."""
    logits = torch.full((1, 1, 20, 20, 20), -5.0, requires_grad=True)
    target = torch.zeros(1, 1, 20, 20, 20)
    target[..., 5:15, 5:15, 5:15] = 1
    cost(logits, target).backward()
    entropy_alone = 1000 / 8000
    assert -logits.grad[target > 0].sum().item() > 1.25 * entropy_alone


def test_a_region_that_is_all_missed_pulls_at_most_six_times_as_hard_as_one_nearly_found():
    missed, found = (torch.tensor([share], requires_grad=True) for share in (0.001, 0.999))
    for both in (missed, found):
        counts = Counts(both, 1 - both, 1 - both, torch.tensor([1.0]), smooth=0.0)
        LOSSES["log_dice_ce"][1](counts).sum().backward()
    assert 4.5 < (missed.grad / found.grad).item() < 6.01


def test_a_sliver_at_the_rim_does_not_outweigh_the_rest():
    logits = torch.full((1, 1, 20, 20, 20), -5.0, requires_grad=True)
    target = torch.zeros(1, 1, 20, 20, 20)
    target[..., 0, 0, 0] = 1
    cost(logits, target).backward()
    assert -logits.grad[target > 0].sum().item() < 10 / 8000


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_answer_costs_nothing(name):
    target = tensor([[[1, 0, 0, 1], [0, 0, 0, 1]]])
    nearly = 0.04 if name == "exp_log_dice" else 1e-5  # its slope at 0 is infinite
    assert cost((target - 0.5) * 60, target, name=name).item() == pytest.approx(0, abs=nearly)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_tumour_still_teaches(name):
    logits = tensor([[[0, 1, 2], [0, 1.5, 2]]], grad=True)
    loss = cost(logits, tensor([[[1, 1, 0], [0, 0, 0]]]), name=name)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0, 1] > 0.01).all()  # every voxel is pushed down


@pytest.mark.parametrize("name", LOSSES)
def test_a_present_region_is_pulled_up_and_the_rest_down(name):
    logits = tensor([[[0, 0, 0]]], grad=True)
    cost(logits, tensor([[[1, 0, 0]]]), name=name).backward()
    assert (logits.grad.flatten() < 0).tolist() == [True, False, False]


@pytest.mark.parametrize("name", LOSSES)
def test_an_untrusted_voxel_has_no_gradient_and_no_say(name):
    target, trust = tensor([[[1, 0, 1], [1, 0, 0]]]), tensor([[[1, 1, 1], [0, 1, 1]]])
    logits = tensor([[[0, 1, 2], [2, 3, 1]]], grad=True)
    loss = cost(logits, target, trust, name=name)
    loss.backward()
    assert (logits.grad[0, 1, 0, 0] != 0).tolist() == [False, True, True]
    changed = tensor([[[0, 1, 2], [-7, 3, 1]]])
    assert cost(changed, target, trust, name=name).item() == pytest.approx(loss.item())


def test_a_present_voxel_of_a_rarer_region_counts_more():
    target = tensor([[[1, 0], [1, 0]]])
    # ln 2 for the first region, (4 ln 2 + ln 2) / 2 for the second
    assert cost(tensor([[[0, 0], [0, 0]]]), target, name="ce").item() == pytest.approx((1 + 2.5) / 2 * LN2)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_any_trust_costs_nothing_and_is_finite(name):
    logits = tensor([[[0, 1]]], grad=True)
    target = tensor([[[1, 0]]])
    loss = cost(logits, target, torch.zeros_like(target), name=name)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_large_logits_stay_finite(name):
    logits = tensor([[[1e4, -1e4]]], grad=True)
    loss = cost(logits, tensor([[[0, 1]]]), name=name)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.zeros(1, 1, 40, 40, 50, dtype=torch.bfloat16)
    target = torch.zeros(1, 1, 40, 40, 50)
    target[:, :, :20] = 1
    loss = cost(logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(LN2 + math.log(1.2 / (40100 / 80100 + 0.2)), rel=1e-4)


def test_an_unknown_loss_is_refused():
    with pytest.raises(UsageError, match=r"^loss\.name = 'hinge' is unknown; known: log_dice_ce, dice_ce, "):
        require_loss("hinge")


def test_deep_outputs_count_half_as_much_each():
    target = torch.zeros(1, 1, 2, 4, 8)
    target[..., :4] = 1
    fine, coarse = torch.zeros(1, 1, 2, 4, 8), torch.full((1, 1, 1, 2, 4), 2.0)
    halved = torch.zeros(1, 1, 1, 2, 4)
    halved[..., :2] = 1
    expected = (cost(fine, target) + 0.5 * cost(coarse, halved)) / 1.5
    assert deep_cost([fine, coarse], target, known(target)).item() == pytest.approx(expected.item())


def test_a_coarse_voxel_is_trusted_where_all_of_it_is():
    target, trust = torch.zeros(1, 1, 2, 2, 4), torch.ones(1, 1, 2, 2, 4)
    trust[0, 0, 0, 0, 0] = 0
    coarse = torch.zeros(1, 1, 1, 1, 2, requires_grad=True)
    deep_cost([torch.zeros(1, 1, 2, 2, 4), coarse], target, trust).backward()
    assert (coarse.grad.flatten() != 0).tolist() == [False, True]


def test_a_coarse_voxel_counts_for_as_much_as_its_voxels_do_in_the_mean():
    trust = torch.ones(1, 1, 2, 2, 4)
    trust[..., 0] = 3
    outputs = [torch.zeros(1, 1, 2, 2, 4), torch.zeros(1, 1, 1, 1, 2)]
    assert deep_sums(outputs, torch.zeros(1, 1, 2, 2, 4), trust, loss_of())[1, 1, 0] == 2 + 1


@pytest.mark.parametrize("name", LOSSES)
def test_the_sums_of_two_halves_of_a_batch_give_its_loss_which_the_mean_of_their_losses_is_not(name):
    target = tensor([[[1, 1, 0, 0], [1, 0, 0, 0]], [[1, 0, 0, 0], [0, 0, 0, 0]]])
    logits, trust = tensor([[[2, -1, 0, 1], [1, 2, 0, 0]], [[-1, 0, 2, 0], [1, 0, 2, 0]]]), known(target)
    trust[1, 1] = 0
    chosen = loss_of(name, smooth_voxels=1.0)
    halves = [region_sums(logits[k : k + 1], target[k : k + 1], trust[k : k + 1], chosen) for k in range(2)]
    whole = cost(logits, target, trust, name=name, smooth_voxels=1.0).item()
    assert region_loss(halves[0] + halves[1], chosen).item() == pytest.approx(whole, rel=1e-5)
    apart = [region_loss(sums, chosen).item() for sums in halves]
    assert sum(apart) / 2 != pytest.approx(whole, rel=1e-2)
