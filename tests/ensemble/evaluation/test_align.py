"""Posteriors are put side by side by key and column name, or not at all."""

from collections.abc import Callable

import numpy as np
import pytest

from ensemble.evaluation.align import _check_values, load_posteriors
from featurestore.errors import AlignmentError, StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore


def test_rows_follow_the_keys_whatever_order_members_were_written_in(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    keys = np.random.default_rng(5).permutation(corpus.manifest.keys).tolist()[:50]
    aligned = load_posteriors(store, corpus.members, keys)
    indices = [corpus.manifest.index(key) for key in keys]
    assert np.array_equal(aligned.values, corpus.posteriors[:, indices])
    assert aligned.values.dtype == np.float32
    assert (aligned.keys, aligned.classes, aligned.attributes) == (
        tuple(keys),
        corpus.manifest.scheme.classes,
        ("arousal",),
    )
    assert aligned.out_of_fold == ("fold",) * 4
    logits = load_posteriors(store, corpus.members, keys, "logits").values
    assert np.array_equal(logits[..., :4], corpus.logits[:, indices].astype(np.float32))


def test_permuting_members_permutes_the_first_axis_alone(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus)
    forth = load_posteriors(store, corpus.members)
    reversed_members = load_posteriors(store, corpus.members[::-1])
    assert forth.keys == reversed_members.keys == tuple(sorted(corpus.manifest.keys))
    assert np.array_equal(forth.values, reversed_members.values[::-1])


@pytest.mark.parametrize("requested", ["manifest", "all"])
def test_a_missing_row_is_an_error_that_names_member_and_key(
    store: FeatureStore, write: Callable, corpus, requested: str
) -> None:
    lost = corpus.manifest.keys[17]
    write(corpus, leave_out={"posteriors/m2": [lost]})
    with pytest.raises(AlignmentError) as error:
        load_posteriors(store, corpus.members, corpus.manifest.keys if requested == "manifest" else None)
    assert f"'posteriors/m2' misses {lost!r}" in str(error.value)
    assert "m1" not in str(error.value)
    assert error.value.missing == {"posteriors/m2": [lost]}
    assert error.value.surplus == {}


def test_without_keys_every_members_missing_and_lonely_keys_are_listed(
    store: FeatureStore, write: Callable, corpus
) -> None:
    first, second = corpus.manifest.keys[5:7]
    rest_of_members = [member for member in corpus.members if member != "posteriors/m1"]
    write(corpus, leave_out={member: [first] for member in rest_of_members} | {"posteriors/m1": [second]})
    with pytest.raises(AlignmentError) as error:
        load_posteriors(store, corpus.members)
    assert f"'posteriors/m1' misses {second!r}, has alone {first!r};" in str(error.value)
    assert error.value.missing == {member: [first] for member in rest_of_members} | {"posteriors/m1": [second]}
    assert error.value.surplus == {"posteriors/m1": [first]}


def test_the_error_lists_surplus_keys_and_counts_what_it_does_not_list(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus, rows=np.arange(600) < 300)
    with pytest.raises(AlignmentError, match=r"295 more.*300.*besides 'ü 0000/clip'") as error:
        load_posteriors(store, corpus.members, corpus.manifest.keys[300:])
    assert error.value.missing["posteriors/m3"] == sorted(corpus.manifest.keys[300:])
    assert error.value.surplus["posteriors/m3"] == sorted(corpus.manifest.keys[:300])


def test_a_subset_of_what_members_hold_can_be_requested_but_no_key_twice(
    store: FeatureStore, write: Callable, corpus
) -> None:
    write(corpus)
    key = corpus.manifest.keys[3]
    assert load_posteriors(store, corpus.members, [key]).values.shape == (4, 1, 5)
    with pytest.raises(AlignmentError, match="asked for twice"):
        load_posteriors(store, corpus.members, [key, key])
    with pytest.raises(AlignmentError, match=r"twice.*posteriors/m0, posteriors/m0"):
        load_posteriors(store, ["posteriors/m0", "posteriors/m0"], [key])
    with pytest.raises(AlignmentError, match="at least one member"):
        load_posteriors(store, [], [key])
    with pytest.raises(StoreError, match="did you mean"):
        load_posteriors(store, ["posteriors/m9"], [key])


def test_columns_in_another_order_are_matched_by_name(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus, column_order={"posteriors/m1": [3, 4, 0, 2, 1]})
    aligned = load_posteriors(store, corpus.members, corpus.manifest.keys)
    assert np.array_equal(aligned.values, corpus.posteriors)


def _one_set(
    store: FeatureStore, name: str, columns: tuple[str, ...], n_rows: int = 1, kind: str = "posteriors"
) -> None:
    spec = FeatureSpec(kind, name, "none", ("posteriors",), len(columns), dtype="float32", columns=columns)
    with store.writer(name, spec) as writer:
        writer.append("a", [np.full((n_rows, len(columns)), 0.5)])


def test_other_columns_rows_or_kinds_are_refused(store: FeatureStore) -> None:
    _one_set(store, "p/ab", ("a", "b"))
    _one_set(store, "p/ac", ("a", "c"))
    _one_set(store, "p/two", ("a", "b"), n_rows=2)
    _one_set(store, "speech", ("a", "b"), kind="audio")
    with pytest.raises(AlignmentError, match=r"[Cc]olumns.*'p/ac'.*missing 'b'.*surplus 'c'"):
        load_posteriors(store, ["p/ab", "p/ac"])
    with pytest.raises(AlignmentError, match="2 rows for 'a'"):
        load_posteriors(store, ["p/ab", "p/two"])
    with pytest.raises(AlignmentError, match="kind 'audio'"):
        load_posteriors(store, ["speech"])
    with pytest.raises(AlignmentError, match="layer 'logits'"):
        load_posteriors(store, ["p/ab"], layer="logits")


def test_posteriors_that_are_no_numbers_are_named_and_never_scored() -> None:
    """The store's writer refuses them; another program's set may hold them."""
    rows = np.array([[0.5, 0.5], [np.nan, 0.5]], np.float32)
    with pytest.raises(AlignmentError, match=r"'posteriors/m'.*'b'") as error:
        _check_values("posteriors/m", ("a", "b"), rows, ("angry", "sad"), "logits")
    assert error.value.missing == {"posteriors/m": ["b"]}


def test_posteriors_that_are_no_probabilities_are_refused_with_a_row(store: FeatureStore) -> None:
    columns = ("angry", "sad", "attr:arousal")
    spec = FeatureSpec("posteriors", "m", "none", ("posteriors",), 3, dtype="float32", columns=columns)
    with store.writer("posteriors/m", spec) as writer:
        writer.append("a", [np.array([[0.25, 0.75, 5]], np.float32)])
        writer.append("b", [np.array([[25, 75, 5]], np.float32)])
    assert load_posteriors(store, ["posteriors/m"], ["a"]).values[0, 0].tolist() == [0.25, 0.75, 5]
    with pytest.raises(AlignmentError, match=r"'posteriors/m'.*sum to 1.*'b'"):
        load_posteriors(store, ["posteriors/m"])
