"""Pieces of recordings through featurize: each gets its own rows, from one pass over each recording."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from featurestore.audio import Clip, OnePass
from featurestore.augment.mixing import viewed_part
from featurestore.augment.views import parse_views
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.featurize import clips
from featurestore.featurize.clips import arranged
from featurestore.featurize.items import Item, audio_items, items_of, size_of
from featurestore.featurize.plan import plan
from featurestore.featurize.run import featurize
from featurestore.featurize.stream import iter_encode
from featurestore.store.feature_store import FeatureStore
from tests.featurestore.audio.test_containers import speech

STARTS = np.arange(0, 60, 0.7)
LENGTHS = np.random.default_rng(0).uniform(0.3, 2.5, len(STARTS))


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    """Pieces of two recordings, mixed, beside the same pieces as files of their own."""
    root = tmp_path_factory.mktemp("pieces")
    samples = np.round(speech(16_000, 70.0) * 2**15) / 2**15
    rows = []
    for name, sound in (("one.flac", samples), ("two.wav", samples[::-1])):
        soundfile.write(root / name, sound, 16_000)
        for i, (start, n) in enumerate(zip((STARTS * 16_000).astype(int), (LENGTHS * 16_000).astype(int), strict=True)):
            file_name = f"{name[:3]}{i}.flac"
            soundfile.write(root / file_name, sound[start : start + n], 16_000)
            rows.append((f"{name[:3]}/{i}", name, start / 16_000, (start + n) / 16_000, file_name))
    rng = np.random.default_rng(1)
    keys, names, starts, ends, owns = zip(*[rows[i] for i in rng.permutation(len(rows))], strict=True)
    cut = {"utterance_id": keys, "path": names, "start_s": starts, "end_s": ends}
    clip_columns = {"utterance_id": keys, "path": owns}
    return tuple(Manifest(pa.table({k: list(v) for k, v in t.items()}), root=root) for t in (cut, clip_columns))  # type: ignore[return-value]


def test_rows_of_pieces_are_those_of_files_of_their_own(pieces: tuple[Manifest, Manifest], tmp_path: Path) -> None:
    cut, clips = pieces
    store = FeatureStore.create(tmp_path / "store")
    encoder = load_encoder("logmel", dtype="float32")
    for name, manifest in (("cut", cut), ("whole", clips)):
        report = featurize(manifest, encoder, store, name)
        assert (report.done, report.failed) == (len(manifest), [])
    for key in cut.keys:
        np.testing.assert_array_equal(store["cut"].array(key), store["whole"].array(key))


def test_two_pieces_of_one_file_have_different_rows(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(48_000), 0.5 * np.sin(np.arange(48_000))])
    soundfile.write(tmp_path / "r.wav", sound, 16_000)
    (tmp_path / "m.csv").write_text(
        "utterance_id,path,start,end,label\n"
        "a,r.wav,0 days 00:00:00,0 days 00:00:03,angry\nb,r.wav,0 days 00:00:03,0 days 00:00:06,sad\n"
    )
    store = FeatureStore.create(tmp_path / "store")
    featurize(Manifest.read(tmp_path / "m.csv"), load_encoder("logmel"), store, "mel")
    a, b = (store["mel"].array(key) for key in "ab")
    assert len(a) == len(b) == pytest.approx(150, abs=2)
    assert np.abs(a.astype(np.float32) - b.astype(np.float32)).max() > 1


def test_a_recording_is_opened_once_however_many_windows_and_threads_there_are(
    pieces: tuple[Manifest, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = OnePass._open
    monkeypatch.setattr(OnePass, "_open", lambda self, start_s: (opened.append(self.path), real(self, start_s))[1])
    monkeypatch.setattr(clips, "WINDOW_SAMPLES", 5 * 16_000)
    featurize(pieces[0], load_encoder("logmel"), FeatureStore.create(tmp_path / "store"), "mel", workers=4)
    assert len(opened) == 2


def test_a_piece_beyond_its_recording_fails_alone_and_by_name(
    pieces: tuple[Manifest, Manifest], tmp_path: Path
) -> None:
    cut = pieces[0]
    table = cut.to_arrow().slice(0, 3)
    ends = pa.array([1000.0, *table.column("end_s").to_pylist()[1:]])
    table = table.set_column(table.column_names.index("end_s"), "end_s", ends)
    manifest = Manifest(table, root=cut.root)
    report = featurize(manifest, load_encoder("logmel"), FeatureStore.create(tmp_path / "store"), "mel")
    assert report.done == 2
    ((key, reason),) = report.failed
    assert key == manifest.keys[0]
    assert "1000 s" in reason
    assert "70.000 s" in reason
    planned = plan(manifest, load_encoder("logmel"))
    assert (planned.n_utterances, planned.failed) == (2, report.failed)


def test_windows_hold_consecutive_pieces_and_files_come_first() -> None:
    sources = [Path("x.wav"), *[Clip(Path("r.wav"), float(i), i + 1.0) for i in reversed(range(1000))]]
    items = [Item(f"{i:04d}", source) for i, source in enumerate(sources)]
    order, windows = arranged(items, items, [50] * len(items), [16_000] * len(items))
    assert order[0] == items[0]
    assert [len(window) for window in windows] == [300, 300, 300, 100]
    starts = [item.source.start_s for window in windows for item in window]  # type: ignore[union-attr]
    assert starts == sorted(starts)
    assert {item.key for item in order[1:301]} == {item.key for item in windows[0]}


def test_a_view_reads_the_piece(pieces: tuple[Manifest, Manifest]) -> None:
    cut, whole = pieces
    (view,) = parse_views(["gain:db=6..6"])
    encoder = load_encoder("logmel")
    ours, _ = items_of(cut, encoder, view=viewed_part(cut, view))
    their_items, _ = items_of(whole, encoder, view=viewed_part(whole, view))
    for ours_item, theirs_item in list(zip(ours, their_items, strict=True))[:10]:
        np.testing.assert_array_equal(ours_item.source.decode(), theirs_item.source.decode())  # type: ignore[union-attr]


def test_a_gpu_begins_without_reading_headers_where_the_manifest_has_durations(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.1), 16_000)
    table = pa.table({"utterance_id": ["a", "b"], "path": ["a.wav", "absent.wav"], "duration_s": [2.5, 1.0]})
    items, _ = audio_items(Manifest(table, root=tmp_path))
    encoder = load_encoder("tiny-hubert", device="cpu")
    assert size_of(encoder, items[0]) == 8000
    encoder.overlaps = True  # as on a GPU
    assert [size_of(encoder, item) for item in items] == [40_000, 16_000]
    assert size_of(encoder, items[0], exactly=True) == 8000
    result = {each.key: each for each in iter_encode(encoder, items)}
    assert result["a"].duration_s == 0.5  # what was decoded, whatever was expected
    assert "absent.wav" in result["b"].error
