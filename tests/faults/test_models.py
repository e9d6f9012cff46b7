"""Rows 98 to 100 and 127 of the catalogue of faults: files that claim to be models."""

import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cascade.case import load_runner
from cascade.checkpoint import load_model
from cascade.cli import run_command
from cascade.stages import LIVER, TUMOR
from cascade.tensorfile import read_tensors, write_tensors
from preprocess.errors import ModelError
from tests.made_training import model_at


@pytest.fixture
def path(tmp_path):
    return model_at(tmp_path / "m.safetensors", "liver")


def parts(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def written(path, index, data):
    """A safetensors file of this index, without a checksum unless `index` has one."""
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def with_header(path, **changes):
    """The same file with another header, as an older program writes it, without a checksum."""
    index, data = parts(path)
    header = {**json.loads(index["__metadata__"]["cascade"]), "format": 1, **changes}
    index["__metadata__"] = {"cascade": json.dumps(header)}
    return written(path, index, data)


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (self.canary, "w"))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5, "torch", "zip"])
def test_row_98_a_pickle_is_refused_by_name_and_nothing_runs(tmp_path, protocol, capsys):
    canary, path = tmp_path / "ran", tmp_path / "m.pt"
    if protocol == "torch":
        torch.save({"a": Bomb(str(canary))}, path)
    elif protocol == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../../escaped", "x")
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb(str(canary))))
    else:
        path.write_bytes(pickle.dumps(Bomb(str(canary)), protocol))
    with pytest.raises(ModelError, match="a pickle, which could run code, not a safetensors file: it is not loaded"):
        load_model(path, LIVER)
    assert not canary.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.pt"]


@pytest.mark.parametrize(
    ("length", "message"),
    [(2**63 - 1, "an index of"), (10**9, "an index of"), (0, "an index of"), (2**64 - 8, "an index")],
)
def test_row_98_a_header_of_absurd_length_is_not_read(path, length, message):
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(ModelError, match=f"not a whole safetensors file \\({message}"):
        load_model(path, LIVER)


def entry(**changes):
    return {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}


@pytest.mark.parametrize(
    "index",
    [
        {"a": entry(shape=[2**31, 2**31])},
        {"a": entry(shape=[2**62, 4])},  # 2^64 elements, 0 in 64 bits
        {"a": entry(shape=[2**40], data_offsets=[0, 2**42])},
        {"a": entry(shape=[-2, -2])},
        {"a": entry(shape=[2, 2.0])},
        {"a": entry(shape=[True, 4])},
        {"a": entry(shape=[1] * 100 + [4])},
        {"a": entry(data_offsets=[4, 20])},
        {"a": entry(data_offsets=[16, 0])},
        {"a": entry(shape=[1, 2], data_offsets=[0, 8])},  # half of the bytes are nobody's
        {"a": entry(), "b": entry()},  # two tensors in one place
        {"a": entry(dtype="C64")},
        {"a": entry(dtype=["F32"])},
        {"a": [1]},
        {"__metadata__": "text"},
        [],
        b"[" * 100_000,
        b'{"a": ' * 50_000,
    ],
)
def test_row_98_a_shape_that_does_not_fit_the_file_is_refused_before_any_memory_is_taken(tmp_path, index):
    if isinstance(index, dict):
        index.setdefault("__metadata__", {"cascade": "{}"})
    path = written(tmp_path / "m", index, bytes(16))
    tracemalloc.start()
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_model(path, LIVER)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30_000_000


def test_row_98_a_large_file_of_another_kind_is_not_read(tmp_path):
    path = written(tmp_path / "m", {"a": entry(shape=[2**38], data_offsets=[0, 2**40])}, b"")
    os.truncate(path, path.stat().st_size + 2**40)  # a terabyte, none of it on the disk
    with pytest.raises(ModelError, match="not one of cascade's models"):
        load_model(path, LIVER)


def with_features(path, features):
    return with_header(path, settings={**header_of(path)["settings"], "network": {"features": features, "stem": 1}})


def header_of(path):
    return json.loads(parts(path)[0]["__metadata__"]["cascade"])


@pytest.mark.parametrize("features", [[10**9, 10**9], [2**62, 4], [40, 80], [4] * 5000])
def test_row_98_a_network_that_its_weights_do_not_fill_is_not_made(path, monkeypatch, features):
    with_features(path, features)
    monkeypatch.setattr("cascade.checkpoint.unet", lambda *_, **__: pytest.fail("made"))
    with pytest.raises(ModelError, match=r"m.safetensors: weights do not fit network.features = .*: too few weights"):
        load_model(path, LIVER)


def test_row_98_nor_one_of_more_blocks_than_its_weights_fill(path, monkeypatch):
    settings = header_of(path)["settings"]
    with_header(path, settings={**settings, "network": {**settings["network"], "blocks": 10**9}})
    monkeypatch.setattr("cascade.checkpoint.unet", lambda *_, **__: pytest.fail("made"))
    with pytest.raises(ModelError, match="too few weights"):
        load_model(path, LIVER)


