"""A whole dataset under check: what shows only in all cases together, the table and the text."""

import csv
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from preprocess.doctor import HEADER, Checkup, check_csv, check_dataset, check_text
from preprocess.errors import InputError
from preprocess.findings import Finding
from tests.made_dataset import lits, scene, table, write


@pytest.fixture(autouse=True)
def _in_threads(monkeypatch):
    monkeypatch.setattr("preprocess.workers.pool", ThreadPoolExecutor)


def checked(source, jobs=2):
    return check_dataset(source, jobs, lambda done, total: None)


def errors(checkup):
    return [(finding.cases, finding.text) for finding in checkup.findings if finding.severity == "error"]


def rows(checkup):
    return list(csv.DictReader(io.StringIO(check_csv(checkup))))


def test_a_sound_dataset_has_no_error(tmp_path):
    checkup = checked(lits(tmp_path, 2, 3))
    assert errors(checkup) == []
    assert checkup.failed == []
    assert [row["case"] for row in rows(checkup)] == ["volume-2", "volume-3"]


def test_progress_counts_the_cases(tmp_path):
    seen = []
    check_dataset(lits(tmp_path, 2, 3, 4), 1, lambda *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_one_bad_case_does_not_stop_the_others_and_the_order_is_that_of_names(tmp_path):
    lits(tmp_path, 2, 3, 10)
    for number in (10, 2):
        path = tmp_path / f"volume-{number}.nii"
        path.write_bytes(path.read_bytes()[:-10])
    checkup = checked(tmp_path)
    assert checkup.failed == ["volume-2", "volume-10"]
    assert [seen is None for seen in checkup.seen] == [True, False, True]
    assert [row["status"] for row in rows(checkup)] == ["error", "warning", "error"]
    assert "2 not usable" in check_text(checkup)


def test_the_name_of_a_case_stands_once_in_its_line(tmp_path):
    lits(tmp_path, 2)
    write(tmp_path / "segmentation-2.nii", scene(2)[1][:, :-1])
    assert errors(checked(tmp_path))[0][1].startswith("the label has shape")


def test_a_damaged_line_of_a_table_does_not_stop_the_others(tmp_path):
    lits(tmp_path, 2)
    checkup = checked(table(tmp_path, "a,volume-2.nii,segmentation-2.nii", "b,gone.nii,segmentation-2.nii"))
    assert errors(checkup) == [
        ((), f"{tmp_path}/cases.csv, line 3: image {tmp_path}/gone.nii is missing; correct the path")
    ]
    assert checkup.failed == ["dataset"]
    assert [(row["case"], row["status"]) for row in rows(checkup)][:2] == [("a", "warning"), ("", "error")]


def test_two_labels_of_one_content_are_a_warning(tmp_path):
    lits(tmp_path, 2, 3)
    texts = [finding.text for finding in checked(tmp_path).findings]
    assert "cases volume-2 and volume-3 have one label and two images; which image is it of?" in texts
    write(tmp_path / "segmentation-3.nii", scene(3, tumor=False)[1])
    assert not any("one label" in finding.text for finding in checked(tmp_path).findings)


def test_empty_labels_are_not_one_label(tmp_path):
    lits(tmp_path, 2, 3)
    for number in (2, 3):
        write(tmp_path / f"segmentation-{number}.nii", np.zeros_like(scene()[1]))
    assert not any("one label" in finding.text for finding in checked(tmp_path).findings)


def test_a_pair_found_by_its_bytes_is_not_told_again(tmp_path):
    lits(tmp_path, 2, 3)
    (tmp_path / "volume-3.nii").write_bytes((tmp_path / "volume-2.nii").read_bytes())
    assert [cases for cases, _ in errors(checked(tmp_path))] == [("volume-2", "volume-3")]


def test_clipped_among_raw_scans(tmp_path):
    lits(tmp_path, 2, 3)
    hu, _ = scene(3)
    hu[:, 3:5, 2:18] = 2000
    write(tmp_path / "volume-3.nii", hu.clip(-160, 240))
    texts = [finding.text for finding in checked(tmp_path).findings]
    assert any(text.startswith("1 of 2 scans come clipped, the narrowest to -160..240 HU (volume-3)") for text in texts)
    write(tmp_path / "volume-3.nii", hu)
    assert not any("clipped" in finding.text for finding in checked(tmp_path).findings)


def test_images_without_any_label(tmp_path):
    lits(tmp_path, 2)
    checkup = checked(table(tmp_path, "a,volume-2.nii,"))
    assert errors(checkup) == [((), "no case has a label: nothing to train on; add labels")]
    assert "1 without label" in check_text(checkup)
    assert rows(checkup)[0]["liver_ml"] == ""


def test_a_dataset_that_cannot_be_listed_is_refused(tmp_path):
    lits(tmp_path / "deeper" / "too", 2)
    with pytest.raises(InputError, match="no dataset at"):
        checked(tmp_path)


def test_the_table_has_what_was_measured(tmp_path):
    source = lits(tmp_path, 2)
    row = rows(checked(table(source, "=a,volume-2.nii,segmentation-2.nii", header="case,image,label")))[0]
    assert list(row) == list(HEADER)
    ml = 5 * 0.8 * 0.7 / 1000
    assert row["case"] == "'=a"
    assert row["shape_zyx"] == "8x18x20"
    assert [float(row[f"spacing_{axis}_mm"]) for axis in "zyx"] == pytest.approx([5, 0.8, 0.7], abs=1e-6)
    assert float(row["liver_ml"]) == pytest.approx(4 * 7 * 6 * ml, abs=1e-3)
    assert float(row["tumor_ml"]) == pytest.approx(2 * 2 * 3 * ml, abs=1e-3)
    assert (row["tumors"], row["clipped"], float(row["liver_odd_share"])) == ("1", "no", 0)
    assert row["findings"].startswith("warning: 8 slices, 40 mm")


def test_tumours_that_nobody_drew_are_empty_in_the_table(tmp_path):
    source = table(lits(tmp_path, 2), "a,volume-2.nii,segmentation-2.nii,none", header="case,image,label,tumor_label")
    checkup = checked(source)
    assert [rows(checkup)[0][key] for key in ("tumor_ml", "tumors")] == ["", ""]
    assert "(1 whose tumours are not labelled)" in check_text(checkup)


def test_errors_come_first_and_equal_findings_share_a_line():
    told = [
        Finding("warning", "odd", ("a",)),
        Finding("error", "a and b are one", ("a", "b")),
        Finding("warning", "odd", ("b",)),
        Finding("warning", "of all"),
        Finding("error", "cut\x1b[2J", ("new\nline",)),
    ]
    assert check_text(Checkup((), (), tuple(told))).splitlines() == [
        "error    a and b are one",
        "error    new?line: cut?[2J",
        "warning  a, b: odd",
        "warning  of all",
        "0 cases of 0 patients: 2 errors, 3 warnings",
    ]
