"""What utterances are made from: recorded as they are encoded, and compared when their ids come again.

An id alone says nothing: two corpora may both have a `DC_a01`, and a file may be replaced. The comparison is cheap
where nothing has changed (a file's size and date, and the piece of it), and reads bytes or samples where something has.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featurestore.audio import SAMPLE_RATE_HZ, Recording, decode, decoder_of, duration_s
from featurestore.audio.digest import digest_of_samples
from featurestore.errors import AudioError, IdentityMismatch
from featurestore.format.identity import DIGEST_BYTES, Identities, Identity, digest_of_text
from featurestore.runtime.provenance import installed_version
from featurestore.sets.feature_set import FeatureSet

Source = Path | str | Recording

KEPT_DIGESTS = 4096  # files whose digests stay in memory: a recording of many pieces is read once
N_SPOT_CHECKS = 3  # files whose bytes are read although their size and date are those recorded
# Of files whose size or date is another but whose length is the recorded one, so many are read, up to so many bytes.
N_LENGTH_CHECKS, LENGTH_CHECK_BYTES = 64, 1 << 28
# How far a length by the header may lie from that of the samples (encoders' delays, frames that are cut).
HEADER_S, HEADER_SHARE = 0.1, 0.01
TIME_NOISE_S = 1e-9  # far below a sample
MIXED_S = 1e-3  # by which the length of two mixed pieces, each rounded to samples of its file, may differ from the sum
N_NAMED = 5  # utterances in a message

_KINDS: dict[tuple[type, Any], bool] = {}  # whether a class is of a protocol


@runtime_checkable
class FromFiles(Protocol):
    """A recording that is made of files: the first one is the utterance's own."""

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def piece_s(self) -> tuple[float, float]:
        """Start and end of the piece of the file, NaN for all of it."""
        ...


@runtime_checkable
class Mixture(FromFiles, Protocol):
    """A recording into which another is mixed; a feature set records the piece of the first one's file alone."""

    @property
    def partner(self) -> Path | Recording | None: ...


class Records(Protocol):
    """What was recorded of utterances by their keys, such as a feature set."""

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that it lacks."""
        ...

    def identities(self, keys: Sequence[str]) -> Identities:
        """Return what each was made from."""
        ...

    def durations_s(self, keys: Sequence[str]) -> np.ndarray:
        """Return the length of each, float64 (n,)."""
        ...


class Recorder:
    """Notes what one utterance is made of: call it with the samples once they are decoded.

    digests: shared by the utterances of a run.
    """

    def __init__(self, source: Source, digests: Digests | None = None) -> None:
        self._source = source
        self._digests = digests or Digests()
        self._stat = stat_of(source)  # before decoding: a file that changes meanwhile will differ from its record
        self.identity = Identity(digest_of_text(source)) if isinstance(source, str) else None

    def __call__(self, samples: np.ndarray) -> None:
        """Record the samples, (n,) float32, as the encoder gets them."""
        digest, source = digest_of_samples(samples), self._source
        if self._stat is None:
            self.identity = Identity(digest)
            return
        self.identity = Identity(
            digest,
            self._digests(source),
            self._stat.n_bytes,
            self._stat.mtime_ns,
            *piece_of(source),
            duration_s(source),
            decoder_name(source),
        )


@dataclass(frozen=True)
class Item:
    """One utterance that is compared."""

    key: str
    source: Source


@dataclass(frozen=True)
class Stat:
    """The size of an item's files together, and the latest of their dates."""

    n_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Mismatch:
    """An utterance whose rows in a set were made from something else: what is there now, and what it was."""

    key: str
    now: str
    recorded: str

    def __str__(self) -> str:
        return f"{self.key!r} ({self.now}; in the set: {self.recorded})"


@dataclass
class Comparison:
    """What comparing found. n_unrecorded: made before identities were recorded. n_unreachable: files that are gone."""

    n_compared: int = 0
    n_unrecorded: int = 0
    n_unreachable: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)


