"""JPEG-compressed DICOM slices decoded by SimpleITK's GDCM in a child process with limits.

A hostile or broken file may crash, hang or swell a C++ decoder: then the child dies, and the run goes on with one line.
The child is started by the first slice that needs it. It reads paths from its standard input and ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import InputError, ResourceError

#: Limits of the child: for one slice, and of its address space (SimpleITK alone takes 1 GiB of that).
SECONDS, MEMORY_BYTES = 60.0, 4 << 30

_COMMAND = (sys.executable, "-m", "preprocess.dicom_child")
_LENGTH = struct.Struct("<Q")


class Decoder:
    """A context that decodes slices in one child process, and leaves none behind."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def decode(self, path: Path, size: tuple[int, int]) -> NDArray[Any]:
        """The rescaled values (y, x) of the one-frame file `path`, which must be of `size`.

        Raises InputError when the decoder refuses the file, dies, or takes longer than `seconds`.
        """
        try:
            child = self._child = self._child or self._start()
            name = os.fsencode(path.absolute())
            assert child.stdin is not None
            child.stdin.write(_LENGTH.pack(len(name)) + name)
            child.stdin.flush()
            array = self._answer(size)
        except TimeoutError:
            self._stop()
            raise InputError(
                f"{path}: its pixels take longer than {self._seconds:g} s to decode; leave it out"
            ) from None
        except (EOFError, BrokenPipeError):
            self._stop()
            raise InputError(f"{path}: its pixels crash the decoder; copy or export the series again") from None
        except ValueError:
            self._stop()
            array = np.empty(0)
        if array.shape != size:
            raise InputError(f"{path}: its pixels cannot be decoded; copy or export the series again")
        return array

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError as error:
            raise ResourceError(f"no process for decoding DICOM ({error.strerror}); close other programs") from error

    def _answer(self, size: tuple[int, int]) -> NDArray[Any]:
        end = time.monotonic() + self._seconds
        (length,) = _LENGTH.unpack(self._receive(_LENGTH.size, end))
        if length > 8 * size[0] * size[1] + 1024:
            raise ValueError("more than one slice")
        content = self._receive(length, end)
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))

    def _receive(self, count: int, end: float) -> bytes:
        assert self._child is not None
        assert self._child.stdout is not None
        descriptor, parts = self._child.stdout.fileno(), []
        while count:
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError
            part = os.read(descriptor, min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            # A path that the dead child never read is still in the buffer.
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()


def _limit() -> None:
    """Bounds this process, and ends it with its parent (which may be killed before it can end us)."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C reaches the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers each path with the slice in numpy's format, an empty array when it cannot be decoded."""
    from SimpleITK import GetArrayFromImage, ImageFileReader, ProcessObject

    ProcessObject.SetGlobalWarningDisplay(False)
    while head := requests.read(_LENGTH.size):
        name = requests.read(_LENGTH.unpack(head)[0])
        array: NDArray[Any] = np.empty(0)
        reader = ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        # RuntimeError is SimpleITK's only error; the others are a name it cannot take.
        with contextlib.suppress(RuntimeError, TypeError, UnicodeError):
            reader.SetFileName(os.fsdecode(name))
            array = GetArrayFromImage(reader.Execute())[0]
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        content = buffer.getvalue()
        answers.write(_LENGTH.pack(len(content)) + content)
        answers.flush()


if __name__ == "__main__":
    _limit()
    _serve(sys.stdin.buffer, sys.stdout.buffer)
