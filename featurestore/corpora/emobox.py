"""EmoBox's metadata of a corpus (Ma et al. 2024).

Its files are `iemocap.jsonl`, `label_map.json`, `fold_1/iemocap_test_fold_1.jsonl`.

A line is `{"key": ..., "wav": "downloads/iemocap/...wav", "emo": "exc", "length": 3.2, ...}`. Several folds: each is
named after the part that it tests on. One fold: its train, valid and test parts are the splits; EmoBox's own loader
leaves the validation part in training, here it is taken out.

Some corpora depart from this. emovo's map is `label_dict.json`; emodb's says Neutral where most lines say neutral;
mer2023 has three test parts, of which `test` repeats the first, with `audio` and `label` for `wav` and `emo`; mead,
msppodcast and others may come without their train part; pavoque's utterances are pieces of five long files.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featurestore.corpora.assemble import named, of_columns
from featurestore.corpora.emobox_balanced import PATTERN, read_balanced
from featurestore.corpora.json_lines import field, json_lines
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ManifestError
from featurestore.runtime.json_text import read_json

FOLD_FILE = re.compile(r"(?P<corpus>.+)_(?P<part>train|valid|test[123]?)_fold_?(?P<fold>\d+)")
TESTS = ("test", "test1", "test2", "test3")
LABEL_MAPS = ("label_map.json", "label_dict.json")
ALSO = {"audio": "wav", "label": "emo"}  # other names of two fields
KNOWN = {
    "key", "dataset", "wav", "type", "sample_rate", "num_frame", "task", "length", "emo", "channel",
    "start_time", "end_time",
}  # fmt: skip


def read_emobox(root: Path, *, audio: Path | None = None, check_audio: bool = True) -> Manifest:
    """Return the manifest of one corpus of EmoBox's `data` folder, such as `EmoBox/data/iemocap`.

    audio: where `wav` starts, by default the folder that holds `data`. Columns: utterance_id (`key`), path, label (by
    label_map.json or label_dict.json, where there is one), corpus_label, duration_s, start_s and end_s of pieces, fold
    or split. The folder `track2` is read by `emobox_balanced`. ManifestError: unknown fields, labels, clips in no part
    or in several.
    """
    whole = root / f"{root.name}.jsonl"
    if not whole.exists() and any(root.glob(PATTERN)):
        return read_balanced(root, audio=audio, check_audio=check_audio)
    parts = _parts(root)
    records: dict[str, dict[str, Any]] = {}
    for path in [whole] if whole.exists() else sorted({path for paths in parts.values() for path in paths.values()}):
        for place, record in json_lines(path):
            record = _checked(place, record)
            record |= {"where": place, "emo": str(record["emo"])}
            records.setdefault(str(field(place, record, "key")), record)
    if not records:
        raise ManifestError(f"{root} has neither {whole.name} nor fold_*/*.jsonl. Point --root at EmoBox/data/CORPUS.")
    notes = ["EmoBox names no speakers; add a column speaker if splits are to respect them"]
    label_map = _label_map(root, list(records.values()), notes)
    columns: dict[str, Any] = {
        "utterance_id": list(records),
        "path": [record["wav"] for record in records.values()],
        "label": [label_map[record["emo"]] for record in records.values()],
        "corpus_label": [record["emo"] for record in records.values()],
        "duration_s": [record.get("length") for record in records.values()],
    }
    if any("start_time" in record for record in records.values()):
        columns["start_s"] = [record.get("start_time") for record in records.values()]
        columns["end_s"] = [record.get("end_time") for record in records.values()]
    columns |= _divided(root, parts, list(records), notes)
    scheme = LabelScheme(tuple(dict.fromkeys(label_map.values())), corpus_labels=label_map)
    start = root.resolve().parent.parent if audio is None else audio
    return of_columns(columns, scheme, start, root.name, source=whole, check_audio=check_audio, notes=notes)


def _parts(root: Path) -> dict[str, dict[str, Path]]:
    """Fold -> part -> its file; where a part is there twice (`fold1`, `fold_1`) the documented spelling counts."""
    parts: dict[str, dict[str, Path]] = {}
    for path in sorted(root.glob("fold_*/*.jsonl"), key=lambda path: "_fold_" in path.stem):
        name = FOLD_FILE.fullmatch(path.stem)
        if name is None:
            raise ManifestError(f"{path}: expected a name like {root.name}_test_fold_1.jsonl. Move it elsewhere.")
        parts.setdefault(name["fold"], {})[name["part"]] = path
    return {fold: parts[fold] for fold in sorted(parts)}


def _divided(root: Path, parts: dict[str, dict[str, Path]], keys: list[str], notes: list[str]) -> dict[str, list[str]]:
    """Return the column `fold` of several folds' test parts, or `split` of the parts of the only fold."""
    if not parts:
        notes.append(f"no folds: {root} has no fold_*/*.jsonl")
        return {}
    by_part = {fold: {part: _keys(path) for part, path in of.items()} for fold, of in parts.items()}
    without = [fold for fold, of in parts.items() if "train" not in of]
    if without:
        names = ", ".join(f"fold_{fold}/{root.name}_train_fold_{fold}.jsonl" for fold in without)
        notes.append(f"no train part: {names} not there" + ", so no model can learn" * (len(parts) == 1))
    place = (
        _splits(root, next(iter(by_part.values())), notes) if len(parts) == 1 else _folds(root, by_part, keys, notes)
    )
    missing = [key for key in keys if key not in place]
    if missing:
        raise ManifestError(f"{root}: {named('clips are in no part', missing)}. Complete the files in fold_*.")
    return {"split" if len(parts) == 1 else "fold": [place[key] for key in keys]}


