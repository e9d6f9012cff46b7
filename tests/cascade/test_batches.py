import subprocess
import sys
import threading
import time

import pytest
import torch

from cascade.batches import ahead, in_turn
from cascade.sampler import Batch
from preprocess.errors import ResourceError


def test_ahead_keeps_the_order_and_starts_where_it_is_told():
    def make(step):
        return Batch(torch.tensor(step), torch.tensor(0), torch.tensor(0))

    batches = ahead(make, 7, str)
    assert [next(batches).image.item() for _ in range(5)] == [7, 8, 9, 10, 11]
    batches.close()


def test_ahead_makes_each_batch_once_in_one_thread_and_not_far_ahead():
    made, threads = [], set()

    def make(step):
        made.append(step)
        threads.add(threading.get_ident())
        return step

    batches = ahead(make, 0, str, depth=2)
    assert [next(batches) for _ in range(4)] == [0, 1, 2, 3]
    batches.close()
    assert made == list(range(len(made)))
    assert len(made) <= 4 + 2
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_the_thread_that_makes_batches_has_ended_when_they_are_closed():
    begun = threading.Event()

    def make(step):
        if step == 1:
            begun.set()
            time.sleep(0.3)
        return threading.current_thread()

    batches = ahead(make, 0, str)
    thread = next(batches)
    begun.wait()
    assert thread.is_alive()
    batches.close()
    assert not thread.is_alive()


def test_in_turn_gives_the_same_batches_each_when_it_is_asked_for():
    made = []

    def make(step):
        made.append(step)
        return step

    batches = in_turn(make, 7, str)
    assert made == []
    assert [next(batches) for _ in range(3)] == [7, 8, 9]
    assert made == [7, 8, 9]


def test_a_batch_that_never_comes_ends_the_process_where_batches_are_made_in_turn(monkeypatch):
    left = []
    monkeypatch.setattr("cascade.batches.leave", left.append)
    quick = in_turn(lambda step: step, 0, lambda: "liver-7", limit_s=0.2)
    next(quick)
    time.sleep(0.4)  # what is done with the batch may take as long as it likes
    assert left == []
    next(in_turn(lambda step: time.sleep(0.4), 0, lambda: "liver-7", limit_s=0.1))
    assert left == ["case liver-7: no batch within 0.1 s; is its disk still there? Go on with --resume"]


def test_what_hangs_in_the_main_thread_ends_the_process_with_5():
    code = "import time; from cascade.batches import in_turn; "
    code += "next(in_turn(lambda step: time.sleep(60), 0, lambda: 'liver-7', limit_s=0.2))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert child.returncode == 5
    assert child.stderr.startswith("cascade: case liver-7: no batch within 0.2 s;")


@pytest.mark.parametrize("supply", [ahead, in_turn])
def test_what_fails_in_a_patch_is_said_of_its_case(supply):
    def make(step):
        if step == 2:
            raise ValueError("no batch 2")
        return step

    batches = supply(make, 0, lambda: "liver-7")
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ResourceError, match=r"^case liver-7: making a batch failed \(ValueError\('no batch 2'\)\)"):
        next(batches)


@pytest.mark.parametrize("supply", [ahead, in_turn])
def test_a_gpu_whose_memory_does_not_suffice_for_a_patch_is_not_taken_for_a_broken_case(supply):
    def make(step):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        next(supply(make, 0, lambda: "liver-7"))
