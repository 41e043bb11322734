"""Features that other tools wrote, into a feature set: streamed, resumable, and checked against what is expected."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from featurestore.audio import has_audio_suffix
from featurestore.errors import ConfigError, StoreError
from featurestore.format.spec import check_set_name
from featurestore.interchange.base import DEFAULT_LAYER, Failures, Loaded, Source
from featurestore.interchange.description import Description, Fit
from featurestore.interchange.exporting import format_of
from featurestore.interchange.origins import (
    NO_ORIGINS,
    Origin,
    layers_beside,
    of_same_and_other_data,
    read_origins,
    spec_beside,
)
from featurestore.runtime.stopping import StopSignals
from featurestore.sets.feature_set import FeatureSet
from featurestore.sets.writer import FeatureWriter
from featurestore.store.feature_store import FeatureStore

N_COMPARED = 16  # of the utterances that a set has already, whose rows are compared with the source's
ONE_FILE = ("hdf5", "safetensors")  # in which layers stand behind the utterance's name
# Utterances read while one is stored; each is held in memory.
READ_AHEAD = 2
Progress = Callable[[int, int], None]


@dataclass
class ImportReport:
    """What a run did.

    missing: expected keys that neither source nor set has; surplus: keys that nobody expected; empty: utterances
    without a row, that were imported as such.
    """

    done: int = 0
    skipped: int = 0
    failed: Failures = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wall_s: float = 0.0


def import_features(
    store: FeatureStore,
    name: str,
    format_name: str,
    path: Path,
    described: Description,
    *,
    layers: Mapping[str, str] | None = None,
    flatten: bool = False,
    expected_keys: Sequence[str] | None = None,
    segment_bytes: int = 256 << 20,
    container: str | None = None,
    compress: str | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Append every utterance of the source that the set `name` lacks; a file that can't be taken is reported.

    layers: {name: where}, see the format's module. flatten: keys are file names without their directories.
    expected_keys: what is missing or surplus beside them is reported; StoreError, before anything is written, when none
    is there. segment_bytes, container ("zarr", "hdf5"), compress: how the set is stored, see FeatureStore.writer.
    progress(done, total) counts skipped and failed ones too. Rows are never rounded unless a dtype is given
    (but float64 to float32). Durations and identities are taken over where an export of ours left them beside the
    source, and it is noted where nothing did. Raises SpecMismatch when the set holds other features, and Interrupted
    after SIGINT or SIGTERM, with what was finished committed.
    """
    started = time.monotonic()
    check_set_name(name)
    report = ImportReport()
    with format_of(format_name).read(path, layers or {}, flatten) as source, StopSignals() as stop:
        report.failed += source.failed
        report.notes += source.notes
        recorded = read_origins(path)
        _refuse_layers_as_keys(source, recorded, path)
        report.notes += _like_layers(source.keys) if format_name in ONE_FILE and not recorded else []
        origins = _by_place(source, recorded)
        stored = _stored(store, name)
        if not layers and (stored is None or DEFAULT_LAYER not in stored.layers):
            source = _layer_named(source, layers_beside(path))
        if expected_keys is not None:
            source = _named_as(source, expected_keys, report)
        todo = _distinct(source, report)
        if expected_keys is not None:
            _compare(source, expected_keys, stored, report)
        first = _first_readable(source, todo, report)
        if first is not None:
            like = source.place_of(first[0])
            exported = source.spec or spec_beside(path)
            spec = described.spec(first[1], like, None if stored is None else stored.spec, exported)
            if options := described.as_recorded(spec):
                report.notes.append(f"As the export recorded that wrote the source: {options}.")
            provenance = {"imported_from": format_name, "source": path.name, "source_dtype": first[1].dtype}
            provenance["medusa-ser"] = version("medusa-ser")
            with store.writer(
                name, spec, provenance=provenance, segment_bytes=segment_bytes, format=container, compress=compress
            ) as writer:
                todo = _skip_present(writer, source, todo, origins, report)
                if todo:
                    store.check_writable(name)
                fit = Fit(spec, like, may_round=described.dtype is not None)
                _append_all(writer, source, todo, origins, fit, stop, report, progress)
            if fit.n_rounded:
                report.notes.append(f"{fit.n_rounded:,} utterances were float64 and were rounded to {spec.dtype}.")
    if report.empty:
        named = ", ".join(map(repr, report.empty[:5])) + (", ..." if len(report.empty) > 5 else "")
        n = f"{len(report.empty):,} utterance{'s' if len(report.empty) > 1 else ''}"
        report.notes.append(f"No rows in {n} ({named}): what is trained or predicted there rests on nothing.")
    if report.done and not any(origins):
        report.notes.append(NO_ORIGINS)
    report.failed = [(_printable(where), _printable(reason)) for where, reason in report.failed]
    report.wall_s = time.monotonic() - started
    return report


