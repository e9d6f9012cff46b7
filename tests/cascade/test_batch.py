import importlib.util
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from cascade.ahead import Early, source_id
from cascade.batch import CaseSetup, Outputs, expand, report_answers, require_any
from cascade.case import begin_case, run_case
from cascade.locks import locked
from preprocess.errors import BatchError, CascadeError, InputError, ResourceError
from preprocess.io import read_scan
from tests.made_dicom import dicom, series

_spec = importlib.util.spec_from_file_location("fakes", Path(__file__).with_name("fakes.py"))
fakes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fakes)


def image_of(hu, spacing=(2.0, 2.0, 3.0), origin=(10.0, -20.0, 30.0), direction=None):
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    return image


def written(path, **options):
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image_of(fakes.scene(), **options), str(path))
    return path


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def test_a_case_becomes_a_mask_in_its_own_geometry_and_a_report(tmp_path):
    path = written(tmp_path / "case one.nii.gz")
    line = run_case(path, fakes.fake_runner(), Outputs(tmp_path / "out"))
    assert line.startswith("case one: ok, liver ")
    folder = tmp_path / "out" / "case one"
    assert {p.name for p in folder.iterdir()} == {"segmentation.nii.gz", "report.json"}
    mask, image = sitk.ReadImage(str(folder / "segmentation.nii.gz")), sitk.ReadImage(str(path))
    assert mask.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    for get in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(mask, get)() == getattr(image, get)()
    report = report_of(folder)
    assert set(report) == {
        *("case", "status", "liver_ml", "tumor_ml", "tumor_burden", "lesions", "roi", "warnings", "seconds"),
        *("peak_rss_mb", "models", "source", "version"),
    }
    array = sitk.GetArrayFromImage(mask)
    assert report["liver_ml"] == pytest.approx((array >= 1).sum() * 0.012, abs=1e-3)
    assert report["tumor_ml"] == pytest.approx(5 * 6 * 6 * 0.012, abs=1e-3)
    assert report["tumor_burden"] == pytest.approx(report["tumor_ml"] / report["liver_ml"], abs=1e-5)
    centre = image.TransformContinuousIndexToPhysicalPoint((10.5, 11.5, 9.0))
    assert report["lesions"] == [{"id": 1, "volume_ml": 2.16, "centroid_mm": list(centre), "mean_hu": 200.0}]
    assert report["models"] == {"liver": "aa", "tumor": "bb"}
    assert set(report["seconds"]) == {"read", "stage1", "stage2", "merge", "write", "total"}


def orientations():
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            yield order, flips


def turned(image, order, flips):
    return sitk.Flip(sitk.PermuteAxes(image, order), flips, False)


def test_all_48_orientations_give_the_same_mask_in_space_bit_for_bit(tmp_path):
    image = image_of(fakes.scene(), spacing=(0.7031, 0.8203, 2.5), origin=(-123.4, 56.7, -890.1))
    hu = sitk.GetArrayFromImage(image)
    hu += np.random.default_rng(0).normal(0, 30, hu.shape).astype(np.int16)
    image = image_of(hu, spacing=(0.7031, 0.8203, 2.5), origin=(-123.4, 56.7, -890.1))
    masks = []
    for number, (order, flips) in enumerate(orientations()):
        path = tmp_path / f"v{number}.nii"
        sitk.WriteImage(turned(image, order, flips), str(path))
        run_case(path, fakes.fake_runner((1.3, 1.1, 0.9)), Outputs(tmp_path / "out"))
        mask = sitk.ReadImage(str(tmp_path / "out" / f"v{number}" / "segmentation.nii.gz"))
        back = sitk.PermuteAxes(sitk.Flip(mask, flips, False), np.argsort(order).tolist())
        masks.append(sitk.GetArrayFromImage(back))
    assert len(masks) == 48
    assert set(np.unique(masks[0])) == {0, 1, 2}
    assert all(np.array_equal(masks[0], mask) for mask in masks)


