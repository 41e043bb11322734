"""Recordings cut into utterances: windows, speech, or the segments of a table; a manifest of pieces comes out."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from featurestore.audio import without_audio_suffix
from featurestore.corpus.channels import averaged_channels
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.piece_ends import check_ends
from featurestore.corpus.pieces import END, START, piece_id
from featurestore.errors import AudioError, ConfigError
from featurestore.recordings.segment_tables import SegmentTable, read_segments
from featurestore.recordings.speech import Speech
from featurestore.recordings.windows import Ends, Windows
from featurestore.runtime.wording import first_names

VAD = "vad"
# Of a whole recording, and not of a piece of it.
OF_THE_WHOLE = ("text", "duration_s")
SHOWN = 5

Progress = Callable[[float, int], None]  # (recordings done, in all)


@dataclass(frozen=True)
class Cut:
    """The pieces of recordings: a manifest (None where there is not one), (id, reason) of those that failed, notes."""

    manifest: Manifest | None
    failed: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def cutter_of(every: float | None, span: float | None, segments: str | None) -> Windows | Speech | SegmentTable | None:
    """Return the cutter of --every, --span and --segments, None without them; ConfigError where they contradict.

    segments: "vad", of which --span is the longest segment, or a file.
    """
    if segments is None:
        return Windows.of(every, span) if every is not None or span is not None else None
    if every is not None:
        raise ConfigError(f"--every is of windows, --segments {segments} has its own places; leave one of them out.")
    if segments == VAD:
        return Speech() if span is None else Speech(span)
    if span is not None:
        raise ConfigError("--span is of windows and of --segments vad; a table's segments have their own ends.")
    return read_segments(Path(segments))


def cut(manifest: Manifest, how: Windows | Speech | SegmentTable, progress: Progress | None = None) -> Cut:
    """Cut each recording of a manifest into utterances with ids such as `call.m4a[2-8]`.

    Columns but a text and a duration are the recording's; a table's columns are added, or stand in their place. A
    recording that can't be decoded is reported, and the rest done. ConfigError: the manifest is of pieces already, or
    a table's recordings can't be distinguished.
    """
    if manifest.has_pieces:
        raise ConfigError(f"Manifest {manifest.name} is of pieces of recordings already; expected whole recordings.")
    manifest.column("path")
    if isinstance(how, SegmentTable):
        return _by_table(manifest, how)
    rows: list[int] = []
    ends: list[Ends] = []
    failed, silent = [], []
    for i, key in enumerate(manifest.keys):
        try:
            pieces = how.of_file(manifest.audio_path(i), _after(i, len(manifest), progress))
        except AudioError as error:
            failed.append((key, str(error)))
            continue
        finally:
            if progress is not None:
                progress(i + 1, len(manifest))
        rows += [i] * len(pieces)
        ends += pieces
        silent += [] if pieces else [key]
    notes = [f"no speech in {len(silent):,} recordings: {first_names(silent, SHOWN)}"] if silent else []
    return Cut(_pieces(manifest, rows, ends), failed, notes)


def _after(i: int, n: int, progress: Progress | None) -> Callable[[float], None]:
    """Return a function that reports progress within recording i of n."""
    return lambda share: None if progress is None else progress(i + share, n)


def _pieces(
    manifest: Manifest, rows: Sequence[int], ends: Sequence[tuple[float, float | None]], extra: pa.Table | None = None
) -> Manifest | None:
    """Return the rows of a manifest with these ends, one after another, and further columns; None for no row."""
    if not rows:
        return None
    table = manifest.to_arrow().take(pa.array(rows, pa.int64()))
    table = table.drop_columns([name for name in OF_THE_WHOLE if name in table.column_names])
    starts, stops = zip(*ends, strict=True)
    ids = [piece_id(manifest.keys[row], *own) for row, own in zip(rows, ends, strict=True)]
    columns: dict[str, pa.Array | pa.ChunkedArray] = {name: table.column(name) for name in table.column_names}
    columns |= {
        "utterance_id": pa.array(ids),
        START: pa.array(starts, pa.float64()),
        END: pa.array(stops, pa.float64()),
    }
    columns |= {} if extra is None else {name: extra.column(name) for name in extra.column_names}
    pieces = pa.table(columns)
    return Manifest(pieces, _scheme(manifest.scheme, pieces, extra), manifest.root, manifest.name)


def _scheme(of_recordings: LabelScheme, pieces: pa.Table, extra: pa.Table | None) -> LabelScheme:
    """Return the recordings' scheme, with the classes of a table that labels its segments, and its attributes."""
    implied = LabelScheme.of_table(pieces)
    attributes = {name: of_recordings.attributes.get(name, ends) for name, ends in implied.attributes.items()}
    if extra is None or not any(name == "label" or name.startswith("vote_") for name in extra.column_names):
        return replace(of_recordings, attributes=attributes)
    return LabelScheme(implied.classes, attributes)


