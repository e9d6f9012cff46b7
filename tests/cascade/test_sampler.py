import numpy as np
import pytest
import torch

from cascade.sampler import Sampler, require_pools
from cascade.settings import load_settings
from cascade.stages import LIVER, TUMOR
from preprocess.errors import UsageError
from preprocess.preparation import Preparation
from preprocess.prepared import PreparedCase, Survey

PREPARATION = Preparation((1.0, 1.0, 1.0), (-160.0, 240.0))
PLAIN = (
    ["lesions.share=0"]
    + [
        f"augmentation.{name}=0"
        for name in ("rotation_deg", "scale", "contrast", "brightness", "gamma", "noise", "tone")
    ]
    + [f"augmentation.{name}_share=0" for name in ("blur", "thick_slices", "cut", "bend", "mirror")]
)


@pytest.fixture
def case(tmp_path):
    """`case(name, labels, ...)`: a prepared case whose image is `value` everywhere."""

    def make(name, labels, *, value=0.0, patient=None, scores_tumor=True, context=False):
        folder = tmp_path / name
        folder.mkdir()
        for stage in ("liver", "tumor"):
            np.save(folder / f"{stage}_image.npy", np.full(labels.shape, value, np.float16))
            np.save(folder / f"{stage}_labels.npy", labels.astype(np.uint8))
        survey = Survey(name, (1.0, 1.0, 1.0), 1.0, 1.0, 1, context, ())
        return PreparedCase(name, patient or name, scores_tumor, survey, folder)

    return make


def settings(stage, *assignments):
    small = [
        "network.features=[4]",
        "network.stem=1",
        "sampling.patch=[4, 5, 6]",
        "sampling.batch=3",
        "training.seed=5",
    ]
    return load_settings(stage, assignments=[*small, *assignments])


def only(stage, **shares):
    """Assignments of these shares, every other pool of the stage switched off."""
    return [f"sampling.shares.{name}={shares.get(name, 0)}" for name in stage.pools]


def body():
    labels = np.zeros((6, 8, 10), np.uint8)
    labels[2:5, 2:6, 3:8] = 1
    labels[3, 4, 5] = 2
    return labels


def equal(one, other):
    return all(torch.equal(getattr(one, f), getattr(other, f)) for f in ("image", "target", "trust"))


def values(sampler, batches):
    """The image value of each patch (air beyond the scan is lower): which case it is from."""
    return np.concatenate([sampler.batch(k).image.amax(dim=(1, 2, 3, 4)).numpy() for k in range(batches)])


@pytest.mark.parametrize(("stage", "regions"), [(LIVER, 1), (TUMOR, 2)])
def test_a_batch_has_the_documented_shapes(case, stage, regions):
    batch = Sampler([case("a", body())], stage, settings(stage.name), PREPARATION).batch(0)
    assert batch.image.shape == (3, 1, 4, 5, 6)
    assert batch.target.shape == (3, regions, 4, 5, 6)
    assert batch.trust.shape == (3, regions, 4, 5, 6)
    assert batch.image.dtype == batch.target.dtype == batch.trust.dtype == torch.float32
    assert batch.image.abs().max() <= 1
    assert set(batch.target.unique().tolist()) <= {0, 1}


@pytest.mark.parametrize("share", [0, 1])
def test_a_share_of_the_patches_shows_another_contrast_phase(case, monkeypatch, share):
    monkeypatch.setattr("cascade.phases._LEAST", 1)
    rules = [*PLAIN, *only(TUMOR, liver=1), f"augmentation.phase_share={share}"]
    batch = Sampler([case("a", np.ones((9, 9, 9), np.uint8))], TUMOR, settings("tumor", *rules), PREPARATION).batch(0)
    inside = batch.image[batch.target[:, :1] > 0]
    assert (inside.std() > 0.001) == bool(share)  # the liver was even


def test_a_batch_depends_on_seed_and_step_alone(case):
    cases = [case("a", body()), case("b", body(), value=0.5)]
    sampler, again = (Sampler(cases, TUMOR, settings("tumor"), PREPARATION) for _ in range(2))
    batches = [sampler.batch(step) for step in range(4)]
    np.random.seed(3)
    torch.manual_seed(3)
    for step in (2, 0, 3, 1):
        assert equal(again.batch(step), batches[step])
    assert not equal(batches[0], batches[1])
    other = Sampler(cases, TUMOR, settings("tumor", "training.seed=6"), PREPARATION)
    assert not equal(other.batch(0), batches[0])


