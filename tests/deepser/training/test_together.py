"""Members on one stream of batches: each as if it were alone, the store read once, stopped and resumed anywhere."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from deepser.config import LossConfig, MemberConfig, StageConfig, from_dict, to_dict
from deepser.members.fit import fit_members
from deepser.members.folds import FoldPlan
from deepser.training.together import sharing
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.loaders.row_reader import RowReader
from featurestore.store.feature_store import FeatureStore
from tests.deepser.conftest import Fitted
from tests.helpers.fitting import fit_member
from tests.helpers.synthetic_corpus import corpus, member

STAGES = (StageConfig("a", "shuffled", 0.5, 3, 3e-3), StageConfig("b", "balanced", 0.0, 2, 1e-3))
SELECT = {"select": "macro_f1", "dev_fraction": 0.3}
NOT_ALIKE = ("seconds", "waiting_share")


def different() -> list[MemberConfig]:
    """Members of one stream that differ in all that they may: features, layers, network, losses, epochs, rules."""
    first = member("one", seed=3, stages=STAGES, **SELECT)
    early = (replace(STAGES[0], epochs=5, lr=1e-12, patience=1), replace(STAGES[1], select="mean_ccc"))
    two = member("two", seed=4, stages=early, targets="vote-dropping", ema_decay=0.8, **SELECT)
    concordance = tuple(replace(s, loss=LossConfig("focal", "ccc"), schedule="cosine") for s in STAGES)
    three = member("three", seed=5, stages=concordance, mixup_p=0.8, grad_clip=0.0, **SELECT)
    return sharing([
        first,
        replace(two, features=("second@2", "first@2"), network=replace(two.network, kind="cross-attention")),
        replace(three, features=("first@2+1",), network=replace(three.network, kind="unimodal", pooling="asp")),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, Manifest, FoldPlan]:
    """Return a corpus that all tests read; what they fit and predict goes elsewhere."""
    # Whoever is held out, each rule finds there what it chooses by, so that all members learn from the same clips.
    store, manifest = corpus(tmp_path_factory.mktemp("made"), rated_speakers=True)
    folds = np.array([i % 9 // 3 if i % 9 < 6 else -1 for i in range(len(manifest))])
    return store, manifest, FoldPlan(("x", "y"), folds, "test")


@contextmanager
def counted_reads() -> Iterator[Counter[str]]:
    """How often each utterance's rows of a feature set are read meanwhile."""
    counted: Counter[str] = Counter()
    read_rows = RowReader.read

    def counting(self: RowReader, keys: Sequence[str], *further: Any) -> Any:
        counted[self.features.name] += len(keys)
        return read_rows(self, keys, *further)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowReader, "read", counting)
        yield counted


@pytest.fixture
def reads() -> Iterator[Counter[str]]:
    with counted_reads() as counted:
        yield counted


@dataclass(frozen=True)
class Whole:
    """`different()` fitted together without a disturbance: for tests to compare with, not to change."""

    directory: Path
    reads: Counter[str]


@pytest.fixture(scope="module")
def whole(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    directory = tmp_path_factory.mktemp("together")
    with counted_reads() as counted:
        fit(made, different(), directory)
    return Whole(directory, counted)


def files(directory: Path) -> Iterator[tuple[str, Any]]:
    """Every fold's weights and records."""
    for path in sorted(directory.glob("fold-*/*")):
        name = f"{path.parent.name}/{path.name}"
        if path.suffix == ".safetensors":
            yield from ((f"{name}/{key}", value) for key, value in load_file(path).items())
        else:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            yield name, [{key: value for key, value in row.items() if key not in NOT_ALIKE} for row in rows]


def assert_same(first: Path, second: Path) -> None:
    a, b = dict(files(first)), dict(files(second))
    assert a
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def fit(made: Any, configs: Sequence[MemberConfig], directory: Path, **settings: Any) -> None:
    """Posteriors too go into `directory`."""
    store, manifest, plan = made
    into = FeatureStore.open_or_create(directory / "posteriors")
    fit_members(store, manifest, configs, plan, [directory / c.name for c in configs], into=into, **settings)


def test_each_member_becomes_what_it_becomes_alone(
    made: Any, whole: Whole, tmp_path: Path, reads: Counter[str]
) -> None:
    for config in different():
        fit(made, [config], tmp_path)
        assert_same(whole.directory / config.name, tmp_path / config.name)
        a, b = (FeatureStore.open(place / "posteriors") for place in (whole.directory, tmp_path))
        for key, rows in a[f"posteriors/{config.name}"].items():
            np.testing.assert_array_equal(rows, b[f"posteriors/{config.name}"][key])
    ended = [row["stage"] for row in dict(files(whole.directory / "two"))["fold-x/metrics.jsonl"]]
    assert 2 <= ended.count("a") < 5, "the early stop was to be among what differs"
    # Of "first" all three read, of "second" two. Alone, each reads its own share of the epochs.
    assert whole.reads["first"] < reads["first"] / 2
    assert whole.reads["second"] < reads["second"] / 1.5


def test_the_same_sets_are_read_once_for_all_seeds(made: Any, tmp_path: Path, reads: Counter[str]) -> None:
    single = member("m", seed=1, stages=STAGES)
    fit(made, [single], tmp_path / "alone")
    reads_of_one = Counter(reads)
    reads.clear()
    seeds = sharing([member(f"s{seed}", seed=seed, stages=STAGES) for seed in (1, 2, 3)])
    fit(made, seeds, tmp_path / "three")
    assert reads == reads_of_one
    assert [config.train.order_seed for config in seeds] == [None, 1, 1]
    shared, separate = dict(files(tmp_path / "three" / "s1")), dict(files(tmp_path / "alone" / "m"))
    for key in separate:
        np.testing.assert_array_equal(shared[key], separate[key], err_msg=key)
    assert any((shared[key] != dict(files(tmp_path / "three" / "s2"))[key]).any() for key in shared if "model" in key)


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    "stops", [(20, 41), pytest.param((9, 20, 41, 23), marks=pytest.mark.slow)], ids=["twice", "often"]
)
def test_stopped_anywhere_all_of_them_go_on(made: Any, whole: Whole, tmp_path: Path, stops: tuple[int, ...]) -> None:
    configs = different()
    for allowed in (*stops, 10_000):
        n_left = [allowed]

        def stop(*_: object, n_left: list[int] = n_left) -> None:
            n_left[0] -= 1
            if not n_left[0]:
                raise Stopped

        try:
            fit(made, configs, tmp_path / "stopped", progress=stop)
        except Stopped:
            assert allowed < 10_000
    for config in configs:
        assert_same(whole.directory / config.name, tmp_path / "stopped" / config.name)


