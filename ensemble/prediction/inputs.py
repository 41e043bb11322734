"""What to predict: files as a manifest under their own names, and who speaks in them."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from deepser.members.scales import other_scales
from featurestore.audio import is_utf8, several_tracks
from featurestore.corpus.cross_corpus import TRAIN
from featurestore.corpus.division import part_name
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import label_codes, speaker_groups, with_column
from featurestore.errors import ConfigError
from featurestore.recordings.cut import Progress, cut
from featurestore.recordings.segment_tables import SegmentTable
from featurestore.recordings.speech import Speech
from featurestore.recordings.windows import Windows

ENOUGH_CLIPS = 5  # of a speaker, to differ from the training corpus


def track_notes(manifest: Manifest) -> list[str]:
    """Return a note on the files of whose sound tracks the first alone is read."""
    if not manifest.has("path"):
        return []
    paths = dict.fromkeys(manifest.column("path").tolist())
    return several_tracks(manifest.root / path for path in paths if path is not None)


def files_manifest(files: Sequence[Path | str], text: str | None = None) -> Manifest:
    """Return a manifest of audio files under their own names, each once; `text` is the words of all of them.

    A name that is not UTF-8 can't be a key: such files are left out, with a sentence for each in the notes.
    """
    paths = dict.fromkeys(os.fspath(file) for file in files)
    names = [name for name in paths if is_utf8(name)]
    strange = [name for name in paths if not is_utf8(name)]
    notes = [f"{name!r}: a file name that is not UTF-8 can't be a key; rename the file." for name in strange]
    if notes and not names:
        raise ConfigError(notes[0])
    if not names:
        raise ConfigError("No file to predict; name one or more audio files, or a manifest.")
    columns = {"utterance_id": names, "path": names} | ({} if text is None else {"text": [text] * len(names)})
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    manifest = Manifest(table, root=".", name="files")
    manifest.notes += notes
    return manifest


TEXT_OF_ALL = "A text is of the whole file; of its pieces, --asr transcribes each, or a table has a column 'text'."


def cut_files(
    manifest: Manifest,
    cutter: Windows | Speech | SegmentTable | None,
    notes: list[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Manifest, list[tuple[str, str]]]:
    """Return the manifest cut into pieces, as it is where `how` is None, and (id, reason) of what can't be decoded.

    ConfigError: no piece at all.
    """
    if cutter is None:
        return manifest, []
    pieces = cut(manifest, cutter, progress)
    if notes is not None:
        notes += pieces.notes
    if pieces.manifest is None:
        reasons = [reason for _, reason in pieces.failed] + pieces.notes
        raise ConfigError(f"There is nothing to predict: {'; '.join(reasons[:3])}")
    return pieces.manifest, pieces.failed


def with_speakers(manifest: Manifest, speaker_of: str) -> Manifest:
    """Return the manifest with a column `speaker`: a column's values, each file's "folder", or the "file"."""
    if speaker_of in ("folder", "file"):
        paths = [Path(str(path)) for path in manifest.column("path").tolist()]
        names: list[str | None] = [str(path.parent if speaker_of == "folder" else path) for path in paths]
    else:
        values = manifest.column(speaker_of).tolist()
        names = [None if value is None or value != value else str(value) for value in values]
    return with_column(manifest, "speaker", names)


def scales_note(manifest: Manifest, ranges: Mapping[str, tuple[float, float]]) -> str:
    """Return a sentence on attributes whose scale in the manifest is not the model's (`ranges`); "" without any."""
    return "; ".join(
        f"{name} is predicted on the model's scale of {low:g} to {high:g}, the manifest's is {first:g} to {last:g}"
        for name, ((low, high), (first, last)) in other_scales(manifest, ranges).items()
    )


def speakers_note(manifest: Manifest) -> str:
    """One sentence on what a speaker-adapted model makes of the speakers; "" where each has enough clips."""
    if not manifest.has("speaker"):
        return (
            "the model is speaker-adapted, but its speakers are not named (--speaker-of): each clip is read by "
            "itself, as one of the training corpus, and scores will be lower."
        )
    counts = Counter(speaker_groups(manifest).tolist())
    few = sum(n < ENOUGH_CLIPS for n in counts.values())
    if not few:
        return ""
    return (
        f"the model is speaker-adapted, and {few:,} of {len(counts):,} speakers have fewer than {ENOUGH_CLIPS} clips: "
        "these are read mostly as clips of the training corpus (a single clip wholly)."
    )


def learned_note(manifest: Manifest, rules: Iterable[str]) -> str:
    """Return a sentence where labelled utterances lie in the folds or the split that a model learned from; else "".

    rules: how its members divided their corpus, such as "cv:fold" or "split". That it was this corpus is not known.
    """
    labels = label_codes(manifest)
    if labels is None:
        return ""
    learned = np.zeros(len(manifest), bool)
    columns = []
    for rule in dict.fromkeys(rules):
        column = rule.removeprefix("cv:") if rule.startswith("cv:") else "split"
        if manifest.has(column) and (column != "split" or rule.startswith("split")):
            parts = np.array([part_name(value) for value in manifest.column(column).tolist()], object)
            learned |= parts == TRAIN if column == "split" else parts != ""
            columns.append(column)
    n = int((learned & (labels >= 0)).sum())
    if not n:
        return ""
    return (
        f"if this is the corpus that the model was fitted on, it learned from {n:,} of these {len(manifest):,} "
        f"utterances (column {' or '.join(map(repr, columns))}), and scores of these predictions are no estimate; "
        "`medusa evaluate NAME` scores its posteriors in the store, of utterances that it had not learned from"
    )
