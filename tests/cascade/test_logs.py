import json

import numpy as np

from cascade.logs import EVERY, Logged, RunLog, contours
from cascade.validation import Picture, Validation


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
