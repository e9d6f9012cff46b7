import gzip
import io
import threading
import zlib

import numpy as np
import pytest

from preprocess import archive
from preprocess.archive import GzipPieces, gzipped, made_ahead

BLOCKS = [np.arange(24, dtype=">i2").reshape(2, 3, 4), np.zeros((70, 500), np.uint8), np.full((1, 5), 7, np.uint8)]
CONTENT = b"".join(block.tobytes() for block in BLOCKS)


def test_one_gzip_member_holds_all_blocks_and_is_the_same_on_any_number_of_cores(monkeypatch):
    written = []
    for cores in (1, 3):
        monkeypatch.setattr(archive, "usable_cores", lambda cores=cores: cores)
        written.append(b"".join(gzipped(iter(BLOCKS), 4)))
    assert written[0] == written[1]
    engine = zlib.decompressobj(31)
    assert engine.decompress(written[0]) == CONTENT
    assert (engine.eof, engine.unused_data) == (True, b"")
    assert len(written[0]) < 300  # 35 kB of one value


def test_what_is_written_is_read_in_pieces_by_own_reader_and_by_pythons():
    many = [np.full((1 << 18,), k, np.uint8) for k in range(9)]
    packed = b"".join(gzipped(many, 4))
    assert gzip.decompress(packed) == b"".join(block.tobytes() for block in many)
    pieces = GzipPieces(io.BytesIO(packed))
    assert b"".join(pieces) == b"".join(block.tobytes() for block in many)
    assert not pieces.trailing


def test_blocks_are_asked_for_as_they_are_compressed_and_not_all_at_once(monkeypatch):
    monkeypatch.setattr(archive, "usable_cores", lambda: 1)
    asked = []
    blocks = (asked.append(k) or np.full(10, k, np.uint8) for k in range(100))
    parts = gzipped(blocks, 1)
    assert next(parts)[:2] == b"\x1f\x8b"
    next(parts)
    assert len(asked) <= 4


def test_pieces_are_made_one_ahead_in_another_thread_and_in_order():
    makers = []

    def pieces():
        for k in range(1, 4):
            makers.append(threading.get_ident())
            yield bytes([k])

    found = []
    for piece in made_ahead(pieces()):
        found.append(piece)
    assert found == [b"\1", b"\2", b"\3"]
    assert threading.get_ident() not in makers
    assert len(set(makers)) == 1


def test_what_goes_wrong_while_a_piece_is_made_is_raised_where_it_is_asked_for():
    def pieces():
        yield b"1"
        raise EOFError("early")

    ahead = made_ahead(pieces())
    assert next(ahead) == b"1"
    with pytest.raises(EOFError, match="early"):
        next(ahead)


def test_closing_waits_for_the_piece_that_is_being_made():
    going, made = threading.Event(), []

    def pieces():
        yield b"1"
        going.wait(5)
        made.append(2)
        yield b"2"
        raise AssertionError("one too many")

    ahead = made_ahead(pieces())
    next(ahead)
    threading.Timer(0.05, going.set).start()
    ahead.close()
    assert made == [2]