def test_an_oblique_scan_keeps_its_header_exactly(tmp_path):
    a, b = np.deg2rad((30, 12))
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    path = written(tmp_path / "oblique.nii", direction=(turn @ tilt).ravel().tolist())
    run_case(path, fakes.fake_runner(), Outputs(tmp_path / "out"))
    mask = tmp_path / "out" / "oblique" / "segmentation.nii.gz"
    import gzip

    geometry = [slice(76, 108), slice(123, 124), slice(252, 328)]  # pixdim, xyzt_units, forms to srow_z
    ours, theirs = gzip.decompress(mask.read_bytes()), path.read_bytes()
    assert all(ours[part] == theirs[part] for part in geometry)
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(mask))) == 2).sum() == 5 * 6 * 6


def test_a_scan_without_liver_gets_an_empty_mask_and_its_oddity_is_said_once(tmp_path):
    sitk.WriteImage(image_of(np.full((5, 6, 7), -100, np.int16)), str(tmp_path / "flat.nii"))
    line = run_case(tmp_path / "flat.nii", fakes.fake_runner(), Outputs(tmp_path / "out"))
    assert line.startswith("flat: liver not found, liver 0 mL")
    report = report_of(tmp_path / "out" / "flat")
    assert [text for text in report["warnings"] if "HU" in text] == ["every voxel is -100 HU; is this the right file?"]
    assert (report["status"], report["roi"], report["lesions"]) == ("liver not found", None, [])
    mask = sitk.ReadImage(str(tmp_path / "out" / "flat" / "segmentation.nii.gz"))
    assert mask.GetSize() == (7, 6, 5)
    assert not sitk.GetArrayFromImage(mask).any()


def test_the_roi_is_in_voxels_of_the_file_as_stored(tmp_path):
    straight = written(tmp_path / "a.nii")
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(straight)), (True, False, False), False), str(tmp_path / "b.nii"))
    for name in "ab":
        run_case(tmp_path / f"{name}.nii", fakes.fake_runner(), Outputs(tmp_path / "out"))
    one, two = (report_of(tmp_path / "out" / name)["roi"] for name in "ab")
    assert one == {"start": [2, 3, 3], "stop": [18, 23, 27]}
    assert two == {"start": [2, 3, 5], "stop": [18, 23, 29]}


def test_stages_are_kept_on_request(tmp_path):
    path = written(tmp_path / "case.nrrd")
    run_case(path, fakes.fake_runner(), Outputs(tmp_path / "out", keep_stages=True))
    folder = tmp_path / "out" / "case"
    names = {"segmentation.nii.gz", "report.json", "stage1_liver.nii.gz", "roi.json", "stage2_tumor.nii.gz"}
    assert {p.name for p in folder.iterdir()} == names
    assert json.loads((folder / "roi.json").read_text()) == report_of(folder)["roi"]
    liver = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "stage1_liver.nii.gz")))
    assert set(np.unique(liver)) == {0, 1}
    tumor = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "stage2_tumor.nii.gz")))
    assert set(np.unique(tumor)) == {0, 1, 2}


def test_a_finished_case_is_done_again_for_stages_that_it_lacks(tmp_path):
    path, outputs = written(tmp_path / "c.nii"), Outputs(tmp_path / "out")
    run_case(path, fakes.fake_runner(), outputs)
    keeping = replace(outputs, keep_stages=True)
    assert "skipped" not in run_case(path, fakes.fake_runner(), keeping)
    assert (tmp_path / "out" / "c" / "stage1_liver.nii.gz").exists()
    assert "skipped" in run_case(path, fakes.fake_runner(), keeping)
    assert "skipped" in run_case(path, fakes.fake_runner(), outputs)


@pytest.mark.parametrize(
    ("spacing", "said"),
    [((1.0, 1.0, 1.0), "the affine was never filled in"), ((1.5, 1.4, 10.0), "spacing 10 x 1.4 x 1.5 mm")],
)
def test_voxels_that_are_not_as_they_should_be_are_said(tmp_path, spacing, said):
    path = written(tmp_path / "c.nii", spacing=spacing, origin=(0.0, 0.0, 0.0))
    run_case(path, fakes.fake_runner(), Outputs(tmp_path))
    assert any(said in text for text in report_of(tmp_path / "c")["warnings"])


