"""Work in processes that may die. `exec` and `eval` are the work, because a fresh process must be able to import it."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preprocess import workers
from preprocess.errors import InputError, ResourceError
from preprocess.workers import outcomes, usable_cores


def test_cores_that_a_process_may_not_use_do_not_count(monkeypatch):
    monkeypatch.setattr(workers, "_QUOTA", Path("not there"))
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from preprocess.workers import *; "
    done = subprocess.run([sys.executable, "-c", code + "print(usable_cores())"], capture_output=True, check=True)
    assert int(done.stdout) == 1
    assert usable_cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000", 2), ("300000 100000", 3), ("1000 100000", 1), ("900000 100000", 5), ("max 100000", 5)],
)
def test_a_limit_to_a_containers_time_on_its_cores_counts(tmp_path, monkeypatch, quota, cores):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(workers, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(workers, "cores", lambda: frozenset(range(5)))
    assert usable_cores() == cores
    assert usable_cores(frozenset({7})) == 1


def test_every_task_gives_its_result():
    assert dict(outcomes(eval, [("1 + 1",), ("2 + 2",), ("3 + 3",)], 2)) == {0: 2, 1: 4, 2: 6}


def test_no_task_is_no_result():
    assert list(outcomes(eval, [], 2)) == []


def test_an_error_of_one_case_is_its_result():
    tasks = [("from preprocess.errors import InputError; raise InputError('no CT')",), ("pass",)]
    found = dict(outcomes(exec, tasks, 1))
    assert isinstance(found[0], InputError)
    assert str(found[0]) == "no CT"
    assert found[1] is None


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        list(outcomes(eval, [("1 / 0",)], 1))


def test_only_the_case_that_kills_its_process_fails():
    found = dict(outcomes(eval, [("1",), ("__import__('os').kill(__import__('os').getpid(), 9)",), ("3",), ("4",)], 2))
    assert (found[0], found[2], found[3]) == (1, 3, 4)
    assert isinstance(found[1], ResourceError)
    assert "its process died" in str(found[1])


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    sleeping = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"
    code = f"""
if __name__ == "__main__":
    from preprocess.workers import outcomes
    list(outcomes(exec, [({sleeping!r},)], 1))
"""
    (tmp_path / "parent.py").write_text(code)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "parent.py"]
    parent = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    child = Path("/proc") / (tmp_path / "pid").read_text()
    _until(lambda: not child.exists() or "zombie" in (child / "status").read_text())


def test_an_interrupt_does_not_wait_for_the_case_at_hand():
    """A worker that would sleep for ten minutes is gone when the error is out."""
    tasks = [("1",), ("__import__('time').sleep(600)",)]

    def interrupted():
        for _ in outcomes(eval, tasks, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gc.collect()
    _until(lambda: not multiprocessing.active_children())


def _until(happened):
    for _ in range(600):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")
