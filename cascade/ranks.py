"""The processes that train one network together, as `torchrun` starts them, or the one that trains alone.

Everything that knows torch.distributed is here. `Ranks` is a process that trains alone: each of its methods does
nothing, or the obvious. `joined` gives one of several, with the same methods: the training loop is the same for both.

Sums and gradients are added up by plain all-reduces and not by DistributedDataParallel: the overlap of a batch is a
ratio of voxel counts over all of its patches, so counts must be added up before the loss, and gradients summed after
it, not averaged; and a process that ran out of memory amid a backward pass that sends gradients would leave the others
waiting. In exchange, gradients are not sent while others are still computed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from cascade.machine import leave, pick_device
from preprocess.errors import ResourceError, UsageError
from preprocess.text import short
from preprocess.workers import cores, usable_cores

_T = TypeVar("_T")

#: Seconds: for all processes to start; between two signs of life; without one until a process counts as gone; for the
#: main thread to end by itself when one is. The last three together are less than a minute; whoever never comes is
#: waited for longer, since a scheduler may start machines one after the other.
JOIN_S, PULSE_S, LIMIT_S, GRACE_S = 300.0, 5.0, 25.0, 20.0
#: How long one waits for another while all are alive: a look at held-out cases may take hours, so in effect for ever.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True, eq=False)
class Ranks:
    """This process among the `world` that train one network, numbered from 0, and the `device` that it computes on.

    Used as it is, the one that trains alone.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    @property
    def part(self) -> slice:
        """This process's own of what is shared out one by one: patches of a batch, held-out cases."""
        return slice(self.rank, None, self.world)

    def require_shares(self, batch: int) -> None:
        """Raises UsageError unless a batch of so many patches can be shared out evenly."""
        if batch % self.world:
            enough = self.world * -(-batch // self.world)
            raise UsageError(
                f"sampling.batch = {batch} cannot be shared by {self.world} processes: make it a multiple, "
                f"e.g. --set sampling.batch={enough}"
            )

    def require_alike(self, named: Mapping[str, Any]) -> None:
        """Raises UsageError, in all processes, unless each was given the same by every name."""
        one, *others = self.gather(dict(named))
        for rank, other in enumerate(others, 1):
            differing = [name for name in one if other[name] != one[name]]
            if differing:
                raise UsageError(
                    f"process {rank} of {self.world} has other {', '.join(differing)} than process 0: "
                    "start all with one command and equal files"
                )

    def total(self, sums: Tensor) -> Tensor:
        """The sum of all processes' `sums`. Its gradient reaches their own part only; see `add_up`."""
        return sums

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes in place of each of `tensors`."""

    def largest(self, value: float) -> float:
        """The largest of all processes' values."""
        return value

    def gather(self, value: _T) -> list[_T]:
        """Every process's value, in their order."""
        return [value]

    def from_first(self, make: Callable[[], _T]) -> _T:
        """What `make()` gives in the first process, in all; the others wait for it. Tensors come to the own device."""
        return make()

    def together(self, work: Callable[[], _T]) -> _T:
        """`work()`; when the memory of one process does not suffice for it, OutOfMemoryError in all of them."""
        failed = ""
        try:
            result = work()
        except torch.OutOfMemoryError as error:
            failed = str(error) or "out of memory"  # not the error: its traceback keeps what did not fit
        if self.largest(bool(failed)):
            raise torch.OutOfMemoryError(failed or "another process is out of memory")
        return result


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """This process among those that `torchrun` started, alone when it did not; `device` is as for `pick_device`.

    Leaves together with the others, or, after an error, alone: the others then end too, see `_Joined`. Raises
    ResourceError when they cannot be reached.
    """
    world = int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1
    if world == 1:
        yield Ranks(pick_device(device))
        return
    own = pick_device(device, int(os.environ["LOCAL_RANK"]))
    ranks = _Joined(own, int(os.environ["RANK"]), world, groups=_groups(own, world))
    if own.type == "cpu":
        # torchrun says one thread each, by OMP_NUM_THREADS, when nobody set that.
        torch.set_num_threads(ranks.own_cores())
    if not ranks.first:
        logging.getLogger("cascade").setLevel(logging.ERROR)  # the first one warns
    watch = threading.Thread(target=ranks.watch, daemon=True, name="watch")
    watch.start()
    try:
        yield ranks
        ranks.largest(0)  # the end is common
    finally:
        if own.type == "cuda":
            dist.destroy_process_group(ranks.groups["gradients"])  # may hang when another is gone: watched to the end
        ranks.over.set()
        watch.join(2 * LIMIT_S)  # the last sign of life may have begun as the other stopped giving any
        dist.destroy_process_group()
        # Destroyed, a group still has its threads while anyone holds it, and whoever holds `ranks` would: a thread that
        # is yet to let go of its last tensor when Python ends aborts the process (pytorch/pytorch#179291).
        ranks.groups.clear()


def _groups(device: torch.device, world: int) -> dict[str, Any]:
    """The groups for all that is said, for signs of life, and for gradients: gloo, on a GPU NCCL for the last."""
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=JOIN_S))
        control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        pulse = dist.new_group(backend="gloo", timeout=timedelta(seconds=LIMIT_S))
        kinds: list[str] = [""] * world
        dist.all_gather_object(kinds, device.type, group=control)
        if len(set(kinds)) > 1:
            raise UsageError(f"--device: processes differ ({', '.join(kinds)}): give all --device cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
            gradients = dist.new_group(backend="nccl", timeout=_PATIENCE)
        else:
            gradients = control
        return {"control": control, "pulse": pulse, "gradients": gradients}
    except (RuntimeError, ValueError) as error:
        raise ResourceError(
            f"the {world} processes cannot reach each other ({short(error)}); start the same torchrun on every machine"
        ) from error


@dataclass(frozen=True, eq=False, kw_only=True)
class _Joined(Ranks):
    """One of several processes.

    A process that is gone is noticed by a broken connection, or, when its whole machine is, by the signs of life that
    a thread exchanges: no matter how long the others are at work, they are not taken for dead.
    """

    groups: dict[str, Any]
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def _gone(self) -> str:
        return (
            f"process {self.rank} of {self.world}: another one has ended or is out of reach; "
            "see what it said, and go on with --resume"
        )

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ResourceError(self._gone) from error

    def total(self, sums: Tensor) -> Tensor:
        summed = sums.detach().clone()
        self.add_up([summed])
        return summed + (sums - sums.detach())  # the value of one, the gradient of the other

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with self._reached():
            dist.all_reduce(flat, group=self.groups["gradients"])
        for tensor, summed in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def largest(self, value: float) -> float:
        tensor = torch.tensor(float(value), dtype=torch.float64)
        with self._reached():
            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.groups["control"])
        return tensor.item()

    def gather(self, value: _T) -> list[_T]:
        values: list[Any] = [None] * self.world
        with self._reached():
            dist.all_gather_object(values, value, group=self.groups["control"])
        return values

    def from_first(self, make: Callable[[], _T]) -> _T:
        sent: list[Any] = [None]
        if self.first:
            made, buffer = make(), io.BytesIO()
            torch.save(made, buffer)
            sent = [buffer.getvalue()]
        with self._reached():
            dist.broadcast_object_list(sent, src=0, group=self.groups["control"])
        if self.first:
            return made
        # What lies on the CPU stays there: the optimiser counts its steps on it.
        own = lambda storage, place: storage if place == "cpu" else storage.cuda(self.device)  # noqa: E731
        return cast(_T, torch.load(io.BytesIO(sent[0]), map_location=own, weights_only=False))

    def own_cores(self) -> int:
        """This process's part of the cores that it may use: all, if given some for itself, or an even one."""
        own = (os.environ["GROUP_RANK"], cores())  # the number of its machine
        sharing = sum(machine == own[0] and not there.isdisjoint(own[1]) for machine, there in self.gather(own))
        return max(1, usable_cores(own[1]) // sharing)

    def watch(self) -> None:
        """Exchange signs of life until `over`. When another process gives none, end this one with exit code 5.

        The main thread, which mostly waits for the other inside torch, cannot be made to raise anything.
        """
        try:
            while not self.over.wait(PULSE_S):
                dist.all_reduce(torch.zeros(1), group=self.groups["pulse"])
        except RuntimeError:
            if not self.over.wait(GRACE_S):  # it may be about to end by itself, with a better message
                leave(self._gone)
