"""A recording as a stream of 16 kHz blocks, for readers that need all of it and keep none."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import soxr

from featurestore.audio.decoding import SAMPLE_RATE_HZ, native_blocks
from featurestore.errors import AudioError


def stream(path: Path | str) -> Iterator[np.ndarray]:
    """Yield (n,) float32 mono at 16 kHz, block by block, n > 0; AudioError as in `decode`, without its limit."""
    for rate_hz, blocks in groupby(native_blocks(path), key=lambda block: block[0]):
        resampler = None if rate_hz == SAMPLE_RATE_HZ else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, "float32")
        for _, block in blocks:
            if not np.isfinite(block).all():
                raise AudioError(f"{path}: samples are NaN or infinite, expected finite ones. Export the file again.")
            at_16k = block if resampler is None else resampler.resample_chunk(block)
            if len(at_16k):
                yield at_16k
        if resampler is not None and len(rest := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
            yield rest