def compare(
    sources: Mapping[str, Source],
    features: Records,
    *,
    verify: bool = False,
    verify_mixtures: bool = False,
    workers: int = 2,
) -> Comparison:
    """Compare what utterances are now with what the set's rows of these keys were made from; others are left out.

    sources: by key, a text (str), an audio file (Path) or a recording.

    verify: read the files also where size, date and piece are those recorded. Of a set made before identities were
    recorded, the durations alone are compared. verify_mixtures: read those into which a piece of a file is mixed.
    """
    absent = set(features.missing(sources))
    keys = [key for key in sources if key not in absent]
    items = {i: Item(key, sources[key]) for i, key in enumerate(keys)}
    comparison = Comparison()
    if not items:
        return comparison
    identities, durations_s = features.identities(keys), features.durations_s(keys)
    recorded = identities.recorded
    comparison.n_unrecorded = int((~recorded).sum())
    comparison.n_compared = len(items) - comparison.n_unrecorded
    comparison.mismatches += _other_texts(items, identities)
    stats = {i: stat_of(item.source) for i, item in items.items() if not isinstance(item.source, str)}
    comparison.n_unreachable = sum(stat is None for stat in stats.values())
    same = _looks_same(items, identities, stats)
    mixed_anew = _mixed_anew(items, identities, durations_s, same, verify or verify_mixtures)
    same[list(mixed_anew)] = False
    suspects = [i for i, stat in stats.items() if stat is not None and (not recorded[i] or verify or not same[i])]
    spots = sorted((i for i in stats if same[i] and recorded[i] and not verify), key=lambda i: identities.n_bytes[i])

    digests = Digests()

    def of(i: int) -> Mismatch | None:
        stat, recorded_s = stats[i], float(durations_s[i])
        assert stat is not None
        try:
            if not recorded[i]:
                return _other_length(items[i], recorded_s)
            return _other_samples(items[i], identities[i], stat, recorded_s, digests, mixed_anew=i in mixed_anew)
        except AudioError as error:
            now = f"{_file_words(stat.n_bytes, stat.mtime_ns)}, which can't be decoded: {error}"
            return Mismatch(items[i].key, now, _recorded_words(identities[i], recorded_s))

    with ThreadPoolExecutor(max(1, workers), "compare") as pool:
        sample_mismatches = list(pool.map(of, suspects))
        if any(pool.map(of, spots[:N_SPOT_CHECKS])):
            sample_mismatches += pool.map(of, spots)  # size and date can't be trusted here
    comparison.mismatches += [mismatch for mismatch in sample_mismatches if mismatch is not None]
    return comparison


def recorded_sounds(sources: Mapping[str, Source], features: FeatureSet) -> dict[str, tuple[bytes, float]]:
    """Return digest of the samples and duration in s, by key, of utterances whose files are as they were recorded.

    sources: by key, audio files or recordings. Size, date and piece must be those recorded; the bytes of a few files
    are compared, too, and where one of these differs nothing is returned. So nothing needs to be decoded to know them.
    """
    absent = set(features.missing(sources))
    keys = [key for key in sources if key not in absent]
    items = {i: Item(key, sources[key]) for i, key in enumerate(keys)}
    if not items:
        return {}
    identities, durations_s = features.identities(keys), features.durations_s(keys)
    stats = {i: stat_of(item.source) for i, item in items.items() if identities.digests[i].any()}
    same = [i for i in np.flatnonzero(_looks_same(items, identities, stats)).tolist() if i in stats]
    digests = Digests()
    for i in sorted(same, key=lambda i: identities.n_bytes[i])[:N_SPOT_CHECKS]:
        if identities.file_digests[i].any() and digests(items[i].source) != identities.file_digests[i].tobytes():
            return {}
    return {keys[i]: (identities.digests[i].tobytes(), float(durations_s[i])) for i in same}


