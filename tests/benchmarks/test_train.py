"""`bench train` trains the same network in every way, and says what each took; training fits into little memory."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.train import TrainSettings, memory_table, run_memory, run_train, train_table
from benchmarks.train.corpus import Modality, made, rows_of, write
from benchmarks.train.field import FileDataset, check, collate, plain_like
from deepser.config import NetworkConfig
from deepser.networks.network import Network
from featurestore.errors import ConfigError
from featurestore.store.feature_store import FeatureStore

SMALL = TrainSettings(
    n_utterances=12, modalities=("8@10", "6@5"), mean_s=2.0, d=16, n_heads=2, batch=4, epochs=1,
    precisions=("float32",), workers=(0, 1),
)  # fmt: skip


def test_store_and_files_hold_the_same_rows(tmp_path: Path) -> None:
    corpus = made(tmp_path, 9, [Modality(8, 50.0), Modality(3, 4.0)], 2.0, seed=1)
    write(corpus, seed=1)
    store = FeatureStore.open(corpus.store)
    for m, name in enumerate(corpus.names):
        for i, rows in enumerate(rows_of(corpus, m, seed=1)):
            assert len(rows) == corpus.lengths(m)[i]
            assert np.array_equal(store[name][corpus.targets.keys[i]], rows)
            assert np.array_equal(np.load(corpus.npy(m, i)), rows)
    assert np.allclose(corpus.targets.soft.sum(1), 1)
    # The first rows of a mean and deviation that podcast speech has.
    many = made(tmp_path, 20_000, [Modality(1, 50.0)], 5.6, seed=0).durations_s
    assert many.mean() == pytest.approx(5.6, rel=0.02)


def test_both_loops_train_one_network() -> None:
    torch.manual_seed(0)
    config = NetworkConfig(d=16, n_heads=2, n_layers=2)
    network = Network([(1, 8), (1, 6)], 4, [(1.0, 7.0)] * 2, config)
    plain = plain_like(network, [8, 6], config, 2)
    n_trained = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("inputs."))
    assert sum(p.numel() for p in plain.parameters()) == n_trained
    rows = [torch.randn(7, 8), torch.randn(3, 6)]
    assert check(network, plain, rows) < 1e-5
    with torch.no_grad():
        plain.fusion[1].layers[0].linear1.bias += 1  # type: ignore[union-attr,operator]
    with pytest.raises(AssertionError, match=r"bench train: .*\d"):
        check(network, plain, rows)


def test_the_fields_batches_are_padded_to_the_longest(tmp_path: Path) -> None:
    corpus = made(tmp_path, 5, [Modality(8, 10.0), Modality(3, 4.0)], 2.0, seed=0)
    write(corpus, seed=0)
    dataset = FileDataset(corpus)
    padded, n_rows, soft, values = collate([dataset[i] for i in range(len(dataset))])
    for m, rows in enumerate(padded):
        assert rows.shape == (5, corpus.lengths(m).max(), corpus.modalities[m].dim)
        assert n_rows[m] == corpus.lengths(m).sum()
    assert torch.equal(soft, torch.from_numpy(corpus.targets.soft))
    assert torch.equal(values, torch.from_numpy(corpus.targets.attribute_values))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(0,), (0, 1)], ids=["alone", "workers"])
def test_every_way_is_measured(tmp_path: Path, workers: tuple[int, ...]) -> None:
    result = run_train(replace(SMALL, workers=workers), tmp_path / "work", json_path=tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(result))
    assert [way["way"] for way in result["ways"]] == ["medusa", *("field" for _ in workers)]
    for way in result["ways"]:
        assert (way["n_clips"], way["n_steps"], way["precision"]) == (12, 3, "float32")
        assert way["clips_per_s"] > 0
        assert way["cpu_s"] > 0
        assert 0 <= way["waiting_share"] < 1
        assert 0 < way["padding_share"] < 1
        assert way["peak_bytes"]["resident"] > 0
        assert len(way["losses"]) == 2
    ours, field = result["ways"][0], result["ways"][1]
    assert ours["n_parameters"] == field["n_parameters"]
    assert ours["padding_share"] < field["padding_share"]  # batches are of like lengths
    assert train_table(result).row_count == 1 + len(workers)
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"modalities": ("8@50",)}, "two feature sets or more"),
        ({"modalities": ("8@50", "x")}, "expected DIM or DIM@RATE"),
        ({"modalities": ("8@50", "8@0")}, "expected DIM or DIM@RATE"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_what_can_not_be_trained_is_refused(changes: dict, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        replace(SMALL, **changes)


@pytest.mark.slow
def test_a_corpus_ten_times_the_limit_on_memory_trains(tmp_path: Path) -> None:
    # In float32: kernels of bfloat16 reserve memory for each shape, which the limit counts though it is not used.
    settings = TrainSettings(
        modalities=("2048@50", "512@4"), d=16, n_heads=2, batch=4, epochs=1, n_layers=1, precisions=("float32",)
    )
    limit = 1_250_000_000
    result = run_memory(limit, settings, tmp_path)
    assert result["corpus_bytes"] > 10 * limit
    tenth, all_of_it = result["ways"]
    assert all_of_it["n_clips"] > 9 * tenth["n_clips"]
    assert memory_table(result).row_count == 2
    private_bytes = [way["peak_bytes"]["anonymous"] for way in (tenth, all_of_it)]
    if None not in private_bytes:
        assert private_bytes[1] < limit
        assert (
            private_bytes[1] - private_bytes[0] < 0.02 * result["corpus_bytes"]
        )  # ten times the corpus, about the same memory
    with pytest.raises(ConfigError, match="Is --memory-limit large enough"):
        run_memory(50_000_000, replace(settings, n_utterances=4), tmp_path)
