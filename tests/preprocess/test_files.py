import json
import os

import pytest

from preprocess.errors import ResourceError
from preprocess.files import write_atomic, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new\n")
    assert path.read_text() == "new\n"
    assert names(tmp_path) == ["a.txt"]


def test_the_name_never_shows_half_a_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def write(temporary):
        temporary.write_text("ne")
        seen.append((temporary.parent, path.read_text()))

    write_atomic(path, write)
    assert seen == [(tmp_path, "old")]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(error):
        write_atomic(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_line_about_the_target(tmp_path):
    def write(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device", str(temporary))

    with pytest.raises(ResourceError, match=r"a\.txt cannot be written \(No space left on device\)") as caught:
        write_atomic(tmp_path / "a.txt", write)
    assert ".tmp" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_missing_folder_is_a_resource_error(tmp_path):
    with pytest.raises(ResourceError, match="No such file"):
        write_text(tmp_path / "none" / "a.txt", "x")


def test_content_and_folder_are_synced_before_and_after_the_name_is_given(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    write_text(tmp_path / "a.txt", "x")
    assert synced[0].endswith(".tmp")
    assert synced[-1] == str(tmp_path)


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("n" * 255)
    write_text(path, "x")
    assert path.read_text() == "x"


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_json_is_indented_and_refuses_nan(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"ä": [1]})
    assert path.read_text("utf-8") == '{\n  "ä": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert json.loads(path.read_text("utf-8")) == {"ä": [1]}


def test_a_name_outside_utf8_is_escaped(tmp_path):
    write_json(tmp_path / "a.json", "a\udcff")
    assert json.loads((tmp_path / "a.json").read_bytes()) == "a\udcff"