def _refuse_layers_as_keys(source: Source, recorded: Mapping[str, Origin], path: Path) -> None:
    """Raise StoreError where each file's first directory is a layer that an export of ours made, taken for a key's."""
    keys = [key for key in source.keys if key != _printable(key) or "/" not in key or key in recorded]
    if keys or not recorded or not all(key.partition("/")[2] in recorded for key in source.keys):
        return
    layers = sorted({key.partition("/")[0] for key in source.keys})
    raise StoreError(
        f"{path} holds the layers {', '.join(layers)} in directories of these names, and the record of the export "
        f"there knows their files by what follows. Import them as layers: "
        f"{' '.join(f'--layer {layer}={layer}' for layer in layers)}."
    )


def _like_layers(keys: Sequence[str]) -> list[str]:
    """Return a note where the last parts of the keys are the same few for each utterance, as names of layers are."""
    ends: dict[str, set[str]] = {}
    for key in keys:
        utterance, slash, end = key.rpartition("/")
        if not slash:
            return []
        ends.setdefault(utterance, set()).add(end)
    names = next(iter(ends.values()), set())
    if len(ends) < max(2, len(names)) or any(each != names for each in ends.values()):
        return []
    options = " ".join(f"--layer {name}" for name in sorted(names))
    return [
        f"The {len(keys):,} ids are {len(ends):,} names with {', '.join(sorted(names))} behind each: if these are what "
        f"was made of an utterance, import them as layers: {options}."
    ]


def _by_place(source: Source, origins: Mapping[str, Origin]) -> list[Origin | None]:
    """Return the origin of each utterance of the source, also where its keys lack the record's directories.

    No other utterance gets that of one which is there under its whole key, such as `y/a` that of `x/a`.
    """
    own = set(source.keys)
    ends: dict[str, Origin | None] = {}
    for key, origin in origins.items():
        parts = key.split("/") if key not in own else []
        for end in ("/".join(parts[i:]) for i in range(1, len(parts))):
            ends[end] = None if end in ends else origin
    return [origins.get(key) or ends.get(key) for key in source.keys]


def _stored(store: FeatureStore, name: str) -> FeatureSet | None:
    """Return the set, where there is one."""
    if name not in store:
        return None
    return store[name]


def _layer_named(source: Source, recorded: Sequence[str]) -> Source:
    """Return the source with its only layer, where nothing names it, called as the export recorded that wrote it."""
    if len(recorded) != 1:
        return source

    def load(i: int) -> Loaded:
        loaded = source.load(i)
        if list(loaded.layers) != [DEFAULT_LAYER]:
            return loaded
        return replace(loaded, layers={recorded[0]: loaded.layers[DEFAULT_LAYER]})

    return replace(source, load=load)


def _distinct(source: Source, report: ImportReport) -> list[int]:
    """Return the positions of the first utterance of each key that a store can hold; the others are failures."""
    first: dict[str, int] = {}
    for i, key in enumerate(source.keys):
        place = source.place_of(i)
        if _printable(key) != key:
            report.failed.append((place, f"{place}: its name is not utf-8; rename it."))
        elif first.setdefault(key, i) != i:
            report.failed.append((place, f"{place}: its key {key!r} is that of {source.place_of(first[key])} too."))
    return list(first.values())


def _named_as(source: Source, expected: Sequence[str], report: ImportReport) -> Source:
    """Return the source with the manifest's ids where those have an audio suffix: NAME.npy is NAME.wav.

    StoreError, before anything is written, where NAME is two of them.
    """
    if set(source.keys) & set(expected):
        return source
    ids = [key for key in expected if has_audio_suffix(key)]
    named = {key.rpartition(".")[0]: key for key in ids}
    if not any(key in named for key in source.keys):
        return source
    keys = set(source.keys)
    other = next((key for key in ids if (name := key.rpartition(".")[0]) in keys and named[name] != key), None)
    if other is not None:
        name = other.rpartition(".")[0]
        raise StoreError(
            f"{source.place_of(source.keys.index(name))} may be of {other!r} or of {named[name]!r}, and the manifest "
            "has both. Name the files after the whole ids (NAME.wav.npy), or give a manifest of one kind."
        )
    report.notes.append("Utterances are stored under the manifest's ids, which have an audio suffix.")
    return replace(source, keys=[named.get(key, key) for key in source.keys])


def _compare(source: Source, expected: Sequence[str], stored: FeatureSet | None, report: ImportReport) -> None:
    source_keys, expected_keys = set(source.keys), set(expected)
    absent = [key for key in expected if key not in source_keys]
    report.missing = absent if stored is None else stored.missing(absent)
    report.surplus = [key for key in dict.fromkeys(source.keys) if key not in expected_keys]
    if source_keys and expected_keys and not source_keys & expected_keys:
        raise StoreError(
            f"None of the manifest's {len(expected_keys)} utterances is in the source. The manifest has "
            f"{', '.join(map(repr, expected[:2]))}; the source {', '.join(map(ascii, report.surplus[:2]))}. Keys are "
            "paths without suffix (an audio suffix of the manifest's ids is allowed for); --flatten leaves their "
            "directories out."
        )


