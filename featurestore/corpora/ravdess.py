"""RAVDESS, the speech part (Livingstone & Russo 2018, PLoS ONE 13(5): e0196391): 24 actors, 8 emotions, 1,440 clips.

A file's name is seven two-digit codes, `03-01-06-01-02-01-12.wav`: modality, channel, emotion, intensity, statement,
repetition, actor. Actors with an odd number are male. The classes stand in the order of the corpus's codes; their names
are the ones EmoBox and most papers use (the corpus itself says "fearful" and "surprised"). Neutral has no strong
intensity, so it has half as many clips. The folds are EmoBox's six, four actors each: no speaker is in two of them.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from featurestore.audio import SOUND_SUFFIXES, duration_s
from featurestore.corpora.sound_check import grouped
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import AudioError, ManifestError

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
MODALITIES = {"01": "full audio-video", "02": "video only", "03": "audio only"}
CHANNELS = {"01": "speech", "02": "song"}
REPETITIONS = {"01": "1", "02": "2"}
ACTORS = {f"{actor:02d}": "male" if actor % 2 else "female" for actor in range(1, 25)}
FIELDS = (
    ("modality", MODALITIES),
    ("channel", CHANNELS),
    ("emotion", EMOTIONS),
    ("intensity", INTENSITIES),
    ("statement", STATEMENTS),
    ("repetition", REPETITIONS),
    ("actor", ACTORS),
)
FOLDS = {
    "1": ("01", "11", "20", "21"),
    "2": ("04", "10", "12", "14"),
    "3": ("08", "09", "19", "23"),
    "4": ("03", "05", "07", "24"),
    "5": ("02", "15", "16", "18"),
    "6": ("06", "13", "17", "22"),
}
FOLD_OF = {actor: fold for fold, actors in FOLDS.items() for actor in actors}
SPEECH_FOLDER = "Audio_Speech_Actors_01-24"
N_CLIPS = 1440


def read_ravdess(root: Path) -> Manifest:
    """Return the manifest of the speech clips under `root`.

    `root` holds the Actor_NN folders or Audio_Speech_Actors_01-24.

    Columns: utterance_id (the file name without suffix), path, speaker, gender, label, intensity, repetition, text,
    duration_s, fold. Songs and clips that are not audio-only are left out and counted in `notes`, as are unreadable
    headers (no duration then). ManifestError: not that layout, or a name that is not seven known codes.
    """
    root = Path(root)
    rows: list[dict[str, str | float | None]] = []
    left_out: dict[str, int] = {}
    unreadable: list[str] = []
    for path in _audio_files(root):
        code = _codes(path)
        if code["modality"] != "03" or code["channel"] != "01":
            kind = f"{MODALITIES[code['modality']]} {CHANNELS[code['channel']]}"
            left_out[kind] = left_out.get(kind, 0) + 1
            continue
        try:
            seconds = duration_s(path)
        except AudioError as error:
            unreadable.append(str(error))
            seconds = None
        rows.append(
            {
                "utterance_id": path.stem,
                "path": path.relative_to(root).as_posix(),
                "speaker": code["actor"],
                "gender": ACTORS[code["actor"]],
                "label": EMOTIONS[code["emotion"]],
                "intensity": INTENSITIES[code["intensity"]],
                "repetition": REPETITIONS[code["repetition"]],
                "text": STATEMENTS[code["statement"]],
                "duration_s": None if seconds is None else round(seconds, 3),
                "fold": FOLD_OF[code["actor"]],
            }
        )
    if not rows:
        raise ManifestError(f"{root} holds no speech clips of RAVDESS, only {left_out}. {_expected()}")
    # In the order of the names, not of the folders: neighbours are different actors.
    rows.sort(key=lambda row: str(row["utterance_id"]))
    manifest = Manifest(
        pa.Table.from_pylist(rows), LabelScheme(tuple(EMOTIONS.values()), corpus_labels=EMOTIONS), root, "ravdess"
    )
    manifest.notes += [f"left out {n:,} {kind} files" for kind, n in left_out.items()]
    manifest.notes += grouped("files without a known duration", unreadable)
    if len(rows) != N_CLIPS:
        n_actors = len({row["speaker"] for row in rows})
        manifest.notes.append(f"{len(rows):,} of the corpus's {N_CLIPS:,} speech clips, {n_actors} of 24 actors")
    return manifest


def _audio_files(root: Path) -> Iterator[Path]:
    """Yield the audio files in the actors' folders, of `root` itself before those of a speech folder in it.

    A popular re-upload of the corpus holds every clip in both places; each is read once.
    """
    if not root.is_dir():
        raise ManifestError(f"{root} is not a directory. {_expected()}")
    places = [root, *sorted(p for p in root.iterdir() if p.name.lower() == SPEECH_FOLDER.lower())]
    folders = next((found for place in places if (found := sorted(place.glob("Actor_[0-9][0-9]/")))), [])
    files = [
        path for folder in folders for path in sorted(folder.iterdir()) if path.name.lower().endswith(SOUND_SUFFIXES)
    ]
    # A dot file is what macOS leaves beside a file on a foreign disk; it is no audio whatever its suffix.
    files = [path for path in files if not path.name.startswith(".")]
    if not files:
        names = ", ".join(sorted(p.name for p in root.iterdir())[:8])
        raise ManifestError(f"{root} is not RAVDESS: found {names or 'an empty directory'}. {_expected()}")
    yield from files


def _codes(path: Path) -> dict[str, str]:
    """Return the seven codes of a file name, by field; ManifestError names the one that is unknown."""
    parts = path.stem.split("-")
    if len(parts) != len(FIELDS):
        raise ManifestError(f"{path}: expected a name of seven codes like 03-01-06-01-02-01-12. Move it elsewhere.")
    for part, (field, codes) in zip(parts, FIELDS, strict=True):
        if part not in codes:
            raise ManifestError(
                f"{path}: unknown {field} code {part!r}, expected one of {', '.join(codes)}. "
                "Move it elsewhere, or restore its name."
            )
    code = {field: part for part, (field, _) in zip(parts, FIELDS, strict=True)}
    if path.parent.name != f"Actor_{code['actor']}":
        raise ManifestError(f"{path}: the name says actor {code['actor']}, the folder {path.parent.name}. Move it.")
    return code


def _expected() -> str:
    suffixes = ", ".join(SOUND_SUFFIXES)
    return (
        f"Expected folders Actor_01 to Actor_24, or {SPEECH_FOLDER} with them, holding files like "
        f"03-01-06-01-02-01-12.wav ({suffixes}); the corpus is at https://zenodo.org/records/1188976 "
        "(Audio_Speech_Actors_01-24.zip)."
    )