@pytest.mark.slow
def test_stopped_between_two_members_checkpoints_each_goes_on_from_its_own(
    made: Any, whole: Whole, tmp_path: Path
) -> None:
    configs = different()
    calls: list[str] = []

    def stop(name: str, fold: str, history: list[dict[str, Any]]) -> None:
        calls.append(name)
        if len(calls) == 5:
            raise Stopped

    with pytest.raises(Stopped):
        fit(made, configs, tmp_path / "stopped", on_epoch=stop)
    assert calls == ["one", "two", "three", "one", "two"]
    epochs: list[tuple[str, str, int]] = []
    fit(made, configs, tmp_path / "stopped", on_epoch=lambda name, fold, rows: epochs.append((name, fold, len(rows))))
    assert epochs[:5] == [("one", "x", 2), ("two", "x", 2), ("three", "x", 1), ("three", "x", 2), ("one", "x", 3)]
    for config in configs:
        assert_same(whole.directory / config.name, tmp_path / "stopped" / config.name)


def test_finished_members_are_left_and_the_others_fitted(made: Any, tmp_path: Path, reads: Counter[str]) -> None:
    configs = different()
    fit(made, configs[:1], tmp_path / "m")
    before = dict(files(tmp_path / "m" / "one"))
    trained: set[str] = set()
    fit(made, configs, tmp_path / "m", on_epoch=lambda name, fold, rows: trained.add(name))
    assert trained == {"two", "three"}
    assert before.keys() == dict(files(tmp_path / "m" / "one")).keys()
    reads.clear()
    fit(made, configs, tmp_path / "m", on_epoch=lambda name, fold, rows: trained.add(name + " again"))
    assert not reads
    assert trained == {"two", "three"}


@pytest.mark.slow
def test_members_that_cannot_share_are_fitted_one_stream_after_another(made: Any, tmp_path: Path) -> None:
    configs = sharing([
        member("a", stages=STAGES), member("b", stages=STAGES, batch_size=16), member("c", stages=STAGES[::-1]),
        member("d", stages=STAGES, seed=9),
    ])  # fmt: skip
    progress_shares: list[float] = []
    fit(made, configs, tmp_path / "m", at_once=1, progress=lambda fold, n, of, what: progress_shares.append(n / of))
    steps = iter(progress_shares)
    for _ in range(2):  # folds
        shares = [next(steps)]
        while shares[-1] < 1:
            shares.append(next(steps))
        assert shares == sorted(shares)
    for config in configs:
        fit(made, [config], tmp_path / "alone")
        assert_same(tmp_path / "m" / config.name, tmp_path / "alone" / config.name)


def test_what_members_share_is_in_their_configs_and_checked(fitted: Fitted, tmp_path: Path) -> None:
    store, manifest, plan = fitted.store, fitted.manifest, fitted.plan
    configs = different()
    assert [(c.train.order_seed, c.train.bucket_by) for c in configs] == [(None, ""), (3, "first"), (3, "")]
    assert from_dict(MemberConfig, json.loads(json.dumps(to_dict(configs[1])))) == configs[1]
    assert sharing(configs) == configs
    alike = [member("m"), member("m", seed=1)]
    with pytest.raises(ConfigError, match=r"[Tt]wo members.*'m'"):
        fit_members(store, manifest, alike, plan, [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ConfigError, match=r"order_seed.* zero"):
        member("m", order_seed=-1)
    with pytest.raises(ConfigError, match=r"order_seed .*None.* 5 "):
        fit_member(store, manifest, member("m", order_seed=5), plan, fitted.directory)
