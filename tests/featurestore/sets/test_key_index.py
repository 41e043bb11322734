"""The order of keys' hashes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featurestore.sets.key_index import rising_order

ALIKE = st.builds(lambda high, low: (high << 40) | low, st.integers(0, 3), st.integers(0, 1 << 8))


@given(st.lists(st.one_of(ALIKE, st.integers(0, (1 << 64) - 1)), max_size=300))
def test_places_are_sorted_by_hash_and_equal_ones_keep_their_order(values: list[int]) -> None:
    hashes = np.array(values, np.uint64)
    np.testing.assert_array_equal(rising_order(hashes), np.argsort(hashes, kind="stable"))


def test_many_hashes_that_begin_alike() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 63, 100_000, dtype=np.uint64) * np.uint64(2)
    hashes[1::2] = hashes[::2] ^ rng.integers(0, 1 << 12, 50_000, dtype=np.uint64)
    np.testing.assert_array_equal(rising_order(hashes), np.argsort(hashes, kind="stable"))
