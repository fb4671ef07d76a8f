"""Training in several processes that torchrun started: every one computes a share of each batch.

What is drawn at random (order, augmentation, lost modalities) is drawn in every process for the
whole batch from the same seeds, then each takes its contiguous share, so N processes see exactly
the samples that one sees. Batch norms take their moments over the whole batch (``globalnorm`` on
CPUs, torch's SyncBatchNorm on GPUs), class scores and the residuals to be aligned are gathered, and
every process computes the loss of the whole batch from them: its value, and the sum of all
processes' gradients, are those of one process up to the order of sums. The processes talk by gloo
on CPUs and by NCCL on GPUs. The first process alone reads and writes the run folder.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from neuroav.errors import ConfigError, ExecutorError, NeuroavError
from neuroav.training.globalnorm import with_global_norms

Found = TypeVar("Found")
# The others wait while the first prepares data or validates; that one died is noticed at once.
PATIENCE = timedelta(hours=24)
JOINING = timedelta(minutes=30)  # until all processes are there


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is, as torchrun says.

    rank: of ``size`` processes; local_rank: of ``local_size`` on this machine, its GPU's number;
    address, port: where the processes meet; hosted: torchrun itself listens there, else the first
    process does; attempt: how often torchrun has started the processes again.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    hosted: bool = False
    attempt: int = 0

    def __post_init__(self) -> None:
        whole = 0 <= self.rank < self.size and 0 <= self.local_rank < self.local_size <= self.size
        if not whole or not 0 < self.port < 1 << 16:
            raise ConfigError(f"{self}: no place among processes; start training by torchrun")


class Alone:
    """One process, which is the first and only one. The base of ``Group``."""

    size, first = 1, True

    def device(self, device: torch.device) -> torch.device:
        """Return the device of this process where the configuration names ``device``."""
        return device

    def share(self, count: int) -> slice:
        """Return this process's part of a batch of ``count`` samples."""
        return slice(0, count)

    def gather(self, x: torch.Tensor, count: int) -> torch.Tensor:
        """Return (count, ...), differentiable, of every process's share (b, ...) in their order."""
        return x

    def from_first(self, make: Callable[[], Found]) -> Found:
        """Return what ``make`` gives in the first process; the others raise its expected errors."""
        return make()

    def first_on_machine(self, make: Callable[[], Found]) -> Found:
        """Call ``make`` in every process, in one of each machine before the others of it."""
        return make()

    def same(self, model: nn.Module) -> None:
        """Give the parameters and buffers of the first process to all."""

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the network, whose batch norms are now those of the whole batch."""
        return model

    def parallel(self, outputs: nn.Module) -> nn.Module:
        """Return a module whose backward pass gives the mean of all processes' gradients."""
        return outputs


class Group(Alone):
    """Several processes; made by ``joined``. Every method is called by all of them, in one order.

    device: where this process computes, and what it exchanges lies.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self._ranks, self._device = ranks, device
        self.size, self.first = ranks.size, ranks.rank == 0

    def device(self, device: torch.device) -> torch.device:
        return self._device

    def share(self, count: int) -> slice:
        rank, size = self._ranks.rank, self.size
        return slice(count * rank // size, count * (rank + 1) // size)

    def gather(self, x: torch.Tensor, count: int) -> torch.Tensor:
        return _Gathered.apply(x, count, self.share(count), self.total)

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, summed in place over all processes."""
        distributed.all_reduce(x)
        return x

    def from_first(self, make: Callable[[], Found]) -> Found:
        sent = [_outcome(make) if self.first else (None, None)]
        distributed.broadcast_object_list(sent, src=0, device=self._device)
        found, error = sent[0]
        if error is not None:
            raise error
        return found  # type: ignore[return-value]

    def first_on_machine(self, make: Callable[[], Found]) -> Found:
        leads = self._ranks.local_rank == 0
        found, error = _outcome(make) if leads else (None, None)
        errors: list[NeuroavError | None] = [None] * self.size
        distributed.all_gather_object(errors, error)
        for failed in errors:
            if failed is not None:
                raise failed
        return found if leads else make()  # type: ignore[return-value]

    def same(self, model: nn.Module) -> None:
        for value in model.state_dict().values():
            sent = value.detach().to(self._device).contiguous()
            distributed.broadcast(sent, src=0)
            value.copy_(sent)

    def prepare(self, model: nn.Module) -> nn.Module:
        if self._device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return with_global_norms(model, self.total)

    def parallel(self, outputs: nn.Module) -> nn.Module:
        # static_graph: which parameters are used never changes in a run, so those that are not
        # (an attention that feeds nothing) keep no gradient, as in one process. Buffers are equal
        # anyway: all compute them from the same moments.
        with warnings.catch_warnings():  # newer versions of torch have another word for buffers
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(
                outputs,
                device_ids=[self._device.index] if self._device.type == "cuda" else None,
                broadcast_buffers=False,
                static_graph=True,
            )