def test_a_share_of_the_patches_shows_what_is_beside_the_liver_along_z(case):
    labels = np.zeros((30, 8, 10), np.uint8)
    labels[9:26, 2:6, 3:8] = 1  # nine slices below the liver, four above: too few
    rules = ["augmentation.no_liver_share=1", "augmentation.noise=0", "augmentation.affine_share=0"]
    sampler = Sampler([case("a", labels, value=0.5)], LIVER, settings("liver", *rules), PREPARATION)
    batches = [sampler.batch(step) for step in range(6)]
    assert not any(batch.target.any() for batch in batches)
    assert all((batch.trust == 1).all() for batch in batches)
    without = Sampler([case("b", body())], LIVER, settings("liver", *rules), PREPARATION)
    assert any(without.batch(step).target.any() for step in range(6))  # no such part: a patch as any other


def test_a_share_of_the_patches_shows_no_body_at_all(case):
    sampler = Sampler([case("a", body())], LIVER, settings("liver", "augmentation.decoy_share=1"), PREPARATION)
    batch = sampler.batch(0)
    assert not batch.target.any()
    assert (batch.trust == 1).all()
    assert batch.image.abs().max() <= 1
    assert equal(batch, sampler.batch(0))


def test_tumours_that_nobody_drew_are_not_trusted_inside_the_liver(case):
    drawn, not_drawn = case("a", body(), value=0.5), case("b", body(), value=-0.5, scores_tumor=False)
    sampler = Sampler([drawn, not_drawn], TUMOR, settings("tumor", *PLAIN, "loss.even_ml=0"), PREPARATION)
    seen = set()
    for step in range(10):
        batch = sampler.batch(step)
        for image, target, trust in zip(batch.image, batch.target, batch.trust, strict=True):
            seen.add(bool((image == 0.5).any()))
            assert (trust[0] == 1).all()
            assert torch.equal(trust[1], torch.ones(4, 5, 6) if (image == 0.5).any() else 1 - target[0])
    assert seen == {True, False}


def test_what_a_tumour_counts_for_makes_no_label_trusted(case):
    """As above, with `loss.even_ml`: outside the liver all is known, inside nothing, its tumour neither."""
    sampler = Sampler([case("a", body(), scores_tumor=False)], TUMOR, settings("tumor", *PLAIN), PREPARATION)
    assert load_settings("tumor").loss.even_ml > 0
    for step in range(5):
        batch = sampler.batch(step)
        assert (batch.trust[:, 1][batch.target[:, 0] == 1] == 0).all()
        assert (batch.trust[:, 1][batch.target[:, 0] == 0] == 1).all()


def test_a_synthetic_tumour_is_painted_labelled_and_trusted(case):
    labels = np.zeros((24, 26, 28), np.uint8)
    labels[2:22, 2:24, 2:26] = 1
    rules = [*PLAIN[1:], "lesions.share=1", "lesions.diameter_mm=[9.0, 9.0]", "sampling.patch=[16, 18, 20]"]
    rules.append("loss.even_ml=0")
    for drawn in (True, False):
        chosen = settings("tumor", *rules, *only(TUMOR, liver=1.0))
        batch = Sampler([case(f"{drawn}", labels, scores_tumor=drawn)], TUMOR, chosen, PREPARATION).batch(0)
        liver, tumor = batch.target[:, 0], batch.target[:, 1]
        assert (tumor.sum(dim=(1, 2, 3)) > 50).all()
        assert (liver[tumor > 0] == 1).all()
        assert (batch.trust[:, 1][tumor > 0] == 1).all()
        change = batch.image[:, 0].abs()  # from 0; some are darker, some brighter
        assert change[tumor > 0].mean() > change[(liver > 0) & (tumor == 0)].mean() + 0.05
        untrusted = (batch.trust[:, 1] == 0).any()
        assert untrusted == (not drawn)


