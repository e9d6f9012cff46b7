"""`cascade report` on files of a fake scan: which cases count as held out, and where planted errors show."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import cascade.pipeline
import cascade.unseen
from cascade.stage_report import report_cases
from preprocess.cases import Case, LabelFile
from preprocess.errors import InputError, ResourceError
from preprocess.io import read_scan
from preprocess.volume import content_id

_spec = importlib.util.spec_from_file_location("fakes", Path(__file__).with_name("fakes.py"))
fakes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fakes)


def write(path, array):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2.0, 2.0, 3.0))
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def case(tmp_path):
    """`case(name, patient, tumor)`: the scene of the fakes with the truth that belongs to it."""

    def make(name, patient, hu=None, truth=None):
        scene = fakes.scene() if hu is None else hu
        labels = (scene > 50).astype(np.uint8) + (scene > 150) if truth is None else truth
        image = write(tmp_path / f"{name}.nii", scene)
        label = write(tmp_path / f"{name}-label.nii", labels.astype(np.uint8))
        return Case(name, image, LabelFile(label), patient)

    return make


def trained_on(*cases):
    contents = frozenset(content_id(read_scan(case.image).volume) for case in cases)
    return replace(fakes.fake_runner(), trained_on=contents)


@pytest.fixture
def scans(case):
    """Two scans of patient p, one of q, all different."""
    return [
        case(name, patient, fakes.scene() + i) for i, (name, patient) in enumerate((("a", "p"), ("b", "q"), ("c", "p")))
    ]


def test_a_patient_seen_in_one_scan_is_not_held_out_in_another(scans):
    # c comes last: what is known of it decides about a, which was done before.
    report, _ = report_cases(scans, fakes.choice(trained_on(scans[2])), held_out_only=False, say=lambda _: None)
    assert [(account.case, account.held_out) for account in report.accounts] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]
    only, _ = report_cases(scans, fakes.choice(trained_on(scans[2])), held_out_only=True, say=lambda _: None)
    assert [account.case for account in only.accounts] == ["b"]


def test_every_scan_is_read_once(scans, monkeypatch):
    read = []
    monkeypatch.setattr(cascade.unseen, "read_scan", lambda path: read.append(path.name) or read_scan(path))
    report_cases(scans, fakes.choice(fakes.fake_runner()), held_out_only=True, say=lambda _: None)
    assert sorted(read) == ["a.nii", "b.nii", "c.nii"]


def test_each_patient_is_run_by_its_choice(scans):
    def marked(runner, threshold):
        policy = replace(runner.liver.policy, threshold=threshold, minimum_ml=1e9)  # these find no liver
        return replace(runner, liver=replace(runner.liver, policy=policy))

    blind, seeing = marked(fakes.fake_runner(), 0.5), fakes.fake_runner()
    content = content_id(read_scan(scans[0].image).volume)

    def choice(known_by):
        return (blind if content in known_by else seeing), True

    report, _ = report_cases(scans, choice, held_out_only=True, say=lambda _: None)
    assert [(row.case, row.held_out, row.merged_liver_dice > 0) for row in report.accounts] == [
        ("a", True, False),
        ("b", True, True),
        ("c", True, False),
    ]


def test_a_case_that_was_run_is_shown(scans):
    shown = []
    report_cases(
        scans[:1],
        fakes.choice(fakes.fake_runner()),
        held_out_only=False,
        say=lambda _: None,
        look=lambda *x: shown.append(x),
    )
    ((name, volume, truth, mask),) = shown
    assert name == "a"
    assert volume.array.shape == truth.array.shape == mask.array.shape
    assert (truth.array == 2).any()
    assert (mask.array == 2).any()


def test_a_label_that_cannot_be_read_fails_alone(scans):
    write(scans[1].label.path, np.full((3, 4, 5), 1, np.uint8))
    said = []
    report, failures = report_cases(scans, fakes.choice(fakes.fake_runner()), held_out_only=False, say=said.append)
    assert [account.case for account in report.accounts] == ["a", "c"]
    assert list(failures) == ["b"]
    assert isinstance(failures["b"], InputError)
    assert f"b: FAILED: {failures['b']}" in said


def test_a_scan_that_cannot_be_read_fails_with_all_of_its_patient(scans):
    # Whether a model has seen c, and so patient p, cannot be known: a is not reported as held out.
    scans[2].image.write_bytes(b"no scan")
    report, failures = report_cases(scans, fakes.choice(fakes.fake_runner()), held_out_only=True, say=lambda _: None)
    assert [account.case for account in report.accounts] == ["b"]
    assert list(failures) == ["a", "c"]
    assert failures["a"] is failures["c"]
    assert "c.nii" in str(failures["c"])


def test_a_model_picked_on_a_case_is_said(scans):
    runner = replace(fakes.fake_runner(), chosen_on=trained_on(scans[1]).trained_on)
    said = []
    report_cases(scans, fakes.choice(runner), held_out_only=False, say=said.append)
    assert said[-1] == "note: a model or its thresholds were chosen on b: slightly flattering there"


def losses(waterfall):
    return {step.key: float(loss) for step, loss in zip(waterfall.steps, waterfall.losses, strict=True) if loss}


def account_of(case, runner=None):
    runner = runner or fakes.fake_runner()
    report, _ = report_cases([case], fakes.choice(runner), held_out_only=False, say=lambda _: None)
    (account,) = report.accounts
    return account


def test_a_scan_without_liver_loses_its_tumours_there(case):
    hu = fakes.scene()
    account = account_of(case("flat", "p", np.full_like(hu, -100), (hu > 50).astype(np.uint8) + (hu > 150)))
    assert losses(account.tumor) == {"liver_not_found": 1.0}
    assert losses(account.liver) == {"missed_by_stage1": 1.0}
    assert [lesion.fate for lesion in account.lesions] == ["liver_not_found"]


def test_a_liver_that_stage_2_denies_is_no_loss_of_stage_1(case):
    runner = fakes.fake_runner()
    denies = replace(runner.tumor, infer=lambda image, where: np.zeros((2, *image.shape), np.float32))
    account = account_of(case("denied", "p"), replace(runner, tumor=denies))
    lost = losses(account.liver)
    assert lost["stage2_inside"] > 0.8
    assert lost.get("missed_by_stage1", 0) < 0.2
    assert losses(account.tumor) == {"missed": 1.0}


def test_a_case_that_takes_too_much_memory_fails_alone(scans, monkeypatch):
    scans_hu = [read_scan(case.image).volume.array[5, 5, 5] for case in scans]

    def segment(volume, *rest):
        if volume.array[5, 5, 5] == scans_hu[1]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return cascade.pipeline.segment(volume, *rest)

    monkeypatch.setattr("cascade.stage_report.segment", segment)
    report, failures = report_cases(scans, fakes.choice(fakes.fake_runner()), held_out_only=False, say=lambda _: None)
    assert [account.case for account in report.accounts] == ["a", "c"]
    assert isinstance(failures["b"], ResourceError)


def test_a_scan_that_takes_too_much_memory_to_read_fails_with_all_of_its_patient(scans, monkeypatch):
    def read(path):
        if path == scans[2].image:
            raise MemoryError
        return read_scan(path)

    monkeypatch.setattr("cascade.unseen.read_scan", read)
    report, failures = report_cases(scans, fakes.choice(fakes.fake_runner()), held_out_only=False, say=lambda _: None)
    assert [account.case for account in report.accounts] == ["b"]
    assert {type(error) for error in failures.values()} == {ResourceError}


def doubts_tumours(image, where=None):
    """Stage 1 that is not so sure of the liver where a tumour is."""
    return np.where(image >= fakes.prepared(150), 0.6, image > fakes.prepared(50))[None].astype(np.float32)


def test_a_tumour_that_the_liver_cuts_off_comes_back_when_its_hole_is_filled(case):
    runner = fakes.fake_runner()
    runner = replace(
        runner,
        liver=replace(runner.liver, infer=doubts_tumours),
        # Both stages must be sure of the liver.
        tumor=replace(runner.tumor, policy=replace(runner.tumor.policy, liver_threshold=0.9)),
    )
    account = account_of(case("hole", "p"), runner)
    lost = losses(account.tumor)
    assert lost["outside_liver"] == pytest.approx(-lost["cleanup"])
    assert lost["outside_liver"] > 0.5
    assert [lesion.fate for lesion in account.lesions] == ["found"]


def test_a_tumour_that_the_truth_does_not_know_is_false(case):
    hu = fakes.scene()
    account = account_of(case("false", "p", hu, (hu > 50).astype(np.uint8)))
    assert losses(account.tumor) == {"false_inside": 1.0}
    assert account.lesions == ()


def test_a_scan_that_was_published_in_several_forms_is_not_held_out_in_another(case):
    """LiTS 46 is 3D-IRCADb-01 patient 19, and whoever calls the patient p in a table does not change that."""
    runner = replace(fakes.fake_runner(), trained_on=frozenset({"0123456789abcdef", "ircadb-19"}))
    scans = [case(name, "p") for name in ("volume-46", "3Dircadb1.19", "volume-45")]
    for scan, wanted in zip(scans, (False, False, True), strict=True):
        report, _ = report_cases([scan], fakes.choice(runner), held_out_only=False, say=lambda _: None)
        assert report.accounts[0].held_out == wanted


def test_a_file_named_as_a_published_one_is_of_who_the_table_says(tmp_path):
    other = Case("small-0", tmp_path / "small" / "volume-0.nii.gz", LabelFile(tmp_path / "l.nii"), "PS0")
    assert other.public_patients == ()
    assert Case("volume-1", tmp_path / "a.nii", None).public_patients == ("lits-0",)
    assert Case("a", tmp_path / "liver_46.nii.gz", None).public_patients == ("ircadb-19",)


def test_a_model_picked_on_a_patient_in_another_form_is_said(case):
    runner = replace(fakes.fake_runner(), chosen_on=frozenset({"ircadb-19"}))
    said = []
    report_cases(
        [case("volume-46", "p"), case("volume-45", "q")], fakes.choice(runner), held_out_only=False, say=said.append
    )
    assert said[-1] == "note: a model or its thresholds were chosen on volume-46: slightly flattering there"
