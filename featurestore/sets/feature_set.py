"""Reading one feature set: a mapping from keys to rows, and batches of rows packed into one buffer."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from featurestore.errors import SegmentGone, SpecMismatch, StoreError
from featurestore.format.files import LOCAL, Files
from featurestore.format.identity import Identities
from featurestore.format.segment import Segment, is_segment_name
from featurestore.format.segment_info import read_group
from featurestore.format.spec import FeatureSpec
from featurestore.format.zarr3 import group_metadata, json_bytes
from featurestore.rows.aligned import aligned_empty
from featurestore.rows.packed import Packed
from featurestore.runtime.html import html_table
from featurestore.sets.filling import fill
from featurestore.sets.key_index import KeyIndex
from featurestore.sets.selection import Chosen, Selection
from featurestore.sets.snapshot import Snapshot

SET_VERSION = 1
# How often a reader looks again when segments vanish under it (compaction) before it gives up.
MAX_REFRESHES = 20

T = TypeVar("T")


class FeatureSet(Mapping[str, np.ndarray]):
    """One feature set of a store, open for reading; cheap to open, and safe to fork or to pickle (by path).

    Segments that others commit later are seen after `refresh`; one that others compacted away is replaced by itself.
    Arrays are read-only, views of memory-mapped files where rows are stored as they are read, and stay valid as long as
    anything refers to them. The rows of an utterance are compared with their checksum when they are first read, and a
    file's size before every read: damage is a StoreError. A file that is cut, or a disk that fails, while rows are
    copied from the map ends the process (SIGBUS); `medusa`, and `faulthandler.enable(all_threads=False)`, then print
    where.
    """

    def __init__(self, path: Path, name: str, files: Files = LOCAL) -> None:
        self.path = Path(path)
        self.name = name
        self._files = files
        attributes = read_group(self.path, files)
        if attributes.get("medusa_set") != SET_VERSION:
            raise StoreError(
                f"{self.path} holds no feature set of version {SET_VERSION}: "
                f"its medusa_set is {attributes.get('medusa_set')!r}."
            )
        try:
            self.spec = FeatureSpec.from_json(attributes.get("spec", {}))
        except StoreError as error:
            raise StoreError(f"{self.path / 'zarr.json'}: {error}") from error
        if attributes.get("fingerprint") != self.spec.fingerprint:
            raise StoreError(
                f"{self.path / 'zarr.json'} is damaged: its fingerprint is {attributes.get('fingerprint')!r}, its "
                f"specification's {self.spec.fingerprint!r}."
            )
        self.provenance: dict[str, Any] = attributes.get("provenance", {})
        storage = attributes.get("storage", {})
        if not isinstance(self.provenance, dict) or not isinstance(storage, dict):
            raise StoreError(f"{self.path / 'zarr.json'} is damaged: its provenance or storage is no JSON object.")
        self.format: str = str(storage.get("format", "zarr"))
        self.compress: str = str(storage.get("compress", ""))
        self._loaded: Snapshot | None = None
        self._selected: Selection | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureSet, (self.path, self.name, self._files)

    def __repr__(self) -> str:
        return f"FeatureSet({self.name!r}, {self.spec.encoder}, layers={','.join(self.layers)}, dim={self.dim})"

    def _repr_html_(self) -> str:
        """Return the set as a table for notebooks; opens the segments for the number of utterances."""
        spec = self.spec
        lines = [
            ("kind", spec.kind),
            ("encoder", spec.encoder),
            ("weights", spec.weights),
            ("layers", ", ".join(spec.layers)),
            ("dim", str(spec.dim)),
            ("frame rate", f"{spec.frame_rate_hz:g} Hz" if spec.frame_rate_hz else ""),
            ("rows", spec.dtype if spec.pool == "none" else f"{spec.dtype}, {spec.pool} over time"),
            ("columns", ", ".join(spec.columns)),
            ("utterances", f"{len(self):,}"),
            ("fingerprint", spec.fingerprint),
        ]
        return html_table((), [line for line in lines if line[1]], f"feature set {self.name}")

    def check_spec(self, spec: FeatureSpec) -> None:
        """Raise SpecMismatch, with each difference, unless rows of that specification may be added to this set."""
        if self.spec.fingerprint != spec.fingerprint:
            listed = "; ".join(self.spec.differences(spec))
            raise SpecMismatch(
                f"Feature set {self.name!r} ({self.path}) holds other features ({listed}). Choose another name for the "
                f"new ones, remove the old ones (medusa store rm {self.name} -s STORE), or use the settings they were "
                "made with."
            )

    @property
    def layers(self) -> tuple[str, ...]:
        return self.spec.layers

    @property
    def dim(self) -> int:
        return self.spec.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of rows as they are read: float16 (also of int8 rows) or float32 (also of bfloat16 rows)."""
        return np.dtype(self.spec.row_type.read)

    @property
    def segments(self) -> list[Segment]:
        """The open segments, sorted by name."""
        return self._snapshot().segments

    @property
    def index(self) -> KeyIndex:
        """Where each key's rows lie."""
        return self._snapshot().index

    @property
    def is_loaded(self) -> bool:
        """Whether segments were opened, which the first look at keys or rows does."""
        return self._loaded is not None

    def refresh(self) -> None:
        """See the segments that are committed now; those already open stay open."""
        for attempt in range(MAX_REFRESHES):
            try:
                self._load(self._segment_names())
            except SegmentGone:
                if attempt == MAX_REFRESHES - 1:
                    raise
            else:
                return

    def see(self, name: str) -> None:
        """See one segment that was just committed, and leave those of other writers to `refresh`."""
        if self._loaded is None:
            return  # the first look will
        try:
            self._load(sorted({*(segment.name for segment in self._loaded.segments), name}))
        except SegmentGone:  # compacted by now
            self.refresh()

    def _load(self, names: list[str]) -> None:
        segment_of_name = {segment.name: segment for segment in self._loaded.segments} if self._loaded else {}
        if self._loaded is None or names != list(segment_of_name):
            segments = [
                segment_of_name.get(name) or Segment(self.path / name, self.spec, self._files) for name in names
            ]
            self._loaded = Snapshot(segments, self.spec, self._loaded)

    def _segment_names(self) -> list[str]:
        names = self._files.names(self.path)
        return sorted(name for name in names if is_segment_name(name))

    def _snapshot(self) -> Snapshot:
        if self._loaded is None:
            self.refresh()
        assert self._loaded is not None
        return self._loaded

    def reading(self, read: Callable[[Snapshot], T]) -> T:
        """Return what `read` returns of a snapshot; when a segment is gone, of the segments that there are now."""
        for _ in range(MAX_REFRESHES):
            try:
                return read(self._snapshot())
            except SegmentGone:
                self.refresh()
        return read(self._snapshot())

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[str]:
        return iter(self.index)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.index.position(key) >= 0

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that the set lacks, in their order; one lookup of all, not one for each."""
        key_list = list(keys)
        return [key_list[i] for i in np.flatnonzero(self.index.positions(key_list) < 0).tolist()]

    def __getitem__(self, key: str) -> np.ndarray:
        return self.array(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the last layer's rows of `key`, or `default` when there is no such key."""
        return self.array(key) if key in self else default

    def array(self, key: str, layer: str | None = None) -> np.ndarray:
        """Return the rows of one utterance, read-only (T, D) in `dtype`: a view of the file if stored so."""
        return self.arrays([key], layer)[0]

    def arrays(self, keys: Sequence[str], layer: str | None = None) -> list[np.ndarray]:
        """Return `array` for several keys, in their order. StoreError names keys that are missing."""
        rows, scales = self.stored_rows(keys, layer)
        if self.spec.row_type.is_plain:
            return rows
        return [self._decoded(part, None if scales is None else scales[i]) for i, part in enumerate(rows)]

    def stored(self, key: str, layer: str | None = None) -> np.ndarray:
        """Return the rows of one utterance as they lie on disk: float16, float32, uint16 (bfloat16's bits) or int8."""
        return self.stored_rows([key], layer)[0][0]

    def scales(self, key: str, layer: str | None = None) -> np.ndarray:
        """Return the scale of each int8 row of one utterance, float32 (T,); StoreError where rows have none."""
        scales = self.stored_rows([key], layer)[1]
        if scales is None:
            raise StoreError(f"Feature set {self.name!r} stores {self.spec.dtype} rows; only int8 rows have scales.")
        return scales[0]

    def stored_rows(
        self, keys: Sequence[str], layer: str | None = None
    ) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """Return `stored` for several keys, and their scales where rows are int8; `kernels` turns them into floats."""
        layer = self._layer(layer)
        return self.reading(lambda now: now.stored(self.find(now.index, keys), layer))

    def lengths(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of each utterance, int64 (n,)."""
        index = self.index
        n_rows: NDArray[np.int64] = index.n_rows[self.find(index, keys)]
        return n_rows

    def durations_s(self, keys: Sequence[str]) -> np.ndarray:
        """Duration of each utterance as recorded when it was written, float64 (n,); NaN where it was not."""
        return self.reading(lambda now: now.durations_s(self.find(now.index, keys)))

    def identities(self, keys: Sequence[str]) -> Identities:
        """Return what each utterance was made from, as recorded when it was written; see `Identities`."""
        return self.reading(lambda now: now.identities(self.find(now.index, keys)))

    def rows_digest(self, keys: Sequence[str], layers: Sequence[str] | None = None) -> str:
        """Return what identifies the rows of these utterances, in their order, in some layers (None: all).

        It is made of the recorded checksums, so that nothing else is read: rows that were encoded or imported anew have
        another one unless they are the same bit for bit, rows that were moved to another segment keep it.
        """
        names = self.layers if layers is None else tuple(self._layer(layer) for layer in layers)
        recorded = self.reading(lambda now: now.checksums(self.find(now.index, keys), names))
        return hashlib.blake2b(recorded.astype("<u4").tobytes(), digest_size=8).hexdigest()

    def gather(
        self,
        keys: Sequence[str],
        layer: str | None = None,
        out: np.ndarray | None = None,
        dtype: str | np.dtype[Any] | None = None,
    ) -> Packed:
        """Return the rows of the keys, one after the other in their order; StoreError names keys that are missing.

        out: C-contiguous (>= sum T, D), float16 or float32; the result is a view of its first rows, in its dtype. Pass
        the same array each time: fresh memory costs page faults, up to half the speed. Let it begin at a multiple of 64
        bytes (`rows.aligned.aligned_empty`): copies into other addresses are half as fast on some processors.
        dtype: without `out`, float16 or float32 to read as; the default is `self.dtype`. float32 rows become infinite
        where float16 can't hold them.
        """
        chosen = self._layer(layer)
        target = self._target(out, dtype)

        def memory(shape: tuple[int, ...], dtype: str) -> np.ndarray:
            if out is None or len(shape) == 1:
                return aligned_empty(shape, dtype)
            self._check_out(out, shape[1])
            return out[None, : shape[1]]

        packed = self.reading(lambda now: self._gather(now, keys, (chosen,), 1, memory, target.name))
        return Packed(packed.values[0], packed.offsets)

    def read_layers(
        self,
        keys: Sequence[str],
        layers: Sequence[str],
        dtype: str,
        *,
        stride: int = 1,
        memory: Callable[[tuple[int, ...], str], np.ndarray] = aligned_empty,
        beside_bytes: int = 0,
    ) -> Packed:
        """Return the rows of several layers, (L, sum T', D) in `dtype` ("float32" or "float16"), T' = ceil(T / stride).

        With a stride, means over that many rows are taken in float32 and rounded to `dtype` in the end. float16 becomes
        infinite where stored rows are too large for it. memory(shape, dtype) is where they go. beside_bytes: what the
        rows of other sets take that the same loop reads; what exceeds memory together is read by calls and not through
        maps. StoreError names keys that are missing.
        """
        names = tuple(self._layer(layer) for layer in layers)
        return self.reading(lambda now: self._gather(now, keys, names, stride, memory, dtype, beside_bytes))

    def n_bytes(self, n_layers: int = 1) -> int:
        """Return what the rows of all utterances take in so many layers (before compression)."""
        return self.reading(lambda now: now.n_bytes(n_layers))

    def select(self, keys: Sequence[str]) -> Selection:
        """Return these keys as a selection, whose parts are read without looking keys up again.

        StoreError names keys that are missing. The last selection is kept: asking for the same keys costs no look-up.
        """
        keys, selected = list(keys), self._selected
        if selected is None or selected.keys != keys:
            selected = Selection(self.find, keys)
        selected.positions(self.index)
        self._selected = selected
        return selected

    def _gather(
        self,
        now: Snapshot,
        keys: Sequence[str],
        layers: tuple[str, ...],
        stride: int,
        memory: Callable[[tuple[int, ...], str], np.ndarray],
        dtype: str,
        beside_bytes: int = 0,
    ) -> Packed:
        positions = self.find(now.index, keys)
        offsets = memory((len(positions) + 1,), "int64")
        offsets[0] = 0
        lengths = now.index.n_rows[positions]
        np.cumsum(lengths if stride == 1 else -(-lengths // stride), out=offsets[1:])
        values = memory((len(layers), int(offsets[-1]), self.dim), dtype)
        fill(now, positions, layers, stride, offsets, values, beside_bytes)
        return Packed(values, offsets)

    def announce(
        self, keys: Sequence[str], layer: str | None = None, *, n_layers: int = 1, beside_bytes: int = 0
    ) -> None:
        """Tell the kernel that these keys' rows will be read soon, so that it fetches them meanwhile.

        n_layers: how many layers are read; beside_bytes: as for `read_layers`. Where their rows of all keys exceed the
        memory available this does nothing, as much would be dropped before its turn; batches are then read by calls,
        several at once.
        """
        layer = self._layer(layer)
        self.reading(lambda now: now.announce(self.find(now.index, keys), layer, n_layers, beside_bytes))

    def verify(self) -> list[str]:
        """Everything that is wrong with this set's files, one sentence each; reads every byte.

        Also two copies of one key that were made from different data: nothing but their segments' names decides which
        of them is read.
        """
        problems = []
        metadata_file = self.path / "zarr.json"
        try:
            written = metadata_file.read_bytes()
        except OSError as error:
            return [f"{metadata_file} can't be read: {error.strerror}."]
        if written != json_bytes(set_metadata(self.spec, self.provenance, self.format, self.compress)):
            problems.append(f"{metadata_file}: the feature set's metadata was altered.")
        segments = self._segment_names()
        for name in sorted(self._files.names(self.path)):
            if name in segments:
                try:
                    problems += Segment(self.path / name, self.spec, self._files).verify()
                except SegmentGone:
                    continue
                except StoreError as error:
                    problems.append(str(error))
            elif name != "zarr.json" and not name.startswith("."):
                problems.append(f"{self.path / name}: a file that does not belong to the feature set.")
        return problems + self._conflicts()

    def _conflicts(self) -> list[str]:
        """Return a sentence for each two segments that hold one key, made from different data."""
        from featurestore.sets.conflicts import conflicts

        try:
            hashes = np.concatenate(
                [
                    np.empty(0, np.uint64),
                    *(
                        Segment(self.path / name, self.spec, self._files).small("key_hashes")
                        for name in self._segment_names()
                    ),
                ]
            )
            hashes.sort()  # without a hash that stands there twice no index is needed, which takes ten times the memory
            if not (hashes[1:] == hashes[:-1]).any():
                return []
            del hashes
            return FeatureSet(self.path, self.name, self._files).reading(conflicts)
        except StoreError:
            return []  # of damage, which the segments' own problems name, or of a compaction meanwhile

    def _decoded(self, rows: np.ndarray, scales: np.ndarray | None, out: np.ndarray | None = None) -> np.ndarray:
        from featurestore.rows.kernels import decode_rows

        if out is not None:
            return decode_rows(rows, scales, out)
        decoded = decode_rows(rows, scales, np.empty(rows.shape, dtype=self.dtype))
        decoded.flags.writeable = False
        return decoded

    def _layer(self, layer: str | None) -> str:
        if layer is None:
            return self.layers[-1]
        if layer not in self.layers:
            raise StoreError(f"Feature set {self.name!r} has no layer {layer!r}; it has {', '.join(self.layers)}.")
        return layer

    def find(self, index: KeyIndex, keys: Sequence[str]) -> np.ndarray:
        """Return the position of each key in `index`, int64 (n,); StoreError names those that are missing."""
        if isinstance(keys, Chosen):
            return keys.positions(index)
        positions = index.positions(keys)
        if (positions < 0).any():
            missing = [keys[i] for i in np.flatnonzero(positions < 0).tolist()]
            some = ", ".join(repr(key) for key in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise StoreError(
                f"Feature set {self.name!r} ({self.path}) lacks {len(missing)} of {len(keys)} keys: {some}. Run "
                "`medusa featurize` again to add what is missing, or leave these utterances out."
            )
        return positions

    def _target(self, out: np.ndarray | None, dtype: str | np.dtype[Any] | None) -> np.dtype[Any]:
        target = np.dtype(dtype or self.dtype) if out is None else out.dtype
        if target not in (np.float16, np.float32) or (out is not None and dtype not in (None, target)):
            raise StoreError(f"Rows of {self.name!r} can be read as float16 or float32, not as {dtype or target}.")
        return target

    def _check_out(self, out: np.ndarray, n_rows: int) -> None:
        if out.ndim != 2 or len(out) < n_rows or out.shape[1] != self.dim:
            raise StoreError(f"The buffer for {self.name!r} is {out.shape}; the batch needs ({n_rows}+, {self.dim}).")
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise StoreError(f"The buffer for {self.name!r} must be C-contiguous and writeable.")


def set_metadata(spec: FeatureSpec, provenance: Mapping[str, Any], format: str, compress: str) -> dict[str, Any]:
    """Return a set's zarr.json: specification, how it was made and new segments are stored, and their CRC-32C."""
    attributes = {
        "medusa_set": SET_VERSION,
        "spec": spec.to_json(),
        "fingerprint": spec.fingerprint,
        "provenance": dict(provenance),
        "storage": {"format": format, "compress": compress},
    }
    canonical = json.dumps(attributes, sort_keys=True, separators=(",", ":")).encode()
    return group_metadata({**attributes, "crc32c": google_crc32c.value(canonical)})