def test_a_tumour_counts_for_the_root_of_its_size(case):
    """One of 4 voxels for 4, one of 36 for 12, one of a single voxel for 2."""
    labels = np.ones((8, 9, 10), np.uint8)
    labels[1:4, 1:5, 1:4] = 2
    labels[6, 1, 5:9] = 2
    labels[6, 7, 6] = 2
    rules = [*PLAIN, "sampling.patch=[32, 36, 40]", "loss.even_ml=0.004", *only(TUMOR, liver=1.0)]
    batch = Sampler([case("a", labels)], TUMOR, settings("tumor", *rules), PREPARATION).batch(0)
    assert batch.target[:, 1].sum() == 3 * 41
    for target, trust in zip(batch.target, batch.trust, strict=True):
        assert sorted(trust[1][target[1] > 0].tolist()) == pytest.approx([1 / 3] * 36 + [1] * 4 + [2])
        assert (trust[1][target[1] == 0] == 1).all()
        assert (trust[0] == 1).all()
    plain = Sampler([case("b", labels)], TUMOR, settings("tumor", *rules, "loss.even_ml=0"), PREPARATION).batch(0)
    assert (plain.trust == 1).all()


def test_a_speck_counts_for_no_more_than_four_times_its_size(case):
    labels = np.ones((8, 9, 10), np.uint8)
    labels[6, 7, 6] = 2
    rules = [*PLAIN, "sampling.patch=[32, 36, 40]", "loss.even_ml=1", *only(TUMOR, liver=1.0)]
    batch = Sampler([case("a", labels)], TUMOR, settings("tumor", *rules), PREPARATION).batch(0)
    assert batch.trust.amax() == 4


def test_stage_1_sees_synthetic_tumours_as_liver(case):
    labels = np.zeros((24, 26, 28), np.uint8)
    labels[2:22, 2:24, 2:26] = 1
    rules = [*PLAIN[1:], "lesions.share=1", "lesions.diameter_mm=[9.0, 9.0]", "sampling.patch=[16, 18, 20]"]
    chosen = settings("liver", *rules, *only(LIVER, liver=1.0))
    batch = Sampler([case("a", labels)], LIVER, chosen, PREPARATION).batch(0)
    inside = batch.image[batch.target > 0]
    assert (inside != 0).sum() > 50
    assert (batch.image[batch.target == 0] <= 0).all()


def test_the_liver_is_trusted_in_every_case(case):
    sampler = Sampler([case("a", body(), scores_tumor=False)], LIVER, settings("liver"), PREPARATION)
    assert (sampler.batch(0).trust == 1).all()


def test_an_unknown_pool_is_refused():
    with pytest.raises(UsageError, match=r"^sampling\.shares: unknown lesion; known: liver, anywhere$"):
        require_pools({"lesion": 1.0, "liver": 1.0}, LIVER)


def test_patches_are_drawn_around_their_pool(case):
    labels = np.zeros((20, 24, 28), np.uint8)
    labels[10, 12, 14] = 2
    for pool, hit in (("lesion", True), ("outside", False)):
        chosen = settings("tumor", *PLAIN, *only(TUMOR, **{pool: 1.0}))
        batches = [Sampler([case(pool, labels)], TUMOR, chosen, PREPARATION).batch(0)]
        found = batches[0].target[:, 1].amax(dim=(1, 2, 3)) > 0
        # the centre is moved by at most a quarter of the patch, so a lesion stays in it
        assert found.all() if hit else not found.all()


def test_centres_are_moved_about(case):
    labels = np.zeros((20, 24, 28), np.uint8)
    labels[10, 12, 14] = 2
    chosen = settings("tumor", *PLAIN, *only(TUMOR, lesion=1.0), "sampling.patch=[8, 8, 8]")
    sampler = Sampler([case("a", labels)], TUMOR, chosen, PREPARATION)
    places = torch.cat([sampler.batch(k).target[:, 1].nonzero()[:, 1:] for k in range(20)])
    assert len(places) == 60
    assert places.min(dim=0).values.tolist() == [2, 2, 2]
    assert places.max(dim=0).values.tolist() == [6, 6, 6]


def test_patients_are_drawn_alike_however_many_cases_they_have(case):
    cases = [case(f"a{k}", body(), value=0.5, patient="a") for k in range(3)] + [case("b", body(), value=-0.5)]
    drawn = values(Sampler(cases, LIVER, settings("liver", *PLAIN, *only(LIVER, liver=1.0)), PREPARATION), 100)
    assert 110 < (drawn > 0).sum() < 190


