from pathlib import Path

import pytest

from featurestore.errors import ConfigError
from featurestore.recordings.places import find_files, folder_above


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.wav, deep/b.FLAC, deep/er/[c].mp3, deep/notes.txt, deep/._b.wav; the working directory."""
    for name in ("a.wav", "deep/b.FLAC", "deep/er/[c].mp3", "deep/notes.txt", "deep/._b.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_all_audio_below_it(place: Path) -> None:
    assert find_files(["deep"]) == ["deep/b.FLAC", "deep/er/[c].mp3"]
    assert find_files([place]) == [str(place / name) for name in ("a.wav", "deep/b.FLAC", "deep/er/[c].mp3")]


def test_a_pattern_is_what_it_matches_and_a_file_is_itself(place: Path) -> None:
    assert find_files(["**/*.*"]) == ["a.wav", "deep/b.FLAC", "deep/er/[c].mp3", "deep/notes.txt"]
    assert find_files(["deep/er/[c].mp3"]) == ["deep/er/[c].mp3"]  # a name, though it looks like a pattern
    assert find_files(["gone.wav", "deep/.x"]) == ["gone.wav", "deep/.x"]  # to fail by themselves


def test_each_file_is_there_once_in_the_order_of_the_places(place: Path) -> None:
    assert find_files(["deep/b.FLAC", "deep", "*.wav", "a.wav"]) == ["deep/b.FLAC", "deep/er/[c].mp3", "a.wav"]


def test_a_list_from_elsewhere_holds_places_too(place: Path) -> None:
    lines = ["a.wav\n", "\n", "deep/er\r\n", " gone with spaces .wav\n"]
    assert find_files(["-"], lines) == ["a.wav", "deep/er/[c].mp3", " gone with spaces .wav"]


def test_nothing_found_is_an_error_that_names_the_place(place: Path) -> None:
    (place / "none").mkdir()
    with pytest.raises(ConfigError, match=r"none .*\.wav"):
        find_files(["a.wav", "none"])
    with pytest.raises(ConfigError, match=r"\*\.ogg"):
        find_files(["*.ogg"])
    with pytest.raises(ConfigError, match=r"notes\.txt .*no file"):
        find_files(["deep/notes.txt"])


def test_a_pattern_of_all_depths_lists_each_real_file_once_where_links_make_loops(place: Path) -> None:
    for name in ("calls/x/y/1.wav", "calls/x/2.wav", "calls/3.wav", "calls/x/4.flac", "calls/x[1]/5.wav"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    for link in ("calls/x/up", "calls/x/y/up", "calls/again"):
        (place / link).symlink_to(place / "calls", target_is_directory=True)
    expected = ["calls/3.wav", "calls/x/2.wav", "calls/x/y/1.wav", "calls/x[1]/5.wav"]
    assert find_files(["calls/**/*.wav"]) == expected
    assert find_files([str(place / "calls/**/*.wav")]) == [str(place / name) for name in expected]
    assert find_files(["calls/**/x/*.wav"]) == ["calls/x/2.wav"]
    assert find_files(["calls/**/[12].wav"]) == ["calls/x/2.wav", "calls/x/y/1.wav"]
    assert find_files(["calls/**/[!12].wav"]) == ["calls/3.wav", "calls/x[1]/5.wav"]
    for pattern in ("none/**/*.wav", "calls/**/[9-1].wav"):
        with pytest.raises(ConfigError, match="matches no file"):
            find_files([pattern])


def test_a_list_file_is_what_it_lists(place: Path) -> None:
    (place / "today.lst").write_text("\ufeffa.wav\r\n\ndeep/er\n")
    assert find_files(["today.lst", "deep/b.FLAC"]) == ["a.wav", "deep/er/[c].mp3", "deep/b.FLAC"]


def test_a_table_among_the_files_is_an_error_that_names_the_option(place: Path) -> None:
    (place / "corpus.csv").touch()
    with pytest.raises(ConfigError, match=r"corpus\.csv.*--manifest"):
        find_files(["a.wav", "corpus.csv"])


@pytest.mark.parametrize(
    ("places", "folder"),
    [(["deep"], "deep"), (["deep/b.FLAC"], "deep"), (["deep/er", "deep/b.FLAC"], "deep"), (["deep", "a.wav"], "."),
     (["deep/**/*.mp3"], "deep"), (["de*/er/*"], "."), (["*.wav"], "."), (["deep/er/[c].mp3"], "deep/er")],
)  # fmt: skip
def test_the_folder_above_places_is_the_deepest_that_holds_them_all(
    place: Path, places: list[str], folder: str
) -> None:
    assert Path(folder_above(places)) == (place / folder).resolve()
    assert Path(folder_above([str(place / name) for name in places])) == (place / folder).resolve()
