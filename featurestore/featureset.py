"""Reading one feature set: a mapping from keys to rows, and batches of rows packed into one buffer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import StoreError
from featurestore.keyindex import KeyIndex
from featurestore.segment import Segment, read_group
from featurestore.spec import FeatureSpec

SET_VERSION = 1
SEGMENT_PATTERN = "seg-" + "[0-9a-f]" * 16
# Below this mean size of an utterance, one vectorised take per segment beats one copy per utterance.
SMALL_UTTERANCE_BYTES = 4096


@dataclass
class Packed:
    """The rows of several utterances, one after the other: utterance i has rows offsets[i]:offsets[i + 1].

    values: (sum T, D), or (L, sum T, D) where several layers were read. offsets: int64 (B + 1,).
    """

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each utterance, int64 (B,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        """Rows of utterance i: a view, (T, D) or (L, T, D)."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"utterance {i} of a batch of {len(self)}")
        i %= len(self)
        return self.values[..., self.offsets[i] : self.offsets[i + 1], :]

    def pad(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, max T, D) float32, or (L, B, max T, D), with zeros after each utterance's end; and lengths (B,)."""
        from featurestore.kernels import pad

        if self.values.ndim == 2:
            return pad(self.values, self.offsets), self.lengths
        return np.stack([pad(layer, self.offsets) for layer in self.values]), self.lengths


