"""Rows 95 to 97 and 101 to 114 of the catalogue of faults: training, its state, and the prepared dataset."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import preprocess.build
from cascade import batches, sampler, stepping, training
from cascade.checkpoint import load_stage_models
from cascade.cli import run_command
from cascade.inference import as_infer
from cascade.interrupts import Interrupted
from cascade.locks import locked
from cascade.logs import Logged, RunLog
from cascade.losses import LOSSES, deep_loss, deep_sums
from cascade.machine import heard
from cascade.resume import PREVIOUS, RESUME, resumed_state, save_state
from cascade.settings import Window, load_settings
from cascade.stages import STAGES
from cascade.tensorfile import read_tensors
from cascade.training import train
from cascade.training_state import fresh_state
from cascade.unet import UNet3d
from cascade.validation import Validation
from preprocess import files, prepared
from preprocess.build import StagePlan, prepare_dataset
from preprocess.cases import Case, LabelFile
from preprocess.errors import InputError, ModelError, ResourceError
from preprocess.geometry import Grid
from preprocess.io import write_image
from preprocess.prepared import PreparedCase, load_dataset
from preprocess.volume import LabelMap, Volume
from tests.made_training import QUIET, TINY, dataset_at, job_at, log_without_seconds

ROOT = Path(__file__).parents[2]
SETTINGS = [word for setting in (*TINY, "training.validations=1") for word in ("--set", setting)]
WITHOUT_STEPS = [word for setting in TINY if "steps=4" not in setting for word in ("--set", setting)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path):
    return dataset_at(tmp_path / "data")


class Killed(BaseException):
    """What stands for a SIGKILL: nothing catches it, and after it no call reaches the disk."""


class Disk:
    """Counts the calls that change the disk; from call `last` on, none has an effect, a write half of one."""

    CALLS = ("open", "write", "fsync", "replace", "link", "unlink")

    def __init__(self, monkeypatch, last=None):
        self.names, self.last = [], last
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._shim(name, getattr(os, name)))

    def _shim(self, name, real):
        def call(*arguments, **options):
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments, **options)
            self.names.append(name)
            if self.last is None or len(self.names) <= self.last:
                return real(*arguments, **options)
            if name == "write" and len(self.names) == self.last + 1:
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise Killed

        return call

    def cuts(self):
        """The calls at which to cut: all, but of a run of writes to one file the first, a middle and the last."""
        for place, name in enumerate(self.names):
            run = [self.names[k : k + 1] == ["write"] for k in (place - 1, place, place + 1)]
            if name != "write" or not all(run) or place % 29 == 0:
                yield place


def content_of(folder):
    """Everything under a final name in a run folder, TensorBoard's events aside."""
    named = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in named)).hexdigest()


def tensors_of(folder):
    return {name: read_tensors(folder / f"{name}.safetensors").tensors for name in ("best", "last")}


def assert_same_run(one, other):
    for name, wanted in tensors_of(one).items():
        found = tensors_of(other)[name]
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted), name
    assert log_without_seconds(one) == log_without_seconds(other)


def again(job):
    """What a user does after a kill: the same command, with --resume where there is something to resume."""
    resume = (job.folder / RESUME).exists() or (job.folder / PREVIOUS).exists()
    assert resume or not list(job.folder.glob("*.safetensors"))
    return train(replace(job, resume=resume), QUIET)


