"""Rows 79, 128 and 129 of the catalogue of faults: what must not come out, and names that must do no harm."""

import csv
import gzip
import io
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from safetensors import safe_open

from cascade.cli import run_command
from evaluate import CohortScore, score
from evaluate.tables import write_scores
from preprocess.text import csv_text
from tests.made_dataset import SPACING, scene, table, write

#: What hospitals write into a header, all of it to be left there. DICOM tags, values of the planted kind.
PLANTED = {
    "0010|0010": "SECRETNAME^JANE",
    "0010|0020": "SECRET4711",
    "0010|0030": "19010203",
    "0010|1040": "SECRETSTREET 5",
    "0010|4000": "SECRETCOMMENT",
    "0008|0050": "SECRETACC",
    "0008|0080": "SECRETHOSPITAL",
    "0008|0090": "SECRETDOCTOR",
    "0008|1030": "SECRETSTUDY",
    "0008|103e": "SECRETSERIES",
}
SECRETS = (b"SECRET", b"19010203", "SECRET".encode("utf-16-le"))
TINY = [
    f"--set={s}"
    for s in ("network.features=[4, 8]", "network.stem=1", "sampling.patch=[4, 8, 8]", "training.validations=1")
]


@pytest.fixture(autouse=True)
def _in_threads(monkeypatch):
    monkeypatch.setattr("preprocess.workers.pool", ThreadPoolExecutor)


@pytest.fixture
def cascade(capfd, caplog):
    """Runs a command with every log line on; its exit code, and all that it said, C++ readers included."""
    caplog.set_level(logging.DEBUG)

    def run(*arguments):
        code = run_command([*map(str, arguments), "-v"])
        captured = capfd.readouterr()
        said = captured.out + captured.err + caplog.text
        assert not [secret for secret in SECRETS if secret in said.encode()], said
        return code, said

    return run


def series(folder, hu, *, start=0, uid="1.2.826.0.1.3680043.9.1"):
    """A DICOM folder whose every slice names the patient; slices (z, y, x), axial."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, plane in enumerate(hu, start):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing(SPACING[::-1])
        tags = {
            **PLANTED,
            "0008|0060": "CT",
            "0008|0008": "ORIGINAL\\PRIMARY\\AXIAL",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{z + 1}",
            "0020|000d": "1.2.826.0.1.3680043.9",
            "0020|000e": uid,
            "0020|0013": str(z),
            "0020|0032": f"-120.5\\-98.25\\{310 + SPACING[0] * z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{z:03}.dcm"))
        writer.Execute(image)
    return folder


def nifti(path, array):
    """A NIfTI file whose free text fields name the patient."""
    write(path, array)
    content = bytearray(path.read_bytes())
    for start, length in ((14, 18), (148, 80), (228, 24), (328, 16)):  # db_name, descrip, aux_file, intent_name
        content[start : start + length] = b"SECRETNAME 19010203".ljust(length, b"\0")[:length]
    path.write_bytes(content)
    return path


@pytest.fixture
def archive(tmp_path):
    """Two DICOM series and a NIfTI scan of a person who must not be named, with labels."""
    folder = tmp_path / "archive"
    for number, name in enumerate("ab"):
        series(folder / name, scene(number)[0])
        nifti(folder / f"{name}-label.nii", scene(number)[1])
    nifti(folder / "c.nii", scene(2)[0])
    nifti(folder / "c-label.nii", scene(2)[1])
    assert b"SECRETNAME" in (folder / "a/000.dcm").read_bytes()
    assert b"SECRETNAME" in (folder / "c.nii").read_bytes()
    return table(folder, "case-1,a,a-label.nii", "case-2,b,b-label.nii", "case-3,c.nii,c-label.nii")


def leaks(folder):
    """The files under `folder` that hold a secret, compressed ones unpacked."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    contents = {
        path: gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in files
    }
    return [path for path, content in contents.items() if any(secret in content for secret in SECRETS)]


def test_row_79_no_patient_in_any_output_from_the_archive_to_the_report(cascade, archive, tmp_path):
    """check, prepare, both trainings, run, report and evaluate: their files, what they say, their logs."""
    out = tmp_path / "out"
    assert cascade("check", archive, "-o", out / "checked")[0] == 0
    assert cascade("prepare", archive, "-o", out / "data")[0] == 0
    for stage in ("liver", "tumor"):
        assert cascade(f"train-{stage}", out / "data", "-o", out / stage, "--steps", 2, "--fold", "1/3", *TINY)[0] == 0
    models = [f"--{stage}={out / stage / 'last.safetensors'}" for stage in ("liver", "tumor")]
    inputs = [archive.parent / name for name in ("a", "b", "c.nii")]
    assert cascade("run", *inputs, "-o", out / "results", "--keep-stages", *models)[0] == 0
    assert cascade("report", archive, "-o", out / "account", *models)[0] == 0
    assert cascade("evaluate", out / "results/c", archive.parent / "c-label.nii", "-o", out / "scores")[0] == 0
    assert {path.name for path in out.iterdir()} == {
        *("checked", "data", "liver", "tumor", "results", "account", "scores"),
    }
    assert leaks(out) == []


