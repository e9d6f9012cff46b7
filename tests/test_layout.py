"""The shape of the repository: what imports what, what a wheel holds, and that every key of a recipe is there."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cascade", "stage1_liver", "stage2_tumor", "preprocess", "evaluate", "configs")
ALLOWED = {
    "cascade": {"cascade", "stage1_liver", "stage2_tumor", "evaluate", "preprocess"},
    "stage1_liver": {"stage1_liver", "preprocess"},
    "stage2_tumor": {"stage2_tumor", "preprocess"},
    "evaluate": {"evaluate", "preprocess"},
    "preprocess": {"preprocess"},
    "configs": set(),
}


def imports_of(file):
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        ours = {name for name in imports_of(file) if name in PACKAGES}
        assert ours <= ALLOWED[package], file


@pytest.mark.parametrize("package", ["preprocess", "stage1_liver", "stage2_tumor", "evaluate"])
def test_only_cascade_knows_torch(package):
    assert not [file for file in (ROOT / package).rglob("*.py") if "torch" in set(imports_of(file))]


def test_the_wheel_holds_the_packages_and_the_recipes_only(tmp_path):
    source = tmp_path / "source"  # a copy: building leaves files behind
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, source / file)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == set(PACKAGES)
    assert {"configs/liver.toml", "configs/tumor.toml", "configs/demo_liver.toml", "configs/demo_tumor.toml"} <= {
        *names
    }
    models = {f"cascade/models/{path.name}" for path in (ROOT / "cascade" / "models").iterdir()}
    assert len(models) > 2
    assert {"cascade/py.typed", "evaluate/page.css", "evaluate/page.js"} | models <= {*names}
