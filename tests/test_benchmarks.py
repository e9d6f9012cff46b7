import os
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest
import torch

from benchmarks import ablation_rows, batch, iterations, page, process, profile_case, rate, rivals, train
from cascade.batches import Sampler

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
