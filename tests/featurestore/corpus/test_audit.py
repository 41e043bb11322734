"""An audit finds what two parts share, sample for sample, and says so by its exit code; it stops when told to."""

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from featurestore.commands.split import show_parts
from featurestore.corpora.ravdess import read_ravdess
from featurestore.corpus.agreement import fleiss_kappa, krippendorff_interval
from featurestore.corpus.audio_digest import audio_contents
from featurestore.corpus.audit import audit, part_summaries
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.overlap import bare_key, bare_text, in_order
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.splits import assign_folds, with_column
from featurestore.errors import ConfigError
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa
from tests.helpers.warm_python import MEDUSA, WarmProcess

REPO = Path(__file__).resolve().parents[3]
TWINS = ["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]  # byte-identical in the official release
RATE_HZ = 16_000


def noise(seed: int, n: int = 1600) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=n) * 3000).astype(np.int16)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Four clips; `a.wav`, `a.flac` and the stereo `a2.wav` hold the same samples."""
    soundfile.write(tmp_path / "a.wav", noise(0), RATE_HZ, subtype="PCM_16")
    soundfile.write(tmp_path / "a.flac", noise(0), RATE_HZ, subtype="PCM_16")
    soundfile.write(tmp_path / "a2.wav", np.stack([noise(0)] * 2, axis=1), RATE_HZ, subtype="PCM_16")
    soundfile.write(tmp_path / "b.wav", noise(1), RATE_HZ, subtype="PCM_16")
    nearly = noise(0)
    nearly[-1] += 1
    soundfile.write(tmp_path / "c.wav", nearly, RATE_HZ, subtype="PCM_16")
    return tmp_path


def manifest(directory: Path, files: list[str], **columns: list) -> Manifest:
    keys = [f"u{i}" for i in range(len(files))]
    return Manifest(pa.table({"utterance_id": keys, "path": files, **columns}), root=directory)


def kinds(actual: Manifest, **settings: object) -> dict[tuple[str, str], bool]:
    """Return what is shared, and whether it counts as leakage."""
    report = audit(actual, **settings)  # type: ignore[arg-type]
    return {(overlap.column, overlap.kind): overlap.leak for overlap in report.overlaps}


# --- the real corpus


@pytest.mark.slow
def test_ravdess_has_one_clip_twice(ravdess_dir: Path) -> None:
    corpus = read_ravdess(ravdess_dir)
    progress: list[int] = []
    report = audit(corpus, progress=lambda done, total: progress.append(done))
    assert [(repeat.kind, repeat.keys) for repeat in report.repeats] == [("audio", TWINS)]
    assert report.clean
    assert progress == list(range(1, 1441))
    assert [(o.kind, o.column, o.n_items, o.leak) for o in report.overlaps] == [("text", "fold", 2, False)]
    assert [part.name for part in report.parts["fold"]] == list("123456")
    assert sum(part.hours for part in report.parts["fold"]) == pytest.approx(1.48, abs=0.01)
    # The same clips in two folds are leakage.
    folds = corpus.column("fold").tolist()
    folds[corpus.index(TWINS[0])] = "1"
    (leak,) = [o for o in audit(with_column(corpus, "fold", folds)).leaks if o.kind == "audio"]
    assert list(leak.examples.values()) == [{"1": [TWINS[0]], "4": [TWINS[1]]}]


# --- what is shared


def test_the_same_samples_are_found_in_any_container(directory: Path) -> None:
    corpus = manifest(directory, ["a.wav", "b.wav", "a.flac", "c.wav", "a2.wav"], fold=["1", "1", "2", "2", "3"])
    (leak,) = audit(corpus).overlaps
    assert (leak.kind, leak.n_items, leak.n_utterances, leak.leak) == ("audio", 1, 3, True)
    assert list(leak.examples.values()) == [{"1": ["u0"], "2": ["u2"], "3": ["u4"]}]
    assert leak.pairs == {"1, 2": 1, "1, 3": 1, "2, 3": 1}
    digests = [content.digest for content in audio_contents(corpus)]
    assert digests[0] == digests[2] == digests[4]
    assert len(set(digests)) == 3


def test_twice_in_one_part_is_a_warning(directory: Path) -> None:
    corpus = manifest(directory, ["a.wav", "a.flac", "b.wav"], split=["train", "train", "test"], label=["x", "y", "x"])
    report = audit(corpus)
    assert report.clean
    assert report.overlaps == []
    assert [(repeat.keys, repeat.labels) for repeat in report.repeats] == [(["u0", "u1"], ["x", "y"])]
    assert audit(manifest(directory, ["a.wav", "a.flac"])).repeats[0].keys == ["u0", "u1"]


def test_speakers_and_ids_and_texts_across_parts(directory: Path) -> None:
    table = pa.table(
        {
            "utterance_id": ["X1.wav", "x1", "x2", "x3"],
            "text": ["Kids are talking.", "dogs", "kids  ARE talking!", "..."],
            "speaker": ["s1", "s2", "s1", "Unknown"],
            "split": ["train", "test", "development", "test"],
            "fold": ["1", "1", "1", "2"],
        }
    )
    result = Manifest(table)
    assert kinds(result) == {("split", "utterance"): True, ("split", "speaker"): True, ("split", "text"): False}
    assert kinds(result, leaks=["text"]) == {
        ("split", "utterance"): False,
        ("split", "speaker"): False,
        ("split", "text"): True,
    }
    with pytest.raises(ConfigError, match=r"speakers;.*utterance, speaker"):
        audit(result, leaks=["speakers"])


def test_test_sets_may_share_speakers_but_nothing_learned_from_may() -> None:
    def shared(*splits: str) -> dict[tuple[str, str], bool]:
        keys = [f"u{i}" for i in range(len(splits))]
        return kinds(
            Manifest(pa.table({"utterance_id": keys, "text": keys, "speaker": ["s"] * len(keys), "split": splits}))
        )

    assert shared("test1", "test2") == {("split", "speaker"): False}
    assert shared("test1", "test2", "development") == {("split", "speaker"): True}
    assert shared("train", "train") == {}


def test_corpora_of_a_joined_manifest_are_no_parts_and_the_sound_they_share_is_there_twice(directory: Path) -> None:
    """Which corpus teaches and which tests is chosen later, by --train-on and --test-on, and checked there."""
    joined = manifest(directory, ["a.wav", "a.flac", "b.wav"], corpus=["x", "y", "y"], speaker=["s", "s", "t"])
    report = audit(joined)
    assert report.clean
    assert list(report.parts) == ["all"]
    assert [repeat.keys for repeat in report.repeats] == [["u0", "u1"]]


def test_an_unknown_speaker_or_part_shares_nothing() -> None:
    columns = {"speaker": ["Unknown", "Unknown", "", None, "s"], "fold": ["1", "2", "3", "1", None]}
    keys = [f"u{i}" for i in range(5)]
    report = audit(Manifest(pa.table({"utterance_id": keys, "text": keys, **columns})))
    assert report.overlaps == []
    assert [(part.name, part.n_speakers, part.n_unknown_speakers) for part in report.parts["fold"]] == [
        ("1", 0, 2),
        ("2", 0, 1),
        ("3", 0, 1),
        ("", 1, 0),
    ]


def test_what_counts_as_the_same() -> None:
    assert bare_key("MSP-PODCAST_0001.WAV") == bare_key("msp-podcast_0001") != bare_key("msp-podcast_0001/2.wav")
    assert bare_key("v1.5") == "v1.5"
    assert bare_text(" Kids—are TALKING, by the door. ") == "kids are talking by the door"
    assert bare_text("...") is None
    assert in_order(["", "10", "test1", "9", "development", "train"]) == [
        "train",
        "development",
        "9",
        "10",
        "test1",
        "",
    ]


# --- files, durations, agreement


def test_files_that_cannot_be_decoded_are_named_with_the_reason(directory: Path) -> None:
    (directory / "text.wav").write_text("not audio")
    corpus = manifest(directory, ["a.wav", "gone.wav", "text.wav"], duration_s=[0.1, 1.0, 1.0])
    report = audit(corpus)
    assert not report.clean
    assert [key for key, _ in report.unreadable] == ["u1", "u2"]
    assert "no such file" in report.unreadable[0][1]
    assert "not audio" in report.unreadable[1][1]
    assert [key for key, _ in audit(corpus, audio=False).unreadable] == ["u1"]
    assert audit(corpus).notes[0].startswith("neither a split nor a fold column")


def test_clips_of_one_value_are_counted_and_named(directory: Path) -> None:
    soundfile.write(directory / "zero.wav", np.zeros(1600, np.int16), RATE_HZ, subtype="PCM_16")
    soundfile.write(directory / "dc.wav", np.full(1600, 9, np.int16), RATE_HZ, subtype="PCM_16")
    corpus = manifest(directory, ["a.wav", "zero.wav", "dc.wav"])
    assert audit(corpus).constant == ["u1", "u2"]
    assert audit(corpus, audio=False).constant == []
    corpus.write(directory / "m.csv")
    output = medusa("audit", directory / "m.csv").stdout
    assert re.search(r"2 silent.*: u1, u2", output)


def test_without_decoding_the_same_file_is_still_found(directory: Path) -> None:
    corpus = manifest(directory, ["a.wav", "./a.wav", "b.wav"], fold=["1", "2", "1"])
    assert kinds(corpus, audio=False) == {("fold", "audio"): True}


def test_durations_are_as_decoded_and_wrong_ones_are_noted(directory: Path) -> None:
    corpus = manifest(directory, ["a.wav", "b.wav"], duration_s=[0.1, 5.0])
    report = audit(corpus)
    for fact in ("duration_s", "1 utterance", "u1", "5.00 s", "0.10 s"):
        assert fact in report.notes[0]
    (part,) = report.parts["all"]
    assert part.hours == pytest.approx(0.2 / 3600)
    assert (part.shortest_s, part.median_s, part.longest_s) == (0.1, 0.1, 0.1)
    assert part_summaries(corpus, "all")[0].longest_s == 5.0


def test_hours_of_a_part_say_of_how_many_utterances_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = {"utterance_id": list("abcd"), "text": list("abcd"), "fold": ["1", "1", "2", "3"]}
    durations_s = pa.array([3600.0, None, None, 7200.0], pa.float64())
    parts = part_summaries(Manifest(pa.table({**table, "duration_s": durations_s})), "fold")
    assert [part.n_timed for part in parts] == [1, 0, 1]
    show_parts("fold", parts)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [row[4:-1] for row in rows[2:]] == [
        ["1.00", "of", "1", "3600.00", "3600.00", "3600.00"],
        ["-", "-", "-", "-"],
        ["2.00", "7200.00", "7200.00", "7200.00"],
    ]


def test_classes_are_counted_by_part() -> None:
    table = {
        "utterance_id": list("abcd"),
        "text": list("abcd"),
        "fold": ["1", "1", "2", "2"],
        "label": ["x", "y", None, "x"],
    }
    parts = part_summaries(Manifest(pa.table(table)), "fold")
    assert [(part.classes, part.n_unlabelled) for part in parts] == [({"x": 1, "y": 1}, 0), ({"x": 1, "y": 0}, 1)]
    assert np.isnan(parts[0].hours)


def test_agreement_is_of_the_ratings_under_the_schemes_names() -> None:
    ratings = Ratings.of(
        ["a", "a", "a", "b", "b", "c", "c"],
        ["1", "2", "3", "1", "2", "1", "3"],
        ["H", "E", "S", "S", "S", "H", "S"],
        attributes={"v": [1, 2, 3, 4, 4, 5, 1]},
    )
    scheme = LabelScheme(("happy", "sad"), {}, {"H": "happy", "E": "happy", "S": "sad"})
    table = pa.table({"utterance_id": list("abc"), "text": list("abc"), "label": ["happy", "happy", None]})
    report = audit(Manifest(table, scheme, ratings=ratings)).agreement
    assert report is not None
    counts = np.array([[2, 1], [0, 2], [1, 1]])
    assert report.fleiss_kappa == fleiss_kappa(counts)
    assert report.krippendorff_interval == {"v": krippendorff_interval(ratings.values[:, 0], ratings.key_of)}
    assert (report.n_ratings, report.n_annotators, report.n_rated, report.n_tied) == (7, 3, 3, 1)
    assert report.n_label_against_plurality == 1
    counted = Manifest(
        table.append_column("vote_happy", pa.array([2, 0, 1])).append_column("vote_sad", pa.array([1, 2, 1]))
    )
    plain = audit(counted).agreement
    assert plain is not None
    assert (plain.n_ratings, plain.n_annotators, plain.fleiss_kappa) == (7, None, report.fleiss_kappa)
    for one in (1, 100):  # fractions, and per cent, which are whole numbers, too
        votes = {"happy": [0.5 * one, 0, one], "sad": [0.5 * one, one, 0]}
        rows = table.append_column("vote_happy", pa.array(votes["happy"])).append_column("vote_sad", [votes["sad"]])
        shares = audit(Manifest(rows))
        assert shares.agreement is None
        assert "shares, not counts" in shares.notes[0]


def test_annotators_without_names_are_not_counted_and_ratings_given_twice_are_noted() -> None:
    scheme = LabelScheme(("happy", "sad"), {})
    table = pa.table({"utterance_id": list("ab"), "text": list("ab"), "label": ["happy", "sad"]})
    unnamed = Ratings.from_counts(["a", "b"], ["happy", "sad"], np.array([[3, 1], [0, 2]]))
    report = audit(Manifest(table, scheme, ratings=unnamed))
    assert report.agreement is not None
    assert (report.agreement.n_ratings, report.agreement.n_annotators, report.notes[:-1]) == (6, None, [])
    again = Ratings.of(["a", "a", "a", "b", "b"], ["1", "1", "2", "1", "2"], ["happy", "happy", "sad", "sad", "odd"])
    report = audit(Manifest(table, scheme, ratings=again))
    assert report.agreement is not None
    assert (report.agreement.n_ratings, report.agreement.n_annotators) == (4, 2), "'odd' is no class"
    assert report.notes[0].startswith("1 ratings are of utterances that their annotator had rated before")


def test_labels_are_held_against_votes_with_their_secondary_labels() -> None:
    scheme = LabelScheme(("angry", "frustrated"), {})
    ratings = Ratings.of(
        ["a"] * 3, ["1", "2", "3"], ["angry", "angry", "frustrated"], also=[["frustrated"], ["frustrated"], []]
    )
    table = pa.table(
        {"utterance_id": ["a"], "text": ["a"], "label": ["frustrated"], "vote_angry": [2.0], "vote_frustrated": [3.0]}
    )
    report = audit(Manifest(table, scheme, ratings=ratings)).agreement
    assert report is not None
    assert (report.n_ratings, report.n_label_against_plurality, report.n_tied) == (3, 0, 0)
    assert report.fleiss_kappa == fleiss_kappa(np.array([[2, 1]]))


# --- the command


def test_the_exit_code_shows_leakage(demo_corpus: Path, tmp_path: Path) -> None:
    corpus, path = read_ravdess(demo_corpus), tmp_path / "corpus.csv"
    corpus.write(path)
    output = medusa("audit", path).stdout
    assert "no leakage" in output
    assert "shared: 2 texts" in output
    assert "LEAK: 2 texts" in medusa("audit", path, "--strict-text", "--no-audio", exit_code=1).stdout
    assign_folds(corpus, 4, by="utterance").write(path)
    assert "LEAK: 24 speakers" in medusa("audit", path, "--no-audio", exit_code=1).stdout
    assert "no leakage" in medusa("audit", path, "--no-audio", "--allow", "speaker").stdout
    refused = medusa("audit", path, "--allow", "who", exit_code=2).stderr
    assert mentions(refused, "--allow", "utterance, speaker, audio")


def test_json_is_the_whole_report(directory: Path) -> None:
    path = directory / "corpus.csv"
    corpus = manifest(directory, ["a.wav", "a.flac", "gone.wav"], fold=["1", "2", "2"], label=["x", "y", "y"])
    corpus.write(path)
    result = json.loads(medusa("audit", path, "--json", exit_code=1).stdout)
    assert result == json.loads(json.dumps(audit(Manifest.read(path)).to_json()))
    assert result["clean"] is False
    assert result["overlaps"][0]["pairs"] == {"1, 2": 1}
    assert result["unreadable"][0][0] == "u2"
    assert result["parts"]["fold"][0]["classes"] == {"x": 1, "y": 0}


def test_ctrl_c_stops_at_once(directory: Path) -> None:
    for i in range(4):
        soundfile.write(directory / f"long{i}.flac", noise(i, 200 * RATE_HZ), 44_100, subtype="PCM_16")
    corpus = manifest(directory, [f"long{i % 4}.flac" for i in range(4000)])
    corpus.write(directory / "long.csv")
    run = WarmProcess(MEDUSA, "audit", "long.csv", cwd=directory, environment={**os.environ, "COLUMNS": "100"})
    started = time.monotonic()
    while not _decoding(run.pid) and run.poll() is None and time.monotonic() - started < 60:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, error = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGINT, error
    assert "stopped by SIGINT" in error
    assert "Traceback" not in error
    assert out == ""


def _decoding(pid: int) -> bool:
    """Whether the process has one of the clips open."""
    try:
        return any("long" in os.readlink(link) and str(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


# --- what a store recorded


def test_files_that_a_store_recorded_are_not_decoded_and_found_equal_all_the_same(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(directory / "z.wav", np.zeros(1600, np.int16), RATE_HZ, subtype="PCM_16")
    files = ["a.wav", "b.wav", "a.flac", "c.wav", "z.wav"]
    manifest(directory, files, fold=["1", "1", "2", "2", "2"]).write(directory / "m.csv")
    store = directory / "store"
    medusa("featurize", "--encoder", "logmel", "-m", directory / "m.csv", "-s", store)
    plain = json.loads(medusa("audit", directory / "m.csv", "-s", directory / "none", "--json", exit_code=1).stdout)
    with monkeypatch.context() as patch:
        patch.setattr("featurestore.corpus.audio_digest.decode_pass", lambda sources: pytest.fail("decoded"))
        recorded = json.loads(medusa("audit", directory / "m.csv", "-s", store, "--json", exit_code=1).stdout)
    assert recorded == plain
    assert recorded["constant"] == ["u4"]
    assert "5 not decoded" in medusa("audit", directory / "m.csv", "-s", store, exit_code=1).stdout


def test_a_file_that_changed_since_is_decoded_and_so_is_everything_when_requested(directory: Path) -> None:
    manifest(directory, ["a.wav", "b.wav"], fold=["1", "2"]).write(directory / "m.csv")
    store = directory / "store"
    medusa("featurize", "--encoder", "logmel", "-m", directory / "m.csv", "-s", store)
    soundfile.write(directory / "b.wav", noise(0), RATE_HZ, subtype="PCM_16")  # now the samples of a.wav
    shown = medusa("audit", directory / "m.csv", "-s", store, exit_code=1).stdout
    assert "1 not decoded" in shown
    assert "LEAK: 1 audio clips" in shown
    assert "not decoded" not in medusa("audit", directory / "m.csv", "-s", store, "--verify-audio", exit_code=1).stdout


def test_a_directory_that_is_no_store_is_passed_over(directory: Path) -> None:
    manifest(directory, ["a.wav"]).write(directory / "m.csv")
    assert "not decoded" not in medusa("audit", directory / "m.csv", "-s", directory).stdout
