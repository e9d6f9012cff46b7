from pathlib import Path

import pytest

from preprocess.errors import InputError
from preprocess.inputs import find_images


def touch(folder, *names, content=b""):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def names(folder):
    return [path.relative_to(folder).as_posix() for path in find_images(folder)]


def test_image_files_sorted_and_other_files_left_out(tmp_path):
    touch(tmp_path, "b.nii", "a.nii.gz", "c.NRRD", "d.nhdr", "e.mha", "f.mhd", "g.zip", "f.raw", "notes.txt", "nii")
    assert names(tmp_path) == ["a.nii.gz", "b.nii", "c.NRRD", "d.nhdr", "e.mha", "f.mhd", "g.zip"]


def test_a_pair_is_one_case_known_by_its_header(tmp_path):
    touch(tmp_path, "a.hdr", "a.img", "b.hdr.gz", "b.img.gz")
    assert names(tmp_path) == ["a.hdr", "b.hdr.gz"]


def test_hidden_files_and_folders_are_ignored(tmp_path):
    touch(tmp_path, "._a.nii", "a.nii", ".hidden/1.dcm")
    assert names(tmp_path) == ["a.nii"]


def test_a_lits_label_is_ignored_beside_its_volume_only(tmp_path):
    touch(tmp_path, "volume-1.nii", "segmentation-1.nii", "segmentation-2.nii")
    assert names(tmp_path) == ["segmentation-2.nii", "volume-1.nii"]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_lits_label_may_have_another_ending_than_its_volume(tmp_path, ending):
    other = {".nii": ".nii.gz", ".nii.gz": ".nii"}[ending]
    touch(tmp_path, f"volume-1{ending}", f"segmentation-1{other}", "volume-20.nii", f"segmentation-2{other}")
    assert names(tmp_path) == [f"segmentation-2{other}", f"volume-1{ending}", "volume-20.nii"]


@pytest.mark.parametrize("name", ["1.dcm", "1.DCM", "1.ima"])
def test_subfolders_with_dicom_files_are_cases(tmp_path, name):
    touch(tmp_path, f"p1/{name}", "p2/readme.txt", "c.nii")
    assert names(tmp_path) == ["c.nii", "p1"]


def test_dicom_without_an_ending_is_known_by_its_magic(tmp_path):
    touch(tmp_path, "p1/IM0001", content=b"\0" * 128 + b"DICM rest")
    touch(tmp_path, "p2/IM0001", content=b"\0" * 127 + b"DICM rest")
    # Without preamble: a tag of group 8, explicit.
    touch(tmp_path, "p3/IM0001", content=b"\x08\0\x05\0CS\x0a\0ISO_IR 100")
    assert names(tmp_path) == ["p1", "p3"]


def test_a_dicom_folder_is_one_case(tmp_path):
    touch(tmp_path, "2.dcm", "1.dcm", "sub/3.dcm")
    assert find_images(tmp_path) == [tmp_path]


def test_a_hidden_dicom_file_makes_no_dicom_folder(tmp_path):
    touch(tmp_path, "._1.dcm", "a.nii")
    assert names(tmp_path) == ["a.nii"]


@pytest.mark.parametrize("name", ["1.dcm", "0.ima", "stray"])
@pytest.mark.parametrize("image", ["a.nii.gz", "a.MHA", "a.zip"])
def test_images_and_dicom_slices_side_by_side_are_refused_not_chosen_from(tmp_path, name, image):
    touch(tmp_path, name, content=b"\0" * 128 + b"DICM rest")
    touch(tmp_path, image)
    with pytest.raises(InputError, match="holds DICOM slices and also a"):
        find_images(tmp_path)


def test_a_mask_beside_its_series_does_not_hide_the_series(tmp_path):
    touch(tmp_path, "p1/1.dcm", "p1/2.dcm", "p1/mask.nii.gz", "p2/1.dcm")
    assert names(tmp_path) == ["p1", "p2"]


def test_a_lits_label_is_known_whatever_is_in_its_name(tmp_path):
    touch(tmp_path, "volume-1.2.nii", "segmentation-1.2.nii.gz", "VOLUME-[3].NII", "segmentation-[3].nii")
    assert names(tmp_path) == ["VOLUME-[3].NII", "volume-1.2.nii"]


def test_series_that_lie_too_deep_to_be_cases_are_named(tmp_path, caplog):
    touch(tmp_path, "p1/1.dcm", "p2/s1/1.dcm", "p2/s2/1.dcm", "p2/text/notes.txt", "p3/.hidden/1.dcm", "c.nii")
    assert names(tmp_path) == ["c.nii", "p1"]
    assert "in p2: images in it lie too deep to be cases; give that" in caplog.text


def test_a_series_below_a_series_is_named(tmp_path, caplog):
    touch(tmp_path, "1.dcm", "sub/2.dcm", "text/notes.txt")
    assert find_images(tmp_path) == [tmp_path]
    assert "in sub: images in it lie too deep to be cases" in caplog.text


def test_what_lies_deeper_than_that_is_named_too(tmp_path, caplog):
    touch(tmp_path, "q/1.dcm", "p/study/series/1.dcm", "x.nii", "p2/y.nii.gz", "p3/a/b/z.mha")
    touch(tmp_path, "out/x/segmentation.nii.gz", "out/x/stage1_liver.nii.gz", "labelsTr/y.nii.gz")  # no scans
    assert names(tmp_path) == ["q", "x.nii"]
    assert "in p/study, p2, p3/a/b: images in it lie too deep to be cases; give that" in caplog.text


def test_where_the_images_are_is_said_when_there_is_no_case(tmp_path):
    touch(tmp_path, "p/study/series/1.dcm")
    with pytest.raises(InputError, match="no case in it; p/study: images in it lie too deep to be cases; give that"):
        find_images(tmp_path)


def test_a_folder_that_lies_too_deep_and_may_not_be_read_stops_nothing(tmp_path, monkeypatch):
    touch(tmp_path, "p1/1.dcm", "p2/secret/1.dcm")
    read = Path.iterdir

    def iterdir(path):
        if path.name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert names(tmp_path) == ["p1"]


def test_a_folder_without_a_case_is_refused(tmp_path):
    touch(tmp_path, "notes.txt", "sub/notes.txt")
    with pytest.raises(InputError, match=r"no case in it; give a folder of \.nii") as caught:
        find_images(tmp_path)
    assert str(tmp_path) in str(caught.value)
