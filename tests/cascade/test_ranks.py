"""Two processes that train one network together against one that trains it alone."""

import gc
import json
import subprocess
import sys
import weakref
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch

from cascade import ranks, stepping, training
from cascade.checkpoint import load_model
from cascade.cli import run_command
from cascade.ranks import GRACE_S, LIMIT_S, PULSE_S, Ranks, joined
from cascade.resume import RESUME
from cascade.stages import STAGES
from cascade.tensorfile import read_tensors
from cascade.training import train
from preprocess.errors import UsageError
from tests.made_ranks import ROOT, ended, started
from tests.made_training import TINY, dataset_at, job_at, log_without_seconds

SETTINGS = [word for setting in TINY for word in ("--set", setting)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return dataset_at(tmp_path_factory.mktemp("ranks") / "data")


@pytest.fixture
def exact(monkeypatch):
    """float32: in bfloat16 the rounding of a sum depends on how many patches are in it."""
    monkeypatch.setattr(stepping, "autocast_dtype", lambda device: None)


def alone(folder, data, *assignments, **changes):
    """Losses and job of a training in this process."""
    losses = []
    job = job_at(folder, data, *assignments, **changes)
    outcome = train(job, lambda step, share, loss, best: losses.append(loss))
    return losses, outcome, job


@dataclass(frozen=True, eq=False)
class Two(Ranks):
    """The first of two processes, the other of which says what it is told here."""

    other: object = None

    def gather(self, value):
        return [value, self.other]


def test_without_torchrun_a_process_is_alone():
    with joined("cpu") as ranks:
        assert (ranks.rank, ranks.world, ranks.device) == (0, 1, CPU)
        assert (ranks.largest(3.5), ranks.gather("a"), ranks.from_first(lambda: 7)) == (3.5, ["a"], 7)
        assert [10, 11, 12][ranks.part] == [10, 11, 12]


def test_another_length_is_refused_before_a_process_waits_for_the_first(data, tmp_path, monkeypatch, capsys):
    """Which has a run to read its length from, where the other has been told one and never asks."""
    other = {"--folds": None, "--resume": True, "--steps": 6, "--minutes": None}
    monkeypatch.setattr("cascade.ranks.joined", lambda _: nullcontext(Two(CPU, 0, 2, other=other)))
    monkeypatch.setattr(Two, "from_first", lambda self, make: 1 / 0)
    assert run_command(["train-liver", str(data), "-o", str(tmp_path / "run"), *SETTINGS, "--resume"]) == 2
    assert "process 1 of 2 has other --steps than process 0" in capsys.readouterr().err


def test_what_is_shared_out_is_dealt_like_cards():
    assert [list(range(6))[Ranks(CPU, rank, 3).part] for rank in range(3)] == [[0, 3], [1, 4], [2, 5]]


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    Ranks(CPU, 0, 2).require_shares(4)
    with pytest.raises(UsageError, match=r"sampling.batch = 3 cannot be shared by 2 .* --set sampling.batch=4$"):
        Ranks(CPU, 0, 2).require_shares(3)


def test_processes_that_were_given_different_things_are_refused(data, tmp_path):
    Two(CPU, 0, 2, other={"--steps": 1}).require_alike({"--steps": 1})
    job = job_at(tmp_path / "run", data)
    other = replace(job, train=job.held_out, minutes=3.0)
    ranks = Two(CPU, 0, 2, other=training._given(other))
    with pytest.raises(UsageError, match="process 1 of 2 has other DATA, --minutes than process 0"):
        train(replace(job, ranks=ranks), print)
    assert list(job.folder.iterdir()) == []


TRAININGS = """
import json, pickle
import torch.distributed.nn  # later, it would hold the group of all, which does nothing, as a default of its functions
from cascade.ranks import joined
from tests.made_training import job_at
data, folder = map(Path, sys.argv[1:])

def run(ranks, name, *assignments, **changes):
    here = folder / (name if ranks.first else f"not-{name}")  # which of them wrote what
    losses = []
    job = job_at(here, data, *assignments, ranks=ranks, **changes)
    outcome = training.train(job, lambda step, share, loss, best: losses.append(loss))
    return losses, outcome.steps, outcome.best and outcome.best.table(), outcome.warnings

import cascade.ranks
cascade.ranks.cores = lambda: frozenset(range(6))

with joined("cpu") as ranks:
    told = {"threads": torch.get_num_threads()}
    torch.set_num_threads(1)
    for stage in ("liver", "tumor"):
        told[stage] = run(ranks, stage, "sampling.batch=4", "training.steps=10", stage=stage)

    real = training.validate  # the second takes longer over a look than the limit of a sign of life
    training.validate = lambda *a: (time.sleep(8 * rank), real(*a))[1]
    told["slow"] = run(ranks, "slow", "training.validations=1", "training.steps=2")
    training.validate = real

    sums, calls = stepping._sums, []
    def narrow(state, batch, job):  # in the second there is room for one patch only
        if rank == 1 and len(batch.image) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sums(state, batch, job)
    stepping._sums = narrow
    told["halves"] = run(ranks, "halves", "loss.name='ce'", "sampling.batch=4", "training.steps=3", held_out=[])

    def bad(state, batch, job):  # once, and there alone
        calls.append(1)
        return sums(state, batch, job) * (float("nan") if rank == 1 and len(calls) == 2 else 1.0)
    stepping._sums = bad
    told["nan"] = run(ranks, "nan", "training.steps=4", held_out=[])
    stepping._sums = sums

    clock = time.monotonic
    time.monotonic = lambda: clock() * (1 + rank)  # twice as fast there
    told["minutes"] = run(ranks, "minutes", "training.steps=1000000", held_out=[], minutes=0.02)
    time.monotonic = clock

names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
told["left"] = [name for name in names if "gloo" in name]
(folder / f"{rank}.pickle").write_bytes(pickle.dumps(told))
"""


@pytest.fixture(scope="module")
def told(data, tmp_path_factory):
    """The folder of the runs of `TRAININGS`, and what each of the two processes has to tell of them."""
    import pickle

    folder = tmp_path_factory.mktemp("two")
    ends = ended(started(TRAININGS, data, folder))
    assert [code for code, *_ in ends] == [0, 0], ends
    return folder, *(pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2))


