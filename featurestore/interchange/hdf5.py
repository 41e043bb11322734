"""One HDF5 file: a dataset per utterance, or a group per utterance with a dataset per layer.

Keys are the datasets' (or groups') paths, encoded as in names.py; the writer encodes `/` as well, since a dataset `a`
and a dataset `a/b` can't lie in one file. The layers' names stand in the root's attribute `medusa_layers`. A layer's
`where` is the name of its dataset in each group. Nothing of another file is read: soft and external links, virtual
datasets and external storage are refused by name, and so is a dataset that was never written.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featurestore.errors import StoreError
from featurestore.interchange.base import (
    Failures,
    Loaded,
    Selection,
    Source,
    Written,
    as_layers,
    check_bytes,
    check_regular,
    check_shape,
    float_dtype,
    group_by_utterance,
    joined,
    replacing,
    told_layers,
    told_spec,
)
from featurestore.interchange.names import escape, path_key
from featurestore.runtime.durable import reason_of

resumable = False
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError)  # what h5py raises for a damaged file


@contextmanager
def read(path: Path, layers: Mapping[str, str], flatten: bool) -> Iterator[Source]:
    """Open the datasets of the file, by name.

    Where layers are named and groups have them, other datasets are left out.
    """
    import h5py

    check_regular(path)
    failed: Failures = []
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(h5py.File(path, "r"))
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            failed += _links(file, path)
            layers = layers or told_layers(file.attrs.get("medusa_layers"))
            spec = told_spec(file.attrs.get("medusa_spec"))
        except _DAMAGE as error:
            raise StoreError(f"{path} can't be read as HDF5: {error}.") from error
        if not names and not failed:
            raise StoreError(f"{path} holds no datasets.")
        grouped = group_by_utterance(names, layers, str(path))
        entries = list(grouped or names)

        def load(i: int) -> Loaded:
            if not grouped:
                return _load(file, path, entries[i], tuple(layers))
            missing = sorted(set(layers) - set(grouped[entries[i]]))
            if missing:
                raise StoreError(f"{path}: utterance {entries[i]!r} lacks the layers {', '.join(missing)}.")
            return joined({layer: _load(file, path, grouped[entries[i]][layer], (layer,)) for layer in layers})

        keys = [path_key(name, flatten) for name in entries]
        yield Source(keys, lambda i: f"{path}, {entries[i]!r}", load, failed, spec=spec)


def _links(file: Any, path: Path) -> Failures:
    """Soft and external links, which are not followed: their targets may be in another file, or missing."""
    import h5py

    failures: Failures = []

    def look(name: str, link: Any) -> None:
        if isinstance(link, h5py.SoftLink | h5py.ExternalLink):
            target = f"{link.filename}, {link.path}" if isinstance(link, h5py.ExternalLink) else link.path
            place = f"{path}, {name!r}"
            failures.append((place, f"{place} is a link to {target}, which is not followed; copy the dataset itself."))

    file.visititems_links(look)
    return failures


def _check_own(dataset: Any, place: str) -> None:
    """Raise StoreError for a dataset with values in another file, or nowhere: HDF5 would read zeros."""
    if dataset.is_virtual:
        sources = ", ".join(sorted({source.file_name for source in dataset.virtual_sources()}))
        raise StoreError(f"{place} is a virtual dataset of {sources}; import those files, or copy the values into one.")
    if dataset.external:
        files = ", ".join(str(name) for name, _, _ in dataset.external)
        raise StoreError(f"{place} has its values in other files ({files}); copy them into the dataset itself.")
    if dataset.size and not dataset.id.get_storage_size():
        raise StoreError(f"{place} was never written: it has a shape and no values, which HDF5 would read as zeros.")
    check_bytes(dataset.size * dataset.dtype.itemsize, place)


def _load(file: Any, path: Path, name: str, names: Sequence[str]) -> Loaded:
    place = f"{path}, {name!r}"
    try:
        dataset = file[name]
        dtype = float_dtype(dataset.dtype, place)
        check_shape(dataset.shape or (), names, place)
        _check_own(dataset, place)
        return Loaded(as_layers(dataset[()].astype(dtype, copy=False), names), dtype)
    except _DAMAGE as error:
        raise StoreError(f"{place} can't be read: {error}.") from error


def occupied(target: Path, layers: Sequence[str]) -> list[Path]:
    """Return the file itself, where it is."""
    return [target] if target.exists() else []


def write(chosen: Selection, target: Path, resume: bool) -> Written:
    """Return the file, whole or not at all; an utterance that can't be read from the store is left out and reported."""
    import h5py

    written = Written()
    try:
        with replacing(target) as (temporary,), h5py.File(temporary, "w") as file:
            file.attrs.update(chosen.metadata())
            for key in chosen.keys:
                _write_one(file, key, chosen, written)
                chosen.progress(written.done + len(written.failed), len(chosen.keys))
    except RuntimeError as error:  # closing the file after a write has failed
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise StoreError(f"{target} can't be written: {reason_of(reason)}.") from error
    return written


def _write_one(file: Any, key: str, chosen: Selection, written: Written) -> None:
    try:
        rows = {layer: chosen.rows(key, layer) for layer in chosen.layers}
    except StoreError as error:
        written.failed.append((key, str(error)))
        return
    if len(rows) == 1:
        file.create_dataset(escape(key), data=rows[chosen.layers[0]])
    for layer in rows if len(rows) > 1 else ():
        file.create_dataset(f"{escape(key)}/{layer}", data=rows[layer])
    written.done += 1
