"""Bytes that claim to be a model file: one line of error, or a model that can be used. See `tests.fuzz.common`.

Half of the inputs are made without a checksum, as older programs write them: otherwise it would stop nearly all.
"""

import json
import random
import struct
import tempfile
from pathlib import Path

import numpy as np
import torch

from cascade.checkpoint import load_model
from cascade.stages import STAGES
from tests.fuzz.common import expected_errors, main, mutated
from tests.made_training import model_at

# The loop forks, and threads do not survive that: a second one would wait for them for ever.
torch.set_num_threads(1)


def check(content: bytes, folder: Path) -> None:
    path = folder / "m.safetensors"
    path.write_bytes(content)
    for stage in STAGES.values():
        with expected_errors():
            model = load_model(path, stage)
            size = model.network().multiple * 2
            if size <= 16:  # a network of many levels cannot be tried quickly
                with torch.inference_mode():
                    out = model.network()(torch.from_numpy(np.zeros((1, 1, size, size, size), np.float32)))
                assert out.shape[1] == len(stage.regions)


def without_checksum(content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    index = json.loads(content[8 : 8 + length])
    header = json.loads(index["__metadata__"]["cascade"])
    index["__metadata__"] = {"cascade": json.dumps({**header, "format": 1})}
    text = json.dumps(index).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as name:
        whole = [model_at(Path(name) / stage, stage).read_bytes() for stage in STAGES]
    return [*whole, *map(without_checksum, whole)]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Bytes anywhere, or, more often, in the index, whose length is then mended so that the rest is reached."""
    (length,) = struct.unpack("<Q", content[:8])
    if rng.random() < 0.3:
        return mutated(content, rng)
    text = (
        _changed_number(content[8 : 8 + length], rng) if rng.random() < 0.5 else mutated(content[8 : 8 + length], rng)
    )
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _changed_number(text: bytes, rng: random.Random) -> bytes:
    """The index with one of its numbers replaced by an odd one."""
    places = [k for k in range(1, len(text)) if text[k : k + 1].isdigit() and not text[k - 1 : k].isdigit()]
    start = rng.choice(places)
    end = start
    while text[end : end + 1].isdigit():
        end += 1
    odd = rng.choice(
        (b"0", b"1", b"-1", b"2147483648", b"18446744073709551616", b"1e999", b"NaN", b"null", b"0.5", b"[]")
    )
    return text[:start] + odd + text[end:]


if __name__ == "__main__":
    main(check, seeds(), mutate)