@pytest.mark.parametrize("stage", ["liver", "tumor"])
def test_two_processes_have_the_losses_the_scores_and_the_model_of_one(stage, told, data, tmp_path, exact):
    folder, first, second = told
    losses, outcome, job = alone(tmp_path / "one", data, "sampling.batch=4", "training.steps=10", stage=stage)
    assert len(losses) == 10
    assert first[stage][0] == pytest.approx(losses, abs=1e-4)
    assert second[stage] == first[stage]
    for row, wanted in zip(first[stage][2], outcome.best.table(), strict=True):
        assert row.pop("lesions", None) == wanted.pop("lesions", None)
        assert row == pytest.approx(wanted, abs=1e-3)
    for row, wanted in zip(log_without_seconds(folder / stage), log_without_seconds(job.folder), strict=True):
        assert row == pytest.approx(wanted, abs=4e-3)  # sums in another order: of 604 voxels one or two lie at .5
    ours, theirs = (load_model(f / "last.safetensors", STAGES[stage]) for f in (job.folder, folder / stage))
    assert all(torch.allclose(ours.weights[name], theirs.weights[name], atol=2e-3) for name in ours.weights)
    assert theirs.trained_on == ours.trained_on


def test_the_cores_of_a_machine_are_shared_evenly_whatever_torchrun_says(told):
    _, first, second = told  # each was started with OMP_NUM_THREADS=1
    assert (first["threads"], second["threads"]) == (3, 3)


@pytest.mark.parametrize(
    ("others", "own_cores"),
    [
        ([("0", {0, 1, 2, 3})], 4),  # alone
        ([("0", {0, 1, 2, 3}), ("0", {0, 1, 2, 3})], 2),
        ([("0", {0, 1, 2, 3}), ("0", {4, 5, 6, 7})], 4),  # each was given its own by who started them
        ([("0", {0, 1, 2, 3}), ("1", {0, 1, 2, 3})], 4),  # on another machine
        ([("0", {0, 1, 2, 3}), *[("0", {3, 4})] * 5], 1),
    ],
)
def test_cores_are_shared_with_those_alone_who_may_use_the_same(monkeypatch, others, own_cores):
    def gather(into, own, group):
        assert own == ("0", frozenset({0, 1, 2, 3}))
        into[:] = others

    monkeypatch.setenv("GROUP_RANK", "0")
    monkeypatch.setattr("cascade.ranks.cores", lambda: frozenset({0, 1, 2, 3}))
    monkeypatch.setattr("cascade.ranks.dist.all_gather_object", gather)
    assert ranks._Joined(CPU, 0, len(others), groups={"control": None}).own_cores() == own_cores


def test_the_limits_until_the_others_end_add_up_to_less_than_a_minute():
    assert PULSE_S + LIMIT_S + GRACE_S < 60


def test_no_thread_of_torch_is_left_that_could_abort_the_end(told):
    """Though `ranks` is still held there: a group ends its threads when nobody holds it any more."""
    _, first, second = told
    assert (first["left"], second["left"]) == ([], [])


def test_only_the_first_writes(told):
    folder, *_ = told
    for stage in ("liver", "tumor"):
        written = {path.name for path in (folder / stage).iterdir()}
        assert {"metrics.jsonl", "tensorboard", "best.safetensors", "last.safetensors", RESUME} <= written
        assert list((folder / f"not-{stage}").iterdir()) == []


