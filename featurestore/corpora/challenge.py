"""Label tables that circulate for MSP-Podcast: the challenge baseline's, MEDUSA's and EMO-SUPERB's.

baseline (processed_labels.csv)  FileName, Angry, ..., Neutral, Split_Set: one class is 1.0
MEDUSA                           the same with shares of the votes, and EmoAct, EmoVal, EmoDom
EMO-SUPERB (labels_consensus_k)  FileName, angry, ..., SpkrID, Gender, Split_Set, with smoothed shares
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.corpora.assemble import numbers, of_columns, refuse_other_columns, translated
from featurestore.corpora.msp_podcast import ATTRIBUTES, GENDERS, HIGH, LETTERS, LOW, PARTITIONS, UNKNOWN
from featurestore.corpus import arrow
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.tables import read_table_file
from featurestore.corpus.votes import plurality
from featurestore.errors import ManifestError

CLASSES = (*LETTERS.values(), "other")
TOLERANCE = 0.02  # of a row's sum: the shares are rounded


def read_challenge(path: Path, *, audio: Path | None = None, check_audio: bool = True) -> Manifest:
    """The manifest of such a table; classes stand in its order, under their names in lower case.

    audio: the folder of the files, by default that of the table. One-hot rows become labels alone, shares become
    vote_<class> columns with the plurality as the label (none where it is tied). Columns besides: utterance_id and path
    (FileName), attr_arousal, attr_valence, attr_dominance, speaker, gender, split. ManifestError: unknown columns or
    values, shares that do not sum to one, missing files.
    """
    table = read_table_file(path)
    class_columns = {name.lower(): name for name in table.column_names if name.lower() in CLASSES}
    attributes = {name: theirs for name, theirs in ATTRIBUTES.items() if theirs in table.column_names}
    refuse_other_columns(
        table, path, ("FileName",), (*class_columns.values(), *attributes.values(), "Split_Set", "SpkrID", "Gender")
    )
    if len(class_columns) < 2:
        raise ManifestError(f"{path}: expected columns of two classes or more ({', '.join(CLASSES)}), found "
                            f"{', '.join(table.column_names)}.")  # fmt: skip
    columns: dict[str, Any] = {"utterance_id": table.column("FileName"), "path": table.column("FileName")}
    if "SpkrID" in table.column_names:
        speaker = table.column("SpkrID")
        columns["speaker"] = pc.if_else(pc.equal(speaker, UNKNOWN), pa.scalar(None, pa.string()), speaker)
    if "Gender" in table.column_names:
        columns["gender"] = translated(table.column("Gender"), GENDERS, path, "Gender")
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
    for name, theirs in attributes.items():
        columns[f"attr_{name}"] = numbers(table.column(theirs), LOW, HIGH, path, theirs)
    if "Split_Set" in table.column_names:
        columns["split"] = translated(table.column("Split_Set"), PARTITIONS, path, "Split_Set")
    scheme = LabelScheme(
        tuple(names), dict.fromkeys(attributes, (LOW, HIGH)), {theirs: n for n, theirs in class_columns.items()}
    )
    start = path.parent if audio is None else audio
    return of_columns(columns, scheme, start, path.stem, source=path, check_audio=check_audio)