def test_row_95_killed_at_every_write_a_run_resumes_as_if_it_had_not_been(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY_S", -1.0)  # a save after every step
    monkeypatch.setattr(RunLog, "_open_board", lambda *_: None)
    small = ("network.features=[2, 4]", "network.stem=1", "loss.deep_levels=0", "training.steps=2", "sampling.batch=1")
    whole = job_at(tmp_path / "whole", data, *small)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        train(whole, QUIET)
    assert {"write", "fsync", "replace", "link"} <= set(disk.names)
    ends = {}
    for cut in disk.cuts():
        killed = job_at(tmp_path / f"cut-{cut}", data, *small)
        with monkeypatch.context() as patch:
            Disk(patch, cut)
            with pytest.raises(Killed):
                train(killed, QUIET)
        ends.setdefault(content_of(killed.folder), killed)
    assert len(ends) > 8
    for killed in ends.values():
        again(killed)
        assert_same_run(whole.folder, killed.folder)


def test_row_95_a_real_sigkill_in_the_middle_of_a_save(data, tmp_path):
    whole, parted = (job_at(tmp_path / name, data) for name in ("whole", "parted"))
    train(whole, QUIET)
    code = f"""
import os, signal
from pathlib import Path
from cascade import training
from tests.made_training import QUIET, job_at
training.SAVE_EVERY_S = -1.0
replace, calls = os.replace, []
def killing(*names):
    calls.append(names)
    if len(calls) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(*names)
os.replace = killing
import torch

import preprocess.build
torch.set_num_threads(1)
training.train(job_at(Path({str(parted.folder)!r}), Path({str(data)!r})), QUIET)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    with locked(parted.folder):
        assert not list(parted.folder.glob(".*.tmp"))
    again(parted)
    assert_same_run(whole.folder, parted.folder)


def test_row_95_a_better_model_is_not_lost_when_the_state_is_older(data, tmp_path):
    job = job_at(tmp_path / "run", data)
    train(job, QUIET)
    best = resumed_state(job).best
    assert best > 0
    state = fresh_state(job)
    save_state(job, state)  # as after a kill between the two: a state that knows of no best model
    assert resumed_state(job).best == best


def test_row_95_a_resumed_run_continues_the_mean_of_the_losses(data, tmp_path):
    whole, parted = (job_at(tmp_path / name, data, "training.steps=12", held_out=[]) for name in ("whole", "parted"))
    train(whole, QUIET)

    def interrupt(step, *_):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(parted, interrupt)
    again(parted)
    assert_same_run(whole.folder, parted.folder)


def test_row_96_a_signal_during_a_look_stops_at_once_and_the_look_is_made_up(data, tmp_path, monkeypatch):
    whole, parted = (job_at(tmp_path / name, data) for name in ("whole", "parted"))
    train(whole, QUIET)

    def slow(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr(training, "validate", slow)
        with pytest.raises(Interrupted, match="step 2; go on with --resume") as caught:
            train(parted, QUIET)
    assert caught.value.exit_code == 143
    again(parted)
    assert_same_run(whole.folder, parted.folder)


def test_row_96_a_signal_while_waiting_for_a_batch_leaves_a_state_and_exit_130(data, tmp_path, monkeypatch, capsys):
    make, gate = sampler.Sampler.batch, threading.Event()

    def hanging(self, step):
        if step == 2:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            gate.wait()
        return make(self, step)

    monkeypatch.setattr(sampler.Sampler, "batch", hanging)
    monkeypatch.setattr(batches, "_PARTING_S", 0.1)
    command = ["train-liver", str(data), "-o", str(tmp_path / "run"), "--fold", "0/2", *SETTINGS]
    assert run_command(command) == 130
    gate.set()
    assert "state saved at step 2; go on with --resume" in capsys.readouterr().err
    assert read_tensors(tmp_path / "run" / RESUME).header["step"] == 2


def test_row_96_a_second_sigint_stops_at_once(data, tmp_path, monkeypatch):
    def save(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    def interrupt(step, *_):
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(training, "save_state", save)

    with pytest.raises(KeyboardInterrupt):
        train(job_at(tmp_path / "run", data, held_out=[]), interrupt)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def test_row_97_of_a_damaged_state_the_one_before_it_is_taken_with_a_warning(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY_S", -1.0)
    whole, parted = (job_at(tmp_path / name, data) for name in ("whole", "parted"))
    train(whole, QUIET)
    train(parted, QUIET)
    flip(parted.folder / RESUME, -1000)
    with heard() as said:
        outcome = train(replace(parted, resume=True), QUIET)
    assert len(said) == 1
    assert "resume.safetensors: not a whole safetensors file (the checksum does not fit" in said[0]
    assert outcome.warnings == tuple(said)
    assert_same_run(whole.folder, parted.folder)


def test_a_run_of_the_other_stage_is_not_gone_on_with(data, tmp_path, capsys):
    options = [str(data), "-o", str(tmp_path / "run"), "--fold", "0/2", *SETTINGS]
    assert run_command(["train-liver", *options]) == 0
    before = content_of(tmp_path / "run")
    capsys.readouterr()
    assert run_command(["train-tumor", *options, "--resume"]) == 4
    assert "resume.safetensors: a training of stage liver, not tumor; give that one's -o" in capsys.readouterr().err
    assert content_of(tmp_path / "run") == before


@pytest.mark.parametrize("limit", [["--steps", "3"], ["--minutes", "0.005"]])
def test_a_resumed_run_ends_where_it_was_to_end(data, tmp_path, limit):
    """Not at the steps of the settings: the user has said once how long it is to be."""
    command = ["train-liver", str(data), "-o", str(tmp_path / "run"), "--fold", "0/2", *WITHOUT_STEPS]
    assert run_command([*command, *limit]) == 0
    steps = read_tensors(tmp_path / "run" / RESUME).header["step"]
    assert run_command([*command, "--resume"]) == 0
    assert read_tensors(tmp_path / "run" / RESUME).header["step"] == steps
    assert run_command([*command, "--resume", "--steps", str(steps + 1)]) == 0
    assert read_tensors(tmp_path / "run" / RESUME).header["step"] == steps + 1
    assert run_command([*command, "--resume", "--set", f"training.steps={steps + 2}"]) == 0
    assert read_tensors(tmp_path / "run" / RESUME).header["step"] == steps + 2


def test_a_run_shorter_than_its_settings_say_stays_so(data, tmp_path):
    command = ["train-liver", str(data), "-o", str(tmp_path / "run"), "--fold", "0/2", *SETTINGS]  # of 4 steps
    assert run_command([*command, "--steps", "2"]) == 0
    assert run_command([*command, "--resume"]) == 0
    assert read_tensors(tmp_path / "run" / RESUME).header["step"] == 2


def test_a_resumed_training_of_folds_gives_all_the_length_that_the_first_was_given(data, tmp_path, monkeypatch):
    command = ["train-liver", str(data), "-o", str(tmp_path / "run"), "--folds", "2", *WITHOUT_STEPS]
    work = training.train
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", lambda job, show: work(job, show) if "0" in job.folder.name else 1 / 0)
        assert run_command([*command, "--steps", "3"]) == 1
    assert run_command([*command, "--resume"]) == 0
    assert read_tensors(tmp_path / "run" / "fold-1" / RESUME).header["step"] == 3


def test_models_of_folds_whose_training_has_not_ended_are_no_ensemble(data, tmp_path):
    assert run_command(["train-liver", str(data), "-o", str(tmp_path / "run"), "--folds", "2", *SETTINGS]) == 0
    assert len(load_stage_models(tmp_path / "run", "liver")) == 2
    shutil.copytree(tmp_path / "run", tmp_path / "models", ignore=shutil.ignore_patterns("resume*", "*.json"))
    shutil.copytree(tmp_path / "run", tmp_path / "fewer")
    (tmp_path / "run" / "fold-1" / "report.json").unlink()  # as long as it goes on
    shutil.rmtree(tmp_path / "fewer" / "fold-1")
    for name in ("run", "fewer"):
        with pytest.raises(ModelError, match="has not ended; go on with --resume, or give one fold"):
            load_stage_models(tmp_path / name, "liver")
    assert len(load_stage_models(tmp_path / "models", "liver")) == 2  # copies of the models alone


def test_folds_that_were_trained_one_by_one_are_an_ensemble(data, tmp_path):
    for k in range(2):
        command = ["train-liver", str(data), "-o", str(tmp_path / "run" / f"fold-{k}"), "--fold", f"{k}/2", *SETTINGS]
        assert run_command(command) == 0
    assert len(load_stage_models(tmp_path / "run", "liver")) == 2


def test_a_run_that_goes_on_has_no_report_of_an_earlier_end(data, tmp_path, monkeypatch):
    command = ["train-liver", str(data), "-o", str(tmp_path / "run"), "--fold", "0/2", *SETTINGS]
    assert run_command(command) == 0
    with monkeypatch.context() as patch:
        patch.setattr(training, "_loop", lambda *_: 1 / 0)
        assert run_command([*command, "--resume", "--steps", "9"]) == 1
    assert not (tmp_path / "run" / "report.json").exists()


def test_where_there_is_nothing_to_resume_that_is_said(data, tmp_path, capsys):
    assert run_command(["train-liver", str(data), "-o", str(tmp_path / "run"), *SETTINGS, "--resume"]) == 4
    assert f"{tmp_path / 'run'}: holds no training to resume; leave out --resume" in capsys.readouterr().err


def test_row_97_a_run_whose_states_are_all_damaged_is_refused_and_not_touched(data, tmp_path, capsys):
    command = ["train-liver", str(data), "-o", str(tmp_path / "run"), "--fold", "0/2", *SETTINGS]
    assert run_command(command) == 0
    for name in (RESUME, PREVIOUS):
        path = tmp_path / "run" / name
        path.write_bytes(path.read_bytes()[:-7])
    before = content_of(tmp_path / "run")
    capsys.readouterr()
    assert run_command([*command, "--resume"]) == 4
    assert "resume.safetensors: not a whole safetensors file" in capsys.readouterr().err
    assert content_of(tmp_path / "run") == before


def test_row_97_a_damaged_best_model_is_chosen_anew_with_a_warning(data, tmp_path):
    job = job_at(tmp_path / "run", data)
    train(job, QUIET)
    flip(job.folder / "best.safetensors", -50)
    longer = replace(job.settings, training=replace(job.settings.training, steps=8))
    outcome = train(replace(job, resume=True, settings=longer), QUIET)
    assert "the best model so far is lost" in outcome.warnings[0]
    assert outcome.best is not None


def labelled(folder, value=60):
    """A case on disk whose arrays come out alike on every machine: whole HU, spacing kept."""
    folder.mkdir(exist_ok=True)
    grid = Grid((6, 8, 10), (5.0, 5.0, 5.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:5, 2:7, 3:8] = 1
    labels[2:4, 3:5, 4:6] = 2
    write_image(folder / "image.nii.gz", Volume(np.where(labels > 0, value, -100).astype(np.int16), grid))
    write_image(folder / "label.nii.gz", LabelMap(labels, grid))
    return Case("one", folder / "image.nii.gz", LabelFile(folder / "label.nii.gz"), "one")


@pytest.fixture
def build(tmp_path, monkeypatch):
    """`build(case, spacing)` prepares one case without new processes; returns its folder and how often it was built."""
    monkeypatch.setattr("preprocess.workers.pool", ThreadPoolExecutor)
    built, save = [], preprocess.build._save
    monkeypatch.setattr("preprocess.build._save", lambda path, array: (built.append(path.name), save(path, array)))

    def make(case, spacing=5.0):
        built.clear()
        plan = load_settings(
            "liver",
            assignments=[f"preparation.{k}=[{spacing}, {spacing}, {spacing}]" for k in ("finest_mm", "coarsest_mm")],
        ).preparation
        plans = {name: StagePlan(plan, stage.training_box) for name, stage in STAGES.items()}
        prepare_dataset([case], tmp_path / "data", plans, 1, lambda _: None)
        return tmp_path / "data" / "cases" / "one", len(built)

    return make


def test_row_101_what_was_prepared_is_built_again_when_input_settings_or_format_change(build, tmp_path, monkeypatch):
    case = labelled(tmp_path / "in")
    assert build(case)[1] == 4
    assert build(case)[1] == 0
    assert build(case, spacing=10.0)[1] == 4
    labelled(tmp_path / "in", value=61)
    assert build(case, spacing=10.0)[1] == 4
    for module in (preprocess.build, prepared):
        monkeypatch.setattr(module, "FORMAT", prepared.FORMAT + 1)
    assert build(case, spacing=10.0)[1] == 4


def test_row_101_a_change_of_the_code_that_changes_the_arrays_needs_a_new_format(build, tmp_path):
    """When this fails, the arrays of `prepare` come out differently: raise FORMAT, then write the new figures here."""
    folder, _ = build(labelled(tmp_path / "in"), spacing=10.0)
    image, labels = np.load(folder / "tumor_image.npy"), np.load(folder / "tumor_labels.npy")
    middle = image[1, 1:3].astype(float).round(2).tolist()
    assert (prepared.FORMAT, image.shape, image.dtype, middle, labels.sum()) == FINGERPRINT


FINGERPRINT = (2, (3, 4, 5), np.float16, [[-0.7, -0.35, 0.0, -0.09, -0.6], [-0.7, -0.3, 0.1, 0.0, -0.59]], 13)


@pytest.mark.parametrize("harm", ["cut", "absent", "no end"])
def test_row_102_a_half_written_case_is_built_again(build, tmp_path, harm):
    case = labelled(tmp_path / "in")
    folder, _ = build(case)
    whole = (folder / "tumor_image.npy").read_bytes()
    if harm == "cut":
        (folder / "tumor_image.npy").write_bytes(whole[:-20])
    elif harm == "absent":
        (folder / "tumor_image.npy").unlink()
    else:
        (folder / "case.json").write_text((folder / "case.json").read_text()[:-30])
    assert build(case)[1] == 4
    assert (folder / "tumor_image.npy").read_bytes() == whole


@pytest.mark.parametrize(("spacing", "value"), [(10.0, 60), (5.0, 61)])
def test_row_102_killed_while_it_builds_anew_nothing_passes_for_what_was_before(
    build, tmp_path, monkeypatch, spacing, value
):
    folder, _ = build(labelled(tmp_path / "in"))
    before = (folder / "liver_image.npy").read_bytes()
    with monkeypatch.context() as patch:
        case = labelled(tmp_path / "in", value)
        disk = Disk(patch)
        build(case, spacing)
    refused = 0
    for cut in disk.cuts():
        build(labelled(tmp_path / "in"))
        case = labelled(tmp_path / "in", value)
        with monkeypatch.context() as patch:
            Disk(patch, cut)
            with pytest.raises(Killed):
                build(case, spacing)
        try:
            dataset = load_dataset(tmp_path / "data")
        except InputError as error:
            refused += "run cascade prepare" in str(error)
        else:  # nothing was changed yet, or everything was
            shapes = {5.0: (6, 8, 10), 10.0: (3, 4, 5)}
            assert dataset.cases[0].image("liver").shape == shapes[dataset.preparations["liver"].spacing_mm[0]]
        build(labelled(tmp_path / "in"))
        assert (folder / "liver_image.npy").read_bytes() == before
    assert refused > 10


def test_row_103_the_second_training_in_one_folder_is_refused(data, tmp_path, capsys):
    with locked(tmp_path / "run"):
        assert run_command(["train-liver", str(data), "-o", str(tmp_path / "run"), "--fold", "0/2", *SETTINGS]) == 5
    assert "another cascade is working in it" in capsys.readouterr().err


def test_row_103_a_killed_training_holds_no_lock_and_leaves_no_half_file(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from cascade.locks import locked
from preprocess.files import write_atomic
def write(path):
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
with locked(Path({str(tmp_path / "run")!r})):
    write_atomic(Path({str(tmp_path / "run" / "a")!r}), write)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "run").iterdir())) == 1
    with locked(tmp_path / "run"):
        assert list((tmp_path / "run").iterdir()) == []


def test_row_104_what_breaks_the_making_of_batches_names_the_case(data, tmp_path, capsys, monkeypatch):
    def broken(*_):
        raise IndexError("out of bounds")

    monkeypatch.setattr(sampler, "cut_patch", broken)
    assert run_command(["train-liver", str(data), "-o", str(tmp_path / "run"), "--fold", "0/2", *SETTINGS]) == 5
    assert "cascade: case a: making a batch failed (IndexError('out of bounds'))" in capsys.readouterr().err


def test_row_104_a_batch_that_never_comes_ends_the_training(data, tmp_path, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(sampler, "cut_patch", lambda *_: gate.wait())
    monkeypatch.setattr(training, "ahead", lambda make, start, case: batches.ahead(make, start, case, limit_s=0.3))
    with pytest.raises(ResourceError, match=r"^case a: no batch within 0.3 s"):
        train(job_at(tmp_path / "run", data), QUIET)
    gate.set()


def test_row_105_a_loss_that_stays_bad_ends_with_4_and_the_last_good_state(data, tmp_path, capsys, monkeypatch):
    real, calls = stepping.deep_loss, []

    def bad_from_the_third(sums, settings):
        calls.append(1)
        return real(sums, settings) * (float("nan") if len(calls) > 2 else 1.0)

    monkeypatch.setattr(stepping, "deep_loss", bad_from_the_third)
    monkeypatch.setattr(training, "SAVE_EVERY_S", -1.0)
    command = ["train-liver", str(data), "-o", str(tmp_path / "run"), "--fold", "all", *SETTINGS]
    assert run_command([*command, "--set", "training.steps=100"]) == 4
    assert "not finite 20 times in a row at step 22" in capsys.readouterr().err
    state = read_tensors(tmp_path / "run" / RESUME)
    assert state.header["bad_in_a_row"] == 19
    assert all(torch.isfinite(tensor).all() for tensor in state.tensors.values())
    assert run_command([*command, "--set", "training.steps=100", "--resume"]) == 4  # not 20 more
    assert "at step 22" in capsys.readouterr().err


def test_row_105_weights_that_are_not_finite_are_never_saved(data, tmp_path):
    job = job_at(tmp_path / "run", data, held_out=[])
    train(job, QUIET)
    before = content_of(job.folder)
    state = resumed_state(job)
    with torch.no_grad():
        state.network.head.weight[0] = float("inf")
    with pytest.raises(ModelError, match="not all finite numbers; the last good state is kept"):
        save_state(job, state)
    with torch.no_grad():
        state.average.head.weight[0] = float("nan")
    with pytest.raises(ModelError, match="not all finite"):
        training.save_model(job.folder / "last.safetensors", training.model_of(job, state, None))
    assert content_of(job.folder) == before


@pytest.mark.parametrize("name", LOSSES)
def test_row_106_a_batch_without_a_lesion_has_a_finite_loss_and_gradients(name):
    torch.manual_seed(0)
    settings = replace(load_settings("tumor").loss, name=name)
    target = torch.zeros(2, 2, 8, 8, 8)
    target[0, 0, 2:5] = 1  # some liver, no tumour; the second patch holds neither
    for trust in (torch.ones_like(target), torch.zeros_like(target)):
        logits = [torch.randn(2, 2, n, n, n).mul(30).requires_grad_() for n in (8, 4)]
        loss = deep_loss(deep_sums(logits, target, trust, settings), settings)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(level.grad).all() for level in logits)


@contextmanager
def out_of_memory_above(monkeypatch, owner, name, voxels):
    """A network that a GPU has room for only up to so many voxels at a time."""
    real = getattr(owner, name)

    def narrow(self, image):
        if image.numel() > voxels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")
        return real(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, narrow)
        yield


def test_row_107_a_gpu_too_small_for_a_batch_gets_halves_and_then_a_line(data, tmp_path, monkeypatch):
    patch = 8 * 10 * 12
    whole = job_at(tmp_path / "whole", data, "training.steps=1", held_out=[])
    halves = replace(whole, folder=tmp_path / "halves")
    halves.folder.mkdir()
    train(whole, QUIET)
    with out_of_memory_above(monkeypatch, UNet3d, "outputs", patch):
        outcome = train(halves, QUIET)
    assert outcome.steps == 1
    assert "batches go through the network in halves" in outcome.warnings[0]
    with (
        out_of_memory_above(monkeypatch, UNet3d, "outputs", patch - 1),
        pytest.raises(ResourceError, match="out of memory at step 1; lower"),
    ):
        train(job_at(tmp_path / "none", data), QUIET)


def test_row_107_halves_add_up_to_the_gradient_of_the_whole(data, tmp_path):
    job = job_at(tmp_path / "run", data, "loss.name='ce'", "sampling.batch=4")
    state = fresh_state(job)
    drawn = sampler.Sampler(job.train, job.stage, job.settings, job.preparation)
    losses, gradients = [], []
    for state.parts in (1, 2):
        losses.append(stepping._accumulated(state, drawn.batch(0), job))
        gradients.append(state.network.head.weight.grad.clone())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert torch.allclose(gradients[0], gradients[1], rtol=2e-2, atol=1e-4)


def test_row_107_prediction_halves_its_windows_once_with_a_warning(monkeypatch):
    torch.manual_seed(0)
    network, image = UNet3d((2, 4), 1), np.zeros((16, 16, 16), np.float32)
    infer = as_infer(network, Window((16, 16, 16), 0.5, 10**6), torch.device("cpu"))
    with out_of_memory_above(monkeypatch, UNet3d, "forward", 8**3), heard() as said:
        assert infer(image, None).shape == (1, 16, 16, 16)
    assert said == ["cpu: out of memory: windows of (8, 8, 8) voxels instead, which may differ a little"]
    with (
        out_of_memory_above(monkeypatch, UNet3d, "forward", 8**3 - 1),
        pytest.raises(ResourceError, match=r"out of memory with windows of .* free the GPU"),
    ):
        infer(image, None)


def test_row_107_prediction_first_takes_half_as_many_windows_at_once_which_changes_nothing(monkeypatch):
    torch.manual_seed(0)
    network, image = UNet3d((2, 4), 1), np.linspace(-1, 1, 8 * 8 * 32, dtype=np.float32).reshape(8, 8, 32)
    infer = as_infer(network, Window((8, 8, 8), 0.5, 0), torch.device("cpu"), 4)
    wanted = infer(image, None)
    told = [f"cpu: out of memory: windows in batches of {count} from now on" for count in (2, 1)]
    with out_of_memory_above(monkeypatch, UNet3d, "forward", 2 * 8**3), heard() as said:
        for _ in range(2):
            np.testing.assert_allclose(infer(image, None), wanted, atol=1e-5)
    assert said == told[:1]
    with out_of_memory_above(monkeypatch, UNet3d, "forward", 8**3), heard() as said:
        np.testing.assert_allclose(infer(image, None), wanted, atol=1e-5)
    assert said == told[1:]
    # What may differ is said of every image, and the next one is tried as it should be.
    with out_of_memory_above(monkeypatch, UNet3d, "forward", 4**3), heard() as said:
        infer(image, None)
        infer(image, None)
    assert [line.split(": ")[2][:20] for line in said] == ["windows of (4, 4, 4)"] * 2
    np.testing.assert_allclose(infer(image, None), wanted, atol=1e-5)


def test_row_108_a_limit_of_memory_is_exit_5_and_one_line(data, tmp_path):
    code = f"""
import resource, sys
import cascade.training, cascade.commands.training, torch.utils.tensorboard
from cascade.cli import run_command
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)
sys.exit(run_command({["train-liver", str(data), "-o", str(tmp_path / "run"), "--fold", "0/2", *SETTINGS]!r}
    + ["--set", "sampling.patch=[256, 256, 256]"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        5,
        "cascade: out of memory: close other programs, use fewer --jobs or a smaller [window] size\n",
    )


@contextmanager
def full_disk(at_bytes):
    """No file can grow beyond `at_bytes`: a write fails as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_row_109_a_full_disk_leaves_the_old_state_and_models(data, tmp_path):
    job = job_at(tmp_path / "run", data)
    train(job, QUIET)
    before = content_of(job.folder)
    longer = replace(job.settings, training=replace(job.settings.training, steps=8))
    with full_disk(3000), pytest.raises(ResourceError, match=r"best.safetensors cannot be written \(File too large\)"):
        train(replace(job, resume=True, settings=longer), QUIET)
    (job.folder / "metrics.jsonl").write_text(
        "".join((job.folder / "metrics.jsonl").read_text().splitlines(keepends=True)[:2])
    )
    assert content_of(job.folder) == before
    assert not list(job.folder.glob(".*"))
    with full_disk(3000), pytest.raises(ResourceError, match=r"resume\.safetensors cannot be written"):
        train(job_at(tmp_path / "fresh", data), QUIET)  # before the first step


def test_row_109_a_full_disk_in_the_log_is_a_line_and_in_tensorboard_a_warning(tmp_path, monkeypatch):
    with RunLog(tmp_path, Logged(), 0) as log:
        log.validation(1, Validation({"a": {"liver": 0.5}}))
        size = (tmp_path / "metrics.jsonl").stat().st_size
        with (
            full_disk(size + 9),
            pytest.raises(ResourceError, match=r"metrics.jsonl cannot be written \(File too large\)"),
        ):
            log.validation(2, Validation({"a": {"liver": 0.25}}))
        rows = log.logged.rows
    assert rows == 1
    with RunLog(tmp_path, Logged(rows), 1):
        pass
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "liver_dice": 0.5}\n'


def test_row_109_a_full_disk_while_preparing_leaves_no_half_array(tmp_path):
    with full_disk(1000), pytest.raises(ResourceError, match=r"a\.npy cannot be written"):
        preprocess.build._save(tmp_path / "a.npy", np.zeros(5000, np.float16))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["train-liver", "DATA", "--fold", "0/2", *SETTINGS],
        ["prepare", "DATA", "--jobs", "1"],
        ["run", "DATA", "--liver", "FILE", "--tumor", "FILE"],
    ],
)
def test_row_110_an_output_that_cannot_be_written_is_said_before_the_work(data, tmp_path, capsys, monkeypatch, command):
    (tmp_path / "file").write_text("")
    words = [{"DATA": str(data), "FILE": str(tmp_path / "file")}.get(word, word) for word in command]
    if command[0] == "run":
        words[1] = str(tmp_path / "file")
    if command[0] == "prepare":
        write = labelled(tmp_path / "imagesTr").image
        write.rename(tmp_path / "volume-1.nii.gz")
        (tmp_path / "imagesTr" / "label.nii.gz").rename(tmp_path / "segmentation-1.nii.gz")
        (tmp_path / "imagesTr").rmdir()
        words[1] = str(tmp_path)
    for owner, name in (
        ("cascade.training", "train"),
        ("cascade.worker", "answers"),
        ("preprocess.build", "_survey"),
    ):
        monkeypatch.setattr(f"{owner}.{name}", lambda *_: pytest.fail("worked"))
    assert run_command([*words, "-o", str(tmp_path / "file" / "out")]) == 5
    assert "cannot be made" in capsys.readouterr().err


def test_row_110_root_may_write_everywhere_but_not_on_a_read_only_disk(tmp_path, monkeypatch):
    def read_only(self, content):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "write_bytes", read_only)
    with pytest.raises(ResourceError, match=r"out: cannot be written into \(Read-only file system\)"):
        files.check_writable(tmp_path / "out")


def test_row_111_a_clock_that_jumps_changes_neither_names_nor_durations(data, tmp_path, monkeypatch):
    clock = iter(range(10**9, 0, -86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))  # a day back at each look
    monkeypatch.setenv("TZ", "Pacific/Apia")
    job = job_at(tmp_path / "run", data, "training.steps=1000000", minutes=0.01)
    assert train(job, QUIET).steps > 0
    header = read_tensors(job.folder / RESUME).header
    assert 0.6 <= header["elapsed_s"] < 60
    assert len({str(path) for path in job.folder.iterdir()}) == 6


def test_row_112_the_same_seed_gives_the_same_weights(data, tmp_path):
    runs = [job_at(tmp_path / name, data, f"training.seed={seed}") for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    for job in runs:
        train(job, QUIET)
        torch.rand(7)  # no random state outside counts
    one, same, other = (tensors_of(job.folder)["last"]["head.weight"] for job in runs)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_row_114_without_tensorboard_a_training_goes_on(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with heard() as said:
        assert train(job_at(tmp_path / "run", data), QUIET).steps == 4
    assert len(said) == 1
    assert "no more TensorBoard events" in said[0]


def test_row_114_a_tensorboard_that_fails_and_damaged_events_do_not_stop_it(data, tmp_path, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    job = job_at(tmp_path / "run", data)
    (job.folder / "tensorboard").mkdir()
    (job.folder / "tensorboard" / "events.out.tfevents.1.x.1.0").write_bytes(b"\xff" * 100)
    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    with heard() as said:
        assert train(job, QUIET).steps == 4
    assert said == [
        "no more TensorBoard events ([Errno 28] No space left on device); the training goes on, see metrics.jsonl"
    ]
    rows = [json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]


def test_row_114_a_damaged_line_in_the_log_does_not_stop_a_resumed_run(data, tmp_path):
    job = job_at(tmp_path / "run", data)
    train(job, QUIET)
    path = job.folder / "metrics.jsonl"
    path.write_bytes(b"\xff\x00 nonsense\n" + path.read_bytes())
    longer = replace(job.settings, training=replace(job.settings.training, steps=6))
    assert train(replace(job, resume=True, settings=longer), QUIET).steps == 6


def test_a_prepared_case_that_was_cut_is_named(data):
    path = data / "cases" / "a" / "liver_image.npy"
    path.write_bytes(path.read_bytes()[:-100])
    case: PreparedCase = load_dataset(data).cases[0]
    with pytest.raises(InputError, match=r"liver_image.npy: cannot be read .* run cascade prepare again"):
        case.image("liver")


def test_scratch_copies_are_not_made(tmp_path):
    """Writing tensors needs little more memory than the tensors: what is written are views of them."""
    import tracemalloc

    from cascade.tensorfile import write_tensors

    tensors = {name: torch.zeros(1_000_000) for name in "abcd"}
    tracemalloc.start()
    write_tensors(tmp_path / "x", tensors, {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000
    shutil.rmtree(tmp_path)


def test_a_damaged_count_of_folds_is_one_line(data, tmp_path):
    assert run_command(["train-liver", str(data), "-o", str(tmp_path / "run"), "--folds", "2", *SETTINGS]) == 0
    for content in ("", "[]", "{}", '{"folds": null}'):
        (tmp_path / "run" / "folds.json").write_text(content)
        with pytest.raises(ModelError, match=r"folds\.json: damaged .*; remove it if all folds are there"):
            load_stage_models(tmp_path / "run", "liver")
