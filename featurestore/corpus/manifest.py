"""A corpus as one table: an utterance per row, its audio or text, and what is known about it."""

import contextlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featurestore.audio import Clip
from featurestore.corpus import arrow, checks
from featurestore.corpus.checks import SPLITS
from featurestore.corpus.label_scheme import LabelScheme
from featurestore.corpus.pieces import END, START
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.tables import ELSEWHERE, read_table_file, write_table_file
from featurestore.errors import ManifestError
from featurestore.runtime.durable import replace_file, writing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SPLITS", "LabelScheme", "Manifest"]

SCHEME_KEY, ROOT_KEY = b"medusa_scheme", b"medusa_root"


class Manifest:
    """N utterances, validated: columns by name, votes and attributes in the label scheme's order.

    Columns: utterance_id; path and/or text; optional speaker, gender, label, split (one of SPLITS), fold, duration_s,
    start_s and end_s (seconds: the utterance is this piece of its file, an empty end is the file's),
    vote_<class> (counts or weights >= 0, one column for each class), attr_<attribute>; any others are kept. Names are
    strings (`fold` too), empty is missing. Relative audio paths start at `root`. `notes` says what the reader of a
    corpus left out or found odd; it is not written.
    """

    def __init__(
        self,
        table: pa.Table,
        scheme: LabelScheme | None = None,
        root: Path | str = ".",
        name: str = "manifest",
        ratings: Ratings | None = None,
    ) -> None:
        """Check every row; ManifestError lists what is wrong by row and value. The columns imply a scheme of None."""
        self.name = name
        self.root = Path(root)
        if problems := arrow.nested_problems(table, checks.STRING_COLUMNS):
            raise ManifestError(arrow.sentence(f"Manifest {name}", problems))
        self.scheme = LabelScheme.of_table(table) if scheme is None else scheme
        self.notes: list[str] = []
        self._ratings: Ratings | Path | None = ratings
        self._table, problems = checks.typed(table)
        problems += checks.table_problems(self._table, self.scheme)
        if problems:
            raise ManifestError(arrow.sentence(f"Manifest {name}", problems) + checks.remedy(problems))

    @classmethod
    def read(cls, path: Path | str) -> "Manifest":
        """Read a .csv or .parquet manifest; its scheme is `<stem>.scheme.json` beside it, or Parquet metadata."""
        path = Path(path)
        table = read_table_file(path)
        scheme = LabelScheme.beside(path)
        inside = (table.schema.metadata or {}).get(SCHEME_KEY)
        if scheme is None and inside is not None:
            scheme = LabelScheme.from_json(inside, f"{path}, schema metadata")
        manifest = cls(table, scheme, path.parent, str(path))  # errors name the file
        manifest.name = path.stem
        sidecar = Ratings.sidecar(path)
        manifest._ratings = sidecar if sidecar.exists() else None
        return manifest

    def write(self, path: Path | str, *, escape_formulas: bool = False) -> None:
        """Write the .csv or .parquet, its `<stem>.scheme.json`, and `<stem>.ratings.parquet` if there are ratings.

        Audio paths are made to hold from the new directory: one stays relative where the corpus and the manifest lie
        one above the other, else it becomes absolute. Ratings that a former manifest of that name had, where this one
        has none, are kept as `<stem>.ratings.old.parquet`. escape_formulas: see `write_table_file`.
        """
        path = Path(path)
        ratings = self.ratings
        table = self._table
        if self.has("path"):
            moved = pa.array(moved_paths(table.column("path").to_pylist(), self.root, path.parent), pa.string())
            table = table.set_column(table.column_names.index("path"), "path", moved)
        scheme = self.scheme.to_json().encode()
        table = table.replace_schema_metadata({SCHEME_KEY: scheme})
        write_table_file(table, path, escape_formulas=escape_formulas)
        sidecar = LabelScheme.sidecar(path)
        with writing(sidecar, ManifestError, ELSEWHERE):
            replace_file(sidecar, lambda file: file.write(scheme))
        if ratings is None:
            with contextlib.suppress(FileNotFoundError):
                Ratings.sidecar(path).replace(path.with_suffix(".ratings.old.parquet"))
        else:
            ratings.write(Ratings.sidecar(path))

    @classmethod
    def from_pandas(
        cls,
        df: "pd.DataFrame",
        scheme: LabelScheme | None = None,
        root: Path | str | None = None,
        name: str = "manifest",
        ratings: Ratings | None = None,
    ) -> "Manifest":
        """Return a manifest from a data frame; an index named utterance_id becomes the column.

        A scheme and root of None are those that `to_pandas` left in `df.attrs`, else what the columns imply and ".".
        """
        if "utterance_id" not in df.columns and df.index.name == "utterance_id":
            df = df.reset_index()
        try:
            table = pa.Table.from_pandas(df, preserve_index=False)
        except pa.ArrowException as error:
            raise ManifestError(f"Manifest {name}: the data frame mixes types in a column: {error}.") from None
        columns = {
            key: str(df.attrs[key.decode()]).encode() for key in (SCHEME_KEY, ROOT_KEY) if key.decode() in df.attrs
        }
        return cls.from_arrow(table.replace_schema_metadata(columns), scheme, root, name, ratings)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the table as a data frame (needs pandas), with the label scheme and the root in its `attrs`."""
        df = self._table.to_pandas()
        df.attrs = {key.decode(): value.decode() for key, value in self._metadata().items()}
        return df

    @classmethod
    def from_arrow(
        cls,
        table: pa.Table,
        scheme: LabelScheme | None = None,
        root: Path | str | None = None,
        name: str = "manifest",
        ratings: Ratings | None = None,
    ) -> "Manifest":
        """Return a manifest from an Arrow table.

        A scheme and root of None are those that `to_arrow` left in its metadata.
        """
        inside = table.schema.metadata or {}
        if scheme is None and SCHEME_KEY in inside:
            scheme = LabelScheme.from_json(inside[SCHEME_KEY], f"Manifest {name}, schema metadata")
        if root is None:
            root = inside.get(ROOT_KEY, b".").decode()
        return cls(table, scheme, root, name, ratings)

    def to_arrow(self) -> pa.Table:
        """Return the table itself, with the label scheme and the root in its schema metadata."""
        return self._table.replace_schema_metadata(self._metadata())

    def _metadata(self) -> dict[bytes, bytes]:
        return {SCHEME_KEY: self.scheme.to_json().encode(), ROOT_KEY: os.path.abspath(self.root).encode()}

    def with_table(self, table: pa.Table, scheme: LabelScheme | None = None) -> "Manifest":
        """Return the manifest with another table, and the same scheme unless one is given.

        Root, notes and ratings stay.
        """
        changed = Manifest(table, self.scheme if scheme is None else scheme, self.root, self.name)
        changed.notes, changed._ratings = list(self.notes), self._ratings
        return changed

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"<Manifest {self.name}: {len(self):,} utterances, {len(self.scheme.classes)} classes>"

    @cached_property
    def keys(self) -> list[str]:
        """The utterance ids, in row order."""
        keys: list[str] = self._table.column("utterance_id").to_pylist()
        return keys

    @property
    def columns(self) -> list[str]:
        """The names of the columns there are."""
        return list(self._table.column_names)

    def has(self, name: str) -> bool:
        """Return whether there is such a column."""
        return name in self._table.column_names

    def column(self, name: str) -> np.ndarray:
        """Return (N,) one column: numbers as float64 with NaN where missing, everything else as objects with None."""
        if not self.has(name):
            raise ManifestError(f"Manifest {self.name} {arrow.missing_column(name, self.columns)}.")
        column = self._table.column(name)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            numbers: NDArray[np.float64] = pc.cast(column, pa.float64(), safe=False).to_numpy()
            return numbers
        values = np.empty(len(self), object)
        values[:] = column.to_pylist()
        return values

    @cached_property
    def has_pieces(self) -> bool:
        """Whether utterances are pieces of their files, by columns start_s and end_s."""
        return self.has(START)

    def audio(self, i: int) -> Path | Clip:
        """Return row i's audio: its file, or the piece of it that the row is; ManifestError when it has none."""
        path = self.audio_path(i)
        if not self.has_pieces:
            return path
        start_s, end_s = (self._table.column(name)[i].as_py() for name in (START, END))
        return _piece(path, start_s, end_s)

    @cached_property
    def audios(self) -> list[Path | Clip | None]:
        """Return every row's audio, None where it has none; made once."""
        if not self.has("path"):
            self.column("path")
        root, paths = self.root, self._table.column("path").to_pylist()
        if not self.has_pieces:
            return [None if path is None else root / path for path in paths]
        places = zip(paths, *(self._table.column(name).to_pylist() for name in (START, END)), strict=True)
        return [None if path is None else _piece(root / path, start_s, end_s) for path, start_s, end_s in places]

    def audio_path(self, i: int) -> Path:
        """Where row i's audio lies; ManifestError when the row has none."""
        if not self.has("path"):
            self.column("path")
        path: str | None = self._table.column("path")[i].as_py()
        if path is None:
            raise self.without_audio(i)
        return self.root / path

    def without_audio(self, i: int) -> ManifestError:
        """Return the error for a row that has no audio path."""
        return ManifestError(f"Manifest {self.name}: utterance {self.keys[i]!r} (row {i + 1}) has no audio path.")

    @property
    def texts(self) -> list[str]:
        """The transcripts, "" where one is missing; ManifestError when there is no text column."""
        return ["" if text is None else text for text in self.column("text")]

    @property
    def labels(self) -> list[str | None]:
        """The class of each utterance, None where there is none; ManifestError when there is no label column."""
        labels: list[str | None] = self.column("label").tolist()
        return labels

    def check_labelled(self) -> None:
        """Raise ManifestError where neither class nor attribute is known, as in the manifest of a mere folder."""
        if not self.scheme.classes and not self.scheme.attributes:
            raise ManifestError(
                f"Manifest {self.name} has no labels: no column 'label', vote_<class> or attr_<attribute>, so there is "
                "nothing to learn or to score. Name the label column with `medusa prepare csv --column label=YOURS`, "
                "or read a labelled folder with `medusa prepare audiofolder`; the same ids find the same features."
            )

    @property
    def votes(self) -> np.ndarray | None:
        """(N, C) float64, votes in the order of scheme.classes, 0 where empty; None when there are no vote columns."""
        columns = [f"vote_{name}" for name in self.scheme.classes]
        if not columns or not self.has(columns[0]):
            return None
        votes: NDArray[np.float64] = np.nan_to_num(np.stack([self.column(name) for name in columns], axis=1))
        return votes

    @property
    def attributes(self) -> np.ndarray:
        """(N, A) float64 in the order of scheme.attributes, NaN where missing; A may be 0."""
        columns = [self.column(f"attr_{name}") for name in self.scheme.attributes]
        return np.stack(columns, axis=1) if columns else np.empty((len(self), 0))

    @cached_property
    def ratings(self) -> Ratings | None:
        """Each annotator's ratings, the utterances in row order (some may have no rating); None where unknown."""
        ratings = Ratings.read(self._ratings) if isinstance(self._ratings, Path) else self._ratings
        return None if ratings is None else ratings.of_keys(self.keys)

    def rows(self, which: Sequence[int] | np.ndarray) -> "Manifest":
        """Return the rows of a boolean mask (N,), or of indices in their order, under the same scheme."""
        which = np.asarray(which)
        if which.dtype == bool:
            if which.shape != (len(self),):
                raise ManifestError(f"A row mask must have {len(self)} entries, found shape {which.shape}.")
            which = np.flatnonzero(which)
        indices = which.astype(np.int64)
        if len(np.unique(indices)) != len(indices):
            raise ManifestError("Row indices must be distinct: an utterance id can't stand in a manifest twice.")
        chosen = object.__new__(Manifest)  # a subset of checked rows needs no second check
        chosen.name, chosen.root, chosen.scheme, chosen.notes = self.name, self.root, self.scheme, []
        chosen._ratings = self._ratings
        chosen._table = self._table.take(pa.array(indices))
        return chosen

    def index(self, key: str) -> int:
        """Return the row of an utterance id; ManifestError with near ids when it is not there."""
        try:
            return self._row_of[key]
        except KeyError:
            near = arrow.near_names(key, self.keys)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ManifestError(f"Manifest {self.name} has no utterance {key!r}.{hint}") from None

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self.keys)}


def moved_paths(paths: Sequence[str | None], root: Path | str, directory: Path | str) -> list[str | None]:
    """Return paths that start at `root` as seen from a directory: relative where one of the two holds the other."""
    old, new = os.path.abspath(root), os.path.abspath(directory)
    if old == new:
        return list(paths)
    related = os.path.commonpath([old, new]) in (old, new)
    prefix = os.path.relpath(old, new) if related else old
    return [path if path is None else os.path.join(prefix, path) for path in paths]


def _piece(path: Path, start_s: float | None, end_s: float | None) -> Path | Clip:
    """Return a file, or the piece of it between these ends."""
    return path if not start_s and end_s is None else Clip(path, start_s or 0.0, end_s)
