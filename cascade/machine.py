"""What this process asks of the machine and hears of it: allocator, device, memory, warnings.

Nothing here imports torch at module level.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from preprocess.errors import CascadeError, ResourceError, UsageError
from preprocess.workers import cores, usable_cores

if TYPE_CHECKING:
    import torch

N = TypeVar("N")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: From how many bytes on a piece of memory is mapped apart: the most that glibc takes, and that older ones take.
_MMAP_THRESHOLDS = (2**30, 2**25)
#: As many as libgomp itself takes where it knows that there are more threads than cores.
_SPINS = 1000
#: From here on GPUs compute quickly in float16 (Volta, 2017).
_HALF_CAPABILITY = (7, 0)
#: The device that is no torch device: the CPU by OpenVINO, for prediction alone (see `cascade.engine`).
OPENVINO = "openvino"


def tune_allocator() -> None:
    """Keep freed activations in the process instead of handing every one back to the kernel (glibc only).

    By default glibc maps and unmaps each large tensor; 30-45 % of the time of a 3D network on a CPU is page faults.
    See mallopt(3). Elsewhere this does nothing. To be called before torch allocates.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        # One without the other does harm: either ends glibc's own adapting of both to what the program does.
        if any(mallopt(_M_MMAP_THRESHOLD, ctypes.c_int(size)) for size in _MMAP_THRESHOLDS):
            mallopt(_M_TRIM_THRESHOLD, ctypes.c_int(2**31 - 1))


def share_cores() -> None:
    """Have torch's threads sleep soon when they wait for each other, so that programs beside them are not slowed.

    GNU's OpenMP, which torch's builds for Linux use, has them spin for some milliseconds; where another program holds
    one of the cores, all others then wait by spinning, and two runs at once take two to seven times as long as one
    instead of less than twice (`benchmarks.beside`). Alone, no time is lost. Nor does torch see how much time on its
    cores a container has: it gets no more threads than that is for. To be called before torch is imported; what the
    user has set stays. See libgomp's manual, GOMP_SPINCOUNT and OMP_NUM_THREADS.
    """
    if usable_cores() < len(cores()):
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))


def pick_device(name: str, place: int | None = None) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda` or `cuda:N`.

    `auto` takes the GPU when there is one; of processes that share a machine the one at `place` takes the GPU of that
    number. Raises ResourceError when a GPU is asked for and there is none, UsageError for any other kind of device.
    """
    import torch

    if name == OPENVINO:
        raise UsageError(f"--device {name}: computes predictions, it cannot train; use auto, cpu, cuda or cuda:N")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and place is not None and (count := torch.cuda.device_count()):
        if place >= count:
            raise ResourceError(f"--device cuda: {count} GPUs for more processes: use --nproc-per-node {count}")
        name = f"cuda:{place}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: no such kind of device; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: not a device that cascade was made for; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError(f"--device {name}: no usable GPU found; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(f"--device {name}: only {torch.cuda.device_count()} GPUs found, numbered from 0")
    return device


def memory_bytes(device: torch.device) -> int:
    """Memory of a GPU, or that of the machine as far as this process may use it (cgroup version 2)."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    return whole


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the hardware computes it, else float16 on GPUs that are quick in it, else None (float32).

    Emulated bfloat16 is slower than float32. float16 ends at 65504: see `cascade.training_state.State.scaler` and
    `cascade.inference`.
    """
    import torch

    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        return torch.float16 if torch.cuda.get_device_capability(device) >= _HALF_CAPABILITY else None
    flags = torch.cpu.get_capabilities()
    return torch.bfloat16 if flags.get("avx512_bf16") or flags.get("amx_bf16") else None


def on_device(network: N, device: torch.device) -> N:
    """`network`, a torch module, on `device`, its weights in the order of memory that computes most quickly there.

    On a CPU that is channels last, and images follow the weights: convolutions need not sort them. On a GPU it is
    torch's usual order; the other was not measured there.
    """
    import torch

    order = torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format
    placed: N = cast(Any, network).to(device, memory_format=order)  # torch's types know no order
    return placed


def leave(message: str) -> NoReturn:
    """End this process at once with `message` and exit code 5, from a thread that watches another one hang."""
    sys.stderr.write(f"cascade: {message}\n")
    sys.stderr.flush()
    os._exit(ResourceError.exit_code)


_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "can't start new thread")


def lacks_memory(error: Exception) -> bool:
    """Whether `error` says that memory did not suffice; torch says so of a CPU in a plain RuntimeError."""
    return isinstance(error, MemoryError) or any(part in str(error) for part in _NO_MEMORY)


def as_cascade_error(error: Exception) -> CascadeError:
    """What a user is told of any error: itself, want of memory, disk or permission (exit 5), or else a bug (exit 1)."""
    if isinstance(error, CascadeError):
        return error
    if lacks_memory(error):
        return ResourceError("out of memory: close other programs, use fewer --jobs or a smaller [window] size")
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename is not None else ""
        return ResourceError(f"{name}{error.strerror or error}; check disk and permissions")
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in place)
    return CascadeError(f"a bug in cascade, please report it: {error!r}{where} (-v shows more)")


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """The warnings that modules of `cascade` log inside the block, for a report."""
    handler, logger = _Heard(), logging.getLogger("cascade")
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)