class _Gathered(torch.autograd.Function):
    """(b, ...) -> (count, ...): shares put side by side; every process has the same loss of them,
    so the gradient of a share is its part of the whole's."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, count: int, own: slice, total) -> torch.Tensor:
        ctx.own = own
        whole = x.new_zeros((count, *x.shape[1:]))
        whole[own] = x
        return total(whole)  # adding zeros changes nothing

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple:
        return grads[0][ctx.own].contiguous(), None, None, None


def _outcome(make: Callable[[], Any]) -> tuple[Any, NeuroavError | None]:
    """Return what ``make`` gives, or the expected error it ends in."""
    try:
        return make(), None
    except NeuroavError as error:
        return None, error


@contextmanager
def joined(ranks: Ranks | None, device: torch.device) -> Iterator[Alone]:
    """Join the processes of ``ranks`` (None: this one is alone) and leave them at the end.

    device: as ``train.device`` names it. ConfigError where the processes cannot have it;
    ExecutorError where another process of the group is lost.
    """
    if ranks is None:
        yield Alone()
        return
    device = own_device(ranks, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=_meeting(ranks),
            rank=ranks.rank,
            world_size=ranks.size,
            timeout=PATIENCE,
        )
        yield Group(ranks, device)
    except RuntimeError as error:
        if not _is_of_talk(error):
            raise
        raise ExecutorError(
            f"process {ranks.rank} of {ranks.size}: lost the others ({_first_line(error)}); one of "
            "them ended, its own error says why; start again with --resume"
        ) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _meeting(ranks: Ranks) -> distributed.Store:
    """Return where the processes of this attempt find each other, and none of an earlier one."""
    listens = ranks.rank == 0 and not ranks.hosted
    store = distributed.TCPStore(ranks.address, ranks.port, ranks.size, listens, JOINING)
    return distributed.PrefixStore(f"neuroav/{ranks.attempt}", store)


def own_device(ranks: Ranks, device: torch.device) -> torch.device:
    """Return the device of one process: 'cuda' is the GPU of its number on this machine."""
    if device.type != "cuda":
        return device
    if device.index is not None and ranks.local_size > 1:
        raise ConfigError(
            f"train.device is {str(device)!r}, one GPU for {ranks.local_size} processes; use "
            "'cuda': each takes its own"
        )
    index = ranks.local_rank if device.index is None else device.index
    if index >= (found := torch.cuda.device_count()):
        raise ConfigError(
            f"process {ranks.local_rank} of this machine needs GPU {index}, there are {found}; "
            "start one process per GPU"
        )
    return torch.device("cuda", index)


def _is_of_talk(error: RuntimeError) -> bool:
    """Whether an error comes from the exchange between processes, not from the work itself."""
    if isinstance(error, NeuroavError):
        return False
    text = str(error).lower()
    return isinstance(error, distributed.DistError) or any(
        word in text for word in ("gloo", "connection closed", "connection reset", "nccl")
    )


def _first_line(error: Exception) -> str:
    """Return what went wrong, without the place in the library's source."""
    text = re.sub(r"^\[[^]]*\] *", "", str(error)).partition(". This")[0]
    return (text.splitlines() or [type(error).__name__])[0][:120]