class FeatureSet(Mapping[str, np.ndarray]):
    """One feature set of a store, open for reading; cheap to open, and safe to fork or to pickle (by path).

    Segments that others commit later are seen after `refresh`. Arrays are read-only views of memory-mapped files and
    stay valid as long as anything refers to them.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = Path(path)
        self.name = name
        attributes = read_group(self.path)
        if attributes.get("medusa_set") != SET_VERSION:
            raise StoreError(
                f"{self.path} holds no feature set of version {SET_VERSION}: "
                f"its medusa_set is {attributes.get('medusa_set')!r}."
            )
        self.spec = FeatureSpec.from_json(attributes.get("spec", {}))
        if attributes.get("fingerprint") != self.spec.fingerprint:
            raise StoreError(
                f"{self.path / 'zarr.json'} is damaged: its fingerprint is {attributes.get('fingerprint')!r}, its "
                f"specification's {self.spec.fingerprint!r}."
            )
        self.provenance: dict[str, Any] = attributes.get("provenance") or {}
        self._loaded: tuple[list[Segment], KeyIndex] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureSet, (self.path, self.name)

    def __repr__(self) -> str:
        return f"FeatureSet({self.name!r}, {self.spec.encoder}, layers={','.join(self.layers)}, dim={self.dim})"

    @property
    def layers(self) -> tuple[str, ...]:
        return self.spec.layers

    @property
    def dim(self) -> int:
        return self.spec.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored dtype of the rows."""
        return np.dtype(self.spec.dtype)

    @property
    def segments(self) -> list[Segment]:
        """The open segments, sorted by name."""
        return self._load()[0]

    @property
    def index(self) -> KeyIndex:
        """Where each key's rows lie."""
        return self._load()[1]

    def refresh(self) -> None:
        """See the segments that are committed now; those already open stay open."""
        known = self._loaded[0] if self._loaded else []
        self._loaded = self._read_segments({segment.name: segment for segment in known})

    def _load(self) -> tuple[list[Segment], KeyIndex]:
        if self._loaded is None:
            self._loaded = self._read_segments({})
        return self._loaded

    def _read_segments(self, known: dict[str, Segment]) -> tuple[list[Segment], KeyIndex]:
        names = sorted(path.name for path in self.path.glob(SEGMENT_PATTERN))
        if self._loaded and names == [segment.name for segment in self._loaded[0]]:
            return self._loaded
        segments = [known.get(name) or Segment(self.path / name, self.spec) for name in names]
        return segments, KeyIndex(segments)

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[str]:
        return iter(self.index)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.index.positions([key])[0] >= 0

    def __getitem__(self, key: str) -> np.ndarray:
        return self.array(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The last layer's rows of `key`, or `default` when there is no such key."""
        return self.array(key) if key in self else default

    def array(self, key: str, layer: str | None = None) -> np.ndarray:
        """Rows of one utterance, (T, D) in the stored dtype: a read-only view of the file. StoreError: no such key."""
        return self.arrays([key], layer)[0]

    def arrays(self, keys: Sequence[str], layer: str | None = None) -> list[np.ndarray]:
        """`array` for several keys, in their order."""
        layer = self._layer(layer)
        segments, index = self._load()
        return _views(segments, index, self._find(index, keys), layer)

    def lengths(self, keys: Sequence[str]) -> np.ndarray:
        """Rows of each utterance, int64 (n,)."""
        index = self.index
        return index.n_rows[self._find(index, keys)]

    def durations_s(self, keys: Sequence[str]) -> np.ndarray:
        """Duration of each utterance as told when it was written, float64 (n,); NaN where it was not."""
        segments, index = self._load()
        durations = np.concatenate([segment.small("durations_s") for segment in segments] or [np.empty(0)])
        return durations[self._find(index, keys)]

    def gather(self, keys: Sequence[str], layer: str | None = None, out: np.ndarray | None = None) -> Packed:
        """Rows of the keys, one after the other in their order; StoreError names keys that are missing.

        out: C-contiguous (>= sum T, D) in the stored dtype; the result is a view of its first rows. Pass the same
        array each time: fresh memory costs page faults, up to half the speed.
        """
        layer = self._layer(layer)
        segments, index = self._load()
        found = self._find(index, keys)
        offsets = np.zeros(len(found) + 1, dtype=np.int64)
        np.cumsum(index.n_rows[found], out=offsets[1:])
        n_rows = int(offsets[-1])
        if out is None:
            values = np.empty((n_rows, self.dim), dtype=self.dtype)
        else:
            self._check_out(out, n_rows)
            values = out[:n_rows]
        if n_rows * self.dim * self.dtype.itemsize < SMALL_UTTERANCE_BYTES * len(found):
            _take(segments, index, found, layer, values, offsets)
        else:
            first, last = offsets[:-1].tolist(), offsets[1:].tolist()
            for start, stop, rows in zip(first, last, _views(segments, index, found, layer), strict=True):
                values[start:stop] = rows
        return Packed(values, offsets)

    def announce(self, keys: Sequence[str], layer: str | None = None) -> None:
        """Tell the kernel that these keys' rows will be read soon, so that it fetches them meanwhile."""
        layer = self._layer(layer)
        segments, index = self._load()
        found = self._find(index, keys)
        for i, first, n in zip(index.segment[found], index.first_row[found], index.n_rows[found], strict=True):
            segments[i].announce(layer, int(first), int(n))

    def verify(self) -> list[str]:
        """Everything that is wrong with this set's files, one sentence each; reads every byte."""
        problems = []
        for path in sorted(self.path.iterdir()):
            if path.match(SEGMENT_PATTERN):
                try:
                    problems += Segment(path, self.spec).verify()
                except StoreError as error:
                    problems.append(str(error))
            elif path.name != "zarr.json" and not path.name.startswith(".tmp-"):
                problems.append(f"{path}: a file that does not belong to the feature set.")
        return problems

    def _layer(self, layer: str | None) -> str:
        if layer is None:
            return self.layers[-1]
        if layer not in self.layers:
            raise StoreError(f"Feature set {self.name!r} has no layer {layer!r}; it has {', '.join(self.layers)}.")
        return layer

    def _find(self, index: KeyIndex, keys: Sequence[str]) -> np.ndarray:
        found = index.positions(keys)
        if (found < 0).any():
            missing = [keys[i] for i in np.flatnonzero(found < 0).tolist()]
            some = ", ".join(repr(key) for key in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise StoreError(
                f"Feature set {self.name!r} ({self.path}) lacks {len(missing)} of {len(keys)} keys: {some}. Run "
                "`medusa featurize` again to add what is missing, or leave these utterances out."
            )
        return found

    def _check_out(self, out: np.ndarray, n_rows: int) -> None:
        if out.ndim != 2 or len(out) < n_rows or out.shape[1] != self.dim or out.dtype != self.dtype:
            raise StoreError(
                f"The buffer for {self.name!r} is {out.dtype} {out.shape}; the batch needs "
                f"{self.dtype} ({n_rows} or more, {self.dim})."
            )
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise StoreError(f"The buffer for {self.name!r} must be C-contiguous and writeable.")


def _views(segments: list[Segment], index: KeyIndex, found: np.ndarray, layer: str) -> list[np.ndarray]:
    """The rows of each found position, as views of the files."""
    in_segment = index.segment[found].tolist()
    rows = {i: segments[i].rows(layer) for i in set(in_segment)}
    where = zip(in_segment, index.first_row[found].tolist(), index.n_rows[found].tolist(), strict=True)
    return [rows[i][first : first + n] for i, first, n in where]


def _take(
    segments: list[Segment], index: KeyIndex, found: np.ndarray, layer: str, values: np.ndarray, offsets: np.ndarray
) -> None:
    """Gather with one vectorised take per segment: for utterances of a few rows, such as posteriors."""
    n_rows = np.diff(offsets)
    source = np.repeat(index.first_row[found] - offsets[:-1], n_rows) + np.arange(len(values))
    row_segment = np.repeat(index.segment[found], n_rows)
    for i in np.unique(row_segment).tolist():
        targets = np.flatnonzero(row_segment == i)
        values[targets] = segments[i].rows(layer)[source[targets]]
