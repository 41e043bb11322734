"""What a corpus's audio files hold: the same samples have the same digest, in whatever container they lie."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from featurestore.audio import SAMPLE_RATE_HZ, decode
from featurestore.corpus.manifest import Manifest
from featurestore.errors import AudioError

BLOCK = 1024  # files in flight; more would only hold memory


@dataclass(frozen=True)
class Content:
    """One utterance's audio as `decode` gives it; a problem where it gives none."""

    digest: str = ""  # of the decoded samples: blake2b, 16 bytes, hexadecimal
    duration_s: float = float("nan")
    problem: str = ""
    constant: bool = False  # every sample has one value, as a rule 0: nothing was recorded


def audio_contents(
    manifest: Manifest, *, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> list[Content]:
    """Decode every utterance's audio in threads (N contents, in row order); rows without a path have an empty one.

    progress(done, total). An interrupt waits for the files that are being decoded, at most `workers`, and passes.
    """
    paths = [None] * len(manifest) if not manifest.has("path") else manifest.column("path").tolist()
    files = [None if path is None else manifest.root / path for path in paths]
    contents: list[Content] = []
    pool = ThreadPoolExecutor(workers, thread_name_prefix="medusa-audit")
    try:
        for start in range(0, len(files), BLOCK):
            for content in pool.map(content_of, files[start : start + BLOCK]):
                contents.append(content)
                if progress is not None:
                    progress(len(contents), len(files))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return contents


def content_of(path: Path | None) -> Content:
    """The digest and duration of one file, or why it can't be decoded."""
    if path is None:
        return Content()
    try:
        samples = decode(path)
    except AudioError as error:
        return Content(problem=str(error))
    constant = bool(samples.min() == samples.max())
    samples += 0.0  # -0.0 and 0.0 are one sample in every format but float
    digest = hashlib.blake2b(samples.data, digest_size=16).hexdigest()
    return Content(digest, len(samples) / SAMPLE_RATE_HZ, constant=constant)
