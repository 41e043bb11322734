"""Members' posteriors as one array, aligned by key: the same keys and columns, or an error that lists what differs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.evaluation.naming import PREFIX as PREFIX
from featurestore.errors import AlignmentError
from featurestore.format.spec import FeatureSpec
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

LAYERS = ("posteriors", "logits")
ATTRIBUTE_PREFIX = "attr:"
SUM_TOLERANCE = 0.02  # of probabilities that were stored with few digits
# What FeatureSpec.extra's "oof" may say where no row comes from a model that learned from it: "fold", each training
# utterance was judged by a model of the other folds; "none", there are no rows of training utterances.
OUT_OF_FOLD = ("fold", "none")


@dataclass(frozen=True)
class Aligned:
    """values (M, N, C + A) float32: member m's row for keys[n], columns the classes, then attr:<attribute>."""

    members: tuple[str, ...]
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    out_of_fold: tuple[str, ...]  # per member, as its specification says; see OUT_OF_FOLD

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in column order."""
        return tuple(name for name in self.columns if not name.startswith(ATTRIBUTE_PREFIX))

    @property
    def attributes(self) -> tuple[str, ...]:
        """Attribute names, in column order."""
        return tuple(name.removeprefix(ATTRIBUTE_PREFIX) for name in self.columns if name.startswith(ATTRIBUTE_PREFIX))

    def rows(self, index: np.ndarray) -> "Aligned":
        """Return the same members on some rows: (n,) int indices or an (N,) bool mask."""
        chosen = np.arange(len(self.keys))[index]
        keys = tuple(map(self.keys.__getitem__, chosen.tolist()))
        return Aligned(self.members, keys, self.columns, self.values[:, chosen], self.out_of_fold)

    def choose(self, which: Sequence[int]) -> "Aligned":
        """Return some of the members, in the order given."""
        members, out_of_fold = (tuple(of[m] for m in which) for of in (self.members, self.out_of_fold))
        return Aligned(members, self.keys, self.columns, self.values[list(which)], out_of_fold)


def load_posteriors(
    store: FeatureStore,
    members: Sequence[str],
    keys: Sequence[str] | None = None,
    layer: str = "posteriors",
    columns: Sequence[str] | None = None,
    surplus: Sequence[str] | None = (),
) -> Aligned:
    """Read each member's feature set (e.g. "posteriors/m08") for the same keys in the same order.

    keys=None takes every key, sorted, and all members must hold the same ones; with keys given a member may hold more.
    columns: the wanted order, by default the first member's; a member with the same columns in another order is put in
    this order by name. surplus: columns that a member may have besides, None for any. layer: "posteriors"
    (probabilities) or "logits"; attributes are on their own scale in both.
    AlignmentError lists missing and surplus keys (keys=None: those that one member alone has), or columns, per member;
    a row is never dropped or shifted.
    """
    if not members:
        raise AlignmentError("An ensemble needs at least one member; name its posteriors, e.g. posteriors/m01.")
    if len(set(members)) != len(members):
        raise AlignmentError(f"A member is named twice in {', '.join(members)}; name each once.")
    sets = {member: store[member] for member in members}
    for member, features in sets.items():
        if features.spec.kind != "posteriors" or layer not in features.layers:
            raise AlignmentError(
                f"{member!r} is a feature set of kind {features.spec.kind!r} with layers {', '.join(features.layers)}; "
                f"a member needs kind 'posteriors' with a layer {layer!r}."
            )
    expected = tuple(columns) if columns is not None else sets[members[0]].spec.columns
    orders = {
        member: _column_order(member, features.spec.columns, expected, surplus) for member, features in sets.items()
    }
    chosen = _agreed_keys(sets, keys)
    values = np.empty((len(members), len(chosen), len(expected)), np.float32)
    for m, (member, features) in enumerate(sets.items()):
        packed = features.gather(list(chosen), layer)
        n_rows = np.diff(packed.offsets)
        if (n_rows != 1).any():
            worst = int(np.flatnonzero(n_rows != 1)[0])
            raise AlignmentError(
                f"{member!r} has {n_rows[worst]} rows for {chosen[worst]!r}; posteriors have one per utterance."
            )
        values[m] = np.asarray(packed.values)[:, orders[member]]
        _check_values(member, chosen, np.asarray(packed.values), features.spec.columns, layer)
    folds_of_sets = tuple(out_of_fold(features.spec) for features in sets.values())
    return Aligned(tuple(members), chosen, expected, values, folds_of_sets)


def _check_values(member: str, keys: Sequence[str], rows: np.ndarray, columns: Sequence[str], layer: str) -> None:
    """Raise AlignmentError for keys whose row (N, K) holds no number, or classes' values that are no probabilities."""
    sound = np.isfinite(rows).all(1)
    problem = "no number (NaN or infinity)"
    classes = [i for i, name in enumerate(columns) if not name.startswith(ATTRIBUTE_PREFIX)]
    if sound.all() and layer == "posteriors" and classes:
        class_values = rows[:, classes]
        sound = (class_values >= -SUM_TOLERANCE).all(1) & (np.abs(class_values.sum(1) - 1) <= SUM_TOLERANCE)
        problem = "class values that are no probabilities (0 or more, and sum to 1)"
    if not sound.all():
        bad = [key for key, is_sound in zip(keys, sound.tolist(), strict=True) if not is_sound]
        raise AlignmentError(
            f"{member!r} has {problem} for {some(bad)}, so it can't be scored or fused. Predict or import these "
            "utterances again, or leave them out of the manifest.",
            {member: bad},
        )


