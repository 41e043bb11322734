"""EmoBox's balanced test sets across corpora (`data/track2`): `RAVDESS_selected_balenced.jsonl` and three others.

A line is `{"wav_filename": "Actor_15/03-01-....wav", "label": "happy", "speaker": "15"}`: 60 clips of each of four
classes from IEMOCAP, MELD, RAVDESS and SAVEE, on all of which models of other corpora are tested.
"""

from pathlib import Path
from typing import Any

from featurestore.audio import without_audio_suffix
from featurestore.corpora.assemble import of_columns
from featurestore.corpora.json_lines import field, json_lines
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ManifestError

PATTERN = "*_selected_*.jsonl"
SEPARATOR = ":"


def read_balanced(root: Path, *, audio: Path | None = None, check_audio: bool = True) -> Manifest:
    """Return one manifest of the lists in `root`, with columns corpus, speaker, label, and split test throughout.

    audio: the folder that holds a folder of each corpus (iemocap, meld, ravdess, savee) in which `wav_filename` starts;
    by default `root`. Ids and speakers begin with the corpus. ManifestError: other fields, no list.
    """
    paths = sorted(root.glob(PATTERN))
    if not paths:
        raise ManifestError(f"{root} has no {PATTERN}. Point --root at EmoBox/data/track2.")
    columns: dict[str, list[Any]] = {
        name: [] for name in ("utterance_id", "path", "label", "speaker", "corpus", "split")
    }
    for path in paths:
        corpus = path.name.partition("_")[0].lower()
        for place, record in json_lines(path):
            name, label, speaker = (str(field(place, record, key)) for key in ("wav_filename", "label", "speaker"))
            for column, value in {
                "utterance_id": f"{corpus}{SEPARATOR}{without_audio_suffix(name)}", "path": f"{corpus}/{name}",
                "label": label, "speaker": f"{corpus}{SEPARATOR}{speaker}", "corpus": corpus, "split": "test",
            }.items():  # fmt: skip
                columns[column].append(value)
    classes = tuple(sorted(set(columns["label"])))
    notes = [f"{len(paths)} test sets of EmoBox across corpora; no model learns from them"]
    audio_root = root if audio is None else audio
    return of_columns(
        columns, LabelScheme(classes), audio_root, root.name, source=root, check_audio=check_audio, notes=notes
    )
