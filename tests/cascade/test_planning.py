import json
import re
import shutil
import tomllib
from dataclasses import replace

import pytest
import torch

from cascade.cli import run_command
from cascade.plan_file import PLAN, is_edited, plan_of, settings_for
from cascade.planning import basis
from cascade.settings import load_settings
from preprocess.errors import InputError, UsageError
from preprocess.prepared import load_dataset
from tests.made_dataset import lits

NONE = {"liver": None, "tumor": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two tiny scans, and these prepared on a machine without GPU."""
    folder = tmp_path_factory.mktemp("made")
    assert run_command(["prepare", str(lits(folder / "lits", 7, 8)), "-o", str(folder / "data"), "--jobs", "1"]) == 0
    return folder


@pytest.fixture
def data(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "data"


def again(data, *options):
    return run_command(["prepare", str(data.parent / "lits"), "-o", str(data), "--jobs", "1", *options])


def edit(data, old, new):
    text = (data / PLAN).read_text("utf-8")
    assert old in text
    (data / PLAN).write_text(text.replace(old, new), "utf-8")


def test_a_plan_says_what_was_measured_beside_what_was_chosen(data):
    text = (data / PLAN).read_text("utf-8")
    table = tomllib.loads(text)
    assert table["liver"]["preparation"]["finest_mm"] == [3.0, 3.0, 3.0]
    assert table["tumor"]["preparation"]["coarsest_mm"] == [2.5, 1.25, 1.25]
    assert table["tumor"]["network"] == {"features": [32, 64, 128, 160], "stem": 2, "encoder": "plain", "blocks": 1}
    for part in (
        "# 2 cases of 2 patients.",
        "the median 5 x 0.8 x 0.7 of 5 x 0.8 x 0.7 to 5 x 0.8 x 0.7, held between 3 x 3 x 3 and 3 x 3 x 3",
        "2 tumours, median 4 mm, 10 % below 4 (2.5 voxels)",
        "; the recipe has 64, 96, 96",
        "; the recipe's\n",
        "levels, the coarsest of 2 x 2 x 2 voxels of 48 x 48 x 48 mm",
        "99 % of liver lie in 1",
        "99 % of tumor lie in 5",
    ):
        assert part in text
    assert all("  # " in line for line in text.splitlines() if " = " in line)


def test_a_gpu_gives_the_plan_that_a_cpu_does(data, monkeypatch):
    first = tomllib.loads((data / PLAN).read_text("utf-8"))
    monkeypatch.setattr("cascade.planning.pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr("cascade.planning.memory_bytes", lambda device: 80e9)
    monkeypatch.setattr("cascade.planning.autocast_dtype", lambda device: torch.bfloat16)
    assert again(data) == 0
    text = (data / PLAN).read_text("utf-8")
    assert "Made for a GPU of 80 GB" in text
    assert tomllib.loads(text) == first


def test_training_takes_the_plan_under_config_and_set(data, tmp_path):
    edit(data, "batch = 2", "batch = 3")
    config = tmp_path / "mine.toml"
    config.write_text("[network]\nstem = 1\n[sampling]\npatch = [32, 32, 48]\n")
    chosen = load_settings("liver", [config], ["sampling.patch=[48, 48, 48]"], data / PLAN)
    assert (chosen.sampling.batch, chosen.network.stem, chosen.sampling.patch) == (3, 1, (48, 48, 48))
    assert load_settings("liver", [], [], data / PLAN).sampling.patch == (32, 32, 32)
    assert load_settings("liver").sampling.patch == (64, 96, 96)


def test_a_training_uses_the_plan(data, tmp_path, capsys):
    edit(data, "features = [32, 64, 96, 128]", "features = [4, 8]")
    run = ["train-liver", str(data), "-o", str(tmp_path / "run"), "--fold", "all", "--steps", "1"]
    assert run_command([*run, "--set", "sampling.patch=[16, 16, 16]"]) == 0
    from cascade.checkpoint import load_model
    from cascade.stages import LIVER

    assert load_model(tmp_path / "run" / "last.safetensors", LIVER).settings.network.features == (4, 8)


def test_a_plan_is_made_anew_until_it_is_edited_and_then_kept(data, capsys):
    first = (data / PLAN).read_text("utf-8")
    assert not is_edited(data / PLAN)
    assert again(data, "--memory", "3") == 0
    assert f"plan for training: {data / PLAN}" in capsys.readouterr().out
    assert "up to 3 GB (--memory)" in (data / PLAN).read_text("utf-8") != first
    edit(data, "batch = 4", "batch = 1")
    edited = (data / PLAN).read_text("utf-8")
    capsys.readouterr()
    assert again(data) == 0
    assert f"{data / PLAN} was edited and is kept; delete it for a new plan" in capsys.readouterr().out
    assert (data / PLAN).read_text("utf-8") == edited
    (data / PLAN).unlink()
    assert again(data) == 0
    assert (data / PLAN).read_text("utf-8") == first


def test_another_spacing_in_the_plan_needs_preparing_and_gets_it(data, tmp_path, capsys):
    edit(data, "[3.0, 3.0, 3.0]", "[4.0, 3.0, 3.0]")
    with pytest.raises(
        InputError, match=r"says 4 x 3 x 3 mm, .* prepared at 3 x 3 x 3 mm.*: run cascade prepare again"
    ):
        plan_of(data, "liver", load_dataset(data))
    assert run_command(["train-liver", str(data), "-o", str(tmp_path / "run"), "--steps", "1"]) == 3
    assert again(data) == 0
    assert load_dataset(data).preparations["liver"].spacing_mm == (4.0, 3.0, 3.0)
    assert plan_of(data, "liver", load_dataset(data)) == data / PLAN


def test_another_spacing_for_a_training_alone_is_refused(data, tmp_path, capsys):
    command = ["train-liver", str(data), "-o", str(tmp_path / "run"), "--steps", "1"]
    assert run_command([*command, "--set", "preparation.coarsest_mm=[4, 3, 3]"]) == 3
    told = capsys.readouterr().err
    assert "[preparation] says 4 x 3 x 3 mm" in told
    assert "prepared at 3 x 3 x 3 mm, [-160.0, 240.0] HU: give it to cascade prepare --liver-config" in told
    assert not (tmp_path / "run").exists()
    # what comes to the same is no other way
    assert settings_for(data, "liver", load_dataset(data), (), ["preparation.finest_mm=[2, 3, 3]"])


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"\xff\0", "not valid TOML"),
        (b"[liver", "not valid TOML"),
        (b"[spleen]\n", "unknown key spleen; known here: liver, tumor"),
        (b"liver = 3\n", "liver must be a table, [liver]"),
        (b"[liver.network]\nwidth = 3\n", "[liver]: unknown key network.width"),
        (b"[liver.sampling]\nbatch = 0\n", "[liver]: sampling.patch and sampling.batch must be positive"),
        (b"[liver.sampling]\npatch = [60, 64, 64]\n", "[liver]: sampling.patch = (60, 64, 64) must be multiples"),
    ],
)
def test_a_damaged_plan_is_one_line(data, tmp_path, capsys, content, part):
    (data / PLAN).write_bytes(content)
    with pytest.raises(UsageError):
        plan_of(data, "liver", load_dataset(data))
    for command in (
        ["train-liver", str(data), "-o", str(tmp_path / "run")],
        ["prepare", str(data.parent / "lits"), "-o", str(data)],
    ):
        capsys.readouterr()
        assert run_command(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"cascade: {data / PLAN}: ")
        assert part in line


def test_a_dataset_from_before_there_were_plans_is_trained_on_as_before(data):
    (data / PLAN).unlink()
    for path in data.glob("cases/*/case.json"):
        table = json.loads(path.read_text())
        del table["survey"]["measures"]
        path.write_text(json.dumps(table))
    dataset = load_dataset(data)
    assert plan_of(data, "liver", dataset) is None
    assert dataset.cases[0].survey.measures is None
    # its measures are taken when it is prepared again, its arrays stay
    arrays = {path: path.stat().st_mtime_ns for path in data.glob("cases/*/*.npy")}
    assert again(data) == 0
    assert load_dataset(data).cases[0].survey.measures.lesion_mm == (4.0,)
    assert arrays == {path: path.stat().st_mtime_ns for path in arrays}


def test_what_a_config_of_prepare_sets_is_not_planned(tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text("[sampling]\npatch = [64, 64, 64]\n[preparation]\nwindow_hu = [0, 50]\n")
    begun = basis(tmp_path, {**NONE, "liver": config})
    assert begun.fixed == {"liver": {"sampling.patch", "preparation.window_hu"}, "tumor": frozenset()}
    assert [plan.fixed_window for plan in begun.stage_plans().values()] == [True, False]


def test_a_plan_takes_over_all_that_a_config_sets(made, tmp_path):
    config, data = tmp_path / "mine.toml", tmp_path / "data"
    config.write_text(
        "[lesions]\nshare = 0.0\ndiameter_mm = [4.0, 50.0]\n[sampling]\nbatch = 3\nshares = { liver = 1.0 }\n"
        '[optimizer]\nname = "sgd"\n[window]\nsize = [32, 32, 32]\n'
    )
    words = ["prepare", str(made / "lits"), "-o", str(data), "--jobs", "1", "--liver-config", str(config)]
    assert run_command(words) == 0
    planned = settings_for(data, "liver", load_dataset(data), (), ())
    assert (planned.lesions.share, planned.lesions.diameter_mm, planned.optimizer.name) == (0.0, (4.0, 50.0), "sgd")
    assert (planned.sampling.batch, planned.window.size) == (3, (32, 32, 32))
    assert planned.sampling.shares["liver"] == 1.0
    assert 'name = "sgd"  # as it was set\n' in (data / PLAN).read_text("utf-8")


def test_a_config_and_a_kept_plan_that_prepare_in_two_ways_are_refused(data, tmp_path, capsys):
    edit(data, "[3.0, 3.0, 3.0]", "[5.0, 4.0, 4.0]")
    config = tmp_path / "mine.toml"
    config.write_text("[preparation]\nfinest_mm = [4.0, 3.0, 3.0]\ncoarsest_mm = [4.0, 4.0, 4.0]\n")
    assert again(data, "--liver-config", str(config)) == 2
    assert "was edited and is kept: change [liver.preparation] there" in capsys.readouterr().err
    config.write_text("[preparation]\nfinest_mm = [4.0, 3.0, 3.0]\ncoarsest_mm = [6.0, 4.0, 4.0]\n")
    assert again(data, "--liver-config", str(config)) == 0
    assert load_dataset(data).preparations["liver"].spacing_mm == (5.0, 4.0, 4.0)  # the plan decides


def test_what_does_not_fit_into_the_memory_at_its_smallest_is_said(data, capsys):
    assert again(data, "--memory", "0.05") == 0
    told = capsys.readouterr().out
    assert re.search(r"warning: a training step of stage liver takes about 0\.\d+ GB, more than the 0\.05 GB", told)


def test_a_plan_for_another_network_holds_all_of_it(made, tmp_path):
    """A patch of the stem that it was planned with does not fit the recipe's."""
    small = tmp_path / "small.toml"
    small.write_text("[network]\nstem = 1\nfeatures = [8, 16, 32, 64]\n[sampling]\npatch = [40, 48, 48]\n", "utf-8")
    data = tmp_path / "data"
    assert (
        run_command(["prepare", str(made / "lits"), "-o", str(data), "--jobs", "1", "--liver-config", str(small)]) == 0
    )
    plan = plan_of(data, "liver", load_dataset(data))
    assert load_settings("liver", plan=plan).network == load_settings("liver", (small,)).network


def test_a_window_is_widened_unless_it_was_set(data):
    case = load_dataset(data).cases[0]
    bright = replace(case.survey, measures=replace(case.survey.measures, tumor_hu=(10.0, 50.0, 333.0)))
    plan = basis(data / "none", NONE).stage_plans()["liver"]
    assert plan.resolved([bright]).window_hu == (-160.0, 340.0)
    assert replace(plan, fixed_window=True).resolved([bright]).window_hu == (-160.0, 240.0)


def test_a_prepared_case_is_known_by_its_scan_and_by_its_public_patient(data):
    assert [case.known_by for case in load_dataset(data).cases] == [
        (case.survey.content, f"lits-{number}") for case, number in zip(load_dataset(data).cases, (7, 8), strict=True)
    ]
