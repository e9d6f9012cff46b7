import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import SimpleITK
import torch

import cascade.checkpoint
import cascade.pipeline
import cascade.training_state
from benchmarks import (
    ablation,
    ablation_rows,
    batch,
    elsewhere,
    fusion,
    iterations,
    more_scans,
    one_stage,
    page,
    process,
    profile_case,
    rate,
    rivals,
    train,
    visible,
    window_sizes,
)
from cascade import sampler
from cascade.cli import run_command
from cascade.sampler import Sampler
from cascade.settings import as_table, load_settings
from cascade.validation import Validation
from evaluate.detection import SIZES, Detection
from preprocess.errors import UsageError
from preprocess.geometry import Box, Grid
from preprocess.layouts import find_cases
from preprocess.prepared import load_dataset
from preprocess.volume import LabelMap, Volume
from stage1_liver.predict import CoarseLiver
from stage2_tumor.predict import RoiProbabilities
from tests import made_dataset
from tests.cascade import fakes

WORKER = "from benchmarks.process import take_turns; take_turns(lambda: {'seconds': 1.5})"


def test_a_worker_is_frozen_when_it_is_not_its_turn():
    with process.Turns([sys.executable, "-c", WORKER]) as worker:
        pid = worker._process.pid
        for _ in range(2):
            # Returns once it has stopped, and not before.
            assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
            answer = worker.turn()
    assert answer["seconds"] == 1.5
    assert 0 < answer["peak"] < 1


def test_a_worker_that_dies_is_named():
    with pytest.raises(RuntimeError, match="exit 3; its message stands above"):
        process.Turns([sys.executable, "-c", "import sys; sys.exit(3)"])


