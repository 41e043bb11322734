"""Predictions of overlapping windows as one timeline: which window speaks for each moment, and for how long.

A moment belongs to the window whose centre is nearest, of those that cover it: of windows every 2 s over 6 s the middle
2 s of each, of the first and last also what lies before and behind. So no moment has two labels.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ensemble.prediction.pieces import Piece

JOINED_S = 1e-6  # ends that touch


@dataclass(frozen=True)
class Turn:
    """A stretch of a recording with one label; confidence: the label's mean probability over it, or NaN."""

    path: Path
    start_s: float
    end_s: float
    label: str
    confidence: float

    @property
    def length_s(self) -> float:
        """Seconds, without the noise of a difference of floats."""
        return round(self.end_s - self.start_s, 6)


def stretches(ends: Sequence[tuple[float, float]]) -> list[tuple[float, float, int]]:
    """Return (start, end, row) of the stretches that each row speaks for, in order of time; ends: (start, end) of rows.

    Of two centres equally near, the earlier row's counts.
    """
    # Between two neighbouring borders (ends of rows, and middles between the centres of rows that overlap) one row is
    # the nearest all along.
    centres = [(low + high) / 2 for low, high in ends]
    order = sorted(range(len(ends)), key=lambda row: ends[row][0])
    borders = {end for pair in ends for end in pair}
    open_rows: list[tuple[float, int]] = []
    for row in order:
        while open_rows and open_rows[0][0] <= ends[row][0]:
            heapq.heappop(open_rows)
        borders |= {round((centres[row] + centres[other]) / 2, 9) for _, other in open_rows}
        heapq.heappush(open_rows, (ends[row][1], row))
    stretches: list[tuple[float, float, int]] = []
    marks = sorted(borders)
    waiting, covering = iter(order), []
    upcoming = next(waiting, None)
    for low, high in pairwise(marks):
        while upcoming is not None and ends[upcoming][0] <= low:
            covering.append(upcoming)
            upcoming = next(waiting, None)
        covering = [row for row in covering if ends[row][1] > low]
        if not covering:
            continue
        middle = (low + high) / 2
        nearest = min(covering, key=lambda row: (abs(centres[row] - middle), row))
        if stretches and stretches[-1][2] == nearest and stretches[-1][1] == low:
            stretches[-1] = (stretches[-1][0], high, nearest)
        else:
            stretches.append((low, high, nearest))
    return stretches


def turns(pieces: Sequence[Piece], labels: Sequence[str], confidences: Sequence[float]) -> list[Turn]:
    """Return each recording's timeline, in order of their first rows; stretches of one label that touch are one."""
    rows_of: dict[Path, list[int]] = {}
    for row, piece in enumerate(pieces):
        rows_of.setdefault(piece.path, []).append(row)
    turns: list[Turn] = []
    for path, rows in rows_of.items():
        of_recording: list[Turn] = []
        for low, high, i in stretches([pieces[row].ends() for row in rows]):
            turn = Turn(path, low, high, labels[rows[i]], confidences[rows[i]])
            if (
                of_recording
                and of_recording[-1].label == turn.label
                and turn.start_s - of_recording[-1].end_s <= JOINED_S
            ):
                of_recording[-1] = _joined(of_recording[-1], turn)
            else:
                of_recording.append(turn)
        turns += of_recording
    return turns


def _joined(first: Turn, second: Turn) -> Turn:
    length_s = first.length_s + second.length_s
    mean = (first.confidence * first.length_s + second.confidence * second.length_s) / length_s
    return Turn(first.path, first.start_s, second.end_s, first.label, mean)
