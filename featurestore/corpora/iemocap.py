"""IEMOCAP (Busso et al. 2008, LREC 42: 335-359): 10 actors in 5 sessions, 10,039 turns, 3 evaluators or more each.

    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav
    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt    labels, attributes, what each evaluator chose
    Session1/dialog/transcriptions/Ses01F_impro01.txt   words

The usual four classes merge excitement into happiness and leave out all other labels: 5,531 turns. Each session, with
speakers of its own, is a fold. What actors chose for their own turns (C-F1, A-M1, ...) is not among the ratings.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.corpora.assemble import named, of_columns
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.ratings import Ratings
from featurestore.errors import ManifestError

FULL = {
    "ang": "angry",
    "hap": "happy",
    "sad": "sad",
    "neu": "neutral",
    "exc": "excited",
    "fru": "frustrated",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "oth": "other",
    "xxx": None,  # the evaluators did not agree
}
FOUR = {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"}
SCHEMES: dict[str, dict[str, str | None]] = {"4": {label: FOUR.get(label) for label in FULL}, "full": FULL}
LABEL_OF_WORD = {
    "anger": "ang",
    "happiness": "hap",
    "sadness": "sad",
    "neutral": "neu",
    "neutral state": "neu",
    "excited": "exc",
    "frustration": "fru",
    "fear": "fea",
    "surprise": "sur",
    "disgust": "dis",
    "other": "oth",
}
ATTRIBUTES = {"arousal": "act", "valence": "val", "dominance": "dom"}
LOW, HIGH = 1.0, 5.0
TURN = re.compile(
    r"\[(?P<start>[\d.]+) *- *(?P<end>[\d.]+)\]\s+(?P<key>(?P<dialog>Ses0(?P<session>[1-5])[FM]_\w+)_(?P<sex>[FM])\w*)"
    r"\s+(?P<label>\w+)\s+\[(?P<val>[\d.]+), *(?P<act>[\d.]+), *(?P<dom>[\d.]+)\]"
)
RATING = re.compile(r"(?P<kind>[CA])-(?P<who>[EFM]\d*):(?P<what>[^(]*)(?:\(.*)?")
VALUE = re.compile(r"(?P<name>[a-z]+)\s*(?P<value>[\d.]*)")
WORDS = re.compile(r"(?P<key>Ses0\w+)\s*\[[\d.]+-[\d.]+\]:\s*(?P<text>.*)")
N_SESSIONS = 5
TRANSCRIPTS = Path("dialog", "transcriptions")


def read_iemocap(root: Path, *, scheme: str = "4", check_audio: bool = True) -> Manifest:
    """Return the manifest of the evaluated turns; `root` holds Session1 ... Session5.

    scheme: "4" (angry, happy with excited, sad, neutral; other turns are left out) or "full" (ten classes; turns
    without agreement stay, with no label). Columns: utterance_id, path, speaker, gender, label, corpus_label,
    vote_<class> (an evaluator may name several classes), attr_arousal, attr_valence, attr_dominance (1 to 5; a mean
    that lies outside is moved to the nearest end and noted), text, duration_s, session, fold. ManifestError: another
    layout, a line or a label that is unknown.
    """
    if scheme not in SCHEMES:
        raise ManifestError(f"IEMOCAP's scheme is one of {', '.join(SCHEMES)}, found {scheme!r}.")
    sessions = [path for i in range(1, N_SESSIONS + 1) if (path := root / f"Session{i}").is_dir()]
    if not sessions:
        raise ManifestError(f"{root} is not IEMOCAP: it has no Session1 ... Session5. Check --root.")
    classes_of = SCHEMES[scheme]
    rows: list[dict[str, object]] = []
    ratings: dict[tuple[str, str], dict[str, Any]] = {}
    left_out: dict[str, int] = {}
    moved = []
    for session in sessions:
        texts = dict(_texts(session))
        for place, line in _lines(session / "dialog" / "EmoEvaluation"):
            turn = TURN.fullmatch(line)
            if turn is None:
                _add_rating(place, line, str(rows[-1]["utterance_id"]) if rows else "", ratings)
                continue
            if turn["label"] not in classes_of:
                raise ManifestError(f"{place}: unknown label {turn['label']!r}, expected one of {', '.join(FULL)}.")
            row = _row(session, turn, classes_of, texts)
            values = {name: float(turn[theirs]) for name, theirs in ATTRIBUTES.items()}
            moved += [turn["key"]] if any(not LOW <= value <= HIGH for value in values.values()) else []
            rows.append(row | {f"attr_{name}": min(max(value, LOW), HIGH) for name, value in values.items()})
    if scheme == "4":
        for row in rows:
            if row["label"] is None:
                left_out[str(row["corpus_label"])] = left_out.get(str(row["corpus_label"]), 0) + 1
        rows = [row for row in rows if row["label"] is not None]
    if not rows:
        raise ManifestError(
            f"{root} has no turns with these labels, only {left_out}. Check --root, or use --scheme full."
        )
    notes = [f"left out: {', '.join(f'{label} {n:,}' for label, n in sorted(left_out.items()))}"] if left_out else []
    notes += [named("turns with an attribute outside 1 to 5 moved to the nearest end", moved)] if moved else []
    silent = [session.name for session in sessions if not (session / TRANSCRIPTS).is_dir()]
    notes += [f"no transcripts in {', '.join(silent)}"] if silent else []
    notes += [f"{len(sessions)} of {N_SESSIONS} sessions"] if len(sessions) < N_SESSIONS else []
    return _manifest(root, rows, ratings, classes_of, check_audio, notes)


def _manifest(
    root: Path, rows: list[dict[str, object]], ratings: dict[tuple[str, str], dict[str, Any]],
    classes_of: dict[str, str | None], check_audio: bool, notes: list[str],
) -> Manifest:  # fmt: skip
    table = pa.Table.from_pylist(rows)
    columns = {name: table.column(name) for name in table.column_names}
    scheme = LabelScheme(
        tuple(dict.fromkeys(name for name in classes_of.values() if name)),
        dict.fromkeys(ATTRIBUTES, (LOW, HIGH)),
        classes_of,
    )
    rated = [{"utterance_id": key, "annotator": who, **rating} for (key, who), rating in ratings.items()]
    table_of_ratings = None
    if rated:
        table_of_ratings = Ratings.of(
            [str(one["utterance_id"]) for one in rated],
            [str(one["annotator"]) for one in rated],
            [_named(one.get("labels", [None])[0], classes_of) for one in rated],
            also=[[_named(label, classes_of) for label in one.get("labels", [])[1:]] for one in rated],
            attributes={name: [one.get(theirs) for one in rated] for name, theirs in ATTRIBUTES.items()},
            source=str(root),
        ).of_keys(table.column("utterance_id").to_pylist())
        for name, votes in zip(scheme.classes, table_of_ratings.counts(scheme.classes, also=1.0).T, strict=True):
            columns[f"vote_{name}"] = pa.array(votes)
    return of_columns(
        columns, scheme, root, "iemocap", source=root, check_audio=check_audio, notes=notes, ratings=table_of_ratings
    )


def _row(
    session: Path, turn: re.Match[str], classes_of: dict[str, str | None], texts: dict[str, str]
) -> dict[str, object]:
    return {
        "utterance_id": turn["key"],
        "path": f"{session.name}/sentences/wav/{turn['dialog']}/{turn['key']}.wav",
        "speaker": f"Ses0{turn['session']}{turn['sex']}",
        "gender": "female" if turn["sex"] == "F" else "male",
        "label": classes_of[turn["label"]],
        "corpus_label": turn["label"],
        "text": texts.get(turn["key"]),
        "duration_s": round(float(turn["end"]) - float(turn["start"]), 4),
        "session": turn["session"],
        "fold": turn["session"],
    }


def _add_rating(place: str, line: str, key: str, ratings: dict[tuple[str, str], dict[str, object]]) -> None:
    """Note what one evaluator chose for the turn above: categories (C-E1) or attributes (A-E1)."""
    match = RATING.fullmatch(line)
    if match is None or not key:
        raise ManifestError(f"{place}: expected a turn, or an evaluator's C-E1: or A-E1: line, found {line[:60]!r}.")
    if not match["who"].startswith("E"):
        return
    rating = ratings.setdefault((key, match["who"]), {})
    parts = [part.strip() for part in match["what"].split(";") if part.strip()]
    if match["kind"] == "C":
        unknown = [part for part in parts if part.lower() not in LABEL_OF_WORD]
        if unknown:
            raise ManifestError(
                f"{place}: unknown category {unknown[0]!r}, expected one of {', '.join(LABEL_OF_WORD)}."
            )
        rating["labels"] = [LABEL_OF_WORD[part.lower()] for part in parts] or [None]
        return
    for part in parts:
        value = VALUE.fullmatch(part)
        if value is None or value["name"] not in ATTRIBUTES.values():
            raise ManifestError(f"{place}: expected val, act and dom with a number, found {part!r}.")
        rating[value["name"]] = float(value["value"]) if value["value"] else None


def _named(label: str | None, classes_of: dict[str, str | None]) -> str | None:
    """Return the class of a corpus label, else its name in the full scheme: ratings keep what a scheme leaves out."""
    return None if label is None else classes_of[label] or FULL[label]


def _lines(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield (`file:line`, text) of a directory's files, without blank lines, headings and macOS's dot files."""
    if not directory.is_dir():
        raise ManifestError(f"{directory} is not a directory; expected IEMOCAP's layout there. Check --root.")
    for path in sorted(directory.glob("*.txt")):
        if not path.name.startswith("."):
            with open(path, encoding="utf-8", errors="replace") as file:
                for number, line in enumerate(file, 1):
                    if line.strip() and not line.startswith("%"):
                        yield f"{path}:{number}", line.strip()


def _texts(session: Path) -> Iterator[tuple[str, str]]:
    for _, line in _lines(session / TRANSCRIPTS) if (session / TRANSCRIPTS).is_dir() else ():
        match = WORDS.fullmatch(line)
        if match is not None:  # the others are remarks without a turn of their own, such as `M: [LAUGHTER]`
            yield match["key"], match["text"]