def test_a_benchmark_that_is_ended_leaves_no_frozen_worker():
    code = f"""
import sys, time
from benchmarks.process import Turns
with Turns([sys.executable, "-c", {WORKER!r}]) as worker:
    print(worker._process.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as benchmark:
        pid = int(benchmark.stdout.readline())
        benchmark.terminate()
        assert benchmark.wait(20) == 143
    assert not Path(f"/proc/{pid}").exists()


def test_the_peak_is_that_of_the_command_alone():
    mine = bytearray(300_000_000)
    done = process.watched([sys.executable, "-c", "print('done')"])
    assert done.last == "done"
    assert done.peak_gb < 0.2 < len(mine)


def test_shares_of_the_best_rate_are_by_precision():
    seconds = {"torch-bf16-kept": [2.0, 4.0, 1.0], "openvino-bf16-plain": [1.0], "torch-fp32-kept": [5.0]}
    lines = rate.table(seconds, 10.0, dict.fromkeys(seconds, 1.5)).splitlines()
    assert lines[2] == "| torch-bf16-kept | 2.000 (1.000-4.000) | 5 | 50% | 50% | 1.50 |"
    assert lines[4] == "| torch-fp32-kept | 5.000 | 2 | 100% | 20% | 1.50 |"


def test_ratios_are_taken_round_by_round():
    def run(case, peak):
        return {"windows": 192, "timed": 4, "peak": peak, "case": case} | dict.fromkeys(
            ("window", "before", "predict", "after", "outside", "process"), 0.0
        )

    text = rivals.table({"nnU-Net": [run(100, 4), run(300, 4)], "cascade": [run(10, 1), run(10, 2)]})
    assert "| nnU-Net | 192 (4) |" in text
    assert text.endswith("cascade against nnU-Net: 20.0 (10.0-30.0) times as fast, 0.38 of the peak memory")


def test_waits_stand_beside_the_seconds_of_an_iteration():
    turns = {"cascade": [{"seconds": [1.0, 3.0], "waits": [0.5, 0.0], "peak": 2.0}]}
    turns["other"] = [{"seconds": [4.0], "waits": [0.0], "peak": 3.0}]
    text = train.table(turns)
    assert "| cascade | 2.00 | 0.250 | 2.00 |" in text
    assert text.endswith("cascade takes 0.50 of the time of other")


def test_memory_that_grows_is_seen():
    run = batch.Run([], 0.0, [(30.0, 500.0 + 2 * k, 600.0, 9.0 - k) for k in range(40)])
    told = "a case adds parent +0.000 MB, workers +2.000 MB, peak +0.000 MB, page cache -1.000 MB"
    assert batch.memory_table(run).endswith(told)


def test_what_a_benchmark_prints_becomes_its_section_and_no_other():
    made = page.with_section("a\n<!-- b -->\nold\n<!-- end of b -->\nc\n<!-- d -->\n<!-- end of d -->\n", "b", "new")
    assert made == "a\n<!-- b -->\nnew\n<!-- end of b -->\nc\n<!-- d -->\n<!-- end of d -->\n"
    with pytest.raises(ValueError, match="needs one line <!-- e -->"):
        page.with_section(made, "e", "new")


def test_a_benchmark_that_fails_leaves_its_section(tmp_path):
    file = tmp_path / "PAGE.md"
    file.write_text("<!-- case -->\nold\n<!-- end of case -->\n")
    with pytest.raises(subprocess.CalledProcessError):
        page.main([f"case {tmp_path / 'missing.nii'}"], file)
    assert file.read_text() == "<!-- case -->\nold\n<!-- end of case -->\n"


@pytest.mark.parametrize("name", ["case", "profile_case", "rate", "batch", "rivals", "train"])
def test_the_page_has_a_section_for_each_script_that_make_runs(name):
    text = page.PAGE.read_text("utf-8")
    assert page.with_section(text, name, "new") != text


def test_the_raised_image_is_taken_apart_into_image_and_liver():
    given = ablation_rows.GivenLiver(torch.nn.Conv3d(1, 2, 1))
    with torch.no_grad():
        given.both.weight.copy_(torch.eye(2)[..., None, None, None])
        raised = torch.tensor([-1.0, 1.0, 0.25 + 4, -1.0 + 4]).reshape(1, 1, 1, 2, 2)
        assert given(raised).reshape(2, 4).tolist() == [[-1, 1, 0.25, -1], [-1, -1, 1, 1]]


def test_an_ablation_changes_the_patches_of_its_row_alone():
    whole = torch.tensor([[0.0, 1, 1], [0, 0, 1]]).reshape(2, 1, 1, 3)
    with patch.object(ablation_rows, "_nested", lambda *_: (torch.zeros(1, 1, 3), whole.clone(), whole)):
        _, regions, _ = ablation_rows._with_classes(None, np.random.default_rng(0))
        assert regions.flatten(1).tolist() == [[0, 1, 0], [0, 0, 1]]
    before = Sampler._patch
    with ablation_rows.as_row("whole"):
        assert Sampler._patch is not before
    assert Sampler._patch is before


def test_a_profile_shows_shares_of_the_whole():
    rows = [(f"f{k}", 1.0) for k in range(profile_case._SHOWN + 1)] + [("most", 12.0)]
    lines = profile_case.table("function", rows).splitlines()
    assert lines[2] == "| `most` | 12.00 | 48% |"
    assert lines[-1] == "| all others | 2.00 | 8% |"


def test_iterations_are_means_over_all_lines_of_the_log():
    rows = [{"wait_s": 1.0, "compute_s": 2.0}, {"compute_s": 1.0}]
    assert iterations.table(rows, 1.5, [40.0, 60.0]).splitlines()[-1] == "| 5.00 | 50.0 | 150.0 | 0.75 | 50 % | 1.50 |"


@pytest.mark.parametrize("name", [ablation.LIVER, *ablation_rows.ROWS])
def test_every_row_of_the_ablation_puts_back_what_it_changed_and_has_settings_that_work(name):
    changed = (Sampler._patch, cascade.pipeline.refine, cascade.training_state.unet, cascade.checkpoint.unet)
    with ablation_rows.as_row(name):
        pass
    assert changed == (Sampler._patch, cascade.pipeline.refine, cascade.training_state.unet, cascade.checkpoint.unet)
    stage = "liver" if name == ablation.LIVER else "tumor"
    changes = ablation_rows.ROWS[name].changes if name != ablation.LIVER else ()
    settings = ablation.small_settings(stage, *changes)
    assert settings.sampling.patch == (64, 64, 64)
    assert settings.window.size == (96, 96, 96)


def test_the_threshold_that_suits_a_seed_best_is_that_of_the_mean_over_its_scans():
    scans = {"a": {"by_threshold": [0.0, 0.3, 0.5]}, "b": {"by_threshold": [0.8, 0.7, 0.1]}, "undrawn": {"liver": 0.9}}
    assert ablation._best({"cases": scans}) == 0.5


def test_of_a_scan_without_liver_no_tumour_is_kept():
    grid = Grid((2, 3, 4), (1.0, 1.0, 1.0))
    kept = ablation_rows._Kept()
    assert not kept.within(LabelMap(np.ones(grid.shape, np.uint8), grid)).any()
    half = CoarseLiver(np.full(grid.shape, 0.5, np.float32), np.ones(grid.shape, bool), grid, found=True)
    box = Box((1, 1, 2), (2, 3, 4))
    sure = RoiProbabilities(*[np.full((1, 2, 2), 0.5, np.float32)] * 2, grid.cropped(box))
    kept.fuse(half, sure, grid, box, load_settings("tumor").policy)
    labels = np.zeros(grid.shape, np.uint8)
    labels[1, 1] = 1
    found = kept.within(LabelMap(labels, grid))
    assert found[1, 1, 2:].tolist() == [0.5, 0.5]
    assert np.count_nonzero(found) == 2


def test_what_was_trained_otherwise_is_not_taken_for_what_is_asked_for(tmp_path):
    (tmp_path / "cascade-1").mkdir()
    settings = as_table(ablation.small_settings("tumor", "training.seed=1", "training.steps=20"))
    there = json.loads(json.dumps({"settings": settings, "learners": ["a"]}))
    other = {**there, "settings": {**there["settings"], "training": {}}}
    assert ablation._difference(there, other) == "with other [training]"
    assert ablation._difference(there, {**there, "learners": ["b"]}) == "on other scans"
    (tmp_path / "cascade-1" / "done.json").write_text(json.dumps({"steps": 20, "asked": there}))
    case = SimpleNamespace(name="b", survey=SimpleNamespace(content="b"))
    with (
        patch.object(ablation, "_dataset", lambda *_: SimpleNamespace(cases=[case], preparations={})),
        patch.object(ablation, "split_by_fold", lambda cases, fold: (cases, [])),
        pytest.raises(UsageError, match="on other scans; give another OUT"),
    ):
        ablation._trained(tmp_path, "1/2", 30, "cascade", 1)


def test_windows_are_compared_on_patients_that_the_model_has_not_seen():
    cases = [
        SimpleNamespace(name=name, patient=patient, known_by=(name,))
        for name, patient in (("a", "P1"), ("b", "P1"), ("c", "P2"), ("d", "P3"))
    ]
    models = [
        SimpleNamespace(trained_on=("b", "d"), chosen_on=()),
        SimpleNamespace(trained_on=("c",), chosen_on=("d",)),
    ]
    assert [[case.name for case in part] for part in window_sizes.held_out(models, cases)] == [["c"], ["a", "b"]]


def test_a_line_says_what_a_window_is_worth():
    rows = {"a": {"liver": 0.9, "tumor": 0.5}, "b": {"liver": 0.8, "tumor": None}}
    found = dict(zip(SIZES, (Detection(3, 2, 5, 1), Detection(1, 1, 1, 1), Detection()), strict=True))
    line = window_sizes.row((2, 3, 4), 1.6, Validation(rows, lesions={"a": found}))
    assert line == "| 2x3x4 | 2 | liver 0.850, tumor 0.500 | 3 of 4 | 4 | a 0.500 |"
    plain = window_sizes.row((2, 3, 4), 1.6, Validation({"a": {"liver": 0.9}}))
    assert plain == "| 2x3x4 | 2 | liver 0.900 | - | - | a 0.900 |"


def test_a_network_is_asked_once_for_every_weight():
    asked = []

    def infer(image, where=None):
        asked.append(image)
        return image + 1

    once = fusion.Once(infer)
    one, two = np.zeros((1, 2, 3), np.float32), np.ones((1, 2, 3), np.float32)
    answers = [once(image) for image in (one, two, one, two)]
    answers[0][:] = 9
    assert [answer.max() for answer in (*answers, once(one))] == [9, 2, 1, 2, 1]
    assert len(asked) == 2


def test_the_tumours_of_a_weight_are_those_in_the_liver_that_is_best():
    tumors = np.zeros((3, 4, 3, 1, 1))
    tumors[0, 2, :, 0, 0] = 0.4, 0.5, 0.6
    tumors[1, 2], tumors[2, 2] = 2, 1
    cases = [
        SimpleNamespace(case="a", patient="p", liver=np.array([0.8, 0.85, 0.9, 0.7]), tumors=tumors, lesions=3),
        SimpleNamespace(case="b", patient="q", liver=np.array([0.6, 0.95, 0.94, 0.7]), tumors=None, lesions=0),
    ]
    told = "0.400, 1 of 3, 2 | 0.500, 1 of 3, 2 | 0.600, 1 of 3, 2"
    assert fusion.row((0.8, 0.5, 20.0), cases) == f"| 0.8 | 0.5 | 20 | 0.7000 | 0.9000 | 0.9200 | 0.7000 | {told} |"


def test_of_each_candidate_it_is_told_whether_it_is_true_and_how_well_it_can_be_seen(monkeypatch):
    grid = Grid(fakes.scene().shape, (2.0, 2.0, 2.0))
    truth = np.zeros(grid.shape, np.uint8)
    monkeypatch.setattr(visible, "read_label", lambda case, grid: LabelMap(truth, grid))
    turn = SimpleNamespace(case=None, volume=Volume(fakes.scene(), grid), runner=fakes.fake_runner())
    ((true, ml, peak, contrast, hu),) = visible.lesions(turn)
    assert (true, peak, contrast, hu) == (False, 1, 100, 200)
    assert ml == pytest.approx(5 * 6 * 6 * 0.008)
    truth[11, 14, 13] = 2  # its last voxel
    assert next(visible.lesions(turn))[0]


def test_of_painted_tumours_only_true_ones_are_neither_sought_nor_told():
    regions = torch.ones(2, 1, 1, 6)
    regions[1, ..., 3:] = 0
    regions[1, ..., 0] = 0
    pools = SimpleNamespace(
        name="tumor", regions=("liver", "tumor"), pools={"lesion": np.flatnonzero, "liver": np.flatnonzero}
    )
    case = SimpleNamespace(scores_tumor=True, labels=lambda stage: np.ones(2), image=lambda stage: None)
    with ablation_rows.painted_only():
        assert sampler._trust(regions, (True, True))[:, 0, 0].tolist() == [[1] * 6, [0, 0, 0, 0, 1, 1]]
        assert set(sampler._load(case, pools).centres) == {"liver"}
    assert sampler._trust(regions, (True, True)).all()
    assert set(sampler._load(case, pools).centres) == {"lesion", "liver"}


def test_average_precision_is_the_mean_precision_at_each_true_voxel():
    truth = np.array([True, False, True, False])
    assert one_stage.average_precision(np.array([0.1, 0.2, 0.9, 0.5], np.float32), truth) == pytest.approx(
        (1 + 2 / 4) / 2
    )
    assert one_stage.average_precision(np.array([0.8, 0.2, 0.9, 0.5], np.float32), truth) == 1


def test_a_stage_by_itself_is_scored_by_patient():
    ends = [0.0] * (len(one_stage.THRESHOLDS) - 1)
    drawn = {"a": {"precision": 0.2, "dice": [0.1, *ends]}, "b": {"precision": 0.4, "dice": [0.3, *ends]}}
    found = {**drawn, "c": {"precision": 0.9, "dice": [0.8, *ends]}, "healthy": {"false": [7.0, *ends]}, "undrawn": {}}
    table = one_stage.tumor_table(
        {"recipe": [found]}, {"a": "P1", "b": "P1", "c": "P2", "healthy": "P3", "undrawn": "P4"}
    )
    assert table.splitlines()[-1] == "| recipe | 0.600 | 0.500 | 0.05 | 7.0 | P1 0.30, P2 0.90 |"
    livers = {"a": {"liver": [[0.5, 0.4, 0.3], [0.9, 0.1, 0.2]]}, "c": {"liver": [[0.8, 0.3, 0.1], [0.7, 0.2, 0.4]]}}
    table = one_stage.liver_table({"recipe": [livers]}, {"a": "P1", "c": "P2"})
    assert table.splitlines()[-1] == "| recipe | 0.800 | 0.150 | 0.300 | P1 0.90, P2 0.70 |"


def test_what_a_stage_calls_tumour_counts_in_the_true_liver_alone():
    case = SimpleNamespace(labels=lambda stage: np.array([[[0, 1, 2, 1]]], np.uint8), scores_tumor=True)
    scores = one_stage.tumor_scores(np.array([[[0.9, 0.0, 0.5, 0.5]]], np.float32), case, 2.0)
    assert scores["precision"] == 1
    assert scores["dice"][one_stage.THRESHOLDS.index(0.5)] == pytest.approx(2 / 3)
    healthy = SimpleNamespace(
        labels=lambda stage: np.array([[[0, 1, 1, 1]]], np.uint8),
        scores_tumor=True,
    )
    false = one_stage.tumor_scores(np.array([[[0.9, 0.0, 0.5, 0.5]]], np.float32), healthy, 2.0)["false"]
    assert false[one_stage.THRESHOLDS.index(0.5)] == 4
    case.scores_tumor = False
    assert one_stage.tumor_scores(np.zeros((1, 1, 4), np.float32), case, 2.0) == {}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of two packages, with the scan of `fakes.scene` in each; only the first holds a liver too."""
    image, mask = tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"
    hu = fakes.scene()
    for path, array in ((image, hu), (mask, (hu > 50).astype(np.uint8) * 5 + (hu < 0) * np.uint8(9))):
        picture = SimpleITK.GetImageFromArray(array)
        picture.SetSpacing((2.0, 2.0, 3.0))
        SimpleITK.WriteImage(picture, path)
    folder = tmp_path / "packages"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a-1-py3-none-any.whl", "w") as wheel:
        wheel.write(image, "a/image.nii.gz")
        wheel.write(mask, "a/mask.nii.gz")
        wheel.writestr("a/other.py", "")
    with tarfile.open(folder / "b-2.tar.gz", "w:gz") as archive:
        archive.add(image, "b-2/data/image.nii.gz")
    scans = (
        elsewhere.Found("first one", "a-1", "a/image.nii.gz", "a/mask.nii.gz", learned_by=1),
        elsewhere.Found("second", "b-2", "b-2/data/image.nii.gz", learned_by=0, lower_mm=30.0),
    )
    for module in (elsewhere, more_scans):
        monkeypatch.setattr(module, "SCANS", scans)
    return folder