def out_of_fold(spec: FeatureSpec) -> str:
    """How posteriors were made, one of OUT_OF_FOLD; anything else means in-sample, or unknown."""
    return dict(spec.extra).get("oof", "in-sample")


def column_names(classes: Sequence[str], attributes: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of posteriors: the classes, then attr:<attribute>."""
    return (*classes, *(ATTRIBUTE_PREFIX + name for name in attributes))


def _column_order(
    member: str, columns: Sequence[str], expected: Sequence[str], allowed: Sequence[str] | None
) -> list[int]:
    """Return the position of each wanted column in this member's rows."""
    missing, surplus = differences(columns, expected)
    surplus = [name for name in surplus if allowed is not None and name not in allowed]
    if missing or surplus:
        raise AlignmentError(
            f"Columns of {member!r} differ: missing {some(missing)}, surplus {some(surplus)}. "
            "Members of one ensemble must predict the same classes and attributes.",
            {member: missing} if missing else {},
            {member: surplus} if surplus else {},
        )
    return [list(columns).index(name) for name in expected]


def _agreed_keys(sets: dict[str, FeatureSet], keys: Sequence[str] | None) -> tuple[str, ...]:
    """Return the keys to read, in order; AlignmentError with every member's difference."""
    chosen = tuple(sorted(set().union(*sets.values()))) if keys is None else tuple(keys)
    if len(set(chosen)) != len(chosen):
        twice = Counter(chosen).most_common(1)[0][0]
        raise AlignmentError(f"Key {twice!r} is asked for twice; an utterance has one row.")
    missing: dict[str, list[str]] = {}
    for member, features in sets.items():
        lacking = np.flatnonzero(features.index.positions(chosen) < 0)
        if len(lacking):
            missing[member] = sorted(chosen[i] for i in lacking)
    surplus: dict[str, list[str]] = {}
    if missing and keys is not None:
        chosen_keys = set(chosen)
        surplus = {member: sorted(key for key in sets[member] if key not in chosen_keys) for member in missing}
    elif missing and len(sets) > 1:
        n_holders = Counter(key for features in sets.values() for key in features)
        surplus = {m: sorted(key for key in features if n_holders[key] == 1) for m, features in sets.items()}
    surplus = {member: own for member, own in surplus.items() if own}
    if missing:
        problems = []
        for member in sets:
            problem = [f"misses {some(missing[member])}"] if member in missing else []
            if member in surplus:
                problem.append(f"has {'alone' if keys is None else 'besides'} {some(surplus[member])}")
            problems += [f"{member!r} {', '.join(problem)}"] if problem else []
        raise AlignmentError(
            f"Members don't hold the same utterances: {'; '.join(problems)}. "
            "Predict the missing ones, or leave the member out.",
            missing,
            surplus,
        )
    if not chosen:
        raise AlignmentError(f"Members {', '.join(sets)} hold no utterance; train them first.")
    return chosen


def differences(keys: Sequence[str], expected: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names that are expected but not found, and those that are found but not expected, in their order."""
    missing, surplus = set(expected) - set(keys), set(keys) - set(expected)
    return [name for name in expected if name in missing], [name for name in keys if name in surplus]


def some(names: Sequence[str], limit: int = 5) -> str:
    """Return the first of `names`, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more ({len(names)} in all)" if len(names) > limit else shown or "none"
