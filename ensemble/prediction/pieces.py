"""Where the utterances of a prediction lie: recording, start and end, as the columns of its rows say it."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from featurestore.audio import duration_s
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.pieces import END, START, piece_id


@dataclass(frozen=True)
class Piece:
    """One utterance as a piece of a recording, from start_s to end_s (None: the recording's end).

    file: what its row calls the recording: its path as it was given, or its id in a manifest; of utterances with ids
    of their own, the id.
    """

    file: str
    path: Path
    start_s: float
    end_s: float | None

    def ends(self) -> tuple[float, float]:
        """Return start and end in seconds; AudioError where the end has to be looked up, and can't be."""
        return self.start_s, duration_s(self.path) if self.end_s is None else self.end_s


def pieces_of(manifest: Manifest) -> dict[str, Piece]:
    """Return the piece that each utterance is, by key: a whole recording where it is no piece, none of a text alone."""
    if not manifest.has("path"):
        return {}
    keys, names = manifest.keys, manifest.column("path").tolist()
    starts = manifest.column(START).tolist() if manifest.has_pieces else [0.0] * len(keys)
    ends = manifest.column(END).tolist() if manifest.has_pieces else [math.nan] * len(keys)
    pieces = {}
    for key, name, low, high in zip(keys, names, starts, ends, strict=True):
        if name is not None:
            end = None if math.isnan(high) else high
            path = Path(os.path.normpath(manifest.root / name))
            pieces[key] = Piece(key.removesuffix(piece_id("", low, end)), path, low, end)
    return pieces
