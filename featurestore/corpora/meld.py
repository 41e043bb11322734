"""MELD (Poria et al. 2019): 13,708 utterances of the series Friends, 7 emotions, official splits.

The labels are `train_sent_emo.csv`, `dev_sent_emo.csv`, `test_sent_emo.csv`; the clips are videos (`dia0_utt3.mp4` in
`train_splits`, `dev_splits_complete`, `output_repeated_splits_test`), whose sound track is read; sound that was
extracted beside them under the same name is taken instead. Speakers recur in all three parts, and two clips of the
release can't be decoded.
"""

from pathlib import Path

import pyarrow as pa

from featurestore.audio import SOUND_SUFFIXES, has_audio_suffix
from featurestore.corpora.assemble import documented_table, named, of_columns, translated
from featurestore.corpus import arrow, checks
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ManifestError

EMOTIONS = {
    "neutral": "neutral",
    "joy": "happy",
    "surprise": "surprise",
    "anger": "angry",
    "sadness": "sad",
    "disgust": "disgust",
    "fear": "fear",
}
PARTS = {  # part -> label table, folders that may hold its clips, split
    "train": ("train_sent_emo.csv", ("train_splits", "train"), "train"),
    "dev": ("dev_sent_emo.csv", ("dev_splits_complete", "dev"), "development"),
    "test": ("test_sent_emo.csv", ("output_repeated_splits_test", "test"), "test"),
}
REQUIRED = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
OPTIONAL = ("Sr No.", "Sentiment", "Season", "Episode", "StartTime", "EndTime")
# The tables were saved as UTF-8 from text in Windows' code page: its quotation marks became control characters.
QUOTES = {0x85: "…", 0x91: "‘", 0x92: "’", 0x93: "“", 0x94: "”", 0x96: "–", 0x97: "—"}


def read_meld(root: Path) -> Manifest:
    """Return the manifest of the utterances whose sound is there; the tables and clip folders lie in or below `root`.

    Columns: utterance_id (such as train_dia0_utt3: numbers start anew in each part), path, speaker, label, text,
    dialogue, sentiment, split. Utterances without sound are left out and noted. ManifestError: another layout, unknown
    columns or emotions, no clip at all.
    """
    parts, missing = [], []
    for part, (table_name, folders, split) in PARTS.items():
        path = _below(root, table_name)
        table = documented_table(path, REQUIRED, OPTIONAL)
        sounds = _sounds(root, folders)
        numbers = [table.column(name).to_pylist() for name in ("Dialogue_ID", "Utterance_ID")]
        clips = [f"dia{dialogue}_utt{utterance}" for dialogue, utterance in zip(*numbers, strict=True)]
        with_sound = [i for i, clip in enumerate(clips) if clip in sounds]
        missing += [f"{part}_{clip}" for clip in clips if clip not in sounds]
        sentiment = {"sentiment": table.column("Sentiment")} if "Sentiment" in table.column_names else {}
        columns = {
            "utterance_id": pa.array([f"{part}_{clip}" for clip in clips]),
            "path": pa.array([sounds.get(clip) for clip in clips], pa.string()),
            "speaker": table.column("Speaker"),
            "label": translated(table.column("Emotion"), EMOTIONS, path, "Emotion"),
            "text": pa.array([(text or "").translate(QUOTES) for text in table.column("Utterance").to_pylist()]),
            "dialogue": pa.array([f"{part}_{dialogue}" for dialogue in numbers[0]]),
            **sentiment,
            "split": pa.array([split] * len(clips)),
        }
        repeated = checks.id_problems(pa.chunked_array([columns["utterance_id"]]))
        if repeated:
            raise ManifestError(arrow.sentence(str(path), repeated))
        parts.append(pa.table(columns).take(pa.array(with_sound, pa.int64())))
    utterances = pa.concat_tables(parts, promote_options="default")
    if not utterances.num_rows:
        raise ManifestError(
            f"{root} has no clip of any utterance, such as train_splits/dia0_utt0.mp4, or its sound. Check --root."
        )
    notes = [named("utterances without sound left out", missing)] if missing else []
    columns = {name: utterances.column(name) for name in utterances.column_names}
    scheme = LabelScheme(tuple(EMOTIONS.values()), corpus_labels=EMOTIONS)
    return of_columns(columns, scheme, root, "meld", source=root, check_audio=False, notes=notes)


def _sounds(root: Path, folders: tuple[str, ...]) -> dict[str, str]:
    """Clip -> its audio file, as seen from `root`; of the folders in any depth that have one of these names."""
    paths: dict[str, str] = {}
    for folder in sorted(path for name in folders for path in root.rglob(name) if path.is_dir()):
        clips = [path for path in folder.iterdir() if has_audio_suffix(path) and not path.name.startswith(".")]
        for path in sorted(clips, key=lambda path: (not path.name.lower().endswith(SOUND_SUFFIXES), path)):
            paths.setdefault(path.stem, path.relative_to(root).as_posix())
    return paths


def _below(root: Path, name: str) -> Path:
    paths = sorted(path for path in root.rglob(name) if not path.name.startswith("."))
    if not paths:
        raise ManifestError(f"{root} has no {name} at any depth; it holds MELD's labels. Check --root.")
    return paths[0]
