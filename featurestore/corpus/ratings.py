"""Raw ratings, one row for each annotator of each utterance, and what follows from them: votes, consensus, means."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from featurestore.corpus import arrow
from featurestore.corpus.tables import ELSEWHERE, read_table_file
from featurestore.errors import ManifestError
from featurestore.runtime.durable import replace_file, writing

ALSO_SEPARATOR = ";"  # between secondary labels in a CSV cell; Parquet holds lists
NUMBERED = re.compile(r"(.+:)?#\d+")  # an annotator without a name; a joined manifest puts the corpus before it


@dataclass(frozen=True, eq=False)
class Ratings:
    """R ratings of K utterances; names are held once, ratings refer to them by index and stand in the order of `keys`.

    A rating has an annotator, a (primary) label or none, any number of further labels, and a value or NaN for each
    attribute. `labels` are the ones that were given, in the corpus's words; they may be more than a scheme's classes.
    """

    keys: tuple[str, ...]
    annotators: tuple[str, ...]
    labels: tuple[str, ...]
    attributes: tuple[str, ...]
    key_of: NDArray[np.int64]  # (R,) ascending
    annotator_of: NDArray[np.int64]  # (R,)
    label_of: NDArray[np.int64]  # (R,), -1 where a rating has no label
    values: NDArray[np.float64]  # (R, A), NaN where missing
    also: NDArray[np.int64]  # (S, 2) rating and secondary label, ascending; never the primary one, none twice

    @classmethod
    def of(
        cls,
        keys: Sequence[str] | pa.Array,
        annotators: Sequence[str] | pa.Array | None = None,
        labels: Sequence[str | None] | pa.Array | None = None,
        *,
        attributes: Mapping[str, Any] | None = None,
        also: Sequence[Sequence[str] | None] | pa.Array | None = None,
        source: str = "ratings",
    ) -> "Ratings":
        """Return ratings from columns of R entries (lists, NumPy or Arrow arrays); utterances keep their order.

        annotators of None are numbered within each utterance. label: the primary label, None or "" for none. also: the
        secondary labels of each rating. attributes: name -> R numbers, missing ones None, NaN or "".
        ManifestError names `source` and the rows with an empty id, or a value that is not a number.
        """
        columns = {"utterance_id": keys}
        columns |= {} if annotators is None else {"annotator": annotators}
        columns |= {} if labels is None else {"label": labels}
        columns |= {} if also is None else {"also": also}
        columns |= {f"attr_{name}": values for name, values in (attributes or {}).items()}
        try:
            table = pa.table({name: _arrow(values) for name, values in columns.items()})
        except (pa.ArrowException, ValueError, TypeError) as error:
            sizes = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
            raise ManifestError(f"{source}: ratings need columns of one length and type ({error}): {sizes}.") from None
        return cls.of_table(table, source)

    @classmethod
    def of_table(cls, table: pa.Table, source: str = "ratings") -> "Ratings":
        """Return ratings from a table: utterance_id, annotator, label, also (lists, or text with ";"), attr_<...>."""
        names = table.column_names
        if "utterance_id" not in names:
            raise ManifestError(f"{source}: {arrow.missing_column('utterance_id', names)}.")
        column_names = ("utterance_id", "annotator", "label", "also")
        unknown = [name for name in names if name not in column_names and not name.startswith("attr_")]
        if unknown:
            raise ManifestError(
                f"{source}: unknown columns {unknown}, expected {', '.join(column_names)}, attr_<attribute>."
            )
        key_names, key_of, problems = _encoded(table, "utterance_id")
        order = np.argsort(key_of, kind="stable")
        key_of = key_of[order]
        if "annotator" in names:
            annotator_names, annotator_of, further_problems = _encoded(table, "annotator")
            problems += further_problems
            annotator_of = annotator_of[order]
        else:
            annotator_of = np.arange(len(key_of)) - np.searchsorted(key_of, key_of)
            annotator_names = tuple(f"#{i + 1}" for i in range(int(annotator_of.max(initial=-1)) + 1))
        label_names, label_of = _names(table.column("label")) if "label" in names else ((), np.full(len(order), -1))
        attributes = tuple(name.removeprefix("attr_") for name in names if name.startswith("attr_"))
        values = np.full((table.num_rows, len(attributes)), np.nan)
        for a, attribute in enumerate(attributes):
            column = table.column(f"attr_{attribute}")
            numbers, bad = arrow.as_numbers(column)
            if bad:
                problems.append(arrow.listing(f"attr_{attribute} is not a number", bad, column.to_pylist()))
            values[:, a] = pc.fill_null(numbers, np.nan).to_numpy()
        if problems:
            raise ManifestError(arrow.sentence(source, problems))
        ratings = cls(
            key_names, annotator_names, label_names, attributes, key_of, annotator_of, label_of[order], values[order],
            np.zeros((0, 2), np.int64),
        )  # fmt: skip
        return ratings._with_also(table.column("also"), order) if "also" in names else ratings

    @classmethod
    def from_counts(cls, keys: Sequence[str], classes: Sequence[str], counts: NDArray[np.floating]) -> "Ratings":
        """Return the ratings that add up to whole (N, C) vote counts, by annotators numbered within each utterance."""
        counts = np.asarray(counts, float)
        wrong = np.flatnonzero((counts < 0).any(1) | (counts != np.round(counts)).any(1))
        if len(wrong):
            raise ManifestError(f"Votes must be whole numbers; {keys[wrong[0]]!r} has {counts[wrong[0]].tolist()}.")
        n_each = counts.astype(np.int64)
        key_of = np.repeat(np.arange(len(keys)), n_each.sum(1))
        label_of = np.repeat(np.tile(np.arange(len(classes)), len(keys)), n_each.ravel())
        annotator_of = np.arange(len(key_of)) - np.searchsorted(key_of, key_of)
        annotators = tuple(f"#{i + 1}" for i in range(int(annotator_of.max(initial=-1)) + 1))
        values, also = np.zeros((len(key_of), 0)), np.zeros((0, 2), np.int64)
        return cls(tuple(keys), annotators, tuple(classes), (), key_of, annotator_of, label_of, values, also)

    def to_table(self) -> pa.Table:
        """Return R rows: utterance_id, annotator, label, also (lists), attr_<attribute>; the inverse of `of_table`."""
        label_of = pa.array(self.label_of.astype(np.int32), mask=self.label_of < 0)
        offsets = np.searchsorted(self.also[:, 0], np.arange(len(self) + 1)).astype(np.int32)
        columns = {
            "utterance_id": _decoded(pa.array(self.key_of.astype(np.int32)), self.keys),
            "annotator": _decoded(pa.array(self.annotator_of.astype(np.int32)), self.annotators),
            "label": _decoded(label_of, self.labels),
        }
        if len(self.also):
            names = pa.array(self.labels, pa.string()).take(pa.array(self.also[:, 1]))
            columns["also"] = pa.ListArray.from_arrays(pa.array(offsets), names)
        for a, name in enumerate(self.attributes):
            columns[f"attr_{name}"] = pa.array(self.values[:, a], from_pandas=True)
        return pa.table(columns)

    @staticmethod
    def sidecar(manifest: Path) -> Path:
        """Where the ratings of the manifest at a path are kept: `<stem>.ratings.parquet`."""
        return manifest.with_suffix(".ratings.parquet")

    @classmethod
    def read(cls, path: Path | str) -> "Ratings":
        """Return the ratings from a .parquet or .csv file; ManifestError as in `of_table`, naming the file."""
        return cls.of_table(read_table_file(Path(path)), str(path))

    def write(self, path: Path | str) -> None:
        """Write a .parquet file, whole or not at all."""
        path = Path(path)
        if path.suffix != ".parquet":
            raise ManifestError(f"{path}: ratings are written as .parquet, found {path.suffix or 'no suffix'!r}.")
        table = self.to_table()
        with writing(path, ManifestError, ELSEWHERE):
            replace_file(path, lambda file: pyarrow.parquet.write_table(table, file, compression="zstd"))

    def __len__(self) -> int:
        return len(self.key_of)

    def __repr__(self) -> str:
        return f"<Ratings: {len(self):,} of {len(self.keys):,} utterances by {len(self.annotators):,} annotators>"

    @property
    def n_annotators(self) -> int | None:
        """How many annotators rated; None where some have no name, for they are numbered anew for each utterance."""
        names = [self.annotators[i] for i in np.unique(self.annotator_of)]
        return None if any(NUMBERED.fullmatch(name) for name in names) else len(names)

    @property
    def n_again(self) -> int:
        """How many ratings are of an utterance that the same annotator has another rating of."""
        pairs = self.key_of * max(len(self.annotators), 1) + self.annotator_of
        return len(pairs) - len(np.unique(pairs))

    def of_keys(self, keys: Sequence[str]) -> "Ratings":
        """Return the ratings of these (distinct) utterances, in this order; an utterance that nobody rated has none."""
        place = {key: i for i, key in enumerate(keys)}
        moved = np.array([place.get(key, -1) for key in self.keys], np.int64)
        key_of = moved[self.key_of]
        chosen = np.flatnonzero(key_of >= 0)
        order = chosen[np.argsort(key_of[chosen], kind="stable")]
        return replace(self._taken(order), keys=tuple(keys), key_of=key_of[order])

    def select(self, mask: NDArray[np.bool_]) -> "Ratings":
        """Return the ratings of a mask (R,), of the same utterances: some may have none left."""
        return self._taken(np.flatnonzero(mask))

    def renamed(self, names: Mapping[str, str | None]) -> "Ratings":
        """Rename labels, also several to one name (`{"excited": "happy"}`); None leaves a label out.

        A scheme's `corpus_labels` are such names.
        """
        new = [names.get(label, label) for label in self.labels]
        labels = tuple(sorted({label for label in new if label is not None}))
        code = _recoded(new, labels)
        label_of, also = code[self.label_of], np.column_stack([self.also[:, 0], code[self.also[:, 1]]])
        return replace(self, labels=labels, label_of=label_of, also=_distinct(also, label_of))

    def counts(self, classes: Sequence[str], *, also: float | NDArray[np.float64] = 0.0) -> NDArray[np.float64]:
        """Return (K, C) votes for each class, without labels that are no class.

        also: a secondary label's weight, one or (K,).
        """
        code = _recoded(self.labels, classes)
        total = _counted(self.key_of, code[self.label_of], len(self.keys), len(classes))
        if np.any(also) and len(self.also):
            rated = self.key_of[self.also[:, 0]]
            secondary = _counted(rated, code[self.also[:, 1]], len(self.keys), len(classes))
            total += np.reshape(also, (-1, 1)) * secondary
        return total

    def attribute_means(self) -> NDArray[np.float64]:
        """Return (K, A) mean over the annotators who gave a value, NaN where nobody did."""
        n, total = self._sums(self.values)
        return np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)

    def dropped(self, *, seed: int, epoch: int, share: float = 0.2) -> "Ratings":
        """Without a random subset of each utterance's annotators: label augmentation (SAIL; Feng et al. 2025).

        Each annotator of an utterance is left out with probability `share`; one always stays. A pure function: who is
        left out depends on the two ids, seed and epoch, not on which other utterances there are or on their order.
        """
        if not 0 <= share < 1:
            raise ManifestError(f"The share of annotators to drop must be at least 0 and less than 1, found {share}.")
        drawn = self._draws(seed, epoch)
        keep = drawn >= share
        best = np.zeros(len(self.keys))
        np.maximum.at(best, self.key_of, drawn)
        return self.select(keep | (drawn == best[self.key_of]))

    def _draws(self, seed: int, epoch: int) -> NDArray[np.float64]:
        """Return (R,) numbers uniform in [0, 1), one for each (utterance, annotator) pair."""
        start = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint64)
        mixed = _scrambled(self._key_hashes ^ start[0])[self.key_of]
        mixed = _scrambled(mixed + _scrambled(self._annotator_hashes ^ start[1])[self.annotator_of])
        return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53

    @cached_property
    def _key_hashes(self) -> NDArray[np.uint64]:
        return _hashes(self.keys)

    @cached_property
    def _annotator_hashes(self) -> NDArray[np.uint64]:
        return _hashes(self.annotators)

    def _sums(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (K, A) counts of values, and their sums."""
        rated = ~np.isnan(values)
        n_keys, n = len(self.keys), np.zeros((len(self.keys), values.shape[1]))
        total = np.zeros_like(n)
        for a in range(values.shape[1]):
            n[:, a] = np.bincount(self.key_of, rated[:, a], n_keys)
            total[:, a] = np.bincount(self.key_of, np.where(rated[:, a], values[:, a], 0.0), n_keys)
        return n, total

    def _taken(self, order: NDArray[np.int64]) -> "Ratings":
        """Return the ratings at these indices, in their order."""
        place = np.full(len(self), -1)
        place[order] = np.arange(len(order))
        also = np.column_stack([place[self.also[:, 0]], self.also[:, 1]])
        label_of = self.label_of[order]
        return replace(
            self, key_of=self.key_of[order], annotator_of=self.annotator_of[order], label_of=label_of,
            values=self.values[order], also=_distinct(also[also[:, 0] >= 0], label_of),
        )  # fmt: skip

    def _with_also(self, column: pa.ChunkedArray, order: NDArray[np.int64]) -> "Ratings":
        if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
            column = pc.split_pattern(pc.fill_null(_strings(column), ""), ALSO_SEPARATOR)
        rows = pc.list_parent_indices(column).to_numpy()
        names, codes = _names(pc.utf8_trim_whitespace(_strings(pc.list_flatten(column))))
        labels = tuple(sorted({*self.labels, *names}))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        label_of = _recoded(self.labels, labels)[self.label_of]
        also = np.column_stack([place[rows], _recoded(names, labels)[codes]])
        return replace(self, labels=labels, label_of=label_of, also=_distinct(also, label_of))