def test_a_case_with_context_is_drawn_more_often(case):
    cases = [case("a", body(), value=0.5, context=True), case("b", body(), value=-0.5)]
    chosen = settings("liver", *PLAIN, *only(LIVER, liver=1.0), "sampling.context_weight=9.0")
    drawn = values(Sampler(cases, LIVER, chosen, PREPARATION), 100)
    assert 250 < (drawn > 0).sum() < 290


def test_a_case_with_context_is_drawn_more_often_than_the_patients_other_case(case):
    cases = [case("a", body(), value=0.5, patient="p", context=True), case("b", body(), value=-0.5, patient="p")]
    chosen = settings("liver", *PLAIN, *only(LIVER, liver=1.0), "sampling.context_weight=9.0")
    for order in (cases, cases[::-1]):
        drawn = values(Sampler(order, LIVER, chosen, PREPARATION), 100)
        assert 250 < (drawn > 0).sum() < 290


def test_the_weight_of_a_patient_is_the_mean_of_its_cases(case):
    mixed = [case("a", body(), value=0.5, patient="p", context=True), case("b", body(), value=0.5, patient="p")]
    other = case("c", body(), value=-0.5)
    chosen = settings("liver", *PLAIN, *only(LIVER, liver=1.0), "sampling.context_weight=9.0")
    drawn = values(Sampler([*mixed, other], LIVER, chosen, PREPARATION), 200)
    # 5 to 1 of 600; the largest weight would give 540, the sum 545, a case's share 567, the smallest weight 300
    assert 475 < (drawn > 0).sum() < 525


def test_the_order_of_a_patients_cases_does_not_change_the_weight(case):
    mixed = [case("a", body(), value=0.5, patient="p", context=True), case("b", body(), value=0.5, patient="p")]
    other = case("c", body(), value=-0.5)
    chosen = settings("liver", *PLAIN, *only(LIVER, liver=1.0), "sampling.context_weight=1000.0")
    one, turned = (values(Sampler([*part, other], LIVER, chosen, PREPARATION), 30) for part in (mixed, mixed[::-1]))
    np.testing.assert_array_equal(one, turned)


def test_a_pool_that_the_case_lacks_is_replaced(case):
    labels = body()
    labels[labels == 2] = 1
    for pool in ("liver", "outside"):
        shares = only(TUMOR, lesion=0.999, **{pool: 0.001})
        sampler = Sampler(
            [case(pool, labels)], TUMOR, settings("tumor", *PLAIN, *shares, "sampling.patch=[1, 2, 1]"), PREPARATION
        )
        # the patch is the centre and the row before it
        centres = torch.cat([sampler.batch(k).target[:, 0, 0, 1, 0] for k in range(10)])
        assert (centres == (pool == "liver")).all()


def test_a_pool_that_the_case_lacks_is_replaced_by_one_of_share_zero(case):
    labels = body()
    labels[labels == 2] = 1
    chosen = settings("tumor", *PLAIN, *only(TUMOR, lesion=1.0), "sampling.patch=[1, 2, 1]")
    sampler = Sampler([case("a", labels)], TUMOR, chosen, PREPARATION)
    centres = torch.cat([sampler.batch(k).target[:, 0, 0, 1, 0] for k in range(20)])
    # liver or outside, as often, though the liver is an eighth of the scan
    assert 15 < centres.sum() < 45


def test_lesions_of_a_case_without_drawn_tumours_are_no_centres(case):
    labels = np.zeros((20, 24, 28), np.uint8)
    labels[10, 12, 14] = 2
    chosen = settings("tumor", *PLAIN, *only(TUMOR, lesion=0.999, outside=0.001), "sampling.patch=[1, 2, 1]")
    for drawn in (True, False):
        sampler = Sampler([case(f"{drawn}", labels, scores_tumor=drawn)], TUMOR, chosen, PREPARATION)
        centres = torch.cat([sampler.batch(k).target[:, 0, 0, 1, 0] for k in range(10)])
        assert (centres == drawn).all()