def _splits(root: Path, of: dict[str, set[str]], notes: list[str]) -> dict[str, str]:
    """Key -> split; a validation part leaves training, and `test` gives way to numbered parts that hold all of it."""
    place = dict.fromkeys(of.get("train", ()), "train") | dict.fromkeys(of.get("valid", ()), "development")
    numbered = [part for part in TESTS[1:] if part in of]
    tests = numbered if numbered and of.get("test", set()) <= set().union(*(of[part] for part in numbered)) else TESTS
    for part in tests:
        if both := sorted(of.get(part, set()) & set(place)):
            raise ManifestError(f"{root}: {both[0]!r} is in the {part} part and in another. Take it out of one.")
        place |= dict.fromkeys(of.get(part, ()), part)
    if shared := of.get("train", set()) & of.get("valid", set()):
        notes.append(named("clips of the validation part taken out of training", sorted(shared)))
    return place


def _folds(root: Path, by_part: dict[str, dict[str, set[str]]], keys: list[str], notes: list[str]) -> dict[str, str]:
    """Key -> the fold that tests it; noted is a fold whose training is not all the others."""
    place: dict[str, str] = {}
    for fold, of in by_part.items():
        if twice := sorted(set(place) & of.get("test", set())):
            raise ManifestError(f"{root}: {twice[0]!r} is tested in folds {place[twice[0]]} and {fold}.")
        place |= dict.fromkeys(of.get("test", ()), fold)
    for fold, of in by_part.items():
        others = set(keys) - of.get("test", set())
        if "train" in of and of["train"] != others:
            n = len(of["train"] ^ others)
            notes.append(f"fold {fold} trains on other clips than those of the other folds in EmoBox ({n:,} differ)")
    return place


def _keys(path: Path) -> set[str]:
    return {str(field(where, record, "key")) for where, record in json_lines(path)}


def _checked(place: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record with its fields under their usual names.

    ManifestError where there are others, or other values.
    """
    record = {ALSO.get(name, name) if ALSO.get(name) not in record else name: value for name, value in record.items()}
    for name in ("wav", "emo"):
        field(place, record, name)
    if "start_time" in record or "end_time" in record:
        field(place, record, "start_time")
        field(place, record, "end_time")
    unknown = sorted(set(record) - KNOWN)
    if unknown:
        raise ManifestError(f"{place}: unknown fields {unknown}, expected only {', '.join(sorted(KNOWN))}.")
    for name, expected in (("type", "raw"), ("task", "category")):
        if record.get(name, expected) != expected:
            raise ManifestError(f"{place}: {name} is {record[name]!r}, expected {expected!r}.")
    return record


def _label_map(root: Path, records: Sequence[dict[str, Any]], notes: list[str]) -> dict[str, str]:
    """Return the class of each label in the records; letter case counts only where the map has both spellings."""
    path = next((root / name for name in LABEL_MAPS if (root / name).exists()), None)
    if path is None:
        notes.append(f"classes are the corpus's own labels: {root} has neither {' nor '.join(LABEL_MAPS)}")
        return {label: label for label in sorted({record["emo"] for record in records})}
    try:
        spellings = read_json(path.read_text(encoding="utf-8"))
        label_map = {str(label): str(name) for label, name in spellings.items()}
    except (ValueError, AttributeError) as error:
        raise ManifestError(f'{path}: expected JSON like {{"exc": "Happy", "neu": "Neutral"}} ({error}).') from None
    in_lower = {label.lower(): name for label, name in label_map.items()}
    respelt: Counter[str] = Counter()
    for record in records:
        label = record["emo"]
        if label not in label_map and label.lower() in in_lower:
            label_map[label] = in_lower[label.lower()]
            respelt[label] = 0
        if label not in label_map:
            raise ManifestError(f"{record['where']}: label {label!r} is not in {path.name}: {list(label_map)}.")
        respelt.update([label] if label in respelt else [])
    for label, n in respelt.items():
        notes.append(f"{n:,} clips labelled {label!r} are {label_map[label]}, which {path.name} spells otherwise")
    return label_map
