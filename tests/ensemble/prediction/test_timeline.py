"""Overlapping windows as one timeline, and the files that hold it."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.prediction.formats import format_of, seconds
from ensemble.prediction.pieces import Piece, pieces_of
from ensemble.prediction.plot import MOST_PANELS, check_plot, plot_timeline
from ensemble.prediction.predictions import Predictions
from ensemble.prediction.timeline import stretches, turns
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.recordings.segment_tables import read_segments
from featurestore.recordings.windows import Windows

Ends = list[tuple[float, float]]
CLASSES = ("angry", "very sad")


def naive(ends: Ends, moment: float) -> int | None:
    """Return the row that covers a moment and whose centre is nearest, the first of two."""
    covering = [row for row, (low, high) in enumerate(ends) if low <= moment < high]
    return min(covering, key=lambda row: (abs(sum(ends[row]) / 2 - moment), row), default=None)


def test_of_windows_the_middle_seconds_speak_and_the_first_and_last_to_their_ends() -> None:
    ends = Windows.of(2, 6).ends(12.0)
    assert stretches(ends) == [(0, 4, 0), (4, 6, 1), (6, 8, 2), (8, 12, 3)]


def test_windows_side_by_side_and_with_gaps_are_as_they_are() -> None:
    assert stretches([(0, 2), (2, 4), (5, 6)]) == [(0, 2, 0), (2, 4, 1), (5, 6, 2)]


def test_a_row_within_another_speaks_for_its_own_time() -> None:
    assert stretches([(0, 10), (3, 4)]) == [(0, 3, 0), (3, 4, 1), (4, 10, 0)]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), min_size=1, max_size=8))
def test_every_moment_has_the_row_with_the_nearest_centre(pairs: list[tuple[int, int]]) -> None:
    ends = [(float(low), float(low + length)) for low, length in pairs]
    result = stretches(ends)
    assert all(high <= low for (_, high, _), (low, _, _) in itertools.pairwise(result))
    for moment in np.arange(0.13, 60, 0.25):
        row = next((row for low, high, row in result if low <= moment < high), None)
        assert row == naive(ends, moment) or abs(sum(ends[row or 0]) / 2 - moment) == pytest.approx(
            abs(sum(ends[naive(ends, moment) or 0]) / 2 - moment)
        )


def predicted(
    ends: Ends, rows: Sequence[float], *, path: str = "calls/my call.m4a", attributes: bool = False
) -> Predictions:
    """Predictions of pieces; rows: the probability of "angry"."""
    p = np.array([[x, 1 - x] for x in rows], np.float32)
    values = (
        np.linspace(1, 7, len(rows), dtype=np.float32)[:, None] if attributes else np.zeros((len(rows), 0), np.float32)
    )
    pieces = tuple(Piece(path, Path(path), low, high) for low, high in ends)
    keys = tuple(f"{path}[{low:g}-{high:g}]" for low, high in ends)
    names = ("arousal",) if attributes else ()
    return Predictions(keys, CLASSES, names, p, values, ("m",), np.concatenate([p, values], 1)[None], (), pieces, True)


def test_neighbours_of_one_label_are_one_turn_with_the_mean_of_their_confidences() -> None:
    result = turns(
        predicted([(0, 6), (2, 8), (4, 10)], [0] * 3).pieces,  # type: ignore[arg-type]
        ["sad", "sad", "angry"], [0.5, 0.8, 0.9],
    )  # fmt: skip
    assert [(turn.start_s, turn.end_s, turn.label) for turn in result] == [(0, 6, "sad"), (6, 10, "angry")]
    assert result[0].confidence == pytest.approx((4 * 0.5 + 2 * 0.8) / 6)


def test_rttm_has_ten_fields_and_no_blank_in_a_name(tmp_path: Path) -> None:
    predicted([(0, 6), (2, 8), (4, 10.5)], [0.9, 0.8, 0.1]).write(tmp_path / "p.rttm")
    lines = (tmp_path / "p.rttm").read_text().splitlines()
    assert [line.split(" ") for line in lines] == [
        ["SPEAKER", "my_call", "1", "0.000", "6.125", "<NA>", "<NA>", "angry", "0.865", "<NA>"],
        ["SPEAKER", "my_call", "1", "6.125", "4.375", "<NA>", "<NA>", "very_sad", "0.900", "<NA>"],
    ]
    assert read_segments(tmp_path / "p.rttm").table.column("end_s").to_pylist() == [6.125, 10.5]


def test_recordings_of_one_name_in_two_folders_differ_in_rttm(tmp_path: Path) -> None:
    recordings = [predicted([(0, 2)], [0.9], path=f"{folder}/a.wav") for folder in ("x", "y")]
    Predictions.join(recordings).write(tmp_path / "p.rttm")
    assert [line.split()[1] for line in (tmp_path / "p.rttm").read_text().splitlines()] == ["x/a", "y/a"]


def test_audacitys_labels_come_back_and_are_of_one_recording(tmp_path: Path) -> None:
    predicted([(0, 2), (2, 4), (5, 6.5)], [0.9, 0.8, 0.1]).write(tmp_path / "p.txt", "audacity")
    assert (tmp_path / "p.txt").read_text() == "0.000\t4.000\tangry\n5.000\t6.500\tvery sad\n"
    assert read_segments(tmp_path / "p.txt").table.column("annotation").to_pylist() == ["angry", "very sad"]
    two = Predictions.join([predicted([(0, 2)], [0.9], path=f"{name}.wav") for name in "ab"])
    with pytest.raises(ConfigError, match=r"a\.wav, b\.wav"):
        two.write(tmp_path / "two.txt", "audacity")
    assert not (tmp_path / "two.txt").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.000"), (2.5, "2.500"), (0.30000000000000004, "0.300"), (3.503562, "3.503562"), (1e4, "10000.000")],
)
def test_times_have_no_noise_of_floats(value: float, text: str) -> None:
    assert seconds(value) == text


def test_a_format_is_the_one_requested_or_the_suffixs() -> None:
    assert format_of(Path("a.txt"), "audacity") == "audacity"
    assert format_of(Path("a.rttm"), None) == "rttm"
    for output, format in ((Path("a.txt"), None), (Path("a.csv"), "xlsx"), (Path("a"), None)):
        with pytest.raises(ConfigError, match="jsonl"):
            format_of(output, format)


def test_a_piece_is_called_by_its_recording_where_its_id_says_so() -> None:
    text = {"utterance_id": ["a.wav[0-2.5]", "u2", "b.wav[3-]"], "path": ["x/a.wav", "x/a.wav", "b.wav"]}
    table = Manifest.from_arrow(_table(text | {"start_s": [0.0, 2.5, 3.0], "end_s": [2.5, 4.0, None]}), root=".")
    result = pieces_of(table)
    assert [piece.file for piece in result.values()] == ["a.wav", "u2", "b.wav"]
    assert [piece.end_s for piece in result.values()] == [2.5, 4.0, None]


def _table(columns: dict[str, list[object]]) -> object:
    import pyarrow as pa

    return pa.table(columns)


# The plot


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("attributes", [False, True])
def test_the_plot_shows_classes_and_attributes_over_time(tmp_path: Path, suffix: str, attributes: bool) -> None:
    result = predicted(Windows.of(2, 6).ends(200.0), list(np.linspace(0, 1, 98)), attributes=attributes)
    ranges = {"arousal": (1.0, 7.0)} if attributes else {}
    plot_timeline(tmp_path / f"p{suffix}", result.records(), CLASSES, ranges)
    data = (tmp_path / f"p{suffix}").read_bytes()
    assert data.startswith(b"\x89PNG") if suffix == ".png" else b"<svg" in data
    assert len(data) > 5000


def test_a_plot_of_another_kind_or_of_many_recordings_is_refused_before_the_work(tmp_path: Path) -> None:
    pieces = [Piece(str(n), Path(str(n)), 0, 1) for n in range(MOST_PANELS + 1)]
    with pytest.raises(ConfigError, match=r"\.png or \.svg"):
        check_plot(Path("p.jpg"), pieces[:1])
    with pytest.raises(ConfigError, match="name fewer"):
        check_plot(Path("p.png"), pieces)
    check_plot(Path("p.png"), pieces[:MOST_PANELS])
