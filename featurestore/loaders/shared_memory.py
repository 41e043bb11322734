"""Memory that a DataLoader's worker reads batches into again and again, once nobody uses what it held.

The kernel clears fresh shared memory before a worker writes to it, which takes longer than reading the rows. torch does
not say when the main process is done with a batch; here the tensors that it gets say so themselves, by a byte before
their values, when the last one that refers to them is gone.
"""

import math
import os
import weakref
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featurestore.loaders.row_reader import Buffer
from featurestore.rows.aligned import ALIGNMENT, address_of

# Of each feature set: how many batches' memory a worker keeps. A main process that holds more gets memory that isn't
# used again.
N_KEPT = 8


class SharedMemory(Buffer):
    """Memory for a worker's batches; `tensor` turns an array of it into one that is sent without a copy."""

    def __init__(self, n_kept: int = N_KEPT) -> None:
        super().__init__()
        self._n_kept = n_kept
        self._pieces: list[_Piece] = []
        self._piece_at: dict[int, weakref.ref[_Piece]] = {}

    def take(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return an array that nobody uses; small ones, of one dimension, are sent by value."""
        if len(shape) == 1:
            return np.empty(shape, dtype)
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        piece = self._free_piece(n_bytes)
        array = piece.lend(n_bytes).view(dtype).reshape(shape)
        self._piece_at[address_of(array)] = weakref.ref(piece)
        return array

    def tensor(self, array: np.ndarray) -> Tensor:
        """Return an array that was taken here as a tensor, which the main process gets as it is."""
        tensor = torch.from_numpy(array).as_subclass(_Sent)
        if array.ndim == 1:
            tensor.rebuilding = lambda: (torch.from_numpy, (array,))
        else:
            piece = self._piece_at[address_of(array)]()
            assert piece is not None, "an array that is there holds its piece"
            tensor.rebuilding = lambda: (_received, (piece.sent(), array.shape, array.dtype.str))
        return tensor

    def _free_piece(self, n_bytes: int) -> "_Piece":
        free = sorted((piece for piece in self._pieces if piece.is_free), key=lambda piece: piece.n_bytes)
        for piece in free:
            if piece.n_bytes >= n_bytes:
                return piece
        piece = _Piece(n_bytes + n_bytes // 4 if self._pieces else n_bytes)
        if free:  # too small
            self._pieces.remove(free[-1])
        if len(self._pieces) < self._n_kept:
            self._pieces.append(piece)
        self._piece_at = {address: held for address, held in self._piece_at.items() if held() is not None}
        return piece


class _Piece:
    """Shared memory of one array: a line whose first byte says whether the main process uses it, then the values."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._whole = torch.empty(0, dtype=torch.uint8).set_(
            torch.UntypedStorage._new_shared(ALIGNMENT + max(n_bytes, 1))
        )
        self._in_use = self._whole[:1].numpy()
        self._in_use[0] = 0
        self._n_lent = 0

    @property
    def is_free(self) -> bool:
        """Whether nobody has its values, in this process or in the main one."""
        return not self._n_lent and not self._in_use[0]

    def lend(self, n_bytes: int) -> np.ndarray:
        """Return its first bytes, which count as used until this array and all views of it are gone."""
        array = self._whole.numpy()
        self._n_lent += 1
        weakref.finalize(array, self._returned).atexit = False
        return array[ALIGNMENT : ALIGNMENT + n_bytes]

    def sent(self) -> Tensor:
        """Return all of it, to be given to `_received`, and count it as used by the main process."""
        self._in_use[0] = 1
        return self._whole

    def _returned(self) -> None:
        self._n_lent -= 1


class _Sent(Tensor):
    """A tensor in a worker that is sent in its own way; what is computed from it is a plain tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    rebuilding: Callable[[], tuple[Any, ...]]


ForkingPickler.register(_Sent, lambda tensor: tensor.rebuilding())


def _received(whole: Tensor, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Return a worker's values; when the last tensor or array of them is gone, the worker may use their memory."""
    array = whole.numpy()
    weakref.finalize(array, _give_back, whole[:1].numpy(), os.getpid()).atexit = False
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    return torch.from_numpy(array[ALIGNMENT : ALIGNMENT + n_bytes].view(dtype).reshape(shape))


def _give_back(in_use: np.ndarray, owner: int) -> None:
    if os.getpid() == owner:  # a fork of it may drop its copy while the owner still reads
        in_use[0] = 0
