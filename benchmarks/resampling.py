"""How long intervals by speaker and paired tests take on a corpus of MSP-Podcast's size.

Run: python benchmarks/resampling.py
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from ensemble.evaluation.bootstrap import Scored, bootstrap, compare

N_UTTERANCES, N_RESAMPLES, N_SPEAKERS = 120_000, 1000, 2300
CLASSES = ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral")
ATTRIBUTES = ("arousal", "valence", "dominance")


def drawn(n_speakers: int, seed: int) -> Scored:
    """Return a system's predictions for random utterances; the truth and the speakers do not depend on the seed."""
    truth, guesses = np.random.default_rng(0), np.random.default_rng(seed)
    labels = truth.integers(-1, len(CLASSES), N_UTTERANCES)
    targets = truth.uniform(1, 7, (N_UTTERANCES, len(ATTRIBUTES))).astype(np.float32)
    one_each = n_speakers == N_UTTERANCES
    speakers = np.arange(N_UTTERANCES) if one_each else truth.integers(0, n_speakers, N_UTTERANCES)
    predicted = np.where(
        guesses.random(N_UTTERANCES) < 0.4, labels.clip(0), guesses.integers(0, len(CLASSES), N_UTTERANCES)
    )
    values = targets + guesses.normal(size=targets.shape).astype(np.float32)
    return Scored(CLASSES, labels, predicted, ATTRIBUTES, targets, values, speakers)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    print(
        f"{N_UTTERANCES:,} utterances, {len(CLASSES)} classes, {len(ATTRIBUTES)} attributes; {N_RESAMPLES:,} resamples"
    )
    print(f"{'speakers':>10}{'sums s':>10}{'intervals s':>14}{'paired test s':>16}")
    for n_speakers in (N_SPEAKERS, N_UTTERANCES):
        one_system, other_system = (drawn(n_speakers, seed) for seed in (1, 2))
        a, b = one_system.sums(), other_system.sums()
        durations = [
            seconds(one_system.sums),
            seconds(partial(bootstrap, a, N_RESAMPLES)),
            seconds(partial(compare, a, b, ("first", "second"), N_RESAMPLES)),
        ]
        print(f"{n_speakers:>10,}{durations[0]:>10.2f}{durations[1]:>14.2f}{durations[2]:>16.2f}")


if __name__ == "__main__":
    main()
