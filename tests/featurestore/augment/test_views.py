"""Augmented views: what each step does to samples, the same for a key always, and no mixture across a fold or split."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from featurestore.audio import SAMPLE_RATE_HZ, decode, duration_s
from featurestore.augment import signals
from featurestore.augment.mixing import check_mixing, mixed_from, mixed_places, mixing_name, partners, viewed_part
from featurestore.augment.views import AugmentedAudio, View, check_beside_clean, parse_views, without_view
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.encoders.options import EncoderOptions
from featurestore.errors import ConfigError, IdentityMismatch, ManifestError, SpecMismatch
from featurestore.featurize.items import items_of
from featurestore.featurize.job import FeaturizeJob, FeaturizeOptions
from featurestore.featurize.present import Again
from featurestore.featurize.run import featurize
from featurestore.featurize.sharding import Shard
from featurestore.format.spec import FeatureSpec
from featurestore.sets.sources import compare
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions

N = 12


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Twelve noises in three folds; keys that would be bad file names."""
    rng = np.random.default_rng(0)
    keys = [f"a/../{i} é" for i in range(N)]
    for i in range(N):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.standard_normal(4000 + 700 * i), SAMPLE_RATE_HZ)
    table = {"utterance_id": keys, "path": [f"{i}.wav" for i in range(N)], "fold": [str(i % 3) for i in range(N)]}
    Manifest(pa.table(table), root=tmp_path).write(tmp_path / "m.csv")
    return Manifest.read(tmp_path / "m.csv")


def view(text: str, **options: object) -> View:
    (only,) = parse_views([text], **options)  # type: ignore[arg-type]
    return only


def db(ratio: float) -> float:
    return float(10 * np.log10(ratio))


@given(st.integers(100, 5000), st.floats(-10, 40), st.integers(0, 2), st.integers(0, 9))
def test_noise_is_added_at_the_ratio_requested(n: int, snr_db: float, colour: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clean = (0.1 * rng.standard_normal(n)).astype(np.float32)
    noisy = signals.with_noise(clean, signals.coloured_noise(n, colour, rng), snr_db)
    added = noisy.astype(np.float64) - clean
    assert db(signals.power(clean) / signals.power(added)) == pytest.approx(snr_db, abs=0.05)
    assert noisy.dtype == np.float32


def test_coloured_noise_falls_by_its_exponent() -> None:
    for exponent in (0, 1, 2):
        noise = signals.coloured_noise(1 << 17, exponent, np.random.default_rng(0))
        spectrum = np.abs(np.fft.rfft(noise)) ** 2
        hz = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE_HZ)
        low, high = (spectrum[(hz > at) & (hz < 2 * at)].mean() for at in (200, 3200))
        assert np.log2(low / high) / 4 == pytest.approx(exponent, abs=0.1)