def _first_readable(source: Source, todo: Sequence[int], report: ImportReport) -> tuple[int, Loaded] | None:
    """Return the first utterance that can be read, which shows what the set is like.

    None, and all failures, when none can.
    """
    failed: Failures = []
    for i in todo:
        try:
            return i, _loaded(source, i)
        except StoreError as error:
            failed.append((source.place_of(i), str(error)))
    report.failed += failed
    return None


def _skip_present(
    writer: FeatureWriter, source: Source, todo: list[int], origins: Sequence[Origin | None], report: ImportReport
) -> list[int]:
    """Return the positions whose keys the set lacks.

    StoreError when it has other rows under one of N_COMPARED keys that it has, spread over the source, or one that the
    record of the source has of other data.
    """
    is_present = writer.set.index.positions([source.keys[i] for i in todo]) >= 0
    present = np.flatnonzero(is_present)
    report.skipped = len(present)
    places = np.linspace(0, len(present) - 1, min(N_COMPARED, len(present))).astype(np.int64)
    of_key = {source.keys[i]: i for i in (todo[place] for place in present.tolist())}
    _, other = of_same_and_other_data(writer.set, {key: origins[i] for key, i in of_key.items()})
    compared = [*(of_key[key] for key in other[:1]), *(todo[place] for place in present[np.unique(places)].tolist())]
    for i in compared:
        if source.keys[i] in other[:1] or not _is_stored(writer, source, i):
            raise StoreError(
                f"Feature set {writer.set.name!r} has other rows for {source.keys[i]!r} than {source.place_of(i)}. If "
                "these are another encoder's, import them under another name; if they were made again, import all of "
                f"them under another name, or remove this set first (medusa store rm {writer.set.name})."
            )
    return [i for i, is_there in zip(todo, is_present.tolist(), strict=True) if not is_there]


def _is_stored(writer: FeatureWriter, source: Source, i: int) -> bool:
    """Whether the set has the rows of utterance i, as far as that is known."""
    try:
        loaded = _loaded(source, i)
    except StoreError:  # what can't be read now could be once
        return True
    return writer.has_rows(source.keys[i], loaded.layers)


def _append_all(
    writer: FeatureWriter,
    source: Source,
    positions: Sequence[int],
    origins: Sequence[Origin | None],
    fit: Fit,
    stop: StopSignals,
    report: ImportReport,
    progress: Progress | None,
) -> None:
    total = report.skipped + len(positions) + len(report.failed)
    with contextlib.closing(_loads(source, positions)) as loads:
        while True:
            with stop.raising(report):
                item = next(loads, None)
            if item is None:
                return
            i, loaded = item
            if isinstance(loaded, StoreError):
                report.failed.append((source.place_of(i), str(loaded)))
            else:
                _append(writer, source, i, loaded, origins[i] or Origin(), fit, report)
            if progress is not None:
                progress(report.done + report.skipped + len(report.failed), total)


def _append(
    writer: FeatureWriter, source: Source, i: int, loaded: Loaded, origin: Origin, fit: Fit, report: ImportReport
) -> None:
    try:
        writer.append(source.keys[i], fit(loaded), origin.duration_s, origin.identity)
    except StoreError as error:
        if isinstance(error.__cause__, OSError):  # the disk's fault, and the next utterance's too
            raise
        report.failed.append((source.place_of(i), f"{source.place_of(i)}: {error}"))
        return
    report.done += 1
    if not all(len(rows) for rows in loaded.layers.values()):
        report.empty.append(source.keys[i])


def _loads(source: Source, positions: Sequence[int]) -> Generator[tuple[int, Loaded | StoreError]]:
    """Each utterance, or why it can't be read; the next ones are being read meanwhile."""
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        waiting: deque[tuple[int, Future[Loaded]]] = deque()
        for i in positions:
            waiting.append((i, pool.submit(_loaded, source, i)))
            if len(waiting) > READ_AHEAD:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())


def _loaded(source: Source, i: int) -> Loaded:
    try:
        return source.load(i)
    except MemoryError:
        raise StoreError(f"{source.place_of(i)} is larger than the memory that is free.") from None


def _result(i: int, loading: Future[Loaded]) -> tuple[int, Loaded | StoreError]:
    try:
        return i, loading.result()
    except StoreError as error:
        return i, error


def _printable(text: str) -> str:
    """Return the text with bytes that were not utf-8 as \\udcNN."""
    return text.encode(errors="backslashreplace").decode()


def layer_name(text: str) -> str:
    """Return the layer that a user names: "6" is "layer_06", anything else its name."""
    return f"layer_{int(text):02d}" if text.isascii() and text.isdecimal() else text


def parse_layers(texts: Sequence[str]) -> dict[str, str]:
    """Parse LAYER[=WHERE] each into {name: where}; a number is that layer: "6=hidden6" -> {"layer_06": "hidden6"}."""
    layers: dict[str, str] = {}
    for text in texts:
        name, equals, ending = text.partition("=")
        name = layer_name(name)
        if not name or (equals and not ending) or name in layers:
            raise ConfigError(f"--layer {text!r}: expected LAYER or LAYER=WHERE, each layer once.")
        layers[name] = ending
    return layers
