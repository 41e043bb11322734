"""What is encoded: the inputs of a manifest, and how long each is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from featurestore.audio import SAMPLE_RATE_HZ, Recording, duration_s
from featurestore.encoders.base import Encoder
from featurestore.errors import AudioError, ConfigError, ManifestError
from featurestore.featurize.sharding import Shard
from featurestore.sets.sources import Recorder

if TYPE_CHECKING:
    from featurestore.augment.mixing import ViewedPart
    from featurestore.corpus.manifest import Manifest

Failures = list[tuple[str, str]]  # (key, reason)


@dataclass(frozen=True)
class Item:
    """One input: its key, and a text (str), an audio file (Path) or audio that is made when it is decoded."""

    key: str
    source: Path | str | Recording
    recorder: Recorder | None = None  # is called with the samples when they are decoded
    expected_s: float = math.nan  # how long the manifest says that the file is; a hint, its samples decide


class Texts(Protocol):
    """Texts by utterance, such as transcripts, to encode instead of the manifest's own."""

    @property
    def source(self) -> str:
        """The entry for them in FeatureSpec.source."""
        ...

    def of(self, manifest: Manifest) -> tuple[list[tuple[str, str]], Failures]:
        """Return (key, text) of the manifest's utterances that have one, and (key, reason) of the others."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Return the record of their origin for a new feature set: JSON values by name."""
        ...


def items_of(
    manifest: Manifest,
    encoder: Encoder,
    shard: Shard | None = None,
    workers: int = 2,
    transcripts: Texts | None = None,
    view: ViewedPart | None = None,
) -> tuple[list[Item], Failures]:
    """Return the inputs of one part (or all), and (key, reason) of utterances without a path or text.

    view: the manifest's training part through a view, whose recordings are encoded instead of the manifest's files.
    """
    if transcripts is not None and encoder.kind != "text":
        raise ConfigError(f"--transcripts: {encoder.name} encodes audio, not text; leave it out.")
    if view is not None:
        items, failed = _recordings(view)
    elif encoder.kind == "text":
        items, failed = _texts(manifest, encoder, transcripts)
    else:
        items, failed = audio_items(manifest)
    if shard is None:
        return items, failed
    if encoder.kind == "text":
        return part_of(shard, items, failed, [len(str(item.source)) for item in items])
    return part_of(shard, items, failed, audio_sizes(manifest, items, workers, lambda item: size_of(encoder, item)))


def part_of(shard: Shard, items: list[Item], failed: Failures, sizes: Sequence[float]) -> tuple[list[Item], Failures]:
    """Return a part's share of inputs of these sizes; the first part reports those that failed."""
    chosen = [items[i] for i in shard.select([item.key for item in items], sizes)]
    return chosen, failed if shard.number == 1 else []


def audio_items(manifest: Manifest) -> tuple[list[Item], Failures]:
    """Return every utterance's audio file, and (key, reason) of those without one where others have one."""
    manifest.column("path")  # its absence is an error of the manifest, not of each row
    durations = manifest.column("duration_s").tolist() if manifest.has("duration_s") else [math.nan] * len(manifest)
    items, failed = [], []
    for i, (key, source) in enumerate(zip(manifest.keys, manifest.audios, strict=True)):
        if source is None:
            failed.append((key, str(manifest.without_audio(i))))
            continue
        is_stated = isinstance(source, Path) and isinstance(durations[i], float)  # of a piece, its own times are known
        items.append(Item(key, source, expected_s=durations[i] if is_stated else math.nan))
    return items, failed


def size_of(encoder: Encoder, item: Item, *, exactly: bool = False) -> int | str:
    """Return the samples of audio by its header, or padded tokens of a text; the reason when it can't be known.

    For a GPU, which would stand still while all headers are read, by the manifest where that has durations, unless
    `exactly`: batches are cut by what was decoded, whatever was expected.
    """
    if encoder.kind == "text":
        text = str(item.source)
        return refused(encoder, item, text) or encoder.cost(text)
    if encoder.overlaps and not exactly and 0 < item.expected_s < math.inf:
        return max(1, round(item.expected_s * SAMPLE_RATE_HZ))
    try:
        n_samples = round(duration_s(item.source) * SAMPLE_RATE_HZ)
    except AudioError as error:
        return str(error)
    return refused(encoder, item, n_samples) or n_samples


def refused(encoder: Encoder, item: Item, size: int | str) -> str:
    """Return why an input has no rows by this encoder, with its key and file; "" where it has."""
    reason = encoder.refusal(size)
    place = "" if isinstance(size, str) or not isinstance(item.source, Path) else f" ({item.source})"
    return f"{item.key}{place}: {reason}" if reason else ""


def _recordings(view: ViewedPart) -> tuple[list[Item], Failures]:
    view.manifest.column("path")
    items, failed = [], []
    for i, key in enumerate(view.manifest.keys):
        try:
            items.append(Item(key, view.recording(i)))
        except ManifestError as error:
            failed.append((key, str(error)))
    return items, failed


def _texts(manifest: Manifest, encoder: Encoder, texts: Texts | None) -> tuple[list[Item], Failures]:
    if texts is None:
        return [Item(key, text) for key, text in zip(manifest.keys, manifest.texts, strict=True)], []
    if encoder.spec.source != texts.source:
        raise ConfigError(f"{encoder.name} was loaded for {encoder.spec.source}, the texts are {texts.source}.")
    texts_read, failed = texts.of(manifest)
    return [Item(key, text) for key, text in texts_read], failed


def audio_sizes(
    manifest: Manifest, items: Sequence[Item], workers: int, measure: Callable[[Item], float | str]
) -> list[float]:
    """Return how long each recording is, to share out the work: the manifest's durations, else what `measure` finds.

    measure: returns a length in any one unit, or the reason why there is none, which counts as 0.
    """
    if manifest.has("duration_s"):
        durations = dict(zip(manifest.keys, manifest.column("duration_s").tolist(), strict=True))
        sizes = [durations[item.key] for item in items]
        if all(isinstance(size, float) and math.isfinite(size) for size in sizes):
            return sizes
    with ThreadPoolExecutor(max(1, workers)) as pool:
        measured = pool.map(measure, items)
        return [0 if isinstance(size, str) else size for size in measured]
