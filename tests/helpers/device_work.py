"""The work that a device would get: kernels, copies and waits, counted on meta tensors, which compute nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from featurestore.runtime import transfer

META = torch.device("meta")
ATEN = torch.ops.aten
# These read a value on the host, or a shape that depends on values: CUDA's host then waits for the device.
READS = (ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.masked_select.default, ATEN.unique_dim.default,
         ATEN._unique2.default, ATEN.equal.default, ATEN.is_nonzero.default)  # fmt: skip
# These make no kernel: a view, or memory alone.
NO_KERNEL = ("empty", "empty_like", "empty_strided", "new_empty", "detach", "alias", "_unsafe_view", "set_",
             "dropout",  # of a frozen model
             "_reshape_alias", "lift_fresh", "resize_", "is_same_size")  # fmt: skip


class DeviceWork(TorchDispatchMode):
    """Counts the work on meta tensors within its context, as a CUDA device would get it.

    waits: the host stops until the device has come so far. inward, outward: copies; one of pageable memory is a wait as
    well. kernels: operators but views and allocations, fused attention as one: a lower bound. `names` counts each.
    truth: the value of a bool on the device, when the host reads it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.truth = True
        self.waits = self.inward = self.outward = 0
        self.names: Counter[str] = Counter()
        self.waited_for: Counter[str] = Counter()
        self._attention = _FusedAttention(self)

    @property
    def kernels(self) -> int:
        """Return the operators that would be kernels, by name."""
        return self.names.total()

    def start_anew(self) -> None:
        """Set all counts to zero."""
        self.waits = self.inward = self.outward = 0
        self.names.clear()
        self.waited_for.clear()

    def wait(self, reason: str) -> None:
        """Count a wait."""
        self.waits += 1
        self.waited_for[reason] += 1

    def __enter__(self) -> DeviceWork:
        self._attention.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self._attention.__exit__(*exc)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        on_meta = any(tensor.device == META for tensor in tensors)
        if func in READS and on_meta:
            self.wait(func.__name__)
            return self.truth if args[0].dtype == torch.bool and not args[0].dim() else _answer(func, args[0])
        if func is ATEN._to_copy.default and tensors[0].device != kwargs.get("device", tensors[0].device):
            return self._copied(args[0], kwargs)
        if func is ATEN.copy_.default and args[0].device != args[1].device:
            self._count_copy(inward=args[0].device == META, operation="copy_")
            return args[0]
        if func in (ATEN.index.Tensor, ATEN.index_put_.default, ATEN._index_put_impl_.default) and on_meta:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.wait("index by a mask")
                return args[0] if func is not ATEN.index.Tensor else _answer(func, args[0])
            if any(index.device != META for index in indices):
                self._count_copy(inward=True, operation="index on the host")
                on_meta_device = [
                    None if i is None else torch.empty(i.shape, dtype=i.dtype, device=META) for i in args[1]
                ]
                args = (args[0], on_meta_device, *args[2:])
        result = func(*args, **kwargs)
        outputs = [value for value in torch.utils._pytree.tree_leaves(result) if isinstance(value, Tensor)]
        if (on_meta or any(value.device == META for value in outputs)) and not _is_free(func):
            self.names[func.__name__] += 1
        return result

    def _copied(self, source: Tensor, kwargs: dict[str, Any]) -> Tensor:
        to = torch.device(kwargs["device"])
        self._count_copy(inward=to == META, operation="to")
        return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype, device=to)

    def _count_copy(self, *, inward: bool, operation: str) -> None:
        self.inward += inward
        self.outward += not inward
        self.wait(f"{operation}, {'from' if inward else 'to'} pageable memory")


class _FusedAttention(TorchFunctionMode):
    def __init__(self, work: DeviceWork) -> None:
        super().__init__()
        self._work = work

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention and args[0].device == META:
            self._work.names["scaled_dot_product_attention"] += 1
            query, _, value = args[:3]
            return query.new_empty((*query.shape[:-1], value.shape[-1])) + 0 * query.sum()
        return func(*args, **(kwargs or {}))


class CountedQueue:
    """The meta device's queue of copies: those from and to pinned memory, and the waits for them, are counted."""

    def __init__(self, work: DeviceWork) -> None:
        self._work = work

    def pinned(self, n_bytes: int) -> Tensor:
        return torch.empty(n_bytes, dtype=torch.uint8)

    def send(self, host: Tensor) -> Tensor:
        self._work.inward += 1
        return torch.empty(host.shape, dtype=host.dtype, device=META)

    def fetch(self, values: Tensor) -> Callable[[], Tensor]:
        self._work.outward += 1

        def wait() -> Tensor:
            self._work.wait("a copy to the host")
            return torch.zeros(values.shape, dtype=values.dtype)

        return wait


@contextmanager
def counted(patch: pytest.MonkeyPatch) -> Iterator[DeviceWork]:
    """Count the work of the meta device within the context; it copies as a queued device does."""
    work = DeviceWork()
    patch.setitem(transfer._queues, META, CountedQueue(work))
    with work:
        yield work


def _is_free(func: Any) -> bool:
    return bool(func.is_view) or func.overloadpacket.__name__ in NO_KERNEL


def _answer(func: Any, requested: Tensor) -> Any:
    """Return a value or shape that the host might read from a device."""
    if func is ATEN._local_scalar_dense.default:
        return 1 if not requested.dtype.is_floating_point else 1.0
    if func in (ATEN.equal.default, ATEN.is_nonzero.default):
        return True
    if func is ATEN.nonzero.default:
        return torch.empty((requested.numel(), requested.dim()), dtype=torch.long, device=META)
    return torch.empty((requested.numel(),), dtype=requested.dtype, device=META)
