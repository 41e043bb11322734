"""EmoBox's metadata of a corpus (Ma et al. 2024): `iemocap.jsonl`, `label_map.json`, `fold_1/iemocap_test_fold_1.jsonl`

A line is `{"key": ..., "wav": "downloads/iemocap/...wav", "emo": "exc", "length": 3.2, ...}`. Several folds: each is
named after the part that it tests on. One fold: its train, valid and test parts are the splits; EmoBox's own loader
leaves the validation part in training, here it is taken out.
"""

import json
import re
from pathlib import Path
from typing import Any

from featurestore.corpora.assemble import named, of_columns
from featurestore.corpora.json_lines import field, json_lines
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ManifestError

FOLD_FILE = re.compile(r"(?P<corpus>.+)_(?P<part>train|valid|test)_fold_?(?P<fold>\d+)")
SPLIT_OF_PART = {"train": "train", "valid": "development", "test": "test"}  # a later one takes a key from an earlier
KNOWN = {"key", "dataset", "wav", "type", "sample_rate", "num_frame", "task", "length", "emo", "channel"}


def read_emobox(root: Path, *, audio: Path | None = None, check_audio: bool = True) -> Manifest:
    """The manifest of one corpus of EmoBox's `data` folder, such as `EmoBox/data/iemocap`.

    audio: where `wav` starts, by default the folder that holds `data`. Columns: utterance_id (`key`), path, label (by
    label_map.json, where it is there), corpus_label, duration_s, fold or split. ManifestError: unknown fields, labels,
    clips in no part or in several, clips that are pieces of a longer file.
    """
    parts = _parts(root)
    whole = root / f"{root.name}.jsonl"
    records: dict[str, dict[str, Any]] = {}
    for path in [whole] if whole.exists() else sorted({path for paths in parts.values() for path in paths.values()}):
        for where, record in json_lines(path):
            _refuse_other(where, record)
            record |= {"where": where, "emo": str(record["emo"])}
            records.setdefault(str(field(where, record, "key")), record)
    if not records:
        raise ManifestError(f"{root} has neither {whole.name} nor fold_*/*.jsonl. Point --root at EmoBox/data/CORPUS.")
    label_map = _label_map(root / "label_map.json", [record["emo"] for record in records.values()])
    for record in records.values():
        if record["emo"] not in label_map:
            raise ManifestError(
                f"{record['where']}: label {record['emo']!r} is not in label_map.json: {list(label_map)}."
            )
    columns: dict[str, Any] = {
        "utterance_id": list(records),
        "path": [record["wav"] for record in records.values()],
        "label": [label_map[record["emo"]] for record in records.values()],
        "corpus_label": [record["emo"] for record in records.values()],
        "duration_s": [record.get("length") for record in records.values()],
    }
    notes = ["EmoBox names no speakers; add a column speaker if splits are to respect them"]
    columns |= _divided(root, parts, list(records), notes)
    scheme = LabelScheme(tuple(dict.fromkeys(label_map.values())), corpus_labels=label_map)
    start = root.resolve().parent.parent if audio is None else audio
    return of_columns(columns, scheme, start, root.name, source=whole, check_audio=check_audio, notes=notes)


def _parts(root: Path) -> dict[str, dict[str, Path]]:
    """Fold -> part -> its file; where a part is there twice (`fold1`, `fold_1`) the documented spelling counts."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(root.glob("fold_*/*.jsonl"), key=lambda path: "_fold_" in path.stem):
        name = FOLD_FILE.fullmatch(path.stem)
        if name is None:
            raise ManifestError(f"{path}: expected a name like {root.name}_test_fold_1.jsonl. Move it elsewhere.")
        found.setdefault(name["fold"], {})[name["part"]] = path
    return {fold: found[fold] for fold in sorted(found)}


def _divided(root: Path, parts: dict[str, dict[str, Path]], keys: list[str], notes: list[str]) -> dict[str, list[str]]:
    """The column `fold` of several folds' test parts, or `split` of the parts of the only fold."""
    if not parts:
        notes.append(f"no folds: {root} has no fold_*/*.jsonl")
        return {}
    by_part = {
        fold: {
            part: {str(field(where, record, "key")) for where, record in json_lines(path)} for part, path in of.items()
        }
        for fold, of in parts.items()
    }
    place: dict[str, str] = {}
    if len(parts) == 1:
        only = next(iter(by_part.values()))
        for part, split in SPLIT_OF_PART.items():
            if part == "test" and (both := sorted(only.get("test", set()) & set(place))):
                raise ManifestError(f"{root}: {both[0]!r} is in the test part and in another. Take it out of one.")
            place |= dict.fromkeys(only.get(part, ()), split)
        if shared := only.get("train", set()) & only.get("valid", set()):
            notes.append(named("clips of the validation part taken out of training", sorted(shared)))
        column = "split"
    else:
        for fold, of in by_part.items():
            if twice := sorted(set(place) & of.get("test", set())):
                raise ManifestError(f"{root}: {twice[0]!r} is tested in folds {place[twice[0]]} and {fold}.")
            place |= dict.fromkeys(of.get("test", ()), fold)
        column = "fold"
    lost = [key for key in keys if key not in place]
    if lost:
        raise ManifestError(f"{root}: {named('clips are in no part', lost)}. Complete the files in fold_*.")
    return {column: [place[key] for key in keys]}


def _keys(path: Path) -> set[str]:
    return {str(field(where, record, "key")) for where, record in json_lines(path)}


def _refuse_other(where: str, record: dict[str, Any]) -> None:
    for name in ("wav", "emo"):
        field(where, record, name)
    if "start_time" in record or "end_time" in record:
        raise ManifestError(f"{where}: the clip is a piece of a longer file. Cut the file, then give each piece a wav.")
    unknown = sorted(set(record) - KNOWN)
    if unknown:
        raise ManifestError(f"{where}: unknown fields {unknown}, expected only {', '.join(sorted(KNOWN))}.")
    for name, expected in (("type", "raw"), ("task", "category")):
        if record.get(name, expected) != expected:
            raise ManifestError(f"{where}: {name} is {record[name]!r}, expected {expected!r}.")


def _label_map(path: Path, labels: list[str]) -> dict[str, str]:
    if not path.exists():
        return {label: label for label in sorted(set(labels))}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(label): str(name) for label, name in found.items()}
    except (ValueError, AttributeError) as error:
        raise ManifestError(f'{path}: expected JSON like {{"exc": "Happy", "neu": "Neutral"}} ({error}).') from None
