"""Directories of `.npy` files, one per utterance: what MEDUSA, MERTools and EmoBox read and write.

MEDUSA and MERTools keep NAME.npy in one directory per encoder: (T, D), or (D,) when pooled or a single frame. EmoBox
keeps the corpus's directories (Session1/NAME.npy): (T, D), or (L, T, D) of all layers. Keys are the relative paths
without suffix (see names.py). A layer's `where` is its directory below the source; layers without one are the first
axis of (L, T, D) files. Writing puts one layer into the target itself, several into target/LAYER.
"""

import contextlib
import errno
import os
import secrets
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from featurestore.errors import ConfigError, StoreError
from featurestore.interchange.base import (
    Failures,
    Loaded,
    Selection,
    Source,
    Written,
    as_layers,
    check_regular,
    check_shape,
    float_dtype,
    joined,
)
from featurestore.interchange.names import key_path, path_key
from featurestore.runtime.durable import TEMPORARY_PREFIX, temporary_beside

SUFFIX = ".npy"
# Of the files that an export finds there and that a record says to be of the same data, whose rows are compared.
N_COMPARED = 16
resumable = True


@contextmanager
def read(path: Path, layers: Mapping[str, str], flatten: bool) -> Iterator[Source]:
    """Open the files below `path`, sorted.

    Not hidden ones or other suffixes, nor those behind a link to a directory.
    """
    yield directory_source(path, layers, flatten, SUFFIX, read_file)


def directory_source(
    path: Path,
    layers: Mapping[str, str],
    flatten: bool,
    suffix: str,
    read_file: Callable[[Path, Sequence[str]], Loaded],
) -> Source:
    """Return the files of one suffix below `path`, one per utterance and, where layers have directories, layer."""
    if any(layers.values()) and not all(layers.values()):
        raise ConfigError(f"Layers {', '.join(layers)}: name a directory for each of them, or for none.")
    directories = {layer: path / where for layer, where in layers.items()} if any(layers.values()) else {"": path}
    failed: Failures = []
    names: set[str] = set()
    for directory in directories.values():
        names.update(_files(directory, failed, suffix))
    files = sorted(names)

    def load(i: int) -> Loaded:
        if "" in directories:
            return read_file(path / files[i], tuple(layers))
        parts = {layer: read_file(directory / files[i], (layer,)) for layer, directory in directories.items()}
        return joined(parts)

    keys = [path_key(name.removesuffix(suffix), flatten) for name in files]
    return Source(keys, lambda i: str(next(iter(directories.values())) / files[i]), load, failed)


def read_file(path: Path, names: Sequence[str] = ()) -> Loaded:
    """One .npy of floats as layers; StoreError when it is damaged, or holds something else."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = read_header(file, path)
            name = float_dtype(dtype, str(path))
            check_shape(shape, names, str(path))
            values = np.fromfile(file, dtype)
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error.strerror or error}.") from error
    array = values.reshape(shape[::-1]).T if fortran else values.reshape(shape)
    return Loaded(as_layers(array.astype(name, copy=False), names), name)


def read_header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and dtype; `file` is left where the values start. StoreError unless these end the file."""
    try:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = header(file)
        if min(shape, default=0) < 0:
            raise ValueError(f"shape {shape}")
    except Exception as error:  # its text is parsed as Python, which fails in many ways
        raise StoreError(f"{path} is no .npy file, or a damaged one: {error}.") from None
    if dtype.hasobject:
        raise StoreError(f"{path} holds pickled objects, which are not read; save it as an array of numbers.")
    expected = dtype.itemsize * int(np.prod(shape, dtype=object))
    n_data_bytes = os.fstat(file.fileno()).st_size - file.tell()
    if n_data_bytes != expected:
        raise StoreError(
            f"{path} is damaged: {dtype} {shape} takes {expected} bytes, {n_data_bytes} follow its header."
        )
    return shape, fortran, dtype


def write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Write what goes before the values, in C order."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _files(directory: Path, failed: Failures, suffix: str) -> list[str]:
    """Relative paths of the files of one suffix below `directory`; StoreError when there is none."""
    if not directory.is_dir():
        raise StoreError(f"{directory} is no directory; a directory of {suffix} files was expected there.")
    paths, others = [], 0
    unreadable: list[OSError] = []
    for parent, directories, names in os.walk(directory, onerror=unreadable.append):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in directories:
            if os.path.islink(os.path.join(parent, name)):
                link = os.path.join(parent, name)
                failed.append((link, f"{link} is a link to a directory and was not followed: import it by itself."))
        for name in names:
            if name.endswith(suffix) and not name.startswith("."):
                paths.append(os.path.relpath(os.path.join(parent, name), directory))
            else:
                others += 1
    failed += [(str(error.filename), f"{error.filename} can't be read: {error.strerror}.") for error in unreadable]
    if not paths and not failed:
        raise StoreError(f"{directory} holds no {suffix} files, and {others} others.")
    return paths


def occupied(target: Path, layers: Sequence[str]) -> list[Path]:
    """Return the target itself, unless it is free or an empty directory."""
    return [target] if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())) else []