def compare_headers(
    keys: Sequence[str],
    source_of: Callable[[int], Source | None],
    features: Records,
    durations_s: np.ndarray | None = None,
) -> Comparison:
    """Compare as `compare` does, but decode few files: texts, and lengths, which other samples may share.

    source_of: the source of the i-th key, None where nothing can be reached; asked where the set recorded one.
    durations_s: (N,) of the keys by the manifest, NaN where it has none; without them the headers of files are read
    whose size or date is not that recorded. Of those with the length recorded, 64 at most, spread over the corpus, are
    read.
    """
    absent = set(features.missing(keys))
    positions = [i for i, key in enumerate(keys) if key not in absent] if absent else list(range(len(keys)))
    comparison = Comparison()
    if not positions:
        return comparison
    held = [keys[i] for i in positions] if absent else list(keys)
    identities, recorded_s = features.identities(held), features.durations_s(held)
    comparison.n_unrecorded = int((~identities.recorded).sum())
    comparison.n_compared = len(held) - comparison.n_unrecorded
    if durations_s is not None:
        now_s = np.asarray(durations_s, np.float64)[positions]
        comparison.mismatches += _other_durations(held, now_s, identities, recorded_s)
    known = np.flatnonzero(identities.digests.any(axis=1) | (identities.n_bytes >= 0)).tolist()
    items = {i: Item(held[i], source) for i in known if (source := source_of(positions[i])) is not None}
    comparison.mismatches += _other_texts(items, identities)
    files = [i for i, item in items.items() if not isinstance(item.source, str) and identities.n_bytes[i] >= 0]
    mismatched = {mismatch.key for mismatch in comparison.mismatches}
    stats = {i: stat_of(items[i].source) for i in files if held[i] not in mismatched}
    comparison.n_unreachable = sum(stat is None for stat in stats.values())
    same = _looks_same(items, identities, stats)
    changed = {i: stat for i, stat in stats.items() if stat is not None and not same[i]}
    comparison.mismatches += _other_headers(items, changed, identities, recorded_s)
    mismatched = {mismatch.key for mismatch in comparison.mismatches}
    of_one_length = {i: stat for i, stat in changed.items() if held[i] not in mismatched}
    comparison.mismatches += _other_spread_samples(items, of_one_length, identities, recorded_s)
    return comparison


def compare_view(
    keys: Sequence[str],
    at: np.ndarray,
    partner: np.ndarray,
    clean: Records,
    view: Records,
    sources: Mapping[str, Source | None],
) -> Comparison:
    """Compare what the clips of an augmented view were made from with what the clean set's rows were.

    keys: (N,) those of the clean set. at: (n,) the places of those that the view has. partner: (N,) the place of the
    utterance that is mixed in, -1 for none. A clip with no partner must be of a file with the same bytes. Of a mixed
    one the size of both files is compared, and where it agrees but the dates don't, the bytes of 64 at most, spread
    over the corpus, with those of `sources`, None where nothing can be reached.
    """
    comparison = Comparison()
    held = [keys[i] for i in at.tolist()]
    if not held:
        return comparison
    everyone, mixed = clean.identities(keys), partner[at] >= 0
    own, other = everyone.take(at), everyone.take(np.where(mixed, partner[at], at))
    made, recorded_s, made_s = view.identities(held), clean.durations_s(held), view.durations_s(held)
    sized = (own.n_bytes >= 0) & (other.n_bytes >= 0) & (made.n_bytes >= 0)
    n_bytes = own.n_bytes + np.where(mixed, other.n_bytes, 0)
    moved = ~(_same_time(own.starts_s, made.starts_s) & _same_time(own.ends_s, made.ends_s))
    digested = ~mixed & own.file_digests.any(axis=1) & made.file_digests.any(axis=1)
    differs = sized & (moved | (mixed & (n_bytes != made.n_bytes)))
    differs |= digested & (own.file_digests != made.file_digests).any(axis=1)
    redated = mixed & sized & ~differs & (np.maximum(own.mtimes_ns, other.mtimes_ns) != made.mtimes_ns)
    for i in _spread({row: Stat(int(n_bytes[row]), 0) for row in np.flatnonzero(redated).tolist()}):
        pair = (sources.get(held[i]), sources.get(keys[int(partner[at[i]])]))
        files = tuple(path for source in pair if source is not None for path in files_of(source))
        now = _digest_of(files) if files else b""
        differs[i] = bool(now) and bool(made.file_digests[i].any()) and now != made.file_digests[i].tobytes()
    comparison.n_compared = int((sized | digested).sum())
    comparison.mismatches += [
        Mismatch(
            held[i], f"the clean set: {_recorded_words(own[i], recorded_s[i])}", _recorded_words(made[i], made_s[i])
        )
        for i in np.flatnonzero(differs).tolist()
    ]
    return comparison