def test_a_scan_is_taken_out_of_its_package_and_its_mask_is_the_label_of_the_liver(packages, tmp_path):
    folder, (first, second) = tmp_path / "unpacked", elsewhere.SCANS
    elsewhere.unpacked(packages, folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["a/image.nii.gz", "a/mask.nii.gz", "b-2/data/image.nii.gz"]
    what, spacing, ml, dice, tumors, _ = elsewhere.row(first, folder, fakes.fake_runner())
    assert (what, spacing, ml) == ("first one", "3 x 2 x 2", "40")
    assert float(dice) > 0.95
    assert tumors == "2.2 mL: 1, 1 of 0.5 mL or more"
    assert elsewhere.row(second, folder, fakes.fake_runner())[3] == "-"
    (packages / "b-2.tar.gz").unlink()
    with pytest.raises(SystemExit, match=r"packages: no b-2; see --help"):
        elsewhere.unpacked(packages, folder)


def test_scans_in_packages_become_healthy_cases_of_one_network_each(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(more_scans, "load_runner", lambda *_, **__: fakes.fake_runner())
    lits, data, more = made_dataset.lits(tmp_path / "lits", 50, 51, 52), tmp_path / "data", tmp_path / "more"
    assert run_command(["prepare", str(lits), "-o", str(data)]) == 0
    more_scans.main([str(packages), str(lits), str(data), str(more)])
    tables = [{case.name: case for case in find_cases(more / f"tumor-{k}.csv")} for k in (0, 1)]
    made, known = {"first-one", "second"}, {"volume-50", "volume-51", "volume-52"}
    assert [made & set(table) for table in tables] == [{"second"}, {"first-one"}]
    left = [known - set(table) for table in tables]
    assert [len(names) for names in left] == [1, 1]
    assert left[0] != left[1]
    hu = fakes.scene()
    for table, name, slices in ((tables[1], "first-one", 20), (tables[0], "second", 10)):
        liver = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(table[name].label.path))
        np.testing.assert_array_equal(liver, hu[:slices] > 50)
        assert table[name].scores_tumor
    again = tmp_path / "again"
    assert (
        run_command(
            ["prepare", str(more / "tumor-0.csv"), "-o", str(again), "--tumor-config", str(more / "tumor.toml")]
        )
        == 0
    )
    assert load_dataset(again).preparations["tumor"].spacing_mm == load_dataset(data).preparations["tumor"].spacing_mm


def test_what_hangs_on_a_liver_by_a_thread_is_left_out():
    liver = np.zeros((3, 30, 40), bool)
    liver[:, 2:12, 2:12] = True
    heart, thread = np.s_[1, 2:9, 20:27], np.s_[1, 4:6, 12:20]
    liver[heart] = liver[thread] = True
    kept = more_scans.without_spots(liver)
    assert not kept[heart].any()
    liver[:, :, 14:] = False
    np.testing.assert_array_equal(kept, liver)
