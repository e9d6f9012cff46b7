"""Tensors and a JSON header in one safetensors file, written whole or not at all and verified to the last byte.

Reading runs no code, reads the file once and allocates no more than its length: every size in it is checked against
that first. Written here and not by the `safetensors` package, so that each write can be seen to fail, and with a
checksum (metadata `sha256`: of the whole file with these 64 digits set to 0), which that package does not have.
Format: https://huggingface.co/docs/safetensors (8 bytes of length, a JSON index, then the data without gaps).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preprocess.errors import ModelError
from preprocess.files import write_bytes

#: The longest index that is read; that of a large network is a hundredth of it.
MOST_INDEX_BYTES = 8_000_000

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_BLANK = b"0" * 64
# Binary pickles begin with the opcode PROTO; those of protocol 0 with MARKs and a class or a container.
_PICKLE = re.compile(rb"\x80[\x00-\x06]|\(*c[\w.]+\n[\w.]+\n|\([dlt]")


@dataclass(frozen=True, eq=False)
class TensorFile:
    """What a file holds; `sha256` is the whole file's, `verified` whether it had a checksum (which then fitted)."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]
    sha256: str
    verified: bool


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header, atomically. Raises ResourceError, and ValueError for NaN in `header`."""
    # The widest types first: then each number lies at a multiple of its size.
    order = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in order}
    # The checksum comes first, so that its place is the first one that looks like it.
    index: dict[str, Any] = {
        "__metadata__": {"sha256": _BLANK.decode(), "cascade": json.dumps(header, allow_nan=False)}
    }
    end = 0
    for name, tensor in plain.items():
        start, end = end, end + tensor.nbytes
        index[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(index).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<Q", len(text)) + text
    data = [tensor.reshape(-1).view(torch.uint8).numpy().data for tensor in plain.values()]
    digest = hashlib.sha256(head)
    for part in data:
        digest.update(part)
    write_bytes(path, head.replace(_BLANK, digest.hexdigest().encode(), 1), *data)


def read_tensors(path: Path) -> TensorFile:
    """The inverse of `write_tensors`; a foreign safetensors file with our header has no checksum and is taken, too.

    Raises ModelError for a file that is missing, of another kind, or damaged.
    """
    try:
        with FileIO(path) as file:
            return _read(path, file)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error}): get it again") from error


def _read(path: Path, file: FileIO) -> TensorFile:
    size = os.fstat(file.fileno()).st_size
    start = file.read(512)
    if start[:2] == b"PK" or _PICKLE.match(start):
        raise ModelError(f"{path}: a pickle, which could run code, not a safetensors file: it is not loaded")
    length = struct.unpack("<Q", start[:8].ljust(8, b"\0"))[0]
    if not 2 <= length <= min(size - 8, MOST_INDEX_BYTES) or length % 8 or start[8:9] != b"{":
        raise ValueError(f"an index of {length} bytes in a file of {size}")
    file.seek(8)
    text = file.read(length)
    index = json.loads(text)
    metadata = index.pop("__metadata__", {})
    _check_index(index, size - 8 - length)
    if "cascade" not in metadata:
        raise ModelError(f"{path}: a safetensors file, but not one of cascade's models")
    header = json.loads(metadata["cascade"], parse_constant=_refuse_constant)
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    content = bytearray(size)  # everything is known to fit, now it is read
    file.seek(0)
    if file.readinto(content) != size or file.read(1):
        raise ValueError("it changed while it was read")
    checksum = metadata.get("sha256")
    if checksum is not None and not _fits(content, 8 + length, checksum):
        raise ValueError("the checksum does not fit: some bytes were changed")
    tensors = {name: _tensor(content, 8 + length, entry) for name, entry in index.items()}
    return TensorFile(tensors, header, hashlib.sha256(content).hexdigest(), checksum is not None)


def _check_index(index: Mapping[str, Any], size: int) -> None:
    """Whether the tensors fill `size` bytes without gaps and overlaps, each as long as its shape says."""
    end = 0
    for name, entry in sorted(index.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (start, stop) = entry["shape"], entry["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)) or len(shape) > 8:
            raise ValueError(f"{name}: shape {str(shape)[:80]} at {start}..{stop}")
        itemsize = _DTYPES[entry["dtype"]].itemsize
        if start != end or stop - start != math.prod(shape) * itemsize or start % itemsize:
            raise ValueError(f"{name}: {entry['dtype']} of shape {str(shape)[:80]} in bytes {start}..{stop} of {size}")
        end = stop
    if end != size:
        raise ValueError(f"{end} of {size} bytes of tensors")


def _fits(content: bytearray, index_end: int, checksum: str) -> bool:
    wanted = checksum.encode()
    place = content.find(wanted, 0, index_end)
    if len(wanted) != 64 or place < 0:
        return False
    digest = hashlib.sha256(memoryview(content)[:place])
    digest.update(_BLANK)
    digest.update(memoryview(content)[place + 64 :])
    return digest.hexdigest() == checksum


def _tensor(content: bytearray, offset: int, entry: Mapping[str, Any]) -> Tensor:
    start, stop = entry["data_offsets"]
    dtype = _DTYPES[entry["dtype"]]
    if start == stop:
        return torch.empty(entry["shape"], dtype=dtype)
    count = (stop - start) // dtype.itemsize
    flat = torch.frombuffer(content, dtype=dtype, count=count, offset=offset + start)
    return flat.reshape(entry["shape"])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} in its header")
