"""Adding utterances to a feature set."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from featurestore.errors import StoreError
from featurestore.format.identity import Identity
from featurestore.format.segment import row_checksum
from featurestore.format.segment_writer import SegmentWriter, remove_stale
from featurestore.rows.rowtypes import encode, first_bad_row, is_nan
from featurestore.sets.feature_set import FeatureSet
from featurestore.sets.key_index import encode_key


class FeatureWriter:
    """Appends utterances to a feature set; a context manager. For one thread; other writers may write at the same time.

    What was appended becomes visible and durable in segments: at `commit`, whenever `segment_bytes` are reached, and at
    the end of the `with` block however it ends, since every utterance that was appended is whole.

    commits_behind: a full segment is made durable in a thread of its own, while the next one is appended to, so that a
    crash may lose both; an error of it is raised by a later call.
    """

    def __init__(self, stored: FeatureSet, segment_bytes: int, format: str, compress: str) -> None:
        self.set = stored
        self.spec = stored.spec
        self.segment_bytes = segment_bytes
        self._storage = format, compress
        self._segment: SegmentWriter | None = None
        self._pending: set[bytes] = set()
        self.commits_behind = False
        self._thread: ThreadPoolExecutor | None = None
        self._commit: Future[Path] | None = None
        self._committing: set[bytes] = set()  # keys of the segment that is being committed
        try:
            remove_stale(stored.path)
        except OSError as error:
            raise StoreError(f"{stored.path} can't be read: {error.strerror or error}.") from error

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.commit()
        finally:
            if self._thread is not None:
                self._thread.shutdown()

    def __contains__(self, key: object) -> bool:
        """Whether the set has the key, committed (as far as this writer has seen) or appended here."""
        if not isinstance(key, str):
            return False
        encoded = key.encode(errors="surrogatepass")
        return encoded in self._pending or encoded in self._committing or key in self.set

    def append(
        self,
        key: str,
        rows: Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray,
        duration_s: float = float("nan"),
        identity: Identity | None = None,
        *,
        stored: bool = False,
    ) -> None:
        """Add one utterance: {layer: (T, D)}, or (L, T, D) in the order of the specification's layers.

        identity: what it was made from, by which later runs know whether its key still means the same.
        stored: rows are in the type in which they are stored (`RowType.stored`, bfloat16 as its bits); not int8 ones.
        Rows are cast to the stored dtype. Raises StoreError, and stays usable, when the key is there already, a shape
        doesn't fit, or a value is not finite after the cast. A StoreError of the disk gives up what was not committed.
        """
        encoded = encode_key(key)
        if key in self:
            raise StoreError(f"Key {key!r} is in feature set {self.set.name!r} already: it is written once.")
        encodings = self._encode(key, rows, stored)
        layers = [stored for stored, _ in encodings]
        scales = [scale for _, scale in encodings if scale is not None]
        if self._segment is None:
            self._segment = SegmentWriter(self.set.path, self.spec, *self._storage)
        try:
            self._segment.append(encoded, layers, float(duration_s), scales, identity)
        except StoreError:
            self._segment.discard()
            self._segment = None
            self._pending.clear()
            raise
        self._pending.add(encoded)
        if self._segment.n_bytes >= self.segment_bytes:
            self.end_segment()

    def has_rows(self, key: str, rows: Mapping[str, np.ndarray]) -> bool:
        """Return whether the committed rows of a key that the set has are those that `append` would store of these."""
        try:
            encodings = self._encode(key, rows, as_stored=False)
        except StoreError:
            return False
        layers = self.spec.layers
        recorded = self.set.reading(lambda now: now.checksums(now.index.positions([key]), layers))[0]
        return [row_checksum(*encoding) for encoding in encodings] == list(recorded.tolist())

    def commit(self) -> None:
        """Make everything appended so far durable and visible; does nothing when there is nothing."""
        try:
            self._wait()
        finally:  # the segment before may have failed; this one is whole all the same
            segment = self._take_segment()
            if segment is not None:
                # Not `refresh`: of many writers at once each would read what all the others commit.
                self.set.see(segment.commit().name)

    def end_segment(self) -> None:
        """Commit what was appended so far, behind the caller's back where `commits_behind`, once the one before is."""
        if not self.commits_behind:
            self.commit()
            return
        self._wait()
        keys = self._pending
        segment = self._take_segment()
        if segment is None:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "medusa-commit")
        self._committing = keys
        self._commit = self._thread.submit(segment.commit)

    def _take_segment(self) -> SegmentWriter | None:
        """Return the segment that was appended to, None where nothing is in it."""
        segment, self._segment = self._segment, None
        self._pending = set()
        if segment is None or segment.n_utterances:
            return segment
        segment.discard()
        return None

    def _wait(self) -> None:
        """Wait for the segment that is being committed; raises its error."""
        if self._commit is None:
            return
        commit, self._commit = self._commit, None
        try:
            self.set.see(commit.result().name)
        finally:
            self._committing = set()

    def _encode(
        self, key: str, rows: Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray, as_stored: bool
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        names = self.spec.layers
        if isinstance(rows, Mapping):
            if set(rows) != set(names):
                raise StoreError(f"Utterance {key!r}: layers {sorted(rows)} given, {sorted(names)} expected.")
            arrays = [np.asarray(rows[name]) for name in names]
        else:
            arrays = [np.asarray(layer) for layer in rows]
        shapes = [layer.shape for layer in arrays]
        fits = len(arrays) == len(names) and all(len(shape) == 2 and shape[1] == self.spec.dim for shape in shapes)
        if not fits or len({shape[0] for shape in shapes}) != 1:
            raise StoreError(
                f"Utterance {key!r}: rows of shapes {shapes} given; {len(names)} arrays (T, {self.spec.dim}) of the "
                f"same T expected, for the layers {', '.join(names)}."
            )
        return [self._encode_layer(key, name, layer, as_stored) for name, layer in zip(names, arrays, strict=True)]

    def _encode_layer(
        self, key: str, layer: str, rows: np.ndarray, as_stored: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        scales: np.ndarray | None = None
        if as_stored:
            assert rows.dtype == np.dtype(self.spec.row_type.stored), (rows.dtype, self.spec.dtype)
            assert not self.spec.row_type.scaled
            stored = np.ascontiguousarray(rows)
        else:
            if rows.dtype.kind != "f":
                rows = rows.astype(np.float32)
            stored, scales = encode(rows, self.spec.row_type)
        frame = first_bad_row(stored, scales, self.spec.row_type)
        if frame is None:
            return stored, scales
        place = f"Utterance {key!r}, layer {layer!r}, row {frame} of {len(rows)}"
        if as_stored and not is_nan(rows[frame], self.spec.row_type):
            dtype = self.spec.dtype
            raise StoreError(
                f"{place}: a value is infinite, since it is too large for {dtype} or the encoder gave it so; store "
                "with `--dtype bfloat16|float32`, and if that does not help, let the encoder compute in float32."
            )
        if not as_stored and np.isfinite(rows[frame]).all():
            largest = float(np.abs(rows[frame].astype(np.float64)).max())
            dtype = self.spec.dtype
            raise StoreError(f"{place}: {largest:.6g} is too large for {dtype}; store with `--dtype bfloat16|float32`.")
        raise StoreError(
            f"{place}: the encoder gave NaN or infinity. If it computes in float16, let it compute in float32 and "
            "store with `--dtype float32`; otherwise look at the utterance's audio or text."
        )