def test_a_room_keeps_length_and_level_and_decays_as_requested() -> None:
    rng = np.random.default_rng(0)
    response = signals.synthetic_room(0.5, 6.0, rng)
    assert response[0] == 1.0
    assert db(1 / np.square(response[1:]).sum()) == pytest.approx(6.0, abs=1e-6)
    n = len(response)
    early, late = (np.square(response[part : part + n // 10]).sum() for part in (n // 10, n // 2))
    assert db(early / late) == pytest.approx(60 * 0.4, abs=2)
    clean = (0.1 * rng.standard_normal(9000)).astype(np.float32)
    wet = signals.in_room(clean, response)
    assert len(wet) == len(clean)
    assert signals.power(wet) == pytest.approx(signals.power(clean), rel=1e-4)
    # A response that is late by itself does not delay the speech.
    np.testing.assert_allclose(signals.in_room(clean, np.r_[np.zeros(50), 1.0]), clean, atol=1e-6)
    reference = np.convolve(clean.astype(np.float64), response)[: len(clean)]
    np.testing.assert_allclose(wet / np.abs(wet).max(), reference / np.abs(reference).max(), atol=1e-5)


def test_mixed_clips_overlap_by_a_share_of_the_shorter_at_one_level() -> None:
    first, second = np.full(1000, 0.5, np.float32), np.full(400, -0.01, np.float32)
    mixed = signals.overlapped(first, second, 0.25, 0.0)
    assert len(mixed) == 1300
    np.testing.assert_allclose(mixed[:900], 0.5)
    np.testing.assert_allclose(mixed[900:1000], 0.0, atol=1e-6)  # equally loud, of other signs
    np.testing.assert_allclose(mixed[1000:], -0.5, rtol=1e-6)
    np.testing.assert_allclose(signals.overlapped(first, second, 0.25, -20.0)[1000:], -0.05, rtol=1e-6)


def test_silence_stays_silence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(500, np.float32), SAMPLE_RATE_HZ)
    for text in ("noise", "reverb", "gain", "reverb+noise+gain"):
        assert not AugmentedAudio("k", tmp_path / "silent.wav", view(text)).decode().any()


def test_clips_whose_excerpt_of_the_noise_is_silent_are_named(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    samples = np.r_[np.full(10, 0.2), np.zeros(100 * SAMPLE_RATE_HZ)]
    soundfile.write(tmp_path / "noise" / "late.wav", samples, SAMPLE_RATE_HZ)
    part = viewed_part(manifest, view("noise+gain", noises=tmp_path / "noise"))
    part.recording(3).decode()
    assert part.without_noise == [manifest.keys[3]]
    clean = viewed_part(manifest, view("noise+gain"))
    clean.recording(3).decode()
    assert clean.without_noise == []


def test_draws_depend_on_key_seed_and_number_alone(manifest: Manifest) -> None:
    path = manifest.audio_path(3)

    def samples(key: str = "k", text: str = "noise+gain", number: int = 1, seed: int = 0) -> np.ndarray:
        return AugmentedAudio(key, path, parse_views([text], n_views=3, seed=seed)[number - 1]).decode()

    first = samples()
    np.testing.assert_array_equal(first, samples())
    assert all((first != other).any() for other in (samples("l"), samples(number=2), samples(seed=1)))
    loud, soft = samples(text="gain:db=5"), samples(text="gain:db=-5")
    np.testing.assert_allclose(loud / decode(path), 10 ** (5 / 20), rtol=1e-4)
    np.testing.assert_allclose(loud / soft, 10 ** (10 / 20), rtol=1e-4)


def test_a_views_literal_samples_are_pinned(manifest: Manifest) -> None:
    noise, reverb = (AugmentedAudio("k", manifest.audio_path(0), view(t)).decode() for t in ("noise", "reverb"))
    result = [round(float(samples[100]), 6) for samples in (noise, reverb)]
    assert result == PINNED


PINNED = [0.049252, 0.050432]


def test_recordings_take_the_place_of_synthetic_noise_and_rooms(manifest: Manifest, tmp_path: Path) -> None:
    for name, samples in (("noise/hum", np.full(300, 0.2)), ("rooms/late", np.r_[np.zeros(40), 0.5])):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / f"{name}.wav", samples, SAMPLE_RATE_HZ)
    clean = decode(manifest.audio_path(5))
    hum = view("noise:snr=0", noises=tmp_path / "noise")
    added = AugmentedAudio("k", manifest.audio_path(5), hum).decode() - clean
    np.testing.assert_allclose(added, added[0], rtol=1e-3)  # shorter than the clip, so repeated
    room = view("reverb", rooms=tmp_path / "rooms")
    np.testing.assert_allclose(AugmentedAudio("k", manifest.audio_path(5), room).decode(), clean, atol=1e-5)
    assert dict(hum.pairs)["view_noise"].startswith("1 files ")
    assert "t60" not in dict(room.pairs)["view"]
    soundfile.write(tmp_path / "noise" / "more.wav", np.full(301, 0.1), SAMPLE_RATE_HZ)
    assert view("noise:snr=0", noises=tmp_path / "noise").pairs != hum.pairs


def test_a_view_is_a_set_of_its_own_and_the_same_however_it_is_made(manifest: Manifest, tmp_path: Path) -> None:
    store, encoder = FeatureStore.create(tmp_path / "store"), load_encoder("logmel")
    featurize(manifest, encoder, store, "logmel")
    for text in ("noise", "mix"):
        augmented_view = view(text)
        name = augmented_view.name("logmel")
        report = featurize(manifest, encoder, store, name, view=augmented_view)
        assert (report.done, report.failed) == (N, [])
        assert without_view(store[name].spec) == store["logmel"].spec == encoder.spec
        assert store[name].spec.view == augmented_view.pairs
        # In parts, in other batches, stopped and gone on with, from an order of rows that is another.
        backwards_store = FeatureStore.create(tmp_path / f"other-{text}")
        options = FeaturizeOptions(batch_s=0.1)
        job = FeaturizeJob(
            tmp_path / "m.csv", backwards_store.path, name, EncoderOptions("logmel"), augmented_view, options
        )
        assert job.run(Shard(2, 3), "cpu").done < N
        backwards = manifest.rows(np.arange(N)[::-1])
        featurize(backwards, encoder, backwards_store, name, view=augmented_view, workers=1, batch_s=500)
        for key in manifest.keys:
            np.testing.assert_array_equal(backwards_store[name][key], store[name][key])
            assert (np.array(store[name][key]).shape != store["logmel"][key].shape) or (
                store[name][key] != store["logmel"][key]
            ).any()
    with pytest.raises(SpecMismatch, match="view"):
        featurize(manifest, encoder, store, "logmel+noise1", view=view("noise:snr=1"))
    with pytest.raises(SpecMismatch, match="view"):
        featurize(manifest, encoder, store, "logmel+noise1")


def test_a_view_has_layers_of_the_clean_set() -> None:
    clean = FeatureSpec("audio", "hubert", "sha256:0", ("layer_02", "layer_03"), 8, 50.0)
    assert check_beside_clean("h+noise1", "h", clean, replace(clean, layers=("layer_02", "layer_03", "layer_04"))) == ""
    note = check_beside_clean("h+noise1", "h", clean, replace(clean, layers=("layer_03",), dtype="int8"))
    assert mentions(note, "h+noise1", "lacks", "(layer_02)")
    with pytest.raises(ConfigError, match=r"layers: stored layer_02, layer_03, asked layer_04"):
        check_beside_clean("h+noise1", "h", clean, replace(clean, layers=("layer_04",)))


def test_a_views_recordings_and_its_specification_are_made_together(manifest: Manifest, tmp_path: Path) -> None:
    store, encoder, mix = FeatureStore.create(tmp_path / "store"), load_encoder("logmel"), view("mix")
    clean = encoder.spec
    part = viewed_part(manifest, mix, store)
    items, failed = items_of(manifest, encoder, view=part)
    assert failed == []
    for i, item in enumerate(items):
        assert isinstance(item.source, AugmentedAudio)
        assert item.source == part.recording(i)
        assert item.source.view is mix
        assert item.source.partner is not None
    featurize(manifest, encoder, store, "logmel+mix1", view=mix)
    assert encoder.spec == clean  # no encoder goes about with a view's specification
    assert store["logmel+mix1"].spec == mix.spec(clean)
    few = part.manifest.rows([0])  # a part of the view's manifest is of files, and makes a clean set
    featurize(few, encoder, store, "few")
    assert store["few"].spec == clean
    texts = replace(clean, kind="text")
    with pytest.raises(ConfigError, match="--augment"):
        mix.spec(texts)


def test_mixed_clips_say_whose_they_are_and_stay_within_their_fold(manifest: Manifest, tmp_path: Path) -> None:
    store, encoder, mix = FeatureStore.create(tmp_path / "store"), load_encoder("logmel"), view("mix:overlap=0.5")
    featurize(manifest, encoder, store, "logmel+mix1", view=mix)
    partners_of = mixed_from(store, "mix1", manifest.keys)
    fold = dict(zip(manifest.keys, manifest.column("fold"), strict=True))
    path = {key: manifest.audio_path(i) for i, key in enumerate(manifest.keys)}
    for key, actual in zip(manifest.keys, partners_of, strict=True):
        assert actual is not None
        partner, weight = actual
        assert partner is not None
        assert partner != key
        assert fold[partner] == fold[key]
        assert weight == 0.5
        samples_own, samples_partner = decode(path[key]), decode(path[partner])
        expected = signals.overlapped(samples_own, samples_partner, 0.5, 0.0)
        (rows,) = encoder.encode([expected])
        np.testing.assert_allclose(store["logmel+mix1"][key], rows[0], atol=2e-2)
        assert store["logmel+mix1"].durations_s([key])[0] == pytest.approx(len(expected) / SAMPLE_RATE_HZ)
        mixed = AugmentedAudio(key, path[key], mix, path[partner])
        assert duration_s(mixed) == pytest.approx(len(expected) / SAMPLE_RATE_HZ)
    check_mixing(store, "mix1", mix.pairs)
    with pytest.raises(ConfigError, match="other settings"):
        check_mixing(store, "mix1", view("mix").pairs)
    # Utterances that come later leave the partners that are written as they are.
    half = manifest.rows(np.arange(N) < 6)
    second_store = FeatureStore.create(tmp_path / "again")
    viewed_part(half, mix, second_store)
    before = mixed_from(second_store, "mix1", half.keys)
    grown = viewed_part(manifest, mix, second_store)
    assert mixed_from(second_store, "mix1", manifest.keys)[:6] == before
    assert [grown.partners[key] for key in half.keys] == [found[0] for found in before if found]
    # One that the manifest has lost is told.
    partner_of_first = partners_of[0]
    assert partner_of_first is not None
    without_partner = manifest.rows(np.array([key != partner_of_first[0] for key in manifest.keys]))
    report = featurize(without_partner, encoder, store, "x+mix1", view=mix)
    assert report.done < len(without_partner)
    assert "no longer has" in dict(report.failed)[manifest.keys[0]]
    _, _, present = mixed_places(store, "mix1", without_partner.keys)
    assert not present[without_partner.keys.index(manifest.keys[0])]


@pytest.mark.parametrize("moved_s", [(0.3, 0.3), (0.0, -0.3)], ids=["elsewhere", "shorter"])
def test_mixtures_of_another_piece_of_the_same_recording_are_refused_and_made_again(
    tmp_path: Path, moved_s: tuple[float, float]
) -> None:
    soundfile.write(tmp_path / "talk.wav", np.random.default_rng(0).normal(0, 0.1, 8 * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    starts = np.arange(4) * 2.0

    def pieces(starts_s: np.ndarray, ends_s: np.ndarray) -> Manifest:
        ids, files, folds = [f"u{i}" for i in range(4)], ["talk.wav"] * 4, ["1"] * 4
        columns = {"utterance_id": ids, "path": files, "fold": folds, "start_s": starts_s, "end_s": ends_s}
        return Manifest(pa.table(columns), root=tmp_path)

    before, mix, encoder = pieces(starts, starts + 1.0), view("mix:overlap=0.5"), load_encoder("logmel")
    store = FeatureStore.create(tmp_path / "store")
    featurize(before, encoder, store, "logmel+mix1", view=mix)
    assert featurize(before, encoder, store, "logmel+mix1", view=mix).skipped == 4  # nothing has changed
    partner_of = viewed_part(before, mix, store).partners
    partner = partner_of["u0"]
    is_moved = np.array([key == partner for key in before.keys])
    after = pieces(starts + moved_s[0] * is_moved, starts + 1.0 + moved_s[1] * is_moved)
    with pytest.raises(IdentityMismatch, match="'u0'"):
        featurize(after, encoder, store, "logmel+mix1", view=mix)
    items, _ = items_of(after, encoder, view=viewed_part(after, mix, store))
    alone = {"u0": next(item.source for item in items if item.key == "u0")}
    assert len(compare(alone, store["logmel+mix1"], verify=True).mismatches) == 1
    sharded = FeatureStore.open(shutil.copytree(store.path, tmp_path / "sharded"))
    for number in (1, 2):  # whichever shard the partner is in
        again = featurize(
            after, encoder, sharded, "logmel+mix1", view=mix, again=Again(mismatched=True), shard=Shard(number, 2)
        )
    again = featurize(after, encoder, store, "logmel+mix1", view=mix, again=Again(mismatched=True))
    assert again.n_again == 1 + sum(other == partner for other in partner_of.values())
    fresh = FeatureStore.create(tmp_path / "fresh")
    featurize(after, encoder, fresh, "logmel+mix1", view=mix)
    for key in after.keys:
        np.testing.assert_array_equal(store["logmel+mix1"][key], fresh["logmel+mix1"][key])
        np.testing.assert_array_equal(sharded["logmel+mix1"][key], fresh["logmel+mix1"][key])


@given(st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=30), st.integers(0, 3))
def test_partners_come_from_the_group_and_do_not_depend_on_order(keys: list[str], seed: int) -> None:
    groups = [str(len(key) % 2) for key in keys]
    result = partners(keys, groups, seed=seed, number=1)
    for key, group in zip(keys, groups, strict=True):
        candidates = [k for k, g in zip(keys, groups, strict=True) if g == group and k != key]
        assert (result[key] in candidates) if candidates else result[key] is None
    assert partners(keys[::-1], groups[::-1], seed=seed, number=1) == result


def test_views_are_of_the_training_part_and_mixtures_need_to_know_it(manifest: Manifest, tmp_path: Path) -> None:
    table = manifest.to_arrow().drop_columns(["fold"])
    plain = manifest.with_table(table)
    with pytest.raises(ConfigError, match="within=none"):
        viewed_part(plain, view("mix"))
    assert len(viewed_part(plain, view("noise")).manifest) == N
    assert all(viewed_part(plain, view("mix:within=none")).partners.values())
    split = pa.array(["train"] * 5 + ["development"] * 3 + ["test1"] * 4)
    divided = manifest.with_table(table.append_column("split", split))
    viewed = viewed_part(divided, view("mix"))
    assert viewed.manifest.keys == manifest.keys[:5]
    assert set(viewed.partners.values()) <= set(manifest.keys[:5])
    with pytest.raises(ManifestError, match="session"):
        viewed_part(divided, view("mix:within=session"))


def test_one_alone_in_its_fold_stays_as_it_is(manifest: Manifest, tmp_path: Path) -> None:
    store, encoder, mix = FeatureStore.create(tmp_path / "store"), load_encoder("logmel"), view("mix")
    three = manifest.rows(np.arange(3))
    featurize(three, encoder, store, "logmel+mix1", view=mix)
    assert mixed_from(store, "mix1", three.keys) == [(None, 1.0)] * 3
    featurize(three, encoder, store, "logmel")
    for key in three.keys:
        np.testing.assert_array_equal(store["logmel+mix1"][key], store["logmel"][key])
    assert mixing_name("mix1") in store


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo", "there is no 'echo'"),
        ("noise:volume=1", "noise has no option 'volume'"),
        ("noise:snr=5..1", "snr must be LOW..HIGH"),
        ("noise:snr=loud", "snr must be LOW..HIGH"),
        ("gain+mix", "mix comes first"),
        ("gain+gain", "every step once"),
        ("Noise!", "expected noise"),
        ("mix:overlap=0..2", "within 0 to 1"),
    ],
)
def test_what_can_not_be_made_is_named(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_views([text])


def test_labels_distinguish_views_and_directories_need_audio(tmp_path: Path) -> None:
    views = parse_views(["noise:snr=0..5", "quiet=noise:snr=20..30", "reverb+noise"], n_views=2)
    assert [v.label for v in views] == ["noise1", "noise2", "quiet1", "quiet2", "reverb+noise1", "reverb+noise2"]
    with pytest.raises(ConfigError, match=r"two .*noise"):
        parse_views(["noise", "noise:snr=1"])
    with pytest.raises(ConfigError, match="no audio"):
        parse_views(["noise"], noises=tmp_path)
    soundfile.write(tmp_path / "a.wav", np.ones(10), SAMPLE_RATE_HZ)
    with pytest.raises(ConfigError, match=r"no view .*reverb"):
        parse_views(["noise"], rooms=tmp_path)
