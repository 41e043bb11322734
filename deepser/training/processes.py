"""Processes that train one network together, as torchrun or srun starts them: who they are, and what they exchange."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from deepser.training.device import resolve_precision
from featurestore.errors import ConfigError, MedusaError, ProcessError
from featurestore.runtime.device import pick_device
from featurestore.runtime.launched import rendezvous_of_step, task_of_launcher

T = TypeVar("T")
B = TypeVar("B", Tensor, NDArray[np.int64])
CPU = torch.device("cpu")
SILENCE = timedelta(minutes=30)  # the others wait this long, as for the first one to write a large store


@dataclass(frozen=True)
class World:
    """Process `rank` of `size` that train together, and its device; by default one alone, for which nothing is sent.

    Of a batch, which is one process's whatever `size` is, process r holds clips r, r + size, ...; a short one may leave
    it none.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share_of(self, batch: B) -> B:
        """Return this process's rows of a batch."""
        return batch if self.size == 1 else batch[self.rank :: self.size]

    def once(self, make: Callable[[], T]) -> T:
        """Return the first process's value in all processes.

        All wait. A MedusaError or OSError there is raised in all of them.
        """
        if self.size == 1:
            return make()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = make()
            except (MedusaError, OSError) as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, device=CPU)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank, in all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def one_precision(self, precision: str) -> str:
        """Return the precision that `resolve_precision` finds in all processes.

        ConfigError where "auto" differs between their devices.
        """
        resolved = self.gather(resolve_precision(precision, self.device))
        for rank, other in enumerate(resolved):
            if other != resolved[0]:
                raise ConfigError(
                    f"--precision auto is {resolved[0]} in process 0 and {other} in process {rank}, whose devices "
                    "differ; give --precision float32, or start processes on devices of one kind."
                )
        return resolved[0]

    def whole(self, share: Tensor, n: int) -> Tensor:
        """Every process's rows (B_r, ...) as the batch's (n, ...), in its order, in all of them.

        Gradients flow back: a row's is the sum of what all processes' losses say of it, so the loss of the batch is
        the sum of theirs.
        """
        if self.size == 1 or 0 in share.shape[1:]:
            return share
        whole: Tensor = _Whole.apply(share, n, self.rank, self.size)  # type: ignore[no-untyped-call]
        return whole

    def sum_gradients(self, network: nn.Module) -> None:
        """Each parameter's gradient becomes the sum over processes; none where no process has one."""
        if self.size == 1:
            return
        parameters = list(network.parameters())
        # On the host, by gloo: to read it from a device would be to wait for the device's backward pass.
        has_gradient = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
        dist.all_reduce(has_gradient)
        local_gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in local_gradients])
        dist.all_reduce(flat)
        gradients = flat.split([p.numel() for p in parameters])
        for parameter, gradient, n in zip(parameters, gradients, has_gradient.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter) if n else None

    def sum(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the sum of every process's array."""
        if self.size == 1:
            return values
        summed = torch.from_numpy(values)
        dist.all_reduce(summed)
        return summed.numpy()

    def same(self, network: nn.Module) -> None:
        """Every process's weights and buffers become the first one's."""
        if self.size > 1:
            for value in network.state_dict().values():
                if value.numel():
                    dist.broadcast(value, 0)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor, n: int, rank: int, size: int) -> Tensor:
        # The sum with zeros, not all_gather: shares differ in size, and a short batch leaves some without any.
        ctx.place = slice(rank, n, size)
        whole = share.new_zeros((n, *share.shape[1:]))
        whole[ctx.place] = share
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed[ctx.place], None, None, None


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """Join the world that torchrun or srun made, on a device of its own; be alone where neither started it.

    NCCL between CUDA devices, gloo between CPUs. ConfigError when there are fewer devices than processes here, or two
    processes have one; ProcessError when another process ended.
    """
    task = task_of_launcher()
    if task is None:
        yield World(device=pick_device(device))
        return
    on = _own_device(device, task.local, task.count)
    backend = "cpu:gloo,cuda:nccl" if on.type == "cuda" else "gloo"
    try:
        url = None if task.launcher == "torchrun" else rendezvous_of_step()
        dist.init_process_group(backend, url, timeout=SILENCE, rank=task.rank, world_size=task.count)
        world = World(task.rank, task.count, on)
        if on.type == "cuda":
            _check_cards(world)
        yield world
        world.once(lambda: None)  # nobody leaves while the first one still writes
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise ProcessError(
            f"Process {task.rank} of {task.count}: another process ended or is out of reach; its own message says why. "
            "Run the same command again to go on."
        ) from error
    dist.destroy_process_group()


def _own_device(device: str, local: int, size: int) -> torch.device:
    """Return the device of the process with number `local` on this machine, of `size` in all."""
    on = pick_device(device)
    if on.type != "cuda":
        return on
    if on.index is not None and ":" in device:
        raise ConfigError(f"--device {device} names one device for {size} processes; leave it out, or use cuda.")
    n_devices = torch.cuda.device_count()
    if n_devices == 1:
        local = 0  # `srun --gpus-per-task=1`, and many containers, show each process its own device alone
    if local >= n_devices:
        raise ConfigError(
            f"Process {local + 1} on this machine finds {n_devices} CUDA devices; start as many processes (torchrun "
            "--nproc-per-node), or use --device cpu."
        )
    on = torch.device("cuda", local)
    torch.cuda.set_device(on)
    return on


def _check_cards(world: World) -> None:
    """Raise ConfigError where two processes compute on one card; NCCL would stop with an internal error, or wait."""
    card = f"{socket.gethostname()} {torch.cuda.get_device_properties(world.device).uuid}"
    refuse_shared(world.gather(card))


def refuse_shared(cards: Sequence[str]) -> None:
    """Raise ConfigError where a card, named by its machine and UUID, is that of two ranks."""
    for rank, card in enumerate(cards):
        if card in cards[:rank]:
            raise ConfigError(
                f"Processes {cards.index(card)} and {rank} have one card ({card}); start one process for each card, "
                "such as `srun --gpus-per-task=1`, or use --device cpu."
            )