def write(chosen: Selection, target: Path, resume: bool) -> Written:
    """One file per utterance and layer, each written aside and renamed; resume: leave those alone that are there.

    StoreError, before anything is written, where files of a layer that are there don't hold its rows: of those that are
    `known` N_COMPARED are read, of the others, which a stopped --overwrite may have left, all.
    """
    written = Written()
    _check_case(chosen.keys, target)
    if resume:
        for layer in chosen.layers:
            _refuse_other_rows(chosen, layer, _directory(target, chosen, layer))
    for key in chosen.keys:
        skipped = []
        try:
            for layer in chosen.layers:
                skipped.append(_write_one(chosen, key, layer, _directory(target, chosen, layer), resume))
        except StoreError as error:
            if isinstance(error.__cause__, OSError):  # the disk's fault, and the next utterance's too
                raise
            written.failed.append((key, str(error)))
        else:
            written.skipped += all(skipped)
            written.done += not all(skipped)
        chosen.progress(written.done + written.skipped + len(written.failed), len(chosen.keys))
    return written


def _directory(target: Path, chosen: Selection, layer: str) -> Path:
    return target if len(chosen.layers) == 1 else target / layer


def _refuse_other_rows(chosen: Selection, layer: str, directory: Path) -> None:
    """Raise StoreError where files that are there hold other rows: another layer's or set's have the same shapes."""
    there = []
    for key in chosen.keys:
        with contextlib.suppress(StoreError):  # of another shape, which is reported by itself
            if key not in chosen.anew and _is_there(directory / key_path(key, SUFFIX), chosen, key):
                there.append(key)
    known = [key for key in there if key in chosen.known]
    places = np.unique(np.linspace(0, len(known) - 1, min(N_COMPARED, len(known))).astype(np.int64)).tolist()
    for key in [*(known[place] for place in places), *(key for key in there if key not in chosen.known)]:
        path = directory / key_path(key, SUFFIX)
        if not _has_rows(path, chosen.rows(key, layer)):
            raise StoreError(
                f"{path} holds other rows than {layer} of {chosen.features.name!r} has for {key!r}: was it written "
                "from another layer or set? Choose another target, or replace the files (--overwrite)."
            )


def _has_rows(path: Path, rows: np.ndarray) -> bool:
    """Return whether the array at `path`, of these rows' shape and dtype, has their values."""
    with open(path, "rb") as file:
        shape, fortran, dtype = read_header(file, path)
        values = np.fromfile(file, dtype).reshape(shape, order="F" if fortran else "C")
    return np.array_equal(values, rows, equal_nan=True)


def _check_case(keys: Sequence[str], target: Path) -> None:
    """Raise StoreError where file names that differ in case (or in Unicode's form) are the same, and two keys are."""
    folded: dict[str, str] = {}
    pairs = [(folded[fold], key) for key in keys if folded.setdefault(fold := _folded(key), key) != key]
    if not pairs:
        return
    try:
        target.mkdir(parents=True, exist_ok=True)
        probe = target / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-a"
        probe.touch()
        same = probe.with_name(probe.name.upper()).exists()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"{target} can't be written: {error.strerror or error}.") from error
    if same:
        first, second = pairs[0]
        raise StoreError(f"{first!r} and {second!r} would be the same file in {target}; export them as hdf5.")


def _folded(key: str) -> str:
    return unicodedata.normalize("NFC", key.casefold())


def _write_one(chosen: Selection, key: str, layer: str, directory: Path, resume: bool) -> bool:
    """Write one array; True when it was there."""
    path = directory / key_path(key, SUFFIX)
    if resume and key not in chosen.anew and _is_there(path, chosen, key):
        return True
    rows = chosen.rows(key, layer)
    # Not `replacing`: an fsync for each of many small files costs more than all else.
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(directory.resolve()):  # a link that somebody put there
            raise StoreError(f"{path} would lie outside {directory}, behind a link; nothing was written there.")
        with open(temporary, "xb") as file:
            write_header(file, rows.dtype, rows.shape)
            file.write(rows.tobytes())  # numpy's own writer doesn't say why it failed
        os.replace(temporary, path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            remedy = "export it as hdf5 or safetensors, which take any key"
            raise StoreError(f"Key {key[:50]!r}... is too long for a file name; {remedy}.") from None
        raise StoreError(f"{path} can't be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return False


def _is_there(path: Path, chosen: Selection, key: str) -> bool:
    """Whether a whole array of this utterance's shape lies at `path`; StoreError when it is another one."""
    try:
        with open(path, "rb") as file:
            shape, _, dtype = read_header(file, path)
    except (OSError, StoreError):  # nothing there, or torn
        return False
    expected = (int(chosen.features.lengths([key])[0]), chosen.features.dim)
    if shape != expected or dtype.name != chosen.dtype:
        raise StoreError(
            f"{path} holds {dtype} {shape}, this feature set {chosen.dtype} {expected}: was it written from another "
            "one? Choose another target, or replace the files (--overwrite)."
        )
    return True
