"""Parts of a manifest: every utterance in exactly one, whoever deals, and about as much audio in each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import ConfigError
from featurestore.featurize.sharding import Shard


@given(st.lists(st.floats(0, 100), max_size=60), st.integers(1, 9), st.randoms())
def test_each_utterance_is_in_one_part_whatever_the_order(sizes: list[float], count: int, random) -> None:  # type: ignore[no-untyped-def]
    keys = [f"k{i}" for i in range(len(sizes))]
    parts = [[keys[i] for i in Shard(n, count).select(keys, sizes)] for n in range(1, count + 1)]
    assert sorted(key for part in parts for key in part) == sorted(keys)
    shuffled = list(range(len(keys)))
    random.shuffle(shuffled)
    first_part = Shard(1, count).select([keys[i] for i in shuffled], [sizes[i] for i in shuffled])
    assert [keys[shuffled[i]] for i in first_part] == parts[0]


def test_parts_have_about_as_much_audio() -> None:
    sizes = np.random.default_rng(0).lognormal(1.5, 0.6, 2000)
    keys = [str(i) for i in range(len(sizes))]
    totals = [sizes[Shard(n, 8).select(keys, sizes.tolist())].sum() for n in range(1, 9)]
    assert max(totals) - min(totals) < sizes.max()


def test_the_deal_is_pinned() -> None:
    keys, sizes = list("abcdefg"), [1.0, 7.0, 3.0, 3.0, 5.0, 2.0, 6.0]
    assert [[keys[i] for i in Shard(n, 3).select(keys, sizes)] for n in (1, 2, 3)] == [
        ["b", "f", "a"],
        ["g", "d"],
        ["e", "c"],
    ]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="I from 1 to N"):
        Shard.parse(text)
    assert str(Shard.parse("2/8")) == "2/8"
