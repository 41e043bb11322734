"""A corpus of mixed lengths cut from speech: log-normal durations, FLAC files, texts of as many words."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

import featurestore
from featurestore.audio import SAMPLE_RATE_HZ, decode
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError

DEMO_CORPUS = Path(featurestore.__file__).parent / "demo_corpus"
MEAN_S = 5.6  # of MSP-Podcast's utterances
SIGMA = 0.5  # of the logarithm: nine of ten last 2.2 to 11 s
SHORTEST_S, LONGEST_S = 0.5, 30.0
WORDS_PER_S = 2.5
N_WORDS = 1_000  # of the texts' vocabulary
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def durations_s(n: int, seed: int, mean_s: float = MEAN_S) -> np.ndarray:
    """Return (n,) log-normal durations in seconds with the expected value `mean_s`."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.lognormal(math.log(mean_s) - SIGMA**2 / 2, SIGMA, n), SHORTEST_S, LONGEST_S)


def write_corpus(directory: Path, n: int, seed: int, speech: Path | None = None, mean_s: float = MEAN_S) -> Manifest:
    """Write n FLAC files (16 kHz, mono, 16 bits) from the audio below `speech`, and return their manifest.

    speech: default is the corpus that comes with the program. Raises ConfigError where it holds no audio.
    """
    root = speech or DEMO_CORPUS
    sources = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not sources:
        raise ConfigError(
            f"{root}: no {', '.join(SUFFIXES)} below it; expected recorded speech to cut utterances from."
        )
    rng = np.random.default_rng(seed)
    order = [sources[i] for i in rng.permutation(len(sources))]
    lengths = (durations_s(n, seed, mean_s) * SAMPLE_RATE_HZ).astype(int)
    stock, n_used = np.zeros(0, np.float32), 0
    paths, texts = [], []
    for i, length in enumerate(lengths.tolist()):
        while len(stock) < length:
            stock, n_used = np.concatenate([stock, decode(order[n_used % len(order)])]), n_used + 1
        samples, stock = stock[:length], stock[length:]
        paths.append(f"{i:05d}.flac")
        soundfile.write(directory / paths[-1], np.clip(samples, -1, 1), SAMPLE_RATE_HZ, subtype="PCM_16")
        n_words = max(1, round(length / SAMPLE_RATE_HZ * WORDS_PER_S))
        texts.append(" ".join(f"w{j}" for j in rng.integers(0, N_WORDS, n_words)))
    columns = {
        "utterance_id": [f"u{i:05d}" for i in range(n)], "path": paths, "text": texts,
        "duration_s": lengths / SAMPLE_RATE_HZ,
    }  # fmt: skip
    return Manifest(pa.table(columns), root=directory)
