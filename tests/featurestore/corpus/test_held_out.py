"""Held-out speakers: near the share, with all classes, small ones first, and nobody where none can choose an epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.corpus.held_out import LEAST, MOST, choose_held_out, sentence


def corpus(sizes: list[int], n_classes: int = 4) -> tuple[list[str], np.ndarray]:
    """Speakers of these many utterances, whose classes take turns."""
    groups = [f"s:{k:02d}" for k, n in enumerate(sizes) for _ in range(n)]
    return groups, np.concatenate([np.arange(n) % n_classes for n in sizes])


@pytest.mark.parametrize("n_speakers", [3, 4])
def test_of_three_or_four_speakers_no_tenth_can_be_held_out_and_so_nobody_is(n_speakers: int) -> None:
    groups, labels = corpus([60] * n_speakers)
    result = choose_held_out(groups, 0.1, labels=labels)
    assert not result.mask.any()
    assert f"{1 / n_speakers:.0%}" in result.why_not
    assert "nobody is held out" in sentence(result.to_dict("abcd"))


def test_twenty_equal_speakers_give_two_for_a_tenth() -> None:
    groups, labels = corpus([64] * 20)
    result = choose_held_out(groups, 0.1, labels=labels)
    assert result.share == pytest.approx(0.1)
    assert len(result.speakers) == 2
    assert set(result.classes.values()) == {32}


def test_of_very_unequal_speakers_small_ones_are_taken_and_every_class_is_there() -> None:
    rng = np.random.default_rng(0)
    sizes = np.concatenate([[900, 700, 400], rng.integers(8, 80, 26)]).tolist()
    groups, labels = corpus(sizes)
    labels[:900] = 0  # the largest speaker has a single class
    result = choose_held_out(groups, 0.1, labels=labels)
    assert LEAST * 0.1 <= result.share <= MOST * 0.1
    assert len(result.speakers) > 1
    assert not {"s:00", "s:01", "s:02"} & set(result.speakers)
    assert set(result.classes) == {0, 1, 2, 3}
    assert min(result.classes.values()) > 10


def test_a_class_of_one_speaker_stays_in_training() -> None:
    groups, labels = corpus([40] * 20)
    labels[:5] = 7
    result = choose_held_out(groups, 0.1, labels=labels)
    assert result.mask.any()
    assert "s:00" not in result.speakers


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.sampled_from([0.05, 0.1, 0.3]), st.integers(0, 3))
def test_a_part_that_is_used_is_whole_speakers_within_half_and_twice_the_share(
    sizes: list[int], share: float, seed: int
) -> None:
    groups, labels = corpus(sizes)
    result = choose_held_out(groups, share, labels=labels, seed=seed)
    repeated = choose_held_out(groups, share, labels=labels, seed=seed)
    assert result.mask.tolist() == repeated.mask.tolist()
    held_out = {group for group, chosen in zip(groups, result.mask, strict=True) if chosen}
    assert held_out == set(result.speakers)
    assert not held_out & {group for group, chosen in zip(groups, result.mask, strict=True) if not chosen}
    assert bool(result.why_not) == (not result.mask.any())
    if result.mask.any():
        assert LEAST * share <= result.share <= MOST * share


def test_thousands_of_unknown_speakers_are_dealt_by_class() -> None:
    labels = np.random.default_rng(0).choice(3, 3000, p=[0.7, 0.25, 0.05])
    result = choose_held_out([f"u:{i}" for i in range(3000)], 0.1, labels=labels)
    assert result.share == pytest.approx(0.1, abs=0.005)
    for code in range(3):
        assert result.classes[code] == pytest.approx(0.1 * (labels == code).sum(), abs=2)