def _other_durations(
    keys: Sequence[str], now_s: np.ndarray, identities: Identities, recorded_s: np.ndarray
) -> list[Mismatch]:
    """Return the keys whose duration by the manifest is not the recorded one."""
    apart = np.abs(now_s - recorded_s) > HEADER_S + HEADER_SHARE * now_s
    return [
        Mismatch(keys[i], f"{now_s[i]:.3f} s by the manifest", _recorded_words(identities[i], recorded_s[i]))
        for i in np.flatnonzero(apart).tolist()
    ]


def _other_headers(
    items: Mapping[int, Item], changed: Mapping[int, Stat], identities: Identities, recorded_s: np.ndarray
) -> list[Mismatch]:
    """Return the changed files whose length by their header is not the recorded one."""
    mismatches = []
    for i, stat in changed.items():
        try:
            mismatches.append(_other_header(items[i], identities[i], stat, float(recorded_s[i])))
        except AudioError:
            continue  # whoever decodes it says what is wrong
    return [mismatch for mismatch in mismatches if mismatch is not None]


def _other_spread_samples(
    items: Mapping[int, Item], changed: Mapping[int, Stat], identities: Identities, recorded_s: np.ndarray
) -> list[Mismatch]:
    """Return those of a few of the changed files, spread over the corpus, whose samples are not the recorded ones."""
    digests, mismatches = Digests(), []
    for i in _spread(changed):
        try:
            mismatches.append(_other_samples(items[i], identities[i], changed[i], float(recorded_s[i]), digests))
        except AudioError:
            continue
    return [mismatch for mismatch in mismatches if mismatch is not None]


def refuse(features: FeatureSet, comparison: Comparison, remedy: str) -> None:
    """Raise IdentityMismatch, with both values of the first of them, where something else was compared."""
    mismatches = comparison.mismatches
    if mismatches:
        more = f" and {len(mismatches) - N_NAMED:,} more" if mismatches[N_NAMED:] else ""
        named = ", ".join(map(str, mismatches[:N_NAMED])) + more
        raise IdentityMismatch(
            f"Feature set {features.name!r} ({features.path}) has {len(mismatches):,} of these ids, made from other "
            f"data: {named}. {remedy}"
        )


def stat_of(source: Source) -> Stat | None:
    """Return size and date of an item's files; None where they can't be reached, or there are none."""
    try:
        stats = [os.stat(path) for path in files_of(source)]
    except (OSError, ValueError):
        return None
    if not stats:
        return None
    return Stat(sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats))


def files_of(source: Source) -> tuple[Path, ...]:
    """Return the files that an item is made of."""
    if isinstance(source, Path):
        return (source,)
    return source.files if _is_from_files(source) else ()


def piece_of(source: Source) -> tuple[float, float]:
    """Return start and end in seconds of the piece of the file that an item is, NaN for all of it."""
    return source.piece_s if not isinstance(source, Path) and _is_from_files(source) else (math.nan, math.nan)


def _is_from_files(source: Source) -> TypeGuard[FromFiles]:
    return _is(source, FromFiles)


def _is_mixture(source: Source) -> TypeGuard[Mixture]:
    return _is(source, Mixture)


