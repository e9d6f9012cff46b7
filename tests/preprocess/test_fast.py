"""The stand-ins of the extra `[fast]` against the plain ones. Each is skipped where its package is not installed."""

import gzip
import io
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from preprocess import fast
from preprocess.archive import GzipPieces


def test_parts_are_numbered_as_by_scipy():
    pytest.importorskip("cc3d", reason="cc3d is not installed (pip install connected-components-3d)")
    rng = np.random.default_rng(0)
    for k in range(90):
        mask = rng.random(tuple(rng.integers(1, 12, 3))) < rng.uniform(0.05, 0.8)
        mask = (mask, np.asfortranarray(mask), mask[:, ::-1])[k % 3]
        parts, count = fast.numbered(mask)
        wanted, wanted_count = ndimage.label(mask)
        assert (count, parts.dtype) == (wanted_count, wanted.dtype)
        np.testing.assert_array_equal(parts, wanted)


@pytest.fixture
def stream():
    return gzip.compress(np.random.default_rng(0).integers(0, 9, 300_000, np.uint8).tobytes(), 4, mtime=0)


def test_a_gzip_stream_is_read_as_by_zlib(stream):
    pytest.importorskip("isal", reason="isal is not installed (pip install isal)")
    content = gzip.decompress(stream)
    for tail, trailing in ((b"", False), (b"\0" * 99, False), (b"rest", True)):
        pieces = GzipPieces(io.BytesIO(stream + stream + tail))
        assert b"".join(pieces) == 2 * content
        assert pieces.trailing is trailing


def test_damage_is_seen_as_by_zlib(stream):
    pytest.importorskip("isal", reason="isal is not installed (pip install isal)")
    for place in (1, 3, 20, len(stream) // 2, len(stream) - 7, len(stream) - 2):
        damaged = bytearray(stream)
        damaged[place] ^= 0x55
        with pytest.raises((EOFError, *fast.InflateError)):
            list(GzipPieces(io.BytesIO(bytes(damaged))))
    for length in (5, 11, 1000, len(stream) - 9, len(stream) - 8, len(stream) - 1):
        with pytest.raises(EOFError):
            list(GzipPieces(io.BytesIO(stream[:length])))


def test_without_the_extra_the_plain_ones_are_used():
    code = (
        "import sys; sys.modules.update({'cc3d': None, 'isal': None, 'isal.isal_zlib': None}); "
        "import numpy as np, zlib; from preprocess import fast; "
        "assert type(fast.inflater(31)) is type(zlib.decompressobj()); assert fast.InflateError == (zlib.error,); "
        "print(fast.numbered(np.array([[[1, 0, 1]]], bool))[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[[[1, 0, 2]]]\n"
