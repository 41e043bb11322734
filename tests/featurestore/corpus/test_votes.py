"""Ratings become votes, consensus and means as a plain loop would make them; agreement is what was published."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.corpus.agreement import fleiss_kappa, krippendorff_interval, krippendorff_nominal
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.votes import augmented_targets, consensus, plurality, soft_targets
from featurestore.errors import ManifestError

CLASSES = ("angry", "happy", "sad")


def few() -> Ratings:
    """Five ratings of two utterances, not in order; one without a label, one without arousal."""
    return Ratings.of(
        ["u2", "u1", "u2", "u1", "u2"],
        ["ann", "ann", "bob", "eve", "eve"],
        ["sad", "happy", "excited", None, "sad"],
        attributes={"arousal": [1.0, 4.0, None, 6.0, 3.0]},
        also=[["happy", "sad", "happy"], [], ["happy"], None, []],
    )


# --- from rows to numbers


def test_rows_are_grouped_by_utterance_and_nothing_is_lost() -> None:
    ratings = few()
    assert len(ratings) == 5
    assert ratings.keys == ("u2", "u1")
    rows = [tuple(row.values()) for row in ratings.to_table().to_pylist()]
    assert rows == [
        ("u2", "ann", "sad", ["happy"], 1.0),  # a secondary label that repeats itself or the primary says nothing
        ("u2", "bob", "excited", ["happy"], None),
        ("u2", "eve", "sad", [], 3.0),
        ("u1", "ann", "happy", [], 4.0),
        ("u1", "eve", None, [], 6.0),
    ]


def test_votes_and_means() -> None:
    ratings = few().of_keys(["u1", "u2", "nobody"])
    np.testing.assert_array_equal(ratings.counts(CLASSES), [[0, 1, 0], [0, 0, 2], [0, 0, 0]])
    np.testing.assert_array_equal(ratings.counts(CLASSES, also=0.5), [[0, 1, 0], [0, 1, 2], [0, 0, 0]])
    merged = ratings.renamed({"excited": "happy", "bored": "sad"})
    np.testing.assert_array_equal(merged.counts(CLASSES, also=1.0), [[0, 1, 0], [0, 2, 2], [0, 0, 0]])
    np.testing.assert_array_equal(ratings.renamed({"sad": None}).counts(CLASSES)[1], [0, 0, 0])
    np.testing.assert_array_equal(ratings.attribute_means(), [[5.0], [2.0], [np.nan]])


def test_a_selection_keeps_the_utterances() -> None:
    ratings = few()
    eve = ratings.annotators.index("eve")
    remaining = ratings.select(ratings.annotator_of != eve)
    assert remaining.keys == ratings.keys
    assert remaining.to_table().column("annotator").to_pylist() == ["ann", "bob", "ann"]
    assert remaining.to_table().column("also").to_pylist() == [["happy"], ["happy"], []]
    assert ratings.of_keys(["u1"]).to_table().column("utterance_id").to_pylist() == ["u1", "u1"]


LABELS = st.sampled_from(["a", "b", "c", None])
ROWS = st.tuples(
    st.sampled_from(["k1", "k2", "k3", "k4"]),
    st.sampled_from(["x", "y", "z"]),
    LABELS,
    st.lists(st.sampled_from(["a", "b", "d"]), max_size=3),
    st.one_of(st.none(), st.floats(1, 7)),
)


@given(rows=st.lists(ROWS, min_size=1, max_size=40), order=st.permutations(["k1", "k2", "k3", "k4", "k5"]))
def test_numbers_agree_with_a_plain_loop(rows: list, order: list[str]) -> None:
    keys, annotators, labels, also, values = map(list, zip(*rows, strict=True))
    ratings = Ratings.of(keys, annotators, labels, attributes={"v": values}, also=also).of_keys(order)
    votes = np.zeros((5, 4))
    for key, _, label, further, _ in rows:
        votes[order.index(key)] += [(name == label) + 0.25 * (name in further and name != label) for name in "abcd"]
    np.testing.assert_allclose(ratings.counts("abcd", also=0.25), votes)
    for k, key in enumerate(order):
        result = [row[4] for row in rows if row[0] == key and row[4] is not None]
        mean = ratings.attribute_means()[k, 0]
        assert mean == pytest.approx(np.mean(result)) if result else np.isnan(mean)
    table = ratings.to_table()
    reread = Ratings.of_table(table).of_keys(order)
    assert reread.to_table().to_pylist() == table.to_pylist()


def test_ratings_come_back_from_disk(tmp_path: Path) -> None:
    path = Ratings.sidecar(tmp_path / "corpus.csv")
    assert path.name == "corpus.ratings.parquet"
    few().write(path)
    assert Ratings.read(path).to_table().equals(few().to_table())
    (tmp_path / "votes.csv").write_text(
        "utterance_id,annotator,label,also,attr_arousal\nu2,7,sad,happy;sad,1\nu1,7,happy,,4.5\nu2,8,,happy ; sad,\n"
    )
    ratings = Ratings.read(tmp_path / "votes.csv")
    assert ratings.annotators == ("7", "8")
    assert ratings.to_table().column("also").to_pylist() == [["happy"], ["happy", "sad"], []]
    with pytest.raises(ManifestError, match=r"written as \.parquet"):
        few().write(tmp_path / "votes.csv")


def test_any_kind_of_column_will_do() -> None:
    arrow = Ratings.of(pa.array(["u", "u"]), pa.array([3, 4]), pa.array(["a", "b"]).dictionary_encode())
    plain = Ratings.of(np.array(["u", "u"]), ["3", "4"], ["a", "b"])
    assert arrow.to_table().equals(plain.to_table())
    unnamed = Ratings.of(["u", "v", "u"], labels=["a", "b", "a"])
    assert unnamed.to_table().column("annotator").to_pylist() == ["#1", "#2", "#1"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"utterance_id": ["a", None]}, r"utterance_id is empty \(1 row\): row 2"),
        ({"utterance_id": ["a"], "annotator": [""]}, "annotator is empty"),
        ({"utterance_id": ["a"], "attr_valence": ["high"]}, "attr_valence is not a number .*row 1 'high'"),
        ({"utterance_id": ["a"], "emotion": ["x"]}, r"unknown columns \['emotion'\], expected utterance_id, annotator"),
        ({"FileName": ["a"]}, "no column 'utterance_id'.*did you mean 'FileName'"),
    ],
)
def test_a_wrong_table_is_refused_by_row_and_value(columns: dict, message: str) -> None:
    with pytest.raises(ManifestError, match=f"votes.csv.*{message}"):
        Ratings.of_table(pa.table(columns), "votes.csv")


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ManifestError, match="utterance_id 2, label 1"):
        Ratings.of(["a", "b"], labels=["x"])


def test_counts_become_ratings_and_counts_again() -> None:
    counts = np.array([[2, 0, 1], [0, 0, 0], [0, 3, 0]])
    ratings = Ratings.from_counts(["a", "b", "c"], CLASSES, counts)
    np.testing.assert_array_equal(ratings.counts(CLASSES), counts)
    assert ratings.to_table().column("annotator").to_pylist() == ["#1", "#2", "#3", "#1", "#2", "#3"]
    with pytest.raises(ManifestError, match="'b' has"):
        Ratings.from_counts(["a", "b"], CLASSES, np.array([[1, 0, 0], [0.5, 0.5, 0]]))


# --- consensus and soft targets


def test_a_tie_is_nobodys_first_class() -> None:
    agreed = consensus(np.array([[2, 1, 0], [1, 1, 0], [0, 0, 0], [2, 1, 1], [1, 2, 2]]))
    assert agreed.labels.tolist() == [0, -1, -1, 0, -1]
    assert agreed.tied.tolist() == [False, True, False, False, True]
    assert agreed.unrated.tolist() == [False, False, True, False, False]
    majority = consensus(np.array([[2, 1, 0], [2, 1, 1]]), majority=True)
    assert majority.labels.tolist() == [0, -1]
    assert majority.tied.tolist() == [False, True]
    assert consensus(np.zeros((2, 0))).unrated.all()


def test_shares_that_rounding_alone_tells_apart_are_tied() -> None:
    shares = np.array([[0.1 + 0.2, 0.3, 0.2, 0.2], [0.5, 0.5, 0, 0], [0.31, 0.3, 0.2, 0.19]])
    assert shares[0, 0] > shares[0, 1]
    for values in (shares, shares.astype(np.float32), 40 * shares):
        assert plurality(values).tolist() == [-1, -1, 0]
    assert consensus(np.array([[0.5 + 1e-12, 0.3, 0.2 - 1e-12]]), majority=True).labels.tolist() == [-1]


def test_soft_targets_sum_to_one_where_somebody_voted() -> None:
    soft = soft_targets(np.array([[2, 1, 0], [0, 0, 0]]))
    np.testing.assert_allclose(soft, [[2 / 3, 1 / 3, 0], [0, 0, 0]], rtol=1e-6)
    assert soft.dtype == np.float32


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=20))
def test_plurality_agrees_with_counting(votes: list[list[int]]) -> None:
    for row, label in zip(votes, plurality(np.array(votes)), strict=True):
        first, second = Counter(dict(enumerate(row))).most_common(2)
        assert label == (first[0] if first[1] > second[1] else -1)


def test_crema_d_has_its_published_counts(crema_d_votes: Path) -> None:
    with open(crema_d_votes / "votes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = [row["utterance_id"] for row in rows]
    ratings = Ratings.from_counts(keys, tuple("ADFHNS"), np.array([[int(row[c]) for c in "ADFHNS"] for row in rows]))
    assert len(ratings.keys) == 7442
    assert len(ratings) == 68568
    agreed = consensus(ratings.counts(tuple("ADFHNS")))
    assert agreed.tied.sum() == 644
    acted = np.array(["ADFHNS".index(key.split("_")[2][0]) for key in keys])  # 1001_DFA_ANG_XX: anger
    assert f"{(agreed.labels == acted).mean():.1%}" == "41.6%"


# --- label augmentation


def many(n: int = 400, seed: int = 0) -> Ratings:
    rng = np.random.default_rng(seed)
    keys = [f"k{i}" for i in rng.integers(0, n // 5, n)]
    annotators = [f"w{i}" for i in rng.integers(0, 30, n)]
    labels = [CLASSES[i] for i in rng.integers(0, 3, n)]
    return Ratings.of(keys, annotators, labels, attributes={"v": rng.normal(size=n)}, also=[["sad"]] * n)


def test_dropping_is_a_pure_function_of_ids_seed_and_epoch() -> None:
    ratings = many()
    dropped = ratings.dropped(seed=1, epoch=2)
    assert dropped.to_table().equals(ratings.dropped(seed=1, epoch=2).to_table())
    other_draws = [ratings.dropped(seed=s, epoch=e) for s, e in ((1, 3), (2, 2), (2, 1))]
    assert len({other.to_table().to_pandas().to_csv() for other in (dropped, *other_draws)}) == 4
    # Nor does it matter which other utterances there are, or how rows are ordered.
    chosen = list(reversed(ratings.keys[:20]))
    assert dropped.of_keys(chosen).to_table().equals(ratings.of_keys(chosen).dropped(seed=1, epoch=2).to_table())
    assert few().dropped(seed=0, epoch=0, share=0.5).to_table().column("annotator").to_pylist() == PINNED_ANNOTATORS


def test_dropping_leaves_one_annotator_and_about_the_share() -> None:
    ratings = many(4000)
    for share in (0.0, 0.3, 0.95):
        remaining = ratings.dropped(seed=0, epoch=0, share=share)
        n = np.bincount(remaining.key_of, minlength=len(ratings.keys))
        assert n.min() >= 1
        if share < 0.5:
            assert len(remaining) / len(ratings) == pytest.approx(1 - share, abs=0.03)
    assert len(ratings.dropped(seed=0, epoch=0, share=0.0)) == len(ratings)
    with pytest.raises(ManifestError, match="share"):
        ratings.dropped(seed=0, epoch=0, share=1.0)


def test_over_the_epochs_every_annotator_counts() -> None:
    ratings = many()
    predicted = np.zeros(len(ratings.keys))
    for epoch in range(60):
        predicted += np.bincount(ratings.dropped(seed=0, epoch=epoch, share=0.5).key_of, minlength=len(ratings.keys))
    several = np.bincount(ratings.key_of) > 1
    assert (predicted[several] > 60).all()


def test_augmented_targets_fall_back_to_all_annotators() -> None:
    ratings = Ratings.of(["a"] * 3 + ["b"], ["x", "y", "z", "x"], ["happy", "other", "other", "other"])
    for epoch in range(20):
        soft = augmented_targets(ratings, CLASSES, seed=0, epoch=epoch, share=0.9)
        np.testing.assert_array_equal(soft, [[0, 1, 0], [0, 0, 0]])
    ratings = many()
    plain, drawn = (augmented_targets(ratings, CLASSES, seed=0, epoch=0, share=share) for share in (0.0, 0.5))
    np.testing.assert_array_equal(plain, soft_targets(ratings.counts(CLASSES)))
    np.testing.assert_allclose(drawn.sum(1), 1, rtol=1e-6)
    assert (drawn != plain).any(1).mean() > 0.5


# --- agreement

_ = None
# Four observers, twelve units, five names, with gaps: Krippendorff, "Computing Krippendorff's Alpha-Reliability"
# (2011), sections C and D; Gwet's Handbook (4th ed., 2014, p. 120; irrCAC's `cac.raw4raters`) has the same values.
FOUR_OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]
# Fourteen raters, ten subjects, five classes: the worked example of "Fleiss' kappa" in Wikipedia, kappa 0.210.
FOURTEEN_RATERS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def counted(observers: list[list[int | None]], n_classes: int) -> np.ndarray:
    units = zip(*observers, strict=True)
    return np.array([[sum(v == c for v in unit) for c in range(1, n_classes + 1)] for unit in units], float)


def test_published_examples_of_agreement() -> None:
    counts = counted(FOUR_OBSERVERS, 5)
    assert krippendorff_nominal(counts) == pytest.approx(0.743, abs=5e-4)  # Krippendorff 2011
    values = np.array(FOUR_OBSERVERS, float)
    units = np.broadcast_to(np.arange(12), values.shape)
    assert krippendorff_interval(values.ravel(), units.ravel()) == pytest.approx(0.849, abs=5e-4)  # Krippendorff 2011
    assert fleiss_kappa(counts) == pytest.approx(0.76117, abs=5e-6)  # irrCAC's fleiss.kappa.raw(cac.raw4raters)
    assert fleiss_kappa(np.array(FOURTEEN_RATERS)) == pytest.approx(0.210, abs=5e-4)


def naive_alpha(values: list[list[float]], distance) -> float:
    """Krippendorff's alpha by its definition, over all ordered pairs."""
    units = [unit for unit in values if len(unit) > 1]
    pool = [v for unit in units for v in unit]
    n = len(pool)
    if not n:
        return float("nan")
    observed = sum(distance(a, b) / (len(unit) - 1) for unit in units for a in unit for b in unit) / n
    expected = sum(distance(a, b) for a in pool for b in pool) / (n * (n - 1))
    return 1 - observed / expected if expected else float("nan")


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=1, max_size=8))
def test_agreement_agrees_with_its_definition(units: list[list[int]]) -> None:
    counts = np.array([[unit.count(c) for c in range(4)] for unit in units], float)
    alpha = naive_alpha(units, lambda a, b: float(a != b))
    assert krippendorff_nominal(counts) == pytest.approx(alpha, nan_ok=True)
    flat = np.array([v for unit in units for v in unit], float)
    of = np.array([i for i, unit in enumerate(units) for _ in unit], int)
    alpha = naive_alpha(units, lambda a, b: float((a - b) ** 2))
    assert krippendorff_interval(flat, of) == pytest.approx(alpha, nan_ok=True)
    pairs = [[a == b for i, a in enumerate(u) for j, b in enumerate(u) if i != j] for u in units if len(u) > 1]
    shares = [[u.count(c) / len(u) for c in range(4)] for u in units if u]
    chance = sum(np.mean([share[c] for share in shares]) ** 2 for c in range(4)) if shares else 1.0
    kappa = (np.mean([np.mean(p) for p in pairs]) - chance) / (1 - chance) if pairs and chance < 1 else float("nan")
    assert fleiss_kappa(counts) == pytest.approx(kappa, nan_ok=True)


def test_agreement_where_there_is_nothing_to_agree_on() -> None:
    for counts in (np.zeros((3, 2)), np.eye(3), np.array([[3.0, 0.0]])):
        assert np.isnan(fleiss_kappa(counts))
        assert np.isnan(krippendorff_nominal(counts))
    assert np.isnan(krippendorff_interval(np.array([np.nan, 1.0]), np.array([0, 0])))
    assert fleiss_kappa(np.array([[2, 0], [0, 2]])) == krippendorff_nominal(np.array([[2, 0], [0, 2]])) == 1
    with pytest.raises(ManifestError, match="whole numbers"):
        fleiss_kappa(np.array([[0.5, 0.5]]))


PINNED_ANNOTATORS = ["ann", "eve", "ann", "eve"]