def _is(source: Source, protocol: Any) -> bool:
    """Return `isinstance` of a protocol, asked once for each class, since it looks at every member anew."""
    kind = type(source), protocol
    if kind not in _KINDS:
        _KINDS[kind] = isinstance(source, protocol)
    return _KINDS[kind]


def decoder_name(source: Source) -> str:
    """Return what makes an item's samples of its files, with versions."""
    names = dict.fromkeys(decoder_of(path) for path in files_of(source))
    return ", ".join([*names, f"soxr {installed_version('soxr')}"])


def file_digest(source: Source) -> bytes:
    """Return the digest of an item's files, one after the other; b"" where one can't be read."""
    return _digest_of(files_of(source))


def _digest_of(files: Sequence[Path]) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    try:
        for path in files:
            with open(path, "rb") as file:
                while data := file.read(1 << 20):
                    digest.update(data)
    except OSError:
        return b""
    return digest.digest()


class Digests:
    """Digests of files, each read once, since a recording may have many pieces; of one run, as files change."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, ...], bytes] = {}

    def __call__(self, source: Source) -> bytes:
        """Return `file_digest` of the source."""
        files = files_of(source)
        if files not in self._known:
            if len(self._known) >= KEPT_DIGESTS:
                self._known.clear()
            self._known[files] = file_digest(source)
        return self._known[files]


def _other_texts(items: Mapping[int, Item], identities: Identities) -> list[Mismatch]:
    mismatches = []
    for i, item in items.items():
        if isinstance(item.source, str) and identities.digests[i].any():
            now, then = digest_of_text(item.source), identities.digests[i].tobytes()
            if now != then:
                text = item.source if len(item.source) <= 40 else f"{item.source[:40]}..."
                mismatches.append(Mismatch(item.key, f"the text {text!r}, {now.hex()[:8]}", f"a text {then.hex()[:8]}"))
    return mismatches


def _looks_same(items: Mapping[int, Item], identities: Identities, stats: Mapping[int, Stat | None]) -> np.ndarray:
    """Whether size, date and piece are those recorded, bool (N,); False without a stat."""
    n = len(identities.n_bytes)
    n_bytes, mtimes_ns = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    pieces_s = np.full((n, 2), np.nan)
    for i, stat in stats.items():
        if stat is not None:
            n_bytes[i], mtimes_ns[i] = stat.n_bytes, stat.mtime_ns
            pieces_s[i] = piece_of(items[i].source)
    then_s = np.stack([identities.starts_s, identities.ends_s], axis=1)
    pieces = _same_time(pieces_s, then_s).all(axis=1)
    same: np.ndarray = (n_bytes == identities.n_bytes) & (mtimes_ns == identities.mtimes_ns) & pieces & (n_bytes >= 0)
    return same


def _mixed_anew(
    items: Mapping[int, Item], identities: Identities, durations_s: np.ndarray, same: np.ndarray, verify: bool
) -> set[int]:
    """Return the clips into which another piece than the recorded one may be mixed, of the files that are recorded.

    same: which items look as recorded. Ends of the piece mixed in are not recorded, so that another one shows by the
    mixture's length, or by the partner's own record, or only by its samples: verify returns all with a piece mixed in.
    """
    sources = [items[i].source for i in range(len(items))]
    partners = {
        i: source.partner
        for i, source in enumerate(sources)
        if not isinstance(source, Path | str) and _is_mixture(source) and identities.recorded[i]
    }
    if not partners:
        return set()
    moved = np.flatnonzero(identities.recorded & ~same)
    moved_places = {_place_of(sources[i]) for i in moved.tolist()}
    anew = set()
    for i, partner in partners.items():
        if partner is None:
            continue
        is_piece = not np.isnan(piece_of(partner)[0])
        if _place_of(partner) in moved_places or (
            is_piece and (verify or _other_length_mixed(sources[i], float(durations_s[i])))
        ):
            anew.add(i)
    return anew


def _place_of(source: Source) -> tuple[tuple[Path, ...], str]:
    """Return an item's own file and piece, for comparing with another item's."""
    return files_of(source)[:1], repr(piece_of(source))


def _other_length_mixed(source: Source, recorded_s: float) -> bool:
    """Whether a mixture has another length than the recorded one, by the ends of its pieces."""
    try:
        return abs(duration_s(source) - recorded_s) > MIXED_S
    except AudioError:  # whoever decodes it says what is wrong
        return True


def _other_length(item: Item, recorded_s: float) -> Mismatch | None:
    """Compare the header's length with a duration of a set without identities; NaN is none."""
    now_s = duration_s(item.source)
    if abs(now_s - recorded_s) > HEADER_S + HEADER_SHARE * now_s:
        return Mismatch(item.key, f"{now_s:.3f} s", f"{recorded_s:.3f} s")
    return None


