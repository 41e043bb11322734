"""Does a speaker mostly speak in one emotion? Then that speaker's own statistics carry the emotion away."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_CLIPS = 5  # of a speaker that is counted
HIGH = 0.25  # balanced acted corpora have less than 0.05


@dataclass(frozen=True)
class Confounding:
    """How far the speakers' emotions are from the corpus's.

    distance: mean total variation, weighed by clips, between a speaker's shares of the classes and the corpus's; 0
    where every speaker speaks alike, near 1 where each has an emotion of their own. excess: the same less what speakers
    of so few clips would show by chance. one_sided: speakers half of whose clips or more are of one class that is less
    than a third of the corpus.
    """

    distance: float
    excess: float
    n_speakers: int
    one_sided: int

    @property
    def is_high(self) -> bool:
        """Would normalising each speaker by their own clips probably hurt?"""
        return self.excess > HIGH

    @staticmethod
    def of(labels: NDArray[np.int64], speakers: NDArray[np.str_], n_classes: int, seed: int = 0) -> "Confounding":
        """From the label-by-speaker table of the training part; -1 is no label. Speakers of few clips are left out."""
        labelled = labels >= 0
        names, speaker_codes = np.unique(speakers[labelled], return_inverse=True)
        table = np.zeros((len(names), n_classes))
        np.add.at(table, (speaker_codes, labels[labelled]), 1)
        table = table[table.sum(1) >= LEAST_CLIPS]
        if not len(table):
            return Confounding(float("nan"), 0.0, 0, 0)
        share = table.sum(0) / table.sum()
        distance = _distance(table, share)
        rng = np.random.default_rng((17, seed))
        by_chance = [
            _distance(np.stack([rng.multinomial(int(n), share) for n in table.sum(1)]), share) for _ in range(20)
        ]
        top = table.argmax(1)
        one_sided = (table.max(1) >= 0.5 * table.sum(1)) & (share[top] < 1 / 3)
        return Confounding(distance, max(distance - float(np.mean(by_chance)), 0.0), len(table), int(one_sided.sum()))

    def warning(self) -> str:
        """One sentence for the user."""
        return (
            f"speakers differ much in their emotions (total variation {self.distance:.2f}; {self.one_sided} of "
            f"{self.n_speakers} speakers have half of their clips or more in one emotion): normalising each speaker by "
            "their own clips then removes emotion, and may cost tens of points. Compare with --normalise none."
        )


def _distance(table: NDArray[np.floating] | NDArray[np.int64], share: NDArray[np.float64]) -> float:
    sizes = table.sum(1)
    return float((0.5 * np.abs(table / sizes[:, None] - share).sum(1) * sizes).sum() / sizes.sum())