def test_no_stage_of_an_earlier_run_is_left_beside_a_new_result(tmp_path):
    path, outputs = written(tmp_path / "c.nii"), Outputs(tmp_path / "out", overwrite=True)
    for keep, names in ((True, {"stage1_liver.nii.gz", "roi.json", "stage2_tumor.nii.gz"}), (False, set())):
        run_case(path, fakes.fake_runner(), replace(outputs, keep_stages=keep))
        assert {p.name for p in (tmp_path / "out" / "c").iterdir()} == {"segmentation.nii.gz", "report.json"} | names


def test_a_series_that_holds_its_own_result_is_done_once(tmp_path, monkeypatch):
    folder = series(tmp_path / "patient", array=np.full((4, 4, 5), 100, np.int16), intercept="0")
    monkeypatch.chdir(folder)
    outputs = Outputs(folder / "cascade-out")
    run_case(folder, fakes.fake_runner(), outputs)
    assert run_case(folder, fakes.fake_runner(), outputs) == "patient: done before, skipped"
    dicom(folder, "one-more.dcm", np.zeros((4, 5), np.int16), (0, 0, 99))
    with pytest.raises(InputError, match="another input"):
        run_case(folder, fakes.fake_runner(), outputs)


def test_done_cases_are_skipped_and_a_killed_one_is_done_again(tmp_path):
    path, runner, outputs = written(tmp_path / "c.nii"), fakes.fake_runner(), Outputs(tmp_path / "out")
    run_case(path, runner, outputs)
    assert run_case(path, runner, outputs) == "c: done before, skipped"
    assert "ok" in run_case(path, runner, replace(outputs, overwrite=True))
    (tmp_path / "out" / "c" / "report.json").unlink()  # written last: a killed run leaves none
    assert "ok" in run_case(path, runner, outputs)
    (tmp_path / "out" / "c" / "segmentation.nii.gz").unlink()
    assert "ok" in run_case(path, runner, outputs)


def test_a_result_of_another_input_or_other_models_is_neither_skipped_nor_replaced(tmp_path):
    path, runner, outputs = written(tmp_path / "c.nii"), fakes.fake_runner(), Outputs(tmp_path / "out")
    run_case(path, runner, outputs)
    with pytest.raises(InputError, match=r"of other models or options \(tumor\); use --overwrite"):
        run_case(path, replace(runner, models={"liver": "aa", "tumor": "other"}), outputs)
    os.utime(path, (1, 1))
    with pytest.raises(
        InputError, match="result of another input; use --overwrite or another -o, or give all inputs at once"
    ):
        run_case(path, runner, outputs)
    assert "ok" in run_case(path, runner, replace(outputs, overwrite=True))


def test_a_scan_read_ahead_gives_the_same_result_and_is_not_read_again(tmp_path, monkeypatch):
    path, runner = written(tmp_path / "c.nii"), fakes.fake_runner()
    run_case(path, runner, Outputs(tmp_path / "plain"))
    finish = begin_case(path, runner, Outputs(tmp_path / "ahead"))
    monkeypatch.setattr("cascade.case.read_scan", None)
    assert "ok" in finish()
    masks = [(tmp_path / name / "c" / "segmentation.nii.gz").read_bytes() for name in ("plain", "ahead")]
    assert masks[0] == masks[1]
    reports = [report_of(tmp_path / name / "c") for name in ("plain", "ahead")]
    assert all(set(report.pop("seconds")) >= {"read", "total"} and report.pop("peak_rss_mb") for report in reports)
    assert reports[0] == reports[1]


def test_a_file_that_changes_after_it_was_read_ahead_is_read_again(tmp_path):
    path, outputs = written(tmp_path / "c.nii"), Outputs(tmp_path / "out")
    finish = begin_case(path, fakes.fake_runner(), outputs)
    sitk.WriteImage(image_of(np.full((5, 6, 7), -100, np.int16)), str(path))
    assert finish().startswith("c: liver not found")
    assert report_of(tmp_path / "out" / "c")["source"] == source_id(path)


