"""Filling a batch's buffer with rows: copied, widened or pooled, and compared with their checksums when first read."""

import numpy as np

from featurestore.rows.aligned import is_streamed
from featurestore.rows.rowtypes import RowType
from featurestore.sets.snapshot import Snapshot

# Below this mean size of an utterance, one vectorised take per segment beats one copy per utterance.
SMALL_UTTERANCE_BYTES = 4096
FEW_ROWS_BYTES = 1 << 16  # of an utterance as it is read, on average


def fill(
    snapshot: Snapshot,
    positions: np.ndarray,
    layers: tuple[str, ...],
    stride: int,
    offsets: np.ndarray,
    values: np.ndarray,
    beside_bytes: int = 0,
) -> None:
    """Fill `values` (L, offsets[-1], D), float16 or float32, with the rows of the found positions in each layer.

    Each layer of `values` is C-contiguous; all of them together may be a part of a larger array.
    stride: means over that many rows, in float32. offsets: int64 (B + 1,) of the (pooled) rows. beside_bytes: of rows
    of other sets that are read in the same loop, which memory must hold as well. StoreError where rows that are read
    for the first time don't have their checksum.
    """
    if not len(positions):
        return
    row_type: RowType = snapshot.spec.row_type
    copied = stride == 1 and row_type.is_plain and values.dtype == np.dtype(row_type.read)
    if snapshot.exceeds_memory(len(layers), beside_bytes):
        beside = beside_bytes / max(snapshot.n_bytes(len(layers)), 1)
        for k, layer in enumerate(layers):
            _fill_from_files(snapshot, positions, layer, copied, stride, values[k], beside)
        return
    is_checked = snapshot.all_checked(positions, layers)
    if copied and len(layers) == 1:
        if values[0].nbytes < SMALL_UTTERANCE_BYTES * len(positions) and snapshot.take(
            positions, layers[0], values[0], offsets
        ):
            return
        if is_checked and not is_streamed(values):
            np.concatenate(snapshot.stored(positions, layers[0], check=False)[0], out=values[0])
            return
    unchecked = [{} if is_checked else snapshot.unchecked(positions, layer) for layer in layers]
    fresh = [k for k in range(len(layers)) if unchecked[k]]
    if not copied and values[0].nbytes < FEW_ROWS_BYTES * len(positions):
        for k in fresh:  # a compiled call for each utterance would take longer than reading its few rows twice
            snapshot.stored(positions, layers[k])
        fresh = []
    for k in fresh:
        _fill_first(snapshot, positions, layers[k], unchecked[k], copied, stride, offsets.tolist(), values[k])
    if not fresh and values.flags.c_contiguous:
        _fill_at_once(snapshot, positions, layers, stride, values)
        return
    for k in set(range(len(layers))).difference(fresh):
        _fill_at_once(snapshot, positions, layers[k : k + 1], stride, values[k : k + 1])


def _fill_at_once(
    snapshot: Snapshot, positions: np.ndarray, layers: tuple[str, ...], stride: int, values: np.ndarray
) -> None:
    from featurestore.rows.runs import pool_runs, read_runs  # numba loads where it is first needed

    if stride > 1:
        pool_runs(snapshot.runs(positions, layers), stride, values)
    else:
        read_runs(snapshot.runs(positions, layers), values)


def _fill_from_files(
    snapshot: Snapshot, positions: np.ndarray, layer: str, copied: bool, stride: int, values: np.ndarray, beside: float
) -> None:
    """Fill one layer by calls that read its rows from the files: straight into `values` where they are `copied`."""
    target = values if copied else snapshot.scratch(int(snapshot.index.n_rows[positions].sum()))
    rows, scales = snapshot.read(positions, layer, target, beside)
    for i, expected in snapshot.unchecked(positions, layer).items():
        snapshot.check(int(positions[i]), layer, rows[i], None if scales is None else scales[i], expected)
    if not copied:
        from featurestore.rows.runs import Runs, pool_runs, read_runs

        runs = Runs.of(rows, scales)
        if stride > 1:
            pool_runs(runs, stride, values[None])
        else:
            read_runs(runs, values[None])


def _fill_first(
    snapshot: Snapshot,
    positions: np.ndarray,
    layer: str,
    unchecked: dict[int, int],
    copied: bool,
    stride: int,
    bounds: list[int],
    values: np.ndarray,
) -> None:
    """One layer, utterance by utterance, so that what is compared with its checksum is in the cache just then.

    unchecked: the checksums that some of the found positions' rows must have. copied: as they are stored.
    """
    rows, scales = snapshot.stored(positions, layer, check=False)
    if not copied:
        from featurestore.rows.runs import Runs, pool_runs, read_runs
    for i, part in enumerate(rows):
        target = values[bounds[i] : bounds[i + 1]]
        if copied:
            target[:] = part
        else:
            run = Runs.of([part], None if scales is None else scales[i : i + 1])
            if stride > 1:
                pool_runs(run, stride, target[None])
            else:
                read_runs(run, target[None])
        if i in unchecked:
            of_disk = target if copied else part
            snapshot.check(int(positions[i]), layer, of_disk, None if scales is None else scales[i], unchecked[i])
