"""The rows of several utterances in one array."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Packed:
    """The rows of several utterances, one after the other: utterance i has rows offsets[i]:offsets[i + 1].

    values: (sum T, D), or (L, sum T, D) where several layers were read. offsets: int64 (B + 1,).
    """

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each utterance, int64 (B,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        """Rows of utterance i: a view, (T, D) or (L, T, D)."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"utterance {i} of a batch of {len(self)}")
        i %= len(self)
        return self.values[..., self.offsets[i] : self.offsets[i + 1], :]

    def pad(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, max T, D) float32, or (L, B, max T, D), with zeros after each utterance's end; and lengths (B,)."""
        from featurestore.rows.kernels import pad  # numba loads where it is first needed

        if self.values.ndim == 2:
            return pad(self.values, self.offsets), self.lengths
        return np.stack([pad(layer, self.offsets) for layer in self.values]), self.lengths
