"""Label tables that circulate for MSP-Podcast and beside it: the challenge baseline's, MEDUSA's and EMO-SUPERB's.

baseline (processed_labels.csv)  FileName, Angry, ..., Neutral, Split_Set: one class is 1.0
MEDUSA                           the same with shares of the votes, and EmoAct, EmoVal, EmoDom from 1 to 7
EMO-SUPERB (labels_consensus_k)  FileName, angry, ..., EmoAct, ..., SpkrID, Gender, Split_Set, with smoothed shares

EMO-SUPERB has such tables of six corpora. Their classes are many (IEMOCAP 9, IMPROV 10, NNIME 11), attribute ranges are
in the `config.json` beside them (IEMOCAP's has none), and in IEMOCAP's and IMPROV's the numbers of speakers start anew
for each gender. NNIME's column of file names has no name.
"""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.corpora.assemble import numbers, of_columns, refuse_other_columns, translated, two_genders
from featurestore.corpora.msp_podcast import ATTRIBUTES, GENDERS, HIGH, LETTERS, LOW, PARTITIONS, UNKNOWN
from featurestore.corpus import arrow
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.tables import NAMELESS, read_table_file
from featurestore.corpus.votes import plurality
from featurestore.errors import ManifestError
from featurestore.runtime.json_text import read_json

SECONDARY = (
    "frustrated", "annoyed", "disappointed", "depressed", "confused", "concerned", "amused", "excited", "relax", "joy",
)  # fmt: skip
CLASSES = (*LETTERS.values(), "other", *SECONDARY)
TOLERANCE = 0.02  # of a row's sum: the shares are rounded
MSP_FILES = "MSP-PODCAST_"


def read_challenge(
    path: Path,
    *,
    audio: Path | None = None,
    attribute_range: str | None = None,
    speaker_by_gender: bool = False,
    check_audio: bool = True,
) -> Manifest:
    """Return the manifest of such a table; classes stand in its order, under their names in lower case.

    audio: the folder of the files, by default that of the table. attribute_range: "LOW:HIGH" of EmoAct, EmoVal and
    EmoDom, where it is neither MSP-Podcast's (1 to 7) nor in a `config.json` beside the table. speaker_by_gender:
    SpkrID starts anew for each gender, so that speakers are called Female_02 and Male_02. One-hot rows become labels
    alone, shares become vote_<class> columns with the plurality as the label (none where it is tied). Columns besides:
    utterance_id and path (FileName), attr_arousal, attr_valence, attr_dominance, speaker, gender, split. ManifestError:
    unknown columns or values, an unknown range, shares that do not sum to one, a speaker of two genders, missing files.
    """
    table = read_table_file(path)
    file_name = next((name for name in ("FileName", *NAMELESS) if name in table.column_names), "FileName")
    class_columns = {name.lower(): name for name in table.column_names if name.lower() in CLASSES}
    attributes = {name: column for name, column in ATTRIBUTES.items() if column in table.column_names}
    try:
        refuse_other_columns(
            table, path, (file_name,), (*class_columns.values(), *attributes.values(), "Split_Set", "SpkrID", "Gender")
        )
    except ManifestError as error:
        raise ManifestError(f"{error} For any other table: {_by_csv(path, table)}") from None
    if len(class_columns) < 2:
        raise ManifestError(
            f"{path}: expected columns of two classes or more ({', '.join(CLASSES)}), found "
            f"{', '.join(table.column_names)}. "
            f"For any other table: {_by_csv(path, table)}"
        )
    columns: dict[str, Any] = {"utterance_id": table.column(file_name), "path": table.column(file_name)}
    if "Gender" in table.column_names:
        columns["gender"] = translated(table.column("Gender"), GENDERS, path, "Gender")
    if "SpkrID" in table.column_names:
        speaker = table.column("SpkrID")
        speaker = pc.if_else(pc.equal(speaker, UNKNOWN), pa.scalar(None, pa.string()), speaker)
        if speaker_by_gender and "Gender" in table.column_names:
            speaker = pc.binary_join_element_wise(table.column("Gender"), speaker, "_")
        columns = {**columns, "speaker": speaker}
        if doubled := two_genders(speaker.to_pylist(), columns["gender"].to_pylist() if "gender" in columns else ()):
            raise ManifestError(
                f"{path}: {len(doubled):,} speakers have two genders ({', '.join(doubled[:5])}), so SpkrID starts "
                "anew for each gender. Use --speaker-by-gender, or mend the table."
            )
    low, high = _range(path, table.column(file_name), class_columns, attribute_range) if attributes else (LOW, HIGH)
    shares = np.stack(
        [numbers(table.column(name), 0, 1, path, name).to_numpy() for name in class_columns.values()], axis=1
    )
    shares = np.nan_to_num(shares)
    sums = shares.sum(1)
    wrong = np.flatnonzero((np.abs(sums - 1) > TOLERANCE) & (sums > 0)).tolist()
    if wrong:
        raise ManifestError(
            arrow.sentence(str(path), [arrow.listing("the classes' shares do not sum to 1", wrong, sums.tolist())])
        )
    names = list(class_columns)
    columns["label"] = [None if i < 0 else names[i] for i in plurality(shares)]
    if not np.isin(shares, (0.0, 1.0)).all():
        columns |= {f"vote_{name}": pa.array(share) for name, share in zip(names, shares.T, strict=True)}
    for name, column in attributes.items():
        columns[f"attr_{name}"] = numbers(table.column(column), low, high, path, column)
    if "Split_Set" in table.column_names:
        columns["split"] = translated(table.column("Split_Set"), PARTITIONS, path, "Split_Set")
    scheme = LabelScheme(
        tuple(names), dict.fromkeys(attributes, (low, high)), {column: n for n, column in class_columns.items()}
    )
    start = path.parent if audio is None else audio
    manifest = of_columns(columns, scheme, start, path.stem, source=path, check_audio=check_audio)
    if attributes and attribute_range is None and (low, high) == (LOW, HIGH) and not _is_msp(table.column(file_name)):
        manifest.notes.append(
            f"attributes are on MSP-Podcast's scale, {LOW:g} to {HIGH:g}; say --attribute-range LOW:HIGH if they aren't"
        )
    return manifest


