"""Rows 115 to 126 and 130 of the catalogue of faults: many cases, in a hostile environment, to files and exit code."""

import errno
import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cascade.batch import REPORT, Outputs
from cascade.case import load_runner, run_case
from cascade.cli import run_command
from cascade.locks import LOCK_FILE, locked
from preprocess.errors import InputError, ResourceError
from tests.cascade.fakes import fake_runner
from tests.faults.test_training import Disk, Killed, full_disk
from tests.made_training import QUIET, dataset_at, job_at, model_at, scan_at

ROOT = Path(__file__).parents[2]

#: Runs in every Python process: some inputs crash or hang their reader, and a look at the network is deadly.
SABOTAGE = """
import os, signal, sys, time
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"):
        open(os.environ["CANARY"], "a").write(event)
        os._exit(99)
sys.addaudithook(watch)
if "--multiprocessing-fork" in sys.argv or "spawn_main" in " ".join(sys.orig_argv):
    import preprocess.io as io
    real = io.read_scan
    def read_scan(path):
        if path.name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if path.name.startswith("hang"):
            open(os.environ["CANARY"] + "-hangs", "w").write(str(os.getpid()))
            time.sleep(600)
        return real(path)
    io.read_scan = read_scan
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two models, a sabotaged Python and no home."""
    folder = tmp_path_factory.mktemp("cohort")
    for name in ("liver", "tumor"):
        model_at(folder / f"{name}.safetensors", name)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SABOTAGE)
    return folder


@pytest.fixture
def runner(place):
    return load_runner(place / "liver.safetensors", place / "tumor.safetensors", "cpu", liver_only=False)


def command(place, *inputs, out, more=()):
    models = [f"--{name}={place / f'{name}.safetensors'}" for name in ("liver", "tumor")]
    return [sys.executable, "-m", "cascade", "run", *map(str, inputs), "-o", str(out), *models, *more]


def environment(place, **more):
    """No HOME, no folder for temporaries, an ASCII terminal, a processor from before AVX2."""
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{place / 'site'}:{ROOT}",
        "CANARY": str(place / "canary"),
        "TMPDIR": "/nonexistent",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        **more,
    }


@pytest.fixture(scope="module")
def batch(place):
    """One run over two good cases, one that crashes its reader and one that hangs, in that environment."""
    names = ("a.nii", "crash.nii", "größe.nii", "hang.nii", "z.nii")
    for name in names:
        scan_at(place / name)
    words = command(place, *(place / name for name in names), out=place / "out", more=("--case-minutes", "0.25"))
    done = subprocess.run(words, cwd=place, env=environment(place), capture_output=True, check=False, timeout=300)
    return done.returncode, done.stdout.decode("ascii"), done.stderr.decode("ascii"), place


def mask_of(folder):
    return hashlib.sha256((folder / "segmentation.nii.gz").read_bytes()).hexdigest()


def test_row_119_a_case_that_crashes_its_reader_fails_alone(batch):
    code, out, err, place = batch
    assert code == 6
    assert err == "cascade: 2 of 5 cases failed: crash, hang\n"
    assert "crash.nii: its process died (SIGSEGV); the file is most likely damaged" in out
    assert not (place / "out" / "crash").exists() or not list((place / "out" / "crash").glob("*"))
    assert re.findall(r"^(\S)\S*: ok, liver 259 mL", out, re.MULTILINE) == ["a", "g", "z"]


def test_row_120_a_case_that_hangs_is_given_up(batch):
    _, out, _, place = batch
    assert "hang.nii: took longer than 0.25 minutes" in out
    pid = int((place / "canary-hangs").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_row_123_an_old_processor_gives_the_same_mask(batch, runner, tmp_path):
    place = batch[3]
    run_case(place / "a.nii", runner, Outputs(tmp_path))
    assert mask_of(place / "out" / "a") == mask_of(tmp_path / "a")


def test_row_125_neither_a_home_nor_a_folder_for_temporaries_is_needed(batch):
    assert (batch[3] / "out" / "a" / REPORT).exists()


def test_row_126_an_ascii_terminal_shows_escapes_and_files_keep_their_names(batch):
    _, out, _, place = batch
    assert re.search(r"^gr[ -~]+e: ok", out, re.MULTILINE)
    assert (place / "out" / "größe" / "segmentation.nii.gz").exists()


def test_row_130_no_process_looks_at_the_network(batch):
    assert not (batch[3] / "canary").exists()


def test_row_130_nor_does_a_training(tmp_path, monkeypatch):
    import socket

    from cascade.training import train

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, lambda *_: pytest.fail("network"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("network"))
    assert train(job_at(tmp_path / "run", dataset_at(tmp_path / "data")), QUIET).steps == 4


def test_row_115_a_result_is_neither_replaced_nor_taken_for_done_when_it_is_not(tmp_path, monkeypatch):
    path, outputs, folder = scan_at(tmp_path / "c.nii"), Outputs(tmp_path / "out"), tmp_path / "out" / "c"
    runner = fake_runner()
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        run_case(path, runner, outputs)
    whole = mask_of(folder)
    assert run_case(path, runner, outputs) == "c: done before, skipped"
    old = json.loads((folder / REPORT).read_text())["source"]
    scan_at(path, shape=(12, 30, 35))
    with pytest.raises(InputError, match="use --overwrite or another -o"):
        run_case(path, runner, outputs)
    assert mask_of(folder) == whole
    for cut in disk.cuts():  # killed while it replaces the result of the older input
        with monkeypatch.context() as patch:
            Disk(patch, cut)
            with pytest.raises(Killed):
                run_case(path, runner, Outputs(tmp_path / "out", overwrite=True))
        if (folder / REPORT).exists():
            report = json.loads((folder / REPORT).read_text())
            assert (report["source"] == old) == (mask_of(folder) == whole)
        scan_at(path)
        assert ": ok, " in run_case(path, runner, Outputs(tmp_path / "out", overwrite=True))
        old = json.loads((folder / REPORT).read_text())["source"]
        assert mask_of(folder) == whole
        assert not list(folder.glob(".*"))
        scan_at(path, shape=(12, 30, 35))


def test_row_116_of_two_runs_on_one_case_the_second_is_refused(place, tmp_path, runner):
    with locked(tmp_path / "out" / "c"), pytest.raises(ResourceError, match="another cascade is working in it"):
        run_case(scan_at(tmp_path / "c.nii"), runner, Outputs(tmp_path / "out"))


def test_row_117_a_full_disk_leaves_no_mask_under_its_name(tmp_path, runner):
    path = tmp_path / "c.nii"
    noise = np.random.default_rng(0).integers(-200, 200, (30, 40, 50)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path))
    with full_disk(50), pytest.raises(ResourceError, match=r"segmentation.nii.gz cannot be written \(File too large\)"):
        run_case(path, runner, Outputs(tmp_path / "out"))
    assert not (tmp_path / "out" / "c").exists()


