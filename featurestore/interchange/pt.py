"""Directories of `.pt` files, one tensor per utterance, as `torch.save` writes them: read only.

Keys and layers are those of directories of .npy files (see npy.py). Files are read with `weights_only=True`, so that no
code of theirs is run.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from featurestore.errors import ConfigError, StoreError
from featurestore.interchange.base import (
    Loaded,
    Selection,
    Source,
    Written,
    as_layers,
    check_regular,
    check_shape,
    float_dtype,
)
from featurestore.interchange.npy import directory_source

SUFFIX = ".pt"
resumable = False


@contextmanager
def read(path: Path, layers: Mapping[str, str], flatten: bool) -> Iterator[Source]:
    """Open the files below `path`, sorted, as `npy.read` has them."""
    yield directory_source(path, layers, flatten, SUFFIX, read_file)


def read_file(path: Path, names: Sequence[str] = ()) -> Loaded:
    """One tensor of floats as layers; StoreError when the file is damaged, or holds something else."""
    import torch

    check_regular(path)
    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds for a damaged file
        reason = (str(error).strip().splitlines() or [""])[0]
        raise StoreError(f"{path} can't be read as a tensor: {type(error).__name__}: {reason[:200]}") from None
    if not isinstance(tensor, torch.Tensor) or tensor.is_sparse or tensor.is_quantized:
        raise StoreError(f"{path} holds a {type(tensor).__name__}; one dense tensor of floats expected.")
    check_shape(tuple(tensor.shape), names, str(path))
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return Loaded(as_layers(tensor.float().numpy(), names), "bfloat16")
    values: np.ndarray = tensor.numpy()
    return Loaded(as_layers(values, names), float_dtype(values.dtype, str(path)))


def occupied(target: Path, layers: Sequence[str]) -> list[Path]:
    """Return nothing: pt is not written."""
    return []


def write(chosen: Selection, target: Path, resume: bool) -> Written:
    """Raise ConfigError: other formats describe their content, and any tool reads them."""
    raise ConfigError(f"{target}: .pt files are read, not written; export npy, hdf5 or safetensors.")
