"""Files that only SimpleITK can read (JPEG in DICOM, NRRD, MetaImage), read in a child process with limits.

A hostile or broken file may crash, hang or swell a C++ reader, which also writes to stderr as it likes: then the child
dies or is ended, and the run goes on with one line. The child reads requests from its standard input and ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import InputError, ResourceError

#: Limits of the child: for one file, and of its address space (SimpleITK alone takes 1 GiB of that).
SECONDS, MEMORY_BYTES = 300.0, 6 << 30

_COMMAND = (sys.executable, "-m", "preprocess.itk_child")
_LENGTH = struct.Struct("<Q")
_MOST_INFO = 1 << 16


@dataclass(frozen=True, eq=False)
class ItkImage:
    """What SimpleITK makes of a file. Per axis (x, y, z, ...); `array` is (..., z, y, x).

    `array` is None when the image is no 3-D scalar one or has more voxels than were asked for.
    """

    size: tuple[int, ...]
    components: int
    is_complex: bool
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    array: NDArray[Any] | None


class ItkChild:
    """A context that reads files in one child process, started when needed, and leaves none behind."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def read(self, path: Path, image_io: str, most_voxels: int) -> ItkImage:
        """The image in `path` by the reader `image_io`, rescaled where that format has a rescale.

        Raises InputError when the reader refuses the file, dies, or takes longer than `seconds`.
        """
        request = json.dumps({"io": image_io, "path": os.fsencode(path.absolute()).hex(), "most": most_voxels}).encode()
        try:
            child = self._child = self._child or _started()
            assert child.stdin is not None
            child.stdin.write(_LENGTH.pack(len(request)) + request)
            child.stdin.flush()
            image = self._answer(most_voxels)
        except TimeoutError:
            self._stop()
            raise InputError(f"{path} takes longer than {self._seconds:g} s to read; leave it out") from None
        except (EOFError, BrokenPipeError):
            self._stop()
            raise InputError(f"{path} crashes its reader, so it is damaged; copy or export it again") from None
        except (ValueError, TypeError, KeyError):
            self._stop()
            image = None
        if image is None:
            raise InputError(f"{path} is damaged or truncated; copy or export it again")
        return image

    def _answer(self, most_voxels: int) -> ItkImage | None:
        """None for an unreadable file. Raises ValueError, TypeError or KeyError for what is no answer."""
        end = time.monotonic() + self._seconds
        (length,) = _LENGTH.unpack(self._receive(_LENGTH.size, end))
        if length > _MOST_INFO:
            raise ValueError("not an answer")
        info = json.loads(bytes(self._receive(length, end)))
        if info is None:
            return None
        kind, shape = info.pop("dtype"), info.pop("shape")
        info = {key: tuple(value) if isinstance(value, list) else value for key, value in info.items()}
        if shape is None:
            return ItkImage(**info, array=None)
        dtype, count = np.dtype(kind), int(np.prod(shape, dtype=object))
        if count > most_voxels or dtype.itemsize > 8:
            raise ValueError("more than was asked for")
        content = self._receive(count * dtype.itemsize, end)
        return ItkImage(**info, array=np.frombuffer(content, dtype).reshape(shape))

    def _receive(self, count: int, end: float) -> memoryview:
        assert self._child is not None
        assert self._child.stdout is not None
        # The rest of an answer goes past Python's buffer, which is always empty: nothing else reads this pipe.
        descriptor, filled, content = self._child.stdout.fileno(), 0, memoryview(bytearray(count))
        while filled < count:
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError
            got = os.readv(descriptor, [content[filled:]])
            if not got:
                raise EOFError
            filled += got
        return content

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            # A request that the dead child never read is still in the buffer.
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()


def _started() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise ResourceError(f"no process for reading images ({error.strerror}); close other programs") from error


def _limit() -> None:
    """Bounds this process, and ends it with its parent (which may be killed before it can end us)."""
    # macOS refuses RLIMIT_AS.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C reaches the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers each request with a table of what the image is, null if it is unreadable, and its voxels."""
    while head := requests.read(_LENGTH.size):
        request = json.loads(requests.read(_LENGTH.unpack(head)[0]))
        info: dict[str, Any] | None = None
        array: NDArray[Any] | None = None
        # RuntimeError is SimpleITK's only error; the others are a name it cannot take.
        with contextlib.suppress(RuntimeError, TypeError, UnicodeError, MemoryError):
            found, array = _read(os.fsdecode(bytes.fromhex(request["path"])), request["io"], request["most"])
            info = {**found, "dtype": array.dtype.str if array is not None else None}
            info["shape"] = array.shape if array is not None else None
        content = json.dumps(info).encode()
        answers.write(_LENGTH.pack(len(content)) + content)
        if info is not None and array is not None:
            answers.write(np.ascontiguousarray(array).data)
        answers.flush()


def _read(path: str, image_io: str, most: int) -> tuple[dict[str, Any], NDArray[Any] | None]:
    from SimpleITK import GetArrayFromImage, GetPixelIDValueAsString, ImageFileReader

    reader = ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(path)
    reader.ReadImageInformation()
    info = {
        "size": reader.GetSize(),
        "components": reader.GetNumberOfComponents(),
        "is_complex": "complex" in GetPixelIDValueAsString(reader.GetPixelID()),
        "spacing": reader.GetSpacing(),
        "origin": reader.GetOrigin(),
        "direction": reader.GetDirection(),
    }
    is_scalar = info["components"] == 1 and not info["is_complex"] and len(info["size"]) == 3
    is_wanted = is_scalar and np.prod(info["size"], dtype=object) <= most
    return info, GetArrayFromImage(reader.Execute()) if is_wanted else None


if __name__ == "__main__":
    _limit()
    _serve(sys.stdin.buffer, sys.stdout.buffer)
