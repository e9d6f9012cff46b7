import os
import signal
import time
from pathlib import Path

import pytest

from cascade import worker
from cascade.worker import answers
from preprocess.errors import CascadeError, InputError, ModelError, ResourceError
from tests.made_work import Setup


@pytest.fixture
def ask(tmp_path):
    """`ask(tasks, ...)` gives the answers and checks that no worker is left."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def run(*tasks, fault="", jobs=1, limit_s=60.0):
        try:
            return list(answers(tasks, Setup(marks, fault), jobs, limit_s))
        finally:
            assert not [pid for pid in marks.iterdir() if alive(int(pid.name))]

    run.marks = marks
    return run


def test_there_need_be_no_limit_of_time(ask):
    assert ask("a", limit_s=float("inf")) == [("a", "a done")]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_task_is_answered_in_order_whatever_becomes_of_it(ask):
    tasks = ("a", "segv", "error", "kill", "bug", "memory", "disk", "leave", "b")
    found = dict(ask(*tasks))
    assert tuple(found) == tasks
    assert (found["a"], found["b"]) == ("a done", "b done")
    kinds = {task: type(answer) for task, answer in found.items() if isinstance(answer, CascadeError)}
    assert kinds == {
        **{"segv": InputError, "leave": InputError, "error": InputError, "bug": CascadeError},
        **{"kill": ResourceError, "memory": ResourceError, "disk": ResourceError},
    }
    assert str(found["segv"]).startswith("segv: its process died (SIGSEGV)")
    assert "most likely for want of memory" in str(found["kill"])
    assert "a bug in cascade, please report it: IndexError('list index out of range') at made_work.py" in str(
        found["bug"]
    )
    assert str(found["disk"]) == "disk: /full/x: No space left on device; check disk and permissions"
    # the one that began, and two for each that died: the first had begun another task and was not blamed yet
    assert len(list(ask.marks.iterdir())) == 7


def test_a_task_that_hangs_is_given_up_and_the_others_are_done(ask):
    found = dict(ask("hang", "b", limit_s=3.0))
    assert "hang: took longer than 0.05 minutes" in str(found["hang"])
    assert found["b"] == "b done"


def test_the_next_task_is_begun_beside_the_one_at_work(ask):
    assert ask("waits for the next", "next") == [("waits for the next", "begun"), ("next", "next done")]


def test_no_more_than_one_task_is_begun_ahead(ask):
    assert ask("waits for the next", "a", "next")[0] == ("waits for the next", "not begun")


def test_a_task_that_kills_its_worker_before_its_turn_costs_no_other(ask):
    found = dict(ask("a", "slow", "segv ahead", "b"))
    assert list(found) == ["a", "slow", "segv ahead", "b"]
    assert str(found.pop("segv ahead")).startswith("segv ahead: its process died (SIGSEGV)")
    assert set(found.values()) == {"a done", "slow done", "b done"}


def test_an_error_ahead_is_the_answer_to_its_own_task(ask):
    found = dict(ask("a", "error ahead", "b"))
    assert isinstance(found["error ahead"], InputError)
    assert (found["a"], found["b"]) == ("a done", "b done")


def test_a_task_behind_one_that_hangs_is_done(ask):
    found = dict(ask("a", "hang", "b", "c", limit_s=3.0))
    assert "took longer than" in str(found["hang"])
    assert [found[task] for task in "abc"] == ["a done", "b done", "c done"]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("model", ModelError, "no such model"),
        ("crash", ResourceError, r"died \(SIGSEGV\) before it began"),
        ("hang", ResourceError, "the models were not read within 1 s"),
    ],
)
def test_a_setup_that_fails_ends_everything(ask, monkeypatch, fault, kind, message):
    monkeypatch.setattr(worker, "SETUP_LIMIT_S", 1.0 if fault == "hang" else 60.0)
    with pytest.raises(kind, match=message):
        ask("a", "b", fault=fault)


def test_several_workers_share_the_tasks(ask):
    found = ask("a", "b", "segv", "c", "d", jobs=2)
    assert sorted(task for task, _ in found) == ["a", "b", "c", "d", "segv"]
    # The two that began, and one for each time that "segv" killed: once if it was alone, twice if another was begun.
    # The last is not replaced where the other worker has taken what was left.
    assert len(list(ask.marks.iterdir())) in (2, 3, 4)


def told(ask):
    return sorted(mark.read_text() for mark in ask.marks.iterdir())


def test_a_worker_is_told_the_task_that_it_gets_first(ask):
    assert ask("a", "b", "c") == [(task, f"{task} done") for task in "abc"]
    assert told(ask) == ["a"]


def test_several_workers_are_told_different_tasks(ask):
    assert dict(ask("slow", "b", "c", jobs=2)) == {task: f"{task} done" for task in ("slow", "b", "c")}
    assert told(ask) == ["b", "slow"]


def test_a_task_waits_for_the_worker_that_was_told_it(ask):
    found = dict(ask("pid 1", "pid late", "pid 3", "pid 4", "pid 5", jobs=2))
    (late,) = (mark.name for mark in ask.marks.iterdir() if mark.read_text() == "pid late")
    assert found["pid late"] == late
    assert found["pid 1"] != late


def test_a_task_that_leaves_no_memory_to_set_up_is_done_by_another(ask):
    assert ask("big", "b") == [("big", "big done"), ("b", "b done")]
    assert told(ask) == ["None", "big"]


def test_a_task_that_kills_who_sets_up_is_not_told_again(ask):
    assert ask("segv told", "b") == [("segv told", "segv told done"), ("b", "b done")]
    assert told(ask) == ["None", "segv told"]


def test_a_worker_that_dies_idle_is_no_answer(tmp_path):
    marks, end = tmp_path / "marks", tmp_path / "end"
    marks.mkdir()
    found = answers(["a", "b", f"until {end}", "c"], Setup(marks), 2, 60.0)
    first = [next(found) for _ in range(3)]
    assert sorted(task for task, _ in first) == ["a", "b", "c"]
    while not any(busy(int(path.name)) for path in marks.iterdir()):
        time.sleep(0.01)
    for path in marks.iterdir():
        if not busy(int(path.name)):
            os.kill(int(path.name), signal.SIGKILL)
    end.touch()
    assert next(found) == (f"until {end}", f"until {end} done")
    assert not list(found)


def test_a_task_is_not_begun_behind_a_slow_one_for_another_worker_that_is_late(tmp_path):
    """The last waits for a worker that is free, though a second one waits too: for who was told it and is not ready."""
    marks, end = tmp_path / "marks", tmp_path / "end"
    marks.mkdir()
    found = answers(["b", "pid late", f"until {end}", "c"], Setup(marks), 2, 60.0)
    assert [next(found)[0].split()[0] for _ in range(3)] == ["b", "pid", "c"]
    end.touch()
    assert [task for task, _ in found] == [f"until {end}"]


def busy(pid):
    """Whether the process is in `until`, which leaves a mark."""
    return Path(f"/proc/{pid}/comm").read_text() == "slow\n"


def test_row_127_a_worker_with_another_model_than_the_one_before_it_is_refused(ask):
    with pytest.raises(ModelError, match="a model file was replaced while it was in use"):
        ask("a", "segv", "b", fault="replaced")


def test_when_the_parent_stops_listening_its_workers_end(tmp_path):
    found = answers(["a", "hang"], Setup(tmp_path), 1, 60.0)
    assert next(found) == ("a", "a done")
    found.close()
    assert not [pid for pid in tmp_path.iterdir() if alive(int(pid.name))]


def test_a_sigint_to_the_group_of_the_parent_does_not_reach_a_worker(tmp_path):
    found = answers(["a", "b"], Setup(tmp_path), 1, 60.0)
    next(found)
    (pid,) = (int(path.name) for path in tmp_path.iterdir())
    assert os.getpgid(pid) == pid != os.getpgid(0)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert next(found) == ("b", "b done")
    found.close()
