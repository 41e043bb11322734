"""Which utterances belong together, and who goes where: folds, held-out parts and balanced sets, as manifest columns.

Everything here is a pure function of the manifest and a seed: the same call gives the same parts on every machine.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featurestore.corpus import arrow, checks
from featurestore.corpus.checks import SPLIT_NAMES
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.votes import plurality
from featurestore.errors import ManifestError

Indices = NDArray[np.int64]

UNKNOWN_SPEAKERS = (None, "", "Unknown")
SETS_SEPARATOR = ";"
_LIKELY = ("train", "development", "test")  # what an example calls splits of other names
# Separates the random streams that share a seed; deepser.training.samplers has the others.
_FOLDS, _BALANCED_SETS = 4, (2, 3 * 7919)


def assign_folds(
    manifest: Manifest, n_folds: int, *, by: str = "speaker", within: Sequence[str] = (), seed: int = 0
) -> Manifest:
    """Column `fold`, "1" to str(n_folds): of like size and like classes, and nobody in two of them.

    by: as in `groups_by`. within: only utterances of these splits get a fold, the others none. What stood in `fold` is
    kept as `fold_was`. ManifestError: fewer groups than folds, an unknown split.
    """
    rows = _rows_within(manifest, within)
    groups = groups_by(manifest, by)[rows]
    if not 2 <= n_folds <= len(set(groups.tolist())):
        raise ManifestError(
            f"Manifest {manifest.name}: {len(set(groups.tolist())):,} groups (by {by}) can't make {n_folds} folds; "
            "choose from two folds to as many as there are groups."
        )
    labels = label_codes(manifest)
    part = group_folds(groups.tolist(), n_folds, seed=seed, labels=None if labels is None else labels[rows])
    folds = np.full(len(manifest), None, object)
    folds[rows] = [str(fold + 1) for fold in part]
    return with_column(manifest, "fold", folds.tolist())


def join_folds(manifest: Manifest, n_folds: int) -> Manifest:
    """Return the manifest with its folds joined to `n_folds`, neighbours first: six to three are 1+2, 3+4 and 5+6.

    No speaker gets into two folds who wasn't before. The former folds are kept as column `fold_was`.
    """
    former = manifest.column("fold").tolist()
    if None in former:
        raise ManifestError(f"Manifest {manifest.name}: {manifest.keys[former.index(None)]!r} has no fold; fill it.")
    names = sorted(set(former), key=lambda name: (len(name), name))
    if not 2 <= n_folds <= len(names):
        raise ManifestError(f"Manifest {manifest.name} has {len(names)} folds; they can't be joined to {n_folds}.")
    joined = {name: str(1 + i * n_folds // len(names)) for i, name in enumerate(names)}
    table = manifest.to_arrow()
    table = table.append_column("fold_was", table.column("fold"))
    fold = pa.array([joined[name] for name in former], pa.string())
    table = table.set_column(table.column_names.index("fold"), "fold", fold)
    return manifest.with_table(table)


def hold_out(
    manifest: Manifest,
    share: float = 0.1,
    *,
    by: str = "speaker",
    within: Sequence[str] = ("train",),
    into: str = "development",
    seed: int = 0,
) -> Manifest:
    """Column `split`: a share of the training utterances goes to `into`, the rest is train (MEDUSA's 90/10).

    The part has about the classes of the whole. within: the splits that are pooled and cut, the whole corpus where
    there is no split column. by: as in `groups_by`; "utterance" cuts through speakers. What stood in `split` is kept
    as `split_was`. ManifestError: a share that leaves nothing on one side.
    """
    if not 0 < share < 1:
        raise ManifestError(f"A held-out share lies between 0 and 1, found {share}.")
    rows = _rows_within(manifest, within if manifest.has("split") else ())
    groups, labels = groups_by(manifest, by)[rows], label_codes(manifest)
    part = deal(groups.tolist(), (1 - share, share), seed=seed, labels=None if labels is None else labels[rows])
    if part.all() or not part.any():
        raise ManifestError(f"Manifest {manifest.name}: {share:.1%} can't be held out of {len(set(groups))} groups.")
    splits = manifest.column("split") if manifest.has("split") else np.full(len(manifest), None, object)
    splits[rows] = np.where(part == 1, into, "train")
    return with_column(manifest, "split", splits.tolist())


def assign_balanced_sets(
    manifest: Manifest, n_sets: int = 10, *, within: Sequence[str] = ("development",), seed: int = 0
) -> Manifest:
    """Column `balanced_sets`: which of `n_sets` draws an utterance is in, such as "1;4"; empty for none.

    Each draw has as many utterances of every class as the rarest has. The mean macro-F1 over them selects a model
    (MEDUSA), so that rare classes count as others do.
    """
    rows = _rows_within(manifest, within)
    labels = label_codes(manifest)
    if labels is None or not (labels[rows] >= 0).any():
        raise ManifestError(f"Manifest {manifest.name}: balanced sets need labels or votes, and there are none.")
    member: list[list[str]] = [[] for _ in range(len(manifest))]
    for number, drawn in enumerate(balanced_sets(labels[rows], seed=seed, n_sets=n_sets), start=1):
        for row in rows[drawn]:
            member[row].append(str(number))
    return with_column(manifest, "balanced_sets", [SETS_SEPARATOR.join(numbers) or None for numbers in member])


def given_parts(
    manifest: Manifest, table: pa.Table, source: str = "partitions", split_names: Mapping[str, str] | None = None
) -> Manifest:
    """Set the columns `split` and `fold` from a table of utterance_id with either or both.

    Split names are made uniform (Train, dev, Test1); split_names: what others are ({"0": "train"}). ManifestError: an
    utterance of the manifest that the table does not have, or has twice, or a split of another name. Further rows of
    the table are counted in `notes`.
    """
    names = table.column_names
    if "utterance_id" not in names or not {"split", "fold"} & set(names):
        raise ManifestError(f"{source}: expected columns utterance_id and split or fold, found {', '.join(names)}.")
    keys = arrow.as_strings(table.column("utterance_id")).to_pylist()
    row = {key: i for i, key in enumerate(keys)}
    missing = [i for i, key in enumerate(manifest.keys) if key not in row]
    problems = checks.id_problems(table.column("utterance_id"))
    if missing:
        problems.append(arrow.listing(f"has no row for utterances of {manifest.name}", missing, manifest.keys))
    if problems:
        raise ManifestError(arrow.sentence(source, problems))
    changed = manifest
    for column in ("split", "fold"):
        if column in names:
            values = arrow.as_strings(table.column(column)).to_pylist()
            parts = [values[row[key]] for key in manifest.keys]
            changed = with_column(changed, column, uniform_splits(parts, split_names or {}, source)
                                  if column == "split" else parts)  # fmt: skip
    n_unknown = len(set(keys) - set(manifest.keys))
    changed.notes += [f"{n_unknown:,} utterances of {source} are not in the manifest"] if n_unknown else []
    return changed


def uniform_splits(parts: Sequence[str | None], names: Mapping[str, str], source: str) -> list[str | None]:
    """Return splits in their one spelling, by `names` ({"0": "train"}) and by SPLIT_NAMES.

    ManifestError: a split of another name, with the option that says what it is, or a name that stands for none.
    """
    wrong = [name for name in names.values() if name.strip().lower() not in SPLIT_NAMES]
    if wrong:
        raise ManifestError(f"--split-name: {wrong[0]!r} is no split, expected one of {', '.join(SPLIT_NAMES)}.")
    split_of_name: dict[str, str | None] = {**SPLIT_NAMES, "": None}
    split_of_name |= {name.strip().lower(): SPLIT_NAMES[split.strip().lower()] for name, split in names.items()}
    strange = list(dict.fromkeys(part for part in parts if (part or "").strip().lower() not in split_of_name))
    if strange:
        options_text = " ".join(f"--split-name {name}={split}" for name, split in zip(strange, _LIKELY, strict=False))
        raise ManifestError(
            f"{source}: unknown split {', '.join(map(repr, strange[:5]))}, expected one of {', '.join(SPLIT_NAMES)}. "
            f"Say what each stands for, such as {options_text}."
        )
    return [split_of_name[(part or "").strip().lower()] for part in parts]


def with_column(manifest: Manifest, name: str, values: Sequence[Any]) -> Manifest:
    """Return the manifest with a column of N values.

    What stood there before, if anything else, is kept as `<name>_was`.
    """
    table, column = manifest.to_arrow(), pa.array(values, from_pandas=True)
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if not manifest.has(name):
        return manifest.with_table(table.append_column(name, column))
    former = table.column(name)
    table = table.set_column(table.column_names.index(name), name, column)
    if former.combine_chunks().equals(column):
        return manifest.with_table(table)
    if manifest.has(f"{name}_was"):
        table = table.drop_columns([f"{name}_was"])
    return manifest.with_table(table.append_column(f"{name}_was", former))


def groups_by(manifest: Manifest, by: str) -> NDArray[np.str_]:
    """Return (N,) the group of each utterance, which stays in one part.

    by: "speaker", "utterance" (each its own group), or a column such as session. Raises ManifestError where the column
    is not there or has an empty value.
    """
    if by == "utterance":
        return np.asarray(manifest.keys, dtype=str)
    if by == "speaker":
        if not manifest.has("speaker"):
            raise ManifestError(
                f"Manifest {manifest.name} {arrow.missing_column('speaker', manifest.columns)}; name the column of "
                "speakers (--by COLUMN), or divide by utterance (--by utterance): one speaker is then in several parts."
            )
        return speaker_groups(manifest)
    values = manifest.column(by).tolist()
    empty = [i for i, value in enumerate(values) if value is None or value != value]
    if empty:
        raise ManifestError(arrow.sentence(f"Manifest {manifest.name}", [arrow.listing(f"{by} is empty", empty)]))
    return np.array([str(value) for value in values], dtype=str)


@lru_cache(maxsize=2)  # many members ask for that of the same manifest
def speaker_groups(manifest: Manifest) -> NDArray[np.str_]:
    """Return the speakers (N,), read-only; an utterance of an unknown one (missing or "Unknown") is its own group."""
    groups = _speaker_groups(manifest)
    groups.flags.writeable = False
    return groups


def _speaker_groups(manifest: Manifest) -> NDArray[np.str_]:
    keys = np.asarray(manifest.keys, dtype=str)
    if not manifest.has("speaker"):
        return keys
    pairs = zip(keys, manifest.column("speaker").tolist(), strict=True)
    return np.array([f"u:{key}" if who in UNKNOWN_SPEAKERS else f"s:{who}" for key, who in pairs], dtype=str)


def label_codes(manifest: Manifest) -> Indices | None:
    """Return classes (N,) by label, else by the votes' plurality, -1 for none; None without these columns."""
    if manifest.has("label"):
        code: Mapping[str | None, int] = {name: c for c, name in enumerate(manifest.scheme.classes)}
        return np.array([code.get(label, -1) for label in manifest.labels], np.int64)
    votes = manifest.votes
    return None if votes is None else plurality(votes)


def label_names(manifest: Manifest) -> list[str | None] | None:
    """Return the class of each utterance as `label_codes` has it, None for none; None without these columns."""
    codes = label_codes(manifest)
    classes = manifest.scheme.classes
    return None if codes is None else [classes[c] if c >= 0 else None for c in codes.tolist()]


def group_folds(
    groups: Sequence[str], n_folds: int, *, seed: int = 0, labels: NDArray[np.integer] | None = None
) -> Indices:
    """Return a fold per clip, (N,) int64 in [0, n_folds), such that no group (speaker) is in two folds.

    As `deal` does it.
    """
    return deal(groups, [1.0] * n_folds, seed=seed, labels=labels)


def deal(
    groups: Sequence[str], shares: Sequence[float], *, seed: int = 0, labels: NDArray[np.integer] | None = None
) -> Indices:
    """Return a part per clip, (N,) int64, the parts' sizes as `shares` and no group in two of them.

    Groups are dealt largest first, ties in a seeded order, each to the part that then departs least from its share of
    clips and, with labels (N,), of every class (-1: none); all classes together weigh as much as the size.
    """
    names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sizes = np.bincount(group_of, minlength=len(names))
    counts = sizes[:, None].astype(np.float64)  # (G, K): clips, and clips of each class
    weight = np.ones(1)
    if labels is not None and (labels >= 0).any():
        classes, code = np.unique(labels[labels >= 0], return_inverse=True)
        of_class = np.zeros((len(names), len(classes)))
        np.add.at(of_class, (group_of[labels >= 0], code), 1.0)
        weight = np.r_[len(classes) / len(group_of) ** 2, 1 / of_class.sum(0) ** 2]
        counts = np.hstack([counts, of_class])
    jitter = np.random.default_rng((_FOLDS, seed)).permutation(len(names))
    order = sorted(range(len(names)), key=lambda g: (-sizes[g], jitter[g]))
    target = np.asarray(shares, np.float64)
    load = np.zeros((len(target), counts.shape[1]))
    part_of = np.zeros(len(names), np.int64)
    for group in order:
        # What the sum of load^2 / share grows by; it is least where loads are as the shares.
        growth = (2 * load + counts[group]) @ (counts[group] * weight) / target
        part_of[group] = int(growth.argmin())
        load[part_of[group]] += counts[group]
    return part_of[group_of].astype(np.int64)


def class_members(labels: NDArray[np.integer]) -> list[Indices]:
    """Return the (n,) indices of each class that occurs, by class; -1 is no class."""
    return [np.flatnonzero(labels == c) for c in np.flatnonzero(np.bincount(labels[labels >= 0]))]


def balanced_draw(members: Sequence[Indices], rng: np.random.Generator) -> list[Indices]:
    """Draw as many clips of each class as the rarest has, (n,) indices each; members: see `class_members`."""
    n_each = min((len(m) for m in members), default=0)
    return [rng.choice(m, n_each, replace=False) for m in members]


def balanced_sets(labels: NDArray[np.integer], *, seed: int, n_sets: int = 10) -> list[Indices]:
    """Return the balanced sets whose mean macro-F1 selects a model, the same for every epoch and member."""
    stream, offset = _BALANCED_SETS
    members = class_members(labels)
    draws = [balanced_draw(members, np.random.default_rng((stream, seed + offset, i))) for i in range(n_sets)]
    return [np.concatenate([*drawn, np.zeros(0, np.int64)]) for drawn in draws]


def _rows_within(manifest: Manifest, splits: Sequence[str]) -> Indices:
    if not splits:
        return np.arange(len(manifest))
    split_of_row = manifest.column("split")
    rows = np.flatnonzero(np.isin(split_of_row.astype(str), list(splits)))
    absent = sorted(set(splits) - set(split_of_row.tolist()))
    if absent:
        split_names = ", ".join(sorted({str(name) for name in split_of_row}))
        raise ManifestError(
            f"Manifest {manifest.name} has no utterance of split {', '.join(absent)}; it has {split_names}."
        )
    return rows
