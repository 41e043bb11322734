"""When each token of a transcript is spoken: a small set beside a text encoder's rows, for networks that align both."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.encoders.base import Encoder
from featurestore.encoders.layers import LayerChoice
from featurestore.errors import ConfigError

if TYPE_CHECKING:
    from featurestore.encoders.text import TextEncoder

COLUMNS = ("start_s", "end_s")  # by which a set of times is known
ENDING = "-times"  # of its name, behind that of the text encoder's set
Words = Sequence[tuple[str, float, float]]  # text, start and end in seconds


class TokenTimes(Encoder):
    """Start and end in seconds of every token that a text encoder has a row for, (1, T, 2) float32.

    Inputs are texts that `timed` makes of a transcript and its words. A token has the time from the start of the first
    to the end of the last word that it has characters of; one of none, such as a blank, the end of the word before. A
    text without tokens, which has one row, has the whole utterance's time.
    """

    kind = "text"
    layers_available = 0
    device = "cpu"
    default_batch_frames = 1 << 14
    window_frames = 1 << 40

    def __init__(self, encoder: TextEncoder) -> None:
        if encoder.keep_special or encoder.prompt.text or encoder.spec.pool != "none":
            raise ConfigError(
                "--times: rows must be those of a text's own tokens; without --pool, --keep-special, --prompt."
            )
        self.name = f"{encoder.name}{ENDING}"
        self.tokenizer = encoder.tokenizer
        self.spec = replace(
            encoder.spec, encoder=self.name, layers=("layer_00",), dim=2, dtype="float32", columns=COLUMNS, extra=()
        )
        self.choice = LayerChoice((0,), self.spec.layers)

    def n_frames(self, n_samples: int) -> int:
        """Raise TypeError: texts have no samples; see `cost`."""
        raise TypeError(f"{self.name} reads text, not audio")

    def cost(self, item: int | str) -> int:
        """Return the rows of a text."""
        return max(1, len(_offsets(self.tokenizer, json.loads(str(item))["text"])))

    def start(self, batch: Sequence[Any], max_frames: int | None = None) -> Callable[[], list[np.ndarray]]:
        """Take texts of `timed`; rows are there at once."""
        timed_texts = [json.loads(item) for item in batch]
        rows = [spans(self.tokenizer, each["text"], each["words"], each["duration_s"])[None] for each in timed_texts]
        return lambda: rows


def timed(text: str, words: Words, duration_s: float) -> str:
    """Return a transcript with its words as one text, an input of `TokenTimes`."""
    return json.dumps({"text": text, "words": list(words), "duration_s": duration_s}, ensure_ascii=False)


def spans(tokenizer: Any, text: str, words: Words, duration_s: float) -> np.ndarray:
    """Return start and end in seconds (T, 2) float32 of each token of a text; (1, 2) of a text without one."""
    places, position = [], 0  # first character of each word, the one after its last, its start and end
    for word, start_s, end_s in words:
        start = text.find(word.strip(), position)
        if start >= 0 and word.strip():
            position = start + len(word.strip())
            places.append((start, position, start_s, end_s))
    rows: list[tuple[float, float]] = []
    for first, stop in _offsets(tokenizer, text):
        inside = [(start_s, end_s) for begin, end, start_s, end_s in places if begin < stop and end > first]
        before = max((end_s for _, end, _, end_s in places if end <= first), default=0.0)
        rows.append((inside[0][0], inside[-1][1]) if inside else (before, before))
    return np.array(rows or [(0.0, duration_s)], np.float32)


def _offsets(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    encoded = tokenizer(
        text, add_special_tokens=False, truncation=False, padding=False, verbose=False, return_offsets_mapping=True
    )
    return [(int(first), int(stop)) for first, stop in encoded["offset_mapping"]]