def test_row_99_another_architecture_is_named(path):
    with pytest.raises(ModelError, match=r"m.safetensors: weights do not fit network.features = \(8, 4\)"):
        load_model(with_features(path, [8, 4]), LIVER)


def test_row_97_every_changed_byte_of_a_model_is_found(path):
    whole = path.read_bytes()
    load_model(path, LIVER)
    (length,) = struct.unpack("<Q", whole[:8])
    for place in (*range(0, 8 + length, 23), *range(8 + length, len(whole), 1009), len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ModelError, match=r"^.*m\.safetensors: "):
            load_model(path, LIVER)
    for end in (0, 1, 7, 8, 9, 500, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelError, match="not a whole safetensors file"):
            load_model(path, LIVER)


def test_row_97_a_checksum_cannot_be_left_out(path):
    index, data = parts(path)
    del index["__metadata__"]["sha256"]
    with pytest.raises(ModelError, match="the checksum is missing"):
        load_model(written(path, index, data), LIVER)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_row_97_weights_that_are_not_finite_are_refused(path, value):
    index, data = parts(path)
    start = index["head.bias"]["data_offsets"][0]
    del index["__metadata__"]["sha256"]
    written(path, index, data[:start] + struct.pack("<e", value) + data[start + 2 :])
    with pytest.raises(ModelError, match=r"weights head.bias are not all finite"):
        load_model(with_header(path), LIVER)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "tumor"}, "stage is 'tumor', needed is 'liver'"),
        ({"regions": ["liver", "spleen"]}, r"regions are \['liver', 'spleen'\], needed are \['liver'\]"),
        ({"format": "2"}, "header is damaged"),
        ({"preparation": {"spacing_mm": [0, 3, 3], "window_hu": [-1, 1]}}, "preparation.spacing_mm"),
        ({"preparation": None}, "header is damaged"),
        ({"scores": 3}, "header is damaged"),
        ({"trained_on": "abc"}, "header is damaged"),
        ({"settings": {}}, "is missing"),
    ],
)
def test_row_99_what_does_not_fit_is_named(path, changes, message):
    with pytest.raises(ModelError, match=message):
        load_model(with_header(path, **changes), LIVER)


def test_row_99_the_command_ends_with_4_and_one_line(path, tmp_path, capsys):
    (tmp_path / "cases.csv").write_text("case,image,label\n")
    options = ["--liver", str(path), "--tumor", str(path), "-o", str(tmp_path / "out")]
    with pytest.raises(ModelError, match="stage is 'liver', needed is 'tumor'") as caught:
        load_runner(path, path, "cpu", liver_only=False)
    assert caught.value.exit_code == 4
    assert run_command(["report", str(tmp_path / "cases.csv"), *options]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_row_100_a_newer_format_is_named(path):
    with pytest.raises(ModelError, match="format 3 is newer than 2: update cascade"):
        load_model(with_header(path, format=3), LIVER)


def test_row_127_the_hash_is_that_of_the_weights_in_use_not_of_the_file_later(tmp_path):
    paths = [model_at(tmp_path / f"{name}.safetensors", name) for name in ("liver", "tumor")]
    before = {model: load_model(p, stage).sha256 for model, p, stage in zip("ab", paths, (LIVER, TUMOR), strict=True)}
    runner = load_runner(*paths, "cpu", liver_only=False)
    model_at(paths[0], "liver", bias=(-9.0,))
    assert runner.models == {"liver": before["a"], "tumor": before["b"]}
    image = torch.zeros(8, 8, 8).numpy()
    assert runner.liver.infer(image, None).min() > 0.99  # the old weights


def test_the_files_are_safetensors_files_to_others_too(path, tmp_path):
    tensors = {
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
        "view": torch.arange(12.0).reshape(3, 4).T,
        "whole": torch.arange(3),
    }
    write_tensors(tmp_path / "t", tensors, {"a": [1, "ü"]})
    assert all(torch.equal(value, tensors[name]) for name, value in load_file(tmp_path / "t").items())
    with safe_open(tmp_path / "t", framework="pt") as file:
        assert json.loads(file.metadata()["cascade"]) == {"a": [1, "ü"]}
    read = read_tensors(tmp_path / "t")
    assert (read.header, read.verified) == ({"a": [1, "ü"]}, True)
    assert all(torch.equal(read.tensors[name], value) for name, value in tensors.items())
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "s", {"cascade": '{"b": 2}'})
    foreign = read_tensors(tmp_path / "s")
    assert (foreign.header, foreign.verified) == ({"b": 2}, False)
    assert all(torch.equal(foreign.tensors[name], value) for name, value in tensors.items())


def test_a_file_is_read_once(path):
    def read_so_far():
        with open("/proc/self/io") as file:
            return int(file.readline().removeprefix("rchar:"))

    load_model(path, LIVER)
    before = read_so_far()
    load_model(path, LIVER)
    assert read_so_far() - before < 1.5 * path.stat().st_size