def test_row_79_a_leak_would_be_found(archive, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.gz").write_bytes(gzip.compress(b"of SECRETNAME"))
    (tmp_path / "out/b").write_bytes(b"born 19010203")
    (tmp_path / "out/c").write_bytes(b"fine")
    assert {path.name for path in leaks(tmp_path / "out")} == {"a.gz", "b"}


def test_row_79_model_files_name_no_case(cascade, archive, tmp_path):
    """Not even those that the user gave, which may be names of patients; the trained scans are known by content."""
    assert cascade("prepare", archive, "-o", tmp_path / "data")[0] == 0
    steps = ["--steps", 2, "--fold", "0/3", *TINY]
    assert cascade("train-liver", tmp_path / "data", "-o", tmp_path / "run", *steps)[0] == 0
    models = list((tmp_path / "run").glob("*.safetensors"))
    assert {path.name for path in models} >= {"best.safetensors", "last.safetensors"}
    for path in models:
        assert b"case-" not in path.read_bytes(), path
        assert str(tmp_path).encode() not in path.read_bytes(), path
    with safe_open(tmp_path / "run/last.safetensors", "np") as file:
        assert len(json.loads(file.metadata()["cascade"])["trained_on"]) == 2


@pytest.mark.parametrize("fault", ["gap", "cut slice", "two series", "twice", "other size", "no pixels"])
def test_row_79_errors_name_the_file_and_not_the_patient(cascade, tmp_path, fault):
    folder = series(tmp_path / "scan", scene()[0])
    if fault == "gap":
        (folder / "003.dcm").unlink()
    elif fault == "cut slice":
        (folder / "003.dcm").write_bytes((folder / "003.dcm").read_bytes()[:-300])
    elif fault == "two series":
        series(folder, scene(1)[0], start=20, uid="1.2.826.0.1.3680043.9.2")
    elif fault == "twice":
        content = series(tmp_path / "other", scene(1)[0])
        (folder / "100.dcm").write_bytes((content / "003.dcm").read_bytes())
    elif fault == "other size":
        series(folder, scene()[0][:2, :-3], start=8)
    else:
        content = (folder / "003.dcm").read_bytes()
        (folder / "003.dcm").write_bytes(content[: content.index(b"\xe0\x7f\x10\x00")])
    write(tmp_path / "label.nii", scene()[1])
    code, said = cascade("check", table(tmp_path, "case,scan,label.nii"))
    assert code == 3
    assert str(folder) in said


ESCAPES = ["\x1b[2J\x1b]0;owned\x07", "a\x9bb", "a\u202eb", "a\rb", "a\x08b"]


@pytest.mark.parametrize("name", ESCAPES)
def test_row_128_a_case_id_steers_no_terminal(cascade, tmp_path, name):
    """The one place where names are rendered besides tables; a page that shows them must escape `<script>` too."""
    write(tmp_path / "a.nii", scene()[0])
    write(tmp_path / "l.nii", scene()[1])
    with (tmp_path / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("case", "image", "label"), (name, "a.nii", "l.nii")])
    code, said = cascade("check", tmp_path / "cases.csv")
    assert code == 0
    shown = name.strip().translate({ord(c): "?" for c in "\x1b\x07\x9b\u202e\r\x08"})
    assert f"warning  {shown}: " in said
    assert not set(said) & set("\x1b\x07\x9b\u202e\x08")
    code, said = cascade("prepare", tmp_path / "cases.csv", "-o", tmp_path / "data")
    assert code == 0
    assert f"  {shown}: liver 0 mL" in said
    assert not set(said) & set("\x1b\x07\x9b\u202e\x08")


def test_row_128_an_error_steers_no_terminal(cascade, tmp_path):
    (tmp_path / "\x1b[2Ja.csv").write_text("no,such,table\n")
    code, said = cascade("check", tmp_path / "\x1b[2Ja.csv")
    assert code == 3
    assert "\x1b" not in said
    assert "?[2Ja.csv has no column" in said


FORMULAS = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", " =1", "\uff1d1"]


@pytest.mark.parametrize("name", FORMULAS)
def test_row_129_a_case_id_is_no_formula(cascade, tmp_path, name):
    """As a name of a case in the table of `cascade check`; control characters become `?`."""
    write(tmp_path / "a.nii", scene()[0])
    write(tmp_path / "l.nii", scene()[1])
    with (tmp_path / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("case", "image", "label"), (name, "a.nii", "l.nii")])
    assert cascade("check", tmp_path / "cases.csv", "-o", tmp_path / "out")[0] == 0
    with (tmp_path / "out/check.csv").open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert row["case"] == "'" + name.strip()


@pytest.mark.parametrize("name", FORMULAS)
def test_row_129_every_table_goes_through_the_same_quotes(tmp_path, name):
    shown = "'" + name.translate({ord("\t"): "?", ord("\r"): "?"})
    assert list(csv.reader(io.StringIO(csv_text(["a"], [[name]]))))[1] == [shown]
    nothing = np.zeros((2, 3, 4), np.uint8)
    write_scores(CohortScore((score(nothing, nothing, (1.0, 1.0, 1.0), case=name),)), tmp_path)
    with (tmp_path / "cases.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1][0] == shown


def test_row_129_no_module_writes_csv_by_itself():
    """`csv_text` is the only writer of tables, but for the demo's own list of synthetic cases."""
    root = Path(__file__).parents[2]
    packages = ("cascade", "preprocess", "evaluate", "stage1_liver", "stage2_tumor")
    writers = {f.name for p in packages for f in (root / p).glob("*.py") if "csv.writer" in f.read_text("utf-8")}
    assert writers == {"text.py", "demo.py"}