def test_row_118_a_killed_parent_leaves_no_process_and_the_same_command_completes(place, runner, tmp_path):
    for name in ("a.nii", "hang.nii"):
        scan_at(tmp_path / name)
    (tmp_path / "site").symlink_to(place / "site")
    words = command(place, tmp_path / "a.nii", tmp_path / "hang.nii", out=tmp_path / "out")
    hangs = tmp_path / "canary-hangs"
    parent = subprocess.Popen(words, env=environment(place, CANARY=str(tmp_path / "canary")), stdout=subprocess.DEVNULL)
    # The second is read, and hangs, while the first computes.
    wait_until(lambda: hangs.exists() and hangs.read_text() and (tmp_path / "out" / "a" / REPORT).exists(), 120)
    parent.kill()
    parent.wait()
    worker = int(hangs.read_text() or 0)
    wait_until(lambda: not running(worker), 10)
    first = mask_of(tmp_path / "out" / "a")
    assert run_case(tmp_path / "a.nii", runner, Outputs(tmp_path / "out")) == "a: done before, skipped"
    assert ": ok, " in run_case(tmp_path / "hang.nii", runner, Outputs(tmp_path / "out"))
    assert mask_of(tmp_path / "out" / "hang") == first


def running(pid):
    try:
        # The first thread of a dying process may be a zombie while another one still holds files, and their locks.
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except FileNotFoundError:
        return False


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_row_121_where_a_folder_cannot_be_locked_a_file_in_it_is(tmp_path, monkeypatch):
    real = fcntl.flock

    def as_nfs(handle, operation):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", as_nfs)
    with locked(tmp_path / "x"):
        assert [path.name for path in (tmp_path / "x").iterdir()] == [LOCK_FILE]
        with pytest.raises(ResourceError, match="another cascade"), locked(tmp_path / "x"):
            pass
    with locked(tmp_path / "x"):
        pass

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(ResourceError, match=r"locks nothing \(No locks available\)"), locked(tmp_path / "x"):
        pass


def test_row_122_without_a_gpu_the_processor_is_taken_or_it_is_said(place, tmp_path, capsys, monkeypatch):
    from cascade.machine import pick_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ResourceError, match="--device cuda: no usable GPU found; use --device cpu"):
        pick_device("cuda")
    data = str(dataset_at(tmp_path / "data"))
    assert run_command(["train-liver", data, "-o", str(tmp_path / "run"), "--fold", "0/2", "--device", "cuda"]) == 5
    assert capsys.readouterr().err == "cascade: --device cuda: no usable GPU found; use --device cpu\n"


def test_row_124_without_a_reader_and_without_streams_the_work_is_done_quietly(place, tmp_path):
    path = scan_at(tmp_path / "c.nii")
    out = tmp_path / "out"
    reader, writer = os.pipe()
    os.close(reader)
    words = command(place, path, path, out=out)
    done = subprocess.run(
        words, env=environment(place), stdout=writer, stderr=subprocess.PIPE, check=False, timeout=120
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (out / "c" / REPORT).exists()
    words = [sys.executable, "-m", "cascade", "--help"]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *words], env=environment(place), check=False, timeout=60
    )
    assert done.returncode == 0


def test_row_124_sigterm_ends_a_run_with_143_one_line_and_no_process(place, tmp_path):
    path, hangs = scan_at(tmp_path / "hang.nii"), tmp_path / "canary-hangs"
    parent = subprocess.Popen(
        command(place, path, out=tmp_path / "out"),
        env=environment(place, CANARY=str(tmp_path / "canary")),
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: hangs.exists() and hangs.read_text(), 120)
    parent.send_signal(signal.SIGTERM)
    _, err = parent.communicate(timeout=10)
    assert parent.returncode == 143
    assert err == b"cascade: stopped; what is finished stays, and the same command goes on from there\n"
    assert not running(int(hangs.read_text() or 0))
