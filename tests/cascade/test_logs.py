import json

import numpy as np
import pytest

from cascade import logs
from cascade.logs import EVERY, Logged, RunLog, board_name, contours
from cascade.validation import Picture, Validation
from evaluate.detection import Detection


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def square(low, high, value=1, size=8):
    array = np.zeros((size, size), np.uint8)
    array[low:high, low:high] = value
    return array


def test_the_mean_of_the_finite_losses_is_written_and_the_others_counted(tmp_path):
    with RunLog(tmp_path, Logged(), 0) as log:
        for step in range(1, EVERY + 1):
            log.step(step, loss=float("nan") if step == 3 else 2.0, learning_rate=0.5)
    assert rows_of(tmp_path) == [{"step": EVERY, "loss": 2.0, "learning_rate": 0.5, "skipped": 1}]


def test_resuming_drops_what_lies_after_and_a_line_cut_in_two(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "loss": 1}\n{"step": 20, "loss": 2}\n{"step": 3')
    with RunLog(tmp_path, Logged(rows=1), 10) as log:
        log.validation(15, Validation({"a": {"liver": 0.5}}))
    assert rows_of(tmp_path) == [{"step": 10, "loss": 1}, {"step": 15, "liver_dice": 0.5}]


def test_a_new_run_starts_an_empty_file_and_leaves_events(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n')
    picture = Picture(np.zeros((8, 8), np.float32), square(2, 6), square(3, 7))
    with RunLog(tmp_path, Logged(), 0) as log:
        log.validation(2, Validation({"a": {"liver": 0.5}}, picture))
    assert [row["step"] for row in rows_of(tmp_path)] == [2]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_contours_are_green_for_the_truth_and_red_for_the_prediction():
    rgb = contours(Picture(np.full((8, 8), -1.0, np.float32), square(4, 8), square(0, 3)))
    assert rgb.shape == (8, 8, 3)
    assert rgb[2, 1].tolist() == [0, 255, 0]
    assert rgb[4, 5].tolist() == [255, 0, 0]
    assert rgb[1, 6].tolist() == [0, 0, 0]


class Clock:
    """`time` whose seconds are given."""

    def __init__(self, *seconds):
        self._seconds = iter(seconds)

    def monotonic(self):
        return next(self._seconds)


def test_seconds_are_written_by_what_they_went_into_and_begin_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "time", Clock(0, 1, 1, 3.5, 10, 10.5, 20, 21, 30, 31, 40, 47, 50, 54))
    with RunLog(tmp_path, Logged(), 0) as log:
        for what in ("wait", "compute", "wait"):
            with log.timed(what):
                pass
        log.step(EVERY, loss=1.0, learning_rate=0.5)
        for what in ("compute", "compute", "look"):
            with log.timed(what):
                pass
        log.step(2 * EVERY, loss=1.0, learning_rate=0.5)
        with log.timed("look"):  # after the last step of a training
            pass
        log.validation(2 * EVERY, Validation({"a": {"liver": 0.5}}))
    first, second, last = rows_of(tmp_path)
    assert (last["look_s"], last["liver_dice"]) == (4.0, 0.5)
    assert (first["wait_s"], first["compute_s"], first["utilisation"]) == (1.5, 2.5, 0.625)
    assert (second["compute_s"], second["look_s"], second["utilisation"]) == (2.0, 7.0, 1.0)
    assert "wait_s" not in second


def counts(small, large):
    return {"<10": small, "10-20": Detection(), ">20": large}


def test_lesions_are_written_by_size_summed_over_cases(tmp_path):
    lesions = {"a": counts(Detection(3, 1, 4, 2), Detection(1, 1)), "b": counts(Detection(2, 0, 1, 0), Detection())}
    with RunLog(tmp_path, Logged(), 0) as log:
        log.validation(5, Validation({"a": {"tumor": 0.5}, "b": {"tumor": 0.25}}, lesions=lesions))
    assert rows_of(tmp_path) == [
        {
            "step": 5,
            "tumor_dice": 0.375,
            "lesions_found_<10mm": 1,
            "lesions_all_<10mm": 5,
            "lesions_found_10-20mm": 0,
            "lesions_all_10-20mm": 0,
            "lesions_found_>20mm": 1,
            "lesions_all_>20mm": 1,
            "lesions_false": 3,
        }
    ]


def test_what_is_taken_for_what_is_written_as_shares_of_all_cases(tmp_path):
    confusions = {"a": np.array([[9, 1], [2, 0], [0, 0]]), "b": np.array([[10, 0], [0, 6], [1, 3]])}
    with RunLog(tmp_path, Logged(), 0) as log:
        log.validation(5, Validation({"a": {"liver": 0.5}}, confusions=confusions))
    assert rows_of(tmp_path) == [
        {
            "step": 5,
            "liver_dice": 0.5,
            "background_as_liver": 0.05,
            "liver_as_background": 0.25,
            "tumor_as_background": 0.25,
        }
    ]


def test_curves_stand_in_groups():
    assert board_name("tumor_as_liver") == "confusion/tumor_as_liver"
    names = ("liver_dice", "lesions_found_<10mm", "wait_s", "look_s", "utilisation", "loss", "learning_rate")
    grouped = ["liver/dice", "lesions/found_<10mm", "time/wait_s", "time/look_s", "time/utilisation"]
    assert [board_name(name) for name in names] == [*grouped, "loss", "learning_rate"]


@pytest.mark.parametrize(("step", "purged"), [(0, None), (7, 8)])
def test_a_resumed_board_keeps_the_points_of_the_step_that_it_goes_on_from(tmp_path, monkeypatch, step, purged):
    asked = []

    class Writer:
        def __init__(self, folder, purge_step):
            asked.append(purge_step)

        def close(self):
            pass

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", Writer)
    with RunLog(tmp_path, Logged(), step):
        pass
    assert asked == [purged]