def _by_table(manifest: Manifest, how: SegmentTable) -> Cut:
    notes = list(how.notes)
    table, rows = _with_rows(manifest, how.table, notes)
    order = sorted(range(len(rows)), key=rows.__getitem__)  # by recording, in the table's order
    pieces: dict[tuple[int, float, float | None], int] = {}
    copies: list[tuple[int, int]] = []
    for i in order:
        first = pieces.setdefault((rows[i], table.column(START)[i].as_py(), table.column(END)[i].as_py()), i)
        copies += [(first, i)] if first != i else []
    if copies:
        notes.append(f"{len(copies):,} segments of the same ends as another left out{_differing(table, copies)}")
    without = sorted(set(range(len(manifest))) - set(rows))
    if without:
        names = [manifest.keys[i] for i in without]
        notes.append(f"no segment in the table for {len(without):,} recordings: {first_names(names, SHOWN)}")
    extra = table.take(pa.array(pieces.values(), pa.int64())).drop_columns([START, END])
    chosen = _pieces(manifest, [row for row, *_ in pieces], [(low, high) for _, low, high in pieces], extra)
    if chosen is not None:
        notes += averaged_channels(chosen) + check_ends(chosen, some_may_fail=True)
    return Cut(chosen, [], notes)


def _differing(table: pa.Table, copies: Sequence[tuple[int, int]]) -> str:
    """Return in which columns segments of the same ends differ, for the end of a note; "" where they are the same."""
    names = []
    for name in table.column_names:
        values = table.column(name).to_pylist()
        if any(values[first] != values[other] for first, other in copies):
            names.append(name)
    if not names:
        return ""
    return f", though they differ in {', '.join(names)}: those of the row that comes first are kept"


def _with_rows(manifest: Manifest, table: pa.Table, notes: list[str]) -> tuple[pa.Table, list[int]]:
    """Return the segments of the manifest's recordings, without the column that names these, and each one's row."""
    if "path" not in table.column_names:
        if len(manifest) > 1:
            raise ConfigError(
                f"The table of segments names no recording, and {len(manifest):,} are given; give one, or a table with "
                "a column 'path'."
            )
        return table, [0] * table.num_rows
    names = table.column("path").to_pylist()
    row_of = _Names(manifest)
    rows_of_name = {name: row_of(name) for name in dict.fromkeys(names)}
    strange = [name for name, row in rows_of_name.items() if row is None]
    if len(strange) == len(rows_of_name):
        raise ConfigError(
            f"The table of segments has none of the recordings given: it has {first_names(strange, SHOWN)}, given were "
            f"{first_names(manifest.keys, SHOWN)}."
        )
    if strange:
        notes.append(
            f"segments of {len(strange):,} recordings that were not given left out: {first_names(strange, SHOWN)}"
        )
    chosen = [i for i, name in enumerate(names) if rows_of_name[name] is not None]
    rows = [row for name in names if (row := rows_of_name[name]) is not None]
    return table.take(pa.array(chosen, pa.int64())).drop_columns(["path"]), rows


class _Names:
    """What the recordings of a manifest may be called in a table."""

    def __init__(self, manifest: Manifest) -> None:
        self._keys = manifest.keys
        self._paths = [os.path.abspath(manifest.audio_path(i)) for i in range(len(manifest))]
        self._by_place: dict[str, list[int]] = {}
        self._by_name: dict[str, list[int]] = {}
        for i, path in enumerate(self._paths):
            self._by_place.setdefault(os.path.realpath(path), []).append(i)
            self._by_name.setdefault(_bare(path.rpartition("/")[2]), []).append(i)

    def __call__(self, name: str) -> int | None:
        """Return the row of the recording that a table calls so: by its place, else by the end of its path.

        With or without suffix, blanks as they are or as `_`, which is how RTTM writes them. None for no recording;
        ConfigError where several could be meant.
        """
        rows = self._by_place.get(os.path.realpath(name), [])
        if not rows:
            plain_name = name.replace("\\", "/").removeprefix("./")
            alike = self._by_name.get(_bare(plain_name.rpartition("/")[2]), [])
            exact = [i for i in alike if self._paths[i].endswith(f"/{plain_name}")]
            rows = exact or [i for i in alike if _bare(self._paths[i]).endswith(f"/{_bare(plain_name)}")]
        if len(rows) > 1:
            some = " or ".join(self._keys[i] for i in rows[:3])
            raise ConfigError(f"The table's {name!r} could be {some}. Give the recordings' paths in the table.")
        return rows[0] if rows else None


def _bare(name: str) -> str:
    return re.sub(r"\s", "_", without_audio_suffix(name))