def test_a_scan_that_was_read_early_is_taken_once_and_not_read_again(tmp_path, monkeypatch):
    path, other = written(tmp_path / "a.nii"), written(tmp_path / "b.nii")
    early, wrong = Early(path), Early(other)
    seen = early.take(path)
    assert seen.source == source_id(path)
    assert early.take(path) is None
    assert wrong.take(path) is None
    assert wrong.take(other) is None  # what was not asked for first is not kept
    monkeypatch.setattr("cascade.case.read_ahead", lambda path: pytest.fail("read again"))
    monkeypatch.setattr("cascade.case.read_scan", lambda path: pytest.fail("read again"))
    outputs = Outputs(tmp_path / "early")
    assert "ok" in begin_case(path, fakes.fake_runner(), outputs, Early(path))()


def test_what_cannot_be_read_early_is_said_at_its_turn_and_read_but_once_more(tmp_path, monkeypatch):
    path, reads = tmp_path / "bad.nii", []
    path.write_bytes(b"no scan")
    for module in ("ahead", "case"):
        monkeypatch.setattr(f"cascade.{module}.read_scan", lambda path: reads.append(path) or read_scan(path))
    with pytest.raises(InputError, match="is not a NIfTI file"):
        begin_case(path, fakes.fake_runner(), Outputs(tmp_path), Early(path))()
    assert reads == [path, path]


def test_a_scan_that_was_read_early_is_not_kept_for_a_case_that_is_done(tmp_path):
    done, other = written(tmp_path / "done.nii"), written(tmp_path / "other.nii")
    run_case(done, fakes.fake_runner(), Outputs(tmp_path / "out"))
    early = Early(other)
    begin_case(done, fakes.fake_runner(), Outputs(tmp_path / "out"), early)
    assert early.take(other) is None


@pytest.mark.parametrize(("overwrite", "done", "read"), [(False, False, 1), (False, True, 0), (True, True, 1)])
def test_the_setup_reads_the_likely_scan_unless_a_result_stands(tmp_path, monkeypatch, overwrite, done, read):
    path, paths = written(tmp_path / "c.nii"), []
    if done:
        run_case(path, fakes.fake_runner(), Outputs(tmp_path))
    monkeypatch.setattr("cascade.batch.Early", lambda path: paths.append(path))
    options = {"liver": None, "tumor": None, "liver_only": True, "device": "cpu", "mirror": False, "jobs": 1}
    setup = CaseSetup(**options, outputs=Outputs(tmp_path, overwrite), plain_malloc=True)
    setup(path)
    assert paths == [path] * read
    setup(None)
    assert paths == [path] * read


def test_what_is_done_is_not_read_ahead_and_what_fails_ahead_fails_at_its_turn(tmp_path, monkeypatch):
    path, runner, outputs = written(tmp_path / "c.nii"), fakes.fake_runner(), Outputs(tmp_path / "out")
    missing = begin_case(tmp_path / "none.nii", runner, outputs)
    with pytest.raises(InputError, match="does not exist"):
        missing()
    with monkeypatch.context() as patch:
        patch.setattr("cascade.case.read_scan", lambda _: (_ for _ in ()).throw(MemoryError()))
        short_of_memory = begin_case(path, runner, outputs)
    assert "ok" in short_of_memory()
    monkeypatch.setattr("cascade.case.read_scan", lambda _: pytest.fail("read"))
    assert begin_case(path, runner, outputs)() == "c: done before, skipped"


def answered(paths, outputs):
    """As a worker answers, in this process."""
    for path in paths:
        try:
            yield path, run_case(path, fakes.fake_runner(), outputs)
        except CascadeError as error:
            yield path, error


def test_one_bad_case_does_not_stop_the_others(tmp_path):
    good, bad, said = written(tmp_path / "good.nii"), tmp_path / "bad.nii", []
    bad.write_bytes(b"no image")
    with pytest.raises(BatchError, match="1 of 2 cases failed: bad") as caught:
        report_answers(answered([bad, good], Outputs(tmp_path / "out")), expand([bad, good]), said.append)
    assert caught.value.exit_code == 6
    assert said[0].startswith("bad: FAILED: ")
    assert said[1].startswith("good: ok")
    assert not (tmp_path / "out" / "bad").exists()
    assert (tmp_path / "out" / "good" / "segmentation.nii.gz").exists()


