"""`bench featurize` runs every way on the same files, compares what they leave, and tells where time goes."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.featurize import FeaturizeSettings, featurize_report, run_featurize
from benchmarks.featurize.corpus import durations_s, write_corpus
from benchmarks.featurize.flops import Flops
from benchmarks.featurize.report import SAME_ROWS, figures
from benchmarks.featurize.weights import SIZES, random_weights
from featurestore.audio import decode
from featurestore.encoders import ENCODERS, load_encoder
from featurestore.errors import ConfigError
from featurestore.runtime.stage_clock import STAGES
from tests.helpers.small_corpus import medusa

# Workers are forked while threads of the pipeline may still end; the loader says so of few cores, too.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning"),
]


@pytest.mark.parametrize(
    "encoder",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("hubert-base", "wavlm-large", "whisper-base")),
        "roberta-base",
    ],
)
def test_every_way_is_timed_on_the_same_files_and_compared(tmp_path: Path, encoder: str) -> None:
    settings = FeaturizeSettings((encoder,), random=True, tiny=True, n_utterances=4, device="cpu", repeats=1)
    result = run_featurize(settings, directory=tmp_path, json_path=tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["corpus"]["n"] == 4
    windows = ["pad30", "short"] if encoder == "whisper-base" else [None]
    assert [each["window"] for each in result["encoders"]] == windows
    for record in result["encoders"]:
        rows = {way["way"]: way for way in figures(record, 4, result["corpus"]["audio_s"])}
        ours = next(way for name, way in rows.items() if name.startswith("medusa"))
        assert set(rows) - {ours["way"]} == {"per-file", "arrival", "workers"}
        assert rows["per-file"]["worst_row"] == 0.0
        assert (ours["worst_row"] <= SAME_ROWS) == (record["window"] != "short")
        assert set(record["stages_s"]) == set(STAGES)
        assert record["stages_s"]["encode"] > 0 < record["stages_s"]["write"]
        assert (record["stages_s"]["mel"] > 0) == (encoder == "whisper-base")
        assert 0 < ours["mfu"] < 1
        assert round(record["flop_padded"]) >= round(record["flop"]) > 0  # sums in two orders
        assert record["idle"] < 1
        if encoder == "hubert-base":
            assert rows["arrival"]["worst_row"] > 1e-2  # group norm hears the padding of its batch mates
    output = " ".join(str(each) for each in featurize_report(result) if isinstance(each, str))
    assert all(stage in output for stage in STAGES)
    assert list(tmp_path.iterdir()) == [tmp_path / "b.json"]


@pytest.mark.slow
def test_several_encoders_have_a_process_each(tmp_path: Path) -> None:
    settings = FeaturizeSettings(
        ("hubert-base", "wavlm-base"), random=True, tiny=True, n_utterances=2, device="cpu", repeats=1, peers=()
    )
    values = run_featurize(settings, directory=tmp_path)["encoders"]
    assert [each["encoder"] for each in values] == ["hubert-base", "wavlm-base"]
    assert all(each["ways"][0]["worst_row"] <= SAME_ROWS for each in values)


@pytest.mark.slow
def test_the_command_says_it(tmp_path: Path) -> None:
    call = ["bench", "featurize", "--encoder", "whisper-tiny", "--random", "--tiny", "--utterances", "2"]
    output = medusa(
        *call, "--peers", "per-file", "--repeats", "1", "--device", "cpu", "--whisper-window", "short"
    ).stdout
    for part in ("whisper-tiny, short, cpu float32", "medusa featurize", "file by file", "MFU", "padding"):
        assert part in output


def test_the_corpus_is_log_normal_and_the_same_each_time(tmp_path: Path) -> None:
    many = durations_s(20_000, 0)
    assert many.mean() == pytest.approx(5.6, rel=0.02)
    assert np.log(many).std() == pytest.approx(0.5, rel=0.05)
    for name in "ab":
        (tmp_path / name).mkdir()
    a, b = (write_corpus(tmp_path / name, 3, seed=1) for name in "ab")
    for i in range(3):
        samples = decode(a.audio_path(i))
        assert len(samples) == int(a.column("duration_s")[i] * 16_000 + 0.5)
        assert samples.std() > 1e-3
        np.testing.assert_array_equal(samples, decode(b.audio_path(i)))
    with pytest.raises(ConfigError, match=r"a/nothing: .*\.flac"):
        write_corpus(tmp_path, 1, 0, speech=tmp_path / "a" / "nothing")


def test_operations_are_those_of_the_layers(tmp_path: Path) -> None:
    """A transformer's products: 2 operations per weight and token, and 4 T^2 D of attention in each layer."""
    encoder = load_encoder("roberta-base", weights=random_weights("roberta-base", tmp_path, tiny=True), device="cpu")
    d, inner, layers, n = 64, 128, 2, 50
    per_token = 2 * (4 * d * d + 2 * d * inner) * layers
    pooler = 2 * d * d  # which the model computes for the first token, and nobody reads
    assert Flops(encoder).of([n]) == pytest.approx(n * per_token + layers * 4 * n * n * d + pooler, rel=1e-3)
    assert Flops(encoder).of([n, n]) == pytest.approx(2 * Flops(encoder).of([n]))


def test_sizes_are_of_encoders_that_exist() -> None:
    assert set(SIZES) <= set(ENCODERS)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"encoders": ()}, "of 1 or more"),
        ({"peers": ("others",)}, "--peers others"),
        ({"tiny": True}, "goes with --random"),
    ],
)
def test_settings_that_measure_nothing_are_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        FeaturizeSettings(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tiny-hubert"):
        random_weights("tiny-hubert", Path("nowhere"))