def _other_header(item: Item, identity: Identity, stat: Stat, recorded_s: float) -> Mismatch | None:
    """Compare the header's length with that of the record, or else with the duration of the samples."""
    now_s = duration_s(item.source)
    then_s = identity.header_s if identity.header_s == identity.header_s else recorded_s
    if abs(now_s - then_s) > HEADER_S + HEADER_SHARE * now_s:
        return Mismatch(item.key, _now_words(item, now_s, stat), _recorded_words(identity, recorded_s))
    return None


def _other_samples(
    item: Item, identity: Identity, stat: Stat, recorded_s: float, digests: Digests, *, mixed_anew: bool = False
) -> Mismatch | None:
    """Compare the file's bytes, which say the same of the same piece under every decoder, and then the samples.

    mixed_anew: another piece of the recorded files may be mixed in, so that their bytes say nothing.
    """
    start_s, end_s = piece_of(item.source)
    same_piece = not mixed_anew and bool(_same_time([start_s, end_s], [identity.start_s, identity.end_s]).all())
    if same_piece and identity.file_digest and digests(item.source) == identity.file_digest:
        return None
    samples = decode(item.source)
    if not identity.digest or digest_of_samples(samples) == identity.digest:
        return None
    now_s = len(samples) / SAMPLE_RATE_HZ
    return Mismatch(item.key, _now_words(item, now_s, stat), _recorded_words(identity, recorded_s))


def _spread(stats: Mapping[int, Stat]) -> list[int]:
    """Return the items to read of those of equal length: spread over all of them, and of a bounded size together."""
    items = sorted(stats)
    places = np.unique(np.linspace(0, len(items) - 1, min(len(items), N_LENGTH_CHECKS)).astype(np.int64))
    picked: list[int] = []
    n_bytes = 0
    for i in (items[place] for place in places.tolist()):
        n_bytes += stats[i].n_bytes
        if picked and n_bytes > LENGTH_CHECK_BYTES:
            break
        picked.append(i)
    return picked


def _same_time(a: ArrayLike, b: ArrayLike) -> NDArray[np.bool_]:
    """Whether seconds are equal but for the noise of a sum of floats, which earlier manifests have; NaN equals NaN."""
    return np.isclose(a, b, rtol=0, atol=TIME_NOISE_S, equal_nan=True)


def _now_words(item: Item, now_s: float, stat: Stat) -> str:
    return f"{now_s:.3f} s{_piece_words(*piece_of(item.source))} of {_file_words(stat.n_bytes, stat.mtime_ns)}"


def _recorded_words(identity: Identity, recorded_s: float) -> str:
    piece = _piece_words(identity.start_s, identity.end_s)
    if identity.n_bytes < 0:
        return f"{recorded_s:.3f} s{piece}"
    return f"{recorded_s:.3f} s{piece} of {_file_words(identity.n_bytes, identity.mtime_ns)}"


def _piece_words(start_s: float, end_s: float) -> str:
    if start_s != start_s:
        return ""
    return f" ({start_s:g} s to {'the end' if end_s != end_s else f'{end_s:g} s'})"


def _file_words(n_bytes: int, mtime_ns: int) -> str:
    date = datetime.fromtimestamp(mtime_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"a file of {n_bytes:,} bytes dated {date}"