def test_where_no_input_is_there_nothing_is_loaded_or_made(tmp_path):
    here, none = tmp_path / "here.nii", tmp_path / "none.nii"
    here.touch()
    require_any([none, here])
    with pytest.raises(InputError, match=r"none.nii does not exist; check the path"):
        require_any([none, tmp_path / "neither.nii"])


def test_a_single_bad_case_gives_its_own_error(tmp_path):
    none = tmp_path / "none.nii"
    with pytest.raises(InputError, match="does not exist"):
        report_answers(answered([none], Outputs(tmp_path / "out")), expand([none]), print)


def test_inputs_of_one_name_are_told_apart_by_the_folder_they_lie_in(tmp_path, monkeypatch):
    files = [written(tmp_path / name) for name in ("a/case.nii", "b/case.nrrd", "b/other.nii")]
    names = expand(files)
    assert names == dict(zip(files, ("a_case", "b_case", "other"), strict=True))
    monkeypatch.chdir(tmp_path / "a")
    (tmp_path / "a" / "linked.nii").symlink_to(tmp_path / "b" / "other.nii")
    (tmp_path / "b" / "linked.nii").symlink_to(tmp_path / "a" / "case.nii")
    near = [Path("case.nii"), Path("../b/case.nrrd"), Path("linked.nii"), Path("../b/linked.nii")]
    assert list(expand(near).values()) == ["a_case", "b_case", "a_linked", "b_linked"]
    outputs = Outputs(tmp_path / "out", names=names)
    assert run_case(files[1], fakes.fake_runner(), outputs).startswith("b_case: ok")
    assert report_of(tmp_path / "out" / "b_case")["case"] == "b_case"


@pytest.mark.parametrize("names", [("a/case.nii", "a/case.nrrd"), ("a/case.nii", "b/case.nii", "c/a_case.nii")])
def test_inputs_that_cannot_be_told_apart_are_refused(tmp_path, names):
    with pytest.raises(InputError, match="have one case name, a_case: run them into two -o folders"):
        expand([written(tmp_path / name) for name in names])


def test_an_input_that_is_named_twice_is_one_case(tmp_path):
    one = written(tmp_path / "case.nii")
    assert expand([one, tmp_path, one]) == {one: "case"}


def test_a_folder_stands_for_its_images_but_not_for_lits_labels(tmp_path):
    for name in ("volume-2.nii", "segmentation-2.nii", "volume-10.nii", "._volume-2.nii", "notes.txt"):
        written(tmp_path / "x.nii").rename(tmp_path / name)
    assert [p.name for p in expand([tmp_path])] == ["volume-10.nii", "volume-2.nii"]


def test_a_folder_in_use_is_refused(tmp_path):
    with (
        locked(tmp_path / "out" / "c"),
        pytest.raises(ResourceError, match="another cascade is working in it"),
    ):
        run_case(written(tmp_path / "c.nii"), fakes.fake_runner(), Outputs(tmp_path / "out"))


def test_the_lock_leaves_nothing_behind_and_is_free_again(tmp_path):
    with locked(tmp_path / "x"):
        pass
    with locked(tmp_path / "x"):
        assert list((tmp_path / "x").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be made or opened"), locked(tmp_path / "file"):
        pass


def test_a_result_is_of_both_halves_of_a_pair(tmp_path):
    header, voxels = tmp_path / "a.hdr", tmp_path / "a.img"
    header.write_bytes(b"header")
    voxels.write_bytes(b"voxels")
    before = source_id(header)
    assert source_id(voxels) == before
    voxels.write_bytes(b"other voxels")
    assert source_id(header) != before


def test_a_newline_in_a_name_makes_no_line_of_its_own(tmp_path):
    said, paths = [], (tmp_path / "a\nb.nii", tmp_path / "c.nii")
    with pytest.raises(BatchError):
        report_answers(zip(paths, (InputError("bad"), "c: ok"), strict=True), expand(paths), said.append)
    assert said == ["a?b: FAILED: bad", "c: ok"]