def test_a_look_may_take_longer_than_the_limit_of_a_sign_of_life(told):
    _, first, second = told
    assert first["slow"][1:3] == second["slow"][1:3]
    assert first["slow"][1] == 2


def test_all_halve_their_batches_when_the_memory_of_one_is_too_small(told, data, tmp_path, exact):
    _, first, second = told
    losses, _, _ = alone(tmp_path / "one", data, "loss.name='ce'", "sampling.batch=4", "training.steps=3", held_out=[])
    assert all("batches go through the network in halves" in rank["halves"][3][0] for rank in (first, second))
    assert first["halves"][0] == pytest.approx(losses, abs=1e-4)


def test_a_loss_that_is_not_finite_in_one_is_skipped_in_all(told):
    folder, first, second = told
    for rank in (first, second):
        assert [loss == loss for loss in rank["nan"][0]] == [True, False, True, True]
    assert read_tensors(folder / "nan" / RESUME).header["skipped"] == 1


def test_the_clock_is_common(told):
    _, first, second = told
    assert first["minutes"] == second["minutes"]
    assert first["minutes"][1] > 0


ONE_TRAINING = """
from cascade.__main__ import main
number, sums, at = getattr(signal, sys.argv.pop(1)), stepping._sums, []
def signalling(state, batch, job):
    at.append(1)
    if rank == 1 and len(at) == 3:
        os.kill(os.getpid(), number)
    return sums(state, batch, job)
stepping._sums = signalling
save = training._save
def slowly(job, state):  # so that whoever did not wait for it would end this process amid it
    time.sleep(ranks.GRACE_S + 1)
    save(job, state)
training._save = slowly
main()
"""


def command(data, run, *more):
    return ["train-liver", data, "-o", run, "--fold", "0/2", *SETTINGS, "--set", "training.steps=6", *more]


def test_a_sigterm_to_one_ends_all_and_one_alone_can_go_on(data, tmp_path, exact):
    ends = ended(started(ONE_TRAINING, "SIGTERM", *command(data, tmp_path / "run")))
    assert [code for code, *_ in ends] == [143, 143]
    assert all(err.count("state saved at step 3; go on with --resume") == 1 for *_, err in ends)
    assert ends[1][1] == ""  # only the first talks
    assert read_tensors(tmp_path / "run" / RESUME).header["step"] == 3
    losses, _, _ = alone(tmp_path / "run", data, "training.steps=6", resume=True)
    whole, _, _ = alone(tmp_path / "whole", data, "training.steps=6")
    assert losses == pytest.approx(whole[3:], abs=1e-4)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_one_that_dies_or_falls_silent_ends_the_other_with_5_and_a_line(name, data, tmp_path):
    processes = started(ONE_TRAINING, name, *command(data, tmp_path / "run"))
    try:
        code = processes[0].wait(300)
    finally:
        for process in processes:  # one that was stopped does not end
            process.kill()
    (_, _, err), _ = ended(processes)
    assert code == 5
    assert err.splitlines() == [
        "cascade: process 0 of 2: another one has ended or is out of reach; see what it said, and go on with --resume"
    ]
    assert read_tensors(tmp_path / "run" / RESUME).verified


def test_an_error_in_one_is_said_there_and_ends_the_other(data, tmp_path):
    broken = ONE_TRAINING.replace("os.kill(", "raise MemoryError or print(")
    ends = ended(started(broken, "SIGTERM", *command(data, tmp_path / "run")))
    assert [code for code, *_ in ends] == [5, 5]
    assert "process 0 of 2: another one has ended" in ends[0][2]
    assert ends[1][2].startswith("cascade: out of memory")


def test_torchrun_trains_all_folds_and_resumes_them(data, tmp_path):
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cascade"]
    words = ["train-liver", str(data), "-o", str(run), "--folds", "2", *SETTINGS]
    for more in ([], ["--resume", "--steps", "6"]):
        done = subprocess.run([*torchrun, *words, *more], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("held out, on cpu and 1 more") == 2
        assert done.stdout.count("each case above was scored by the model that has not seen it") == 1
    table = json.loads((run / "report.json").read_text())
    assert sorted(row["case"] for row in table["held_out"]) == ["a", "b", "c"]
    for k in range(2):
        assert read_tensors(run / f"fold-{k}" / RESUME).header["step"] == 6


def test_what_did_not_fit_is_let_go_before_the_next_try():
    class Activations:
        pass

    held = []

    def too_much():
        activations = Activations()
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    gc.disable()  # a GPU's memory does not wait for it
    try:
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory") as caught:
            Ranks(CPU).together(too_much)
        del caught
        assert held[0]() is None
    finally:
        gc.enable()