def _arrow(values: Any) -> pa.Array:
    return values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, from_pandas=True)


def _encoded(table: pa.Table, name: str) -> tuple[tuple[str, ...], NDArray[np.int64], list[str]]:
    """Return the distinct names of a column in the order they come in, (R,) indices into them, and what is wrong."""
    names, codes = _names(table.column(name))
    empty = np.flatnonzero(codes < 0).tolist()
    return names, codes, [arrow.listing(f"{name} is empty", empty)] if empty else []


def _names(column: pa.ChunkedArray) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    encoded = _strings(column).combine_chunks().dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return tuple(encoded.dictionary.to_pylist()), codes


def _strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return pc.cast(column, pa.string()) if pa.types.is_null(column.type) else arrow.as_strings(column)


def _recoded(names: Sequence[str | None], among: Sequence[str]) -> NDArray[np.int64]:
    """Return the (n + 1,) index of each name in `among`, -1 if absent; the last entry is -1, so code -1 maps to -1."""
    place = {name: i for i, name in enumerate(among)}
    return np.array([-1 if name is None else place.get(name, -1) for name in names] + [-1], np.int64)


def _decoded(indices: pa.Array, names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def _distinct(also: NDArray[np.int64], label_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Secondary labels in their order, without empty ones, repetitions, and those that repeat the primary."""
    also = also[(also[:, 1] >= 0) & (also[:, 1] != label_of[also[:, 0]])]
    if not len(also):
        return also
    width = int(also[:, 1].max()) + 1
    codes = np.sort(also[:, 0] * width + also[:, 1])
    codes = codes[np.diff(codes, prepend=-1) > 0]  # np.unique is three times slower here
    return np.column_stack(np.divmod(codes, width))


def _counted(rows: NDArray[np.int64], codes: NDArray[np.int64], n_rows: int, n_classes: int) -> NDArray[np.float64]:
    labelled = codes >= 0
    flat = np.bincount(rows[labelled] * n_classes + codes[labelled], minlength=n_rows * n_classes)
    return flat.reshape(n_rows, n_classes).astype(np.float64)


def _hashes(names: Sequence[str]) -> NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _scrambled(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finaliser of SplitMix64 (Steele, Lea & Flood 2014), elementwise."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
