"""What two parts of a corpus share, and what stands twice in one."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from featurestore.audio import without_audio_suffix

PART_COLUMNS = ("split", "fold")
LEARNED_FROM = ("train", "development")  # two test sets may share speakers: no model learns from either
N_EXAMPLES = 5
SPELLINGS = "letter case, spaces, zeros or Unicode form"  # what `bare_name` leaves out, for messages
NUMBER = re.compile(r"0*(\d+)(?:\.0+)?")

Items = Sequence[str | None]  # (N,) what might be shared, None for nothing
Parts = Sequence[str]  # (N,) "" for an utterance in none


@dataclass(frozen=True)
class Overlap:
    """What two parts or more of a column share: of one kind, how much, between which, and the first few in full."""

    kind: str
    column: str
    n_items: int
    n_utterances: int
    pairs: dict[str, int]  # "train, test" -> shared items
    examples: dict[str, dict[str, list[str]]]  # item -> part -> utterances of it
    leak: bool


@dataclass(frozen=True)
class Repeat:
    """Utterances of one part with the same audio, or with ids that differ only in letter case and suffix."""

    kind: str
    keys: list[str]
    labels: list[str | None]


def find_overlap(
    kind: str,
    column: str,
    items: Items,
    parts: Parts,
    keys: Sequence[str],
    *,
    harmful: bool,
    learned: Collection[str] | None = None,
) -> Overlap | None:
    """Return what the parts of a column share, None if nothing.

    It is a leak if `harmful` and a model learns from either part. learned: the parts that models learn from; None
    stands for every part, since folds take turns.
    """
    rows: dict[str, dict[str, list[int]]] = {}
    n_each = Counter(items)
    for i, (item, part) in enumerate(zip(items, parts, strict=True)):
        if item is not None and part and n_each[item] > 1:
            rows.setdefault(item, {}).setdefault(part, []).append(i)
    shared = {item: places for item, places in rows.items() if len(places) > 1}
    if not shared:
        return None
    pairs = Counter(pair for places in shared.values() for pair in combinations(in_order(places), 2))
    leaky = any(learned is None or a in learned or b in learned for a, b in pairs)
    examples = {
        item: {part: [keys[i] for i in places[part][:N_EXAMPLES]] for part in in_order(places)}
        for item, places in islice(shared.items(), N_EXAMPLES)
    }
    return Overlap(
        kind=kind,
        column=column,
        n_items=len(shared),
        n_utterances=sum(len(at) for places in shared.values() for at in places.values()),
        pairs={", ".join(pair): n for pair, n in pairs.most_common()},
        examples=examples,
        leak=harmful and leaky,
    )


def find_repeats(
    kind: str, items: Items, columns: Sequence[Parts], keys: Sequence[str], labels: Sequence[str | None]
) -> list[Repeat]:
    """Return items that occur more than once without being shared by two parts of any column."""
    rows: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        if item is not None:
            rows.setdefault(item, []).append(i)
    within = [
        at for at in rows.values() if len(at) > 1 and all(len({parts[i] for i in at} - {""}) <= 1 for parts in columns)
    ]
    return [Repeat(kind, [keys[i] for i in at], [labels[i] for i in at]) for at in within]


def alike(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ as little as `bare_name` leaves out, in the order of the names."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(bare_name(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def bare_name(name: str) -> str:
    """Return a name in one Unicode form, without letter case and spaces; a number without leading zeros and `.0`.

    File names of macOS have an accent as a character of its own, typed ones as a rule have not.
    """
    bare = "".join(unicodedata.normalize("NFKC", name).split()).casefold()
    number = NUMBER.fullmatch(bare)
    return number[1] if number else bare


def bare_key(key: str) -> str:
    """Return an utterance id in one Unicode form, without letter case and audio suffix."""
    return without_audio_suffix(unicodedata.normalize("NFC", key)).casefold()


def bare_text(text: str) -> str | None:
    """Return a text without letter case, punctuation and spacing; None if nothing is left."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded)) or None


def in_order(names: Iterable[str]) -> list[str]:
    """Return splits in the order one learns and tests, also "train (A)"; folds by number, "" (none) last."""
    splits = ("train", "development", "test")

    def rank(name: str) -> int:
        split = name.partition(" (")[0]
        return splits.index(split) if split in splits else len(splits)

    return sorted(names, key=lambda name: (not name, rank(name), len(name), name))
