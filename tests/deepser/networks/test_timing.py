"""Rows that are near in time: which see each other, and members that align tokens with frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepser.config import MemberConfig, NetworkConfig, StageConfig, TrainConfig
from deepser.members.folds import plan_folds
from deepser.members.member import Member
from deepser.networks.network import Network
from deepser.networks.timing import COLUMNS, ENDING, Timing, near, timing_of
from ensemble.prediction.sets import needed_sets
from featurestore.encoders import token_times
from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fitting import fit_member
from tests.helpers.synthetic_corpus import corpus

SMALL = NetworkConfig(d=16, n_heads=2, ff_multiple=2, dropout=0.0, kind="cross-attention", align_s=0.5)


def test_a_set_of_times_is_known_by_the_columns_that_featurize_writes() -> None:
    assert (COLUMNS, ENDING) == (token_times.COLUMNS, token_times.ENDING)


def test_a_query_sees_valid_keys_within_the_window_and_all_where_it_is_near_none() -> None:
    queries = torch.tensor([[[0.0, 0.1], [2.0, 2.1], [9.0, 9.1]]])
    keys = torch.tensor([[[0.5, 0.9], [1.0, 1.4], [2.2, 2.4], [0.0, 0.0]]])
    valid = torch.tensor([[True, True, True, False]])
    visible = near(queries, keys, valid, 0.6)
    assert visible.tolist() == [[[True, False, False, False], [False, True, True, False], [True, True, True, False]]]


def batch(seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Frames of two clips, tokens of them and their times."""
    draw = torch.Generator().manual_seed(seed)
    frames = (torch.randn(1, 11, 6, generator=draw), torch.tensor([0, 7, 11]))
    tokens = (torch.randn(1, 5, 4, generator=draw), torch.tensor([0, 3, 5]))
    starts = torch.tensor([0.0, 0.5, 1.0, 0.2, 0.6])
    return [frames, tokens, (torch.stack([starts, starts + 0.3], -1)[None], tokens[1])]


def network(window_s: float) -> Network:
    torch.manual_seed(0)
    timing = Timing(window_s, (5.0, 0.0, 0.0), (None, 2, None))
    return Network([(1, 6), (1, 4), (1, 2)], 3, [], SMALL, timing).eval()


def test_a_window_wider_than_the_clips_is_the_network_without_one() -> None:
    torch.manual_seed(0)
    plain = Network([(1, 6), (1, 4), (1, 2)][:2], 3, [], SMALL).eval()
    state = {name: tensor for name, tensor in network(9.0).state_dict().items() if not name.startswith("inputs.2")}
    plain.load_state_dict(state)
    rows = batch()
    torch.testing.assert_close(network(9.0)(rows)[0], plain(rows[:2])[0], rtol=0, atol=1e-6)
    assert (network(0.1)(rows)[0] - plain(rows[:2])[0]).abs().max() > 1e-4


def test_clips_do_not_depend_on_their_batch() -> None:
    rows = batch()
    first_only = [(values[:, : int(offsets[1])], offsets[:2]) for values, offsets in rows]
    torch.testing.assert_close(network(0.1)(rows)[0][:1], network(0.1)(first_only)[0], rtol=0, atol=1e-6)


def test_a_set_of_times_with_other_rows_is_refused() -> None:
    rows = batch()
    rows[2] = (rows[2][0][:, :4], torch.tensor([0, 3, 4]))
    with pytest.raises(ConfigError, match=r"--align: .*numbers of rows"):
        network(0.1)(rows)


def spec(kind: str, rate_hz: float = 0.0, columns: tuple[str, ...] = ()) -> dict[str, Any]:
    spec = FeatureSpec(kind, "e", "none", ("layer_00",), 2, rate_hz, columns=columns)
    return {"spec": spec.to_json()}


def test_wrong_sets_are_named() -> None:
    frames, words = {"name": "a", **spec("audio", 50.0)}, {"name": "w", **spec("text")}
    times = {"name": "w-times", **spec("text", columns=COLUMNS)}
    assert timing_of([frames, words, times], 2, 0.5) == Timing(0.5, (25.0, 0.0, 0.0), (None, 2, None))
    assert timing_of([frames, words], 1, 0.0) is None
    with pytest.raises(ConfigError, match="'w-times' beside it"):
        timing_of([frames, words], 1, 0.5)
    with pytest.raises(ConfigError, match="'w-times' holds the times"):
        timing_of([frames, words, times], 1, 0.0)
    with pytest.raises(ConfigError, match=r"--align: 'w-times'.*--features"):
        timing_of([frames, times], 1, 0.5)
    with pytest.raises(ConfigError, match="cross-attention"):
        NetworkConfig(align_s=0.5)


def test_a_member_that_aligns_is_fitted_read_back_and_refused_for_new_audio(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, n=36)
    rng = np.random.default_rng(0)
    of_text = FeatureSpec("text", "bert", "none", ("layer_00",), 5, source="transcripts:x")
    of_times = FeatureSpec("text", "bert-times", "none", ("layer_00",), 2, source="transcripts:x", columns=COLUMNS)
    lengths = {key: int(rng.integers(1, 5)) for key in manifest.keys}
    with store.writer("words", of_text) as words, store.writer("words-times", of_times) as times:
        for key, n in lengths.items():
            words.append(key, rng.standard_normal((1, n, 5)).astype(np.float32))
            times.append(key, np.sort(rng.uniform(0, 0.3, (1, n, 2)), -1).astype(np.float32))
    train = TrainConfig(stages=(StageConfig("stage1", "shuffled", 0.0, 1, 1e-3),), batch_size=8, select="last")
    config = MemberConfig("aligned", ("first", "words", "words-times"), SMALL, train)
    store = FeatureStore.open(tmp_path / "store")
    plan = plan_folds(manifest, cv="fold")
    fit_member(store, manifest, config, plan, tmp_path / "aligned", device="cpu")
    member = Member.load(tmp_path / "aligned")
    posteriors, _ = member.predict(store, manifest.keys[:4], device="cpu")
    assert np.isfinite(posteriors).all()
    with pytest.raises(ConfigError, match="--align"):
        needed_sets([member])
