"""Keys that are looked up once, however often their rows are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from featurestore.sets.key_index import KeyIndex


@dataclass(eq=False)
class Selection:
    """Keys of a feature set, in the order in which they were given, of which parts are read by their place here.

    Their positions in the set's segments are found once for each state of the set: when segments are added or
    compacted, the next reading looks them up again. StoreError, from there on, when one isn't in the set any more.
    """

    find: Callable[[KeyIndex, Sequence[str]], np.ndarray]  # of the set: positions of keys, StoreError for missing ones
    keys: Sequence[str]
    # Replaced as a whole: other threads may read by another state of the set at the same time.
    _found: tuple[KeyIndex, np.ndarray] | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, places: Sequence[int] | np.ndarray) -> "Chosen":
        """Return the keys at these places, to be given to the set's methods in place of keys."""
        return Chosen(self, np.asarray(places, np.int64))

    def positions(self, index: KeyIndex) -> np.ndarray:
        """Return the position of each key in `index`, int64 (n,); StoreError names those that are missing."""
        resolved = self._found
        if resolved is None or resolved[0] is not index:
            resolved = self._found = index, self.find(index, self.keys)
        return resolved[1]


@dataclass(frozen=True, eq=False)
class Chosen(Sequence[str]):
    """Some keys of a selection, by their places in it (int64 (n,)): a sequence of keys that needs no look-up."""

    selection: Selection
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i):  # type: ignore[no-untyped-def]
        keys = self.selection.keys
        if isinstance(i, slice):
            return [keys[place] for place in self.places[i].tolist()]
        return keys[self.places[i]]

    def positions(self, index: KeyIndex) -> np.ndarray:
        """Return the position of each key in `index`, int64 (n,)."""
        positions: np.ndarray = self.selection.positions(index)[self.places]
        return positions