def _range(path: Path, files: pa.ChunkedArray, classes: dict[str, str], chosen: str | None) -> tuple[float, float]:
    """Return the ends of the attributes' scales: as asked, by config.json, else those of MSP-Podcast's own tables."""
    config = path.parent / "config.json"
    remedy = "Give --attribute-range LOW:HIGH, such as 1:5."
    try:
        if chosen is not None:
            low, high = map(float, chosen.split(":"))
            return low, high
        if config.exists():
            scores = read_json(config.read_text(encoding="utf-8")).get("dimensional")
            if scores is not None:
                return float(scores["min_score"]), float(scores["max_score"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        place = f"--attribute-range {chosen}" if chosen is not None else f"{config}, dimensional"
        raise ManifestError(
            f"{place}: expected the ends of a scale ({type(error).__name__}: {error}). {remedy}"
        ) from None
    capitalised = all(name[0].isupper() for name in classes.values())  # the forms that are MSP-Podcast's alone
    if capitalised or _is_msp(files):
        return LOW, HIGH
    raise ManifestError(
        f"{path}: the range of EmoAct, EmoVal and EmoDom is not known: there is no config.json with min_score and "
        f"max_score beside it, and the files are not MSP-Podcast's. {remedy}"
    )


def _is_msp(files: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.starts_with(files, MSP_FILES)).as_py())


def _by_csv(path: Path, table: pa.Table) -> str:
    """Return the command that reads such a table: all columns but the documented ones are classes."""
    roles = {"FileName": ("id", "path"), "Split_Set": ("split",), "SpkrID": ("speaker",), "Gender": ("gender",)}
    roles |= dict.fromkeys(NAMELESS, ("id", "path"))
    of_attribute = {theirs: name for name, theirs in ATTRIBUTES.items()}
    options = []
    for name in table.column_names:
        if name in of_attribute:
            options.append(f"--attribute {of_attribute[name]}={name}:LOW:HIGH")
        else:
            targets = roles.get(name, (f"vote_{name.lower()}",))
            options += [f"--column {shlex.quote(f'{target}={name}')}" for target in targets]
    return f"medusa prepare csv {shlex.quote(str(path))} -o {path.stem}_manifest.csv {' '.join(options)}"
