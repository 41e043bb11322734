"""What a corpus's audio files hold: the same samples have the same digest, in whatever container they lie."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featurestore.audio import SAMPLE_RATE_HZ, Recording, decode_pass, in_passes
from featurestore.audio.digest import digest_of_samples
from featurestore.corpus.manifest import Manifest
from featurestore.errors import AudioError, ManifestError

BLOCK = 1024  # files in flight; more would only hold memory


@dataclass(frozen=True)
class Content:
    """One utterance's audio as `decode` gives it; a problem where it gives none."""

    digest: str = ""  # of the decoded samples: blake2b, 16 bytes, hexadecimal
    duration_s: float = float("nan")
    problem: str = ""
    constant: bool = False  # every sample has one value, as a rule 0: nothing was recorded


def audio_contents(
    manifest: Manifest,
    *,
    recorded: Mapping[str, Content] | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Content]:
    """Decode every utterance's audio in threads (N contents, in row order); rows without a path have an empty one.

    recorded: contents by key, which are not decoded. progress(done, total). An interrupt waits for the files that are
    being decoded, at most `workers`, and passes.
    """
    recorded = recorded or {}
    contents = [recorded.get(key, Content()) for key in manifest.keys]
    rows = [i for i, key in enumerate(manifest.keys) if key not in recorded] if manifest.has("path") else []
    sources = [_source(manifest, i) for i in rows]
    groups = in_passes(sources)
    n_done = len(manifest) - len(rows)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="medusa-audit")
    try:
        for start in range(0, len(groups), BLOCK):
            block = groups[start : start + BLOCK]
            for group, of in zip(block, pool.map(_contents, [[sources[i] for i in g] for g in block]), strict=True):
                for i, content in zip(group, of, strict=True):
                    contents[rows[i]] = content
                n_done += len(group)
                if progress is not None:
                    progress(n_done, len(manifest))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return contents


def content_of_record(digest: bytes, duration_s: float) -> Content:
    """Return the content that a digest of the samples and a duration stand for, without the samples."""
    n_samples = 0 if duration_s != duration_s else round(duration_s * SAMPLE_RATE_HZ)
    silent = n_samples > 0 and digest_of_samples(np.zeros(n_samples, np.float32)) == digest
    return Content(digest.hex(), duration_s, constant=silent)


def _source(manifest: Manifest, i: int) -> Path | Recording | None:
    try:
        return manifest.audio(i)
    except ManifestError:
        return None


def _contents(sources: list[Path | Recording | None]) -> list[Content]:
    if sources == [None]:
        return [Content()]
    return [_content(samples) for samples in decode_pass([source for source in sources if source is not None])]


def _content(samples: np.ndarray | AudioError) -> Content:
    if isinstance(samples, AudioError):
        return Content(problem=str(samples))
    constant = bool(samples.min() == samples.max())
    return Content(digest_of_samples(samples).hex(), len(samples) / SAMPLE_RATE_HZ, constant=constant)
