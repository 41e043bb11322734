"""The contract of every encoder: audio or text to hidden states, independent of what else is in the batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from featurestore.format.spec import FeatureSpec


class Encoder(Protocol):
    """Audio or text to hidden states, one array per input, independent of what else is in the batch.

    An encoder inherits from this class, sets the attributes, and writes `n_frames`, `cost` and `start`.
    """

    name: str
    kind: str  # "audio" or "text"
    spec: FeatureSpec
    layers_available: int  # the highest layer number; 0 is the input of the first transformer layer
    device: str  # where it computes: "cpu", "cuda:0", ...
    default_batch_frames: int  # padded frames of one forward pass
    window_frames: int  # padded frames of the longest piece of an input that goes through the model at once
    notice: str = ""  # what a user must know before using the rows, such as a licence
    head: str = ""  # of a fine-tuned checkpoint: the class whose head is left away, for the record
    overlaps: bool = False  # whether the device may get its next batch before the rows of the last one are there

    @abstractmethod
    def n_frames(self, n_samples: int) -> int:
        """Return the rows before pooling for this many 16 kHz samples; TypeError from a text encoder."""

    @abstractmethod
    def cost(self, item: int | str) -> int:
        """Return the padded frames that one input, a number of samples or a text, takes in a batch."""

    @abstractmethod
    def start(self, batch: Sequence[Any], max_frames: int | None = None) -> Callable[[], list[np.ndarray]]:
        """Start to encode ragged inputs, and return a function that waits for their rows.

        batch: waveforms float32 (n_samples,) at 16 kHz, or texts. The function returns (L, T, D) float32 for each, in
        order. max_frames bounds the padded frames of one forward pass; longer batches are split.
        """

    def prepare(self, item: Any) -> Any:
        """Return what `start_prepared` takes of an input: what can be done beforehand, in another thread."""
        return item

    def start_prepared(
        self, batch: Sequence[Any], max_frames: int | None = None, *, stored: bool = False
    ) -> Callable[[], list[np.ndarray]]:
        """Start on prepared inputs, as `start` does.

        stored: rows may come in the type in which the store has them, bfloat16 as its bits (uint16), and so cast on
        the device; a value that is too large for the type is then infinite.
        """
        return self.start(batch, max_frames)

    def encode(self, batch: Sequence[Any], max_frames: int | None = None) -> list[np.ndarray]:
        """Encode ragged inputs, and wait: (L, T, D) float32 for each; the arguments are those of `start`."""
        return self.start(batch, max_frames)()

    def is_empty(self, item: Any) -> bool:
        """Return whether an input holds nothing to encode, and so gets a row defined by the encoder (texts only)."""
        return False

    def in_windows(self, item: int | str) -> bool:
        """Return whether an input, a number of samples or a text, goes through the model in several windows."""
        return False

    def special_in(self, item: Any) -> str:
        """Return a special token that a text spells, such as </s>, and which is read as such; "" where it has none."""
        return ""

    def refusal(self, item: int | str) -> str:
        """Return why an input, a number of samples or a text, has no rows by this encoder; "" where it has."""
        return ""