def test_a_large_pool_is_thinned_out_evenly(case):
    labels = np.zeros((200, 100, 4), np.uint8)
    labels[:, :, :2] = 1
    chosen = settings("liver", *PLAIN, *only(LIVER, anywhere=1.0), "sampling.patch=[2, 1, 1]")
    prepared = case("a", labels)
    sampler, again = (Sampler([prepared], LIVER, chosen, PREPARATION) for _ in range(2))
    assert equal(sampler.batch(0), again.batch(0))
    liver = [sampler.batch(k).target.mean().item() for k in range(100)]
    # 80,000 voxels, every 4th is in column 0; half of the scan is liver
    assert 0.35 < np.mean(liver) < 0.65


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_makes_the_same_patches(case):
    assigned = ["sampling.patch=[8, 12, 16]", "augmentation.noise=0", "augmentation.bend_share=1", "lesions.share=1"]
    labels = np.kron(body(), np.ones((4, 4, 4), np.uint8))
    chosen = settings("tumor", *assigned)
    on_cpu = Sampler([case("a", labels)], TUMOR, chosen, PREPARATION)
    on_gpu = Sampler([case("b", labels)], TUMOR, chosen, PREPARATION, device=torch.device("cuda"))
    for step in range(20):
        one, other = on_cpu.batch(step), on_gpu.batch(step)
        assert other.image.device.type == other.target.device.type == other.trust.device.type == "cuda"
        torch.testing.assert_close(other.image.cpu(), one.image, rtol=0, atol=1e-4)
        assert (other.target.cpu() != one.target).float().mean() < 1e-3


@pytest.mark.parametrize(("share", "sharp"), [(0.0, True), (1.0, False)])
def test_patches_that_are_not_turned_keep_the_noise_of_the_scan(case, share, sharp):
    """Interpolation would smooth it, and the network would never see an image as sharp as those it is used on."""
    made = case("a", body())
    noise = np.where(np.random.default_rng(0).random((6, 8, 10)) < 0.5, -0.5, 0.5).astype(np.float16)
    np.save(made.folder / "tumor_image.npy", noise)
    still = [a for a in PLAIN if "rotation" not in a and "scale" not in a]
    sampler = Sampler([made], TUMOR, settings("tumor", *still, f"augmentation.affine_share={share}"), PREPARATION)
    image = torch.cat([sampler.batch(step).image for step in range(5)])
    close = torch.stack([(image - value).abs() < 1e-3 for value in (-1.0, -0.5, 0.5)]).any(dim=0)
    assert (close.float().mean().item() > 0.999) is sharp


def without_and_with(case, change):
    """The sampler of a noisy case whose patches are otherwise left alone, and one that makes the `change` to all."""
    made = case("a", body())
    np.save(made.folder / "tumor_image.npy", np.random.default_rng(0).random((6, 8, 10)).astype(np.float16))
    rules = [a for a in PLAIN if change not in a]
    return [
        Sampler([made], TUMOR, settings("tumor", *rules, f"augmentation.{change}_share={share}"), PREPARATION)
        for share in (0, 1)
    ]


def test_mirrored_patches_are_the_plain_ones_reversed_along_some_axes(case):
    plain, turned = without_and_with(case, "mirror")
    axes = [[a for a in (0, 1, 2) if k >> a & 1] for k in range(8)]
    found = set()
    for step in range(8):
        for one, other in zip(plain.batch(step).image, turned.batch(step).image, strict=True):
            (same,) = [k for k in range(8) if torch.equal(one[0].flip(axes[k]), other[0])]
            found.add(same)
    assert len(found) > 3


def test_a_bent_patch_is_not_the_plain_one(case):
    plain, bent = without_and_with(case, "bend")
    assert not torch.allclose(plain.batch(0).image, bent.batch(0).image)


def test_patches_end_early_at_one_side_where_that_is_asked_for(case):
    cases = [case("a", body(), value=0.5)]
    for share, cut in ((1, True), (0, False)):
        wanted = settings(
            "tumor", *PLAIN, *only(TUMOR, lesion=1), "sampling.patch=[2, 3, 4]", f"augmentation.field_share={share}"
        )
        batches = [Sampler(cases, TUMOR, wanted, PREPARATION).batch(step) for step in range(6)]
        # The lesion is in the middle of the scan: nothing else shows what lies beyond it.
        inside = [(batch.image == -1).any() for batch in batches]
        assert all(inside) == cut
