"""openSMILE's sets: one row or 100 Hz, always of 16 kHz, clips that are too short, rows as the package gives them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from featurestore.encoders import load_encoder
from featurestore.encoders.paralinguistic import LEAST_SAMPLES, SETS
from featurestore.errors import ConfigError, EncoderError
from tests.helpers.small_corpus import medusa

pytest.importorskip("opensmile", reason="openSMILE's sets need the extra opensmile")


def voiced(n_samples: int, rate_hz: int = 16_000) -> np.ndarray:
    t = np.arange(n_samples) / rate_hz
    rng = np.random.default_rng(0)
    tone = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12)) * (1 + 0.4 * np.sin(2 * np.pi * 3 * t))
    return (0.1 * tone + 0.003 * rng.standard_normal(n_samples)).astype(np.float32)


@pytest.mark.parametrize("name", SETS)
def test_rows_are_the_packages_own_of_16_khz(name: str) -> None:
    import opensmile

    feature_set, frames, dim = SETS[name]
    encoder = load_encoder(name)
    levels = opensmile.FeatureLevel
    smile = opensmile.Smile(
        feature_set=getattr(opensmile.FeatureSet, feature_set),
        feature_level=levels.LowLevelDescriptors if frames else levels.Functionals,
    )
    for n in (16_000, 20_123):
        rows = encoder.encode([voiced(n)])[0]
        np.testing.assert_array_equal(rows[0], smile.process_signal(voiced(n), 16_000).to_numpy(np.float32))
        assert rows.shape == (1, encoder.n_frames(n), dim)
    assert (encoder.spec.dtype, encoder.spec.frame_rate_hz) == ("float32", 100.0 if frames else 0.0)
    assert encoder.spec.pool == ("none" if frames else "model")
    assert dict(encoder.spec.extra)["opensmile"] == opensmile.__version__


@pytest.mark.parametrize("name", SETS)
def test_a_clip_has_the_same_rows_after_others(name: str) -> None:
    encoder, clip = load_encoder(name), voiced(12_345)
    (single,) = encoder.encode([clip])
    encoder.encode([voiced(1_000), 3 * voiced(20_000)])
    np.testing.assert_array_equal(encoder.encode([clip])[0], single)


def test_samples_beyond_full_scale_are_clipped_and_not_wrapped() -> None:
    """A float of 1.0 is 32,768, which opensmile 2.6.0 hands on as -32,768."""
    loud = 12 * voiced(8_000)
    assert np.abs(loud).max() > 1
    encoder = load_encoder("egemapsv02")
    (rows,), (clipped,) = encoder.encode([loud]), encoder.encode([np.clip(loud, -1, 32_767 / 32_768)])
    np.testing.assert_array_equal(rows, clipped)


@pytest.mark.parametrize("name", ["egemapsv02-lld", "compare2016-lld"])
def test_frames_follow_the_formula(name: str) -> None:
    encoder = load_encoder(name)
    for n in (960, 1_119, 1_120, 1_121, 1_280, 4_800, 16_079, 16_160):
        assert encoder.encode([voiced(n)])[0].shape[1] == encoder.n_frames(n) == (n - 960) // 160 + 2


@pytest.mark.parametrize("name", SETS)
def test_a_clip_of_less_than_60_ms_is_refused_or_padded_with_silence(name: str) -> None:
    """opensmile itself has NaN alone for 959 samples, and numbers for 960."""
    encoder, padding = load_encoder(name), load_encoder(name, short="pad")
    clip = voiced(800)
    assert "50.0 ms of audio, expected at least 60 ms" in encoder.refusal(800)
    assert encoder.refusal(LEAST_SAMPLES) == padding.refusal(800) == ""
    with pytest.raises(EncoderError, match="--short pad"):
        encoder.encode([clip])
    (rows,) = padding.encode([clip])
    np.testing.assert_array_equal(rows, encoder.encode([np.pad(clip, (0, LEAST_SAMPLES - 800))])[0])
    assert np.isfinite(rows).all()
    assert encoder.spec.fingerprint != padding.spec.fingerprint


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match="--pool mean"):
        load_encoder("egemapsv02", pool="mean")
    with pytest.raises(ConfigError, match="--pool mean"):
        load_encoder("egemapsv02-lld", pool="mean")
    with pytest.raises(ConfigError, match="--short pad"):
        load_encoder("logmel", short="pad")
    with pytest.raises(ConfigError, match="--short cut"):
        load_encoder("egemapsv02", short="cut")


def test_without_the_package_the_extra_and_the_licence_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(ConfigError, match=r"medusa-ser\[opensmile\].*research licence"):
        load_encoder("egemapsv02")


def test_featurize_names_the_licence_once_and_the_short_clip_and_reads_48_khz_as_16(tmp_path: Path) -> None:
    """A file of 48 kHz has the row of its samples at 16 kHz, which the decoder makes; 30 ms fail by name."""
    from featurestore.audio import decode
    from featurestore.store.feature_store import FeatureStore

    soundfile.write(tmp_path / "a.wav", voiced(48_000, 48_000), 48_000)
    soundfile.write(tmp_path / "b.wav", voiced(480), 16_000)
    (tmp_path / "m.csv").write_text("utterance_id,path\na,a.wav\nb,b.wav\n")
    arguments = ("featurize", "--encoder", "egemapsv02", "-m", tmp_path / "m.csv", "-s", tmp_path / "store")
    first = medusa(*arguments, exit_code=1)
    assert "research licence" in first.output
    assert "b.wav" in first.output
    assert "--short pad" in first.output
    assert "research licence" not in medusa(*arguments, exit_code=1).output
    stored = FeatureStore.open(tmp_path / "store")["egemapsv02"].array("a", "layer_00")
    expected = load_encoder("egemapsv02").encode([decode(tmp_path / "a.wav")])[0]
    np.testing.assert_array_equal(stored, expected[0])
