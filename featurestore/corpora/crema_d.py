"""CREMA-D (Cao et al. 2014, IEEE TAFFC 5(4): 377-390): 91 actors, 12 sentences, 6 emotions, 7,442 clips, public votes.

A file's name is `1001_IEO_ANG_HI.wav`: actor, sentence, acted emotion, level. The votes are `tabulatedVotes.csv`: a
row for each clip and condition, its id 100000 times the condition (1 voice, 2 face, 3 both) plus the clip's number.
The single responses that the corpus also has (`finishedResponses.csv`) are more, so annotators have no names here.
Listeners often rate the voice alone as another emotion than was acted, so that the label must be chosen.
"""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.corpora.assemble import audio_files, code, documented_table, named, numbers, of_clips, translated
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.ratings import Ratings
from featurestore.corpus.votes import plurality
from featurestore.errors import ManifestError

EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
VOTE_COLUMNS = {"A": "angry", "D": "disgust", "F": "fear", "H": "happy", "N": "neutral", "S": "sad"}
LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
NAME = re.compile(r"(?P<actor>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<level>[A-Z]{1,2})")
MISNAMED = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}  # the audio file only; the votes have the name that follows the rule
LABELS = ("acted", "voice")
VOICE = "1"
MEASURES = [f"mean{emotion}Resp{kind}" for emotion in ("Emo", "Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad")
            for kind in ("", "Norm")]  # fmt: skip
OTHER_COLUMNS = ("", "Unnamed: 0", "agreement", "emoVote", *MEASURES, "medianEmoResp", "medianEmoRespNorm")
N_CLIPS, N_FOLDS = 7442, 5


def read_crema_d(root: Path, *, label: str = "acted") -> Manifest:
    """Return the manifest of the clips in `AudioWAV` (else at and below `root`), with five folds of every fifth actor.

    label: "acted", the emotion in the file's name, which most papers use; or "voice": the votes of those who heard the
    voice alone, as vote_<class> columns and ratings, their plurality being the label (none where it is tied).
    Columns: utterance_id, path, speaker, gender and age (where VideoDemographics.csv is there), label, acted, level,
    text, fold, duration_s. ManifestError: another layout, unknown codes, columns or votes.
    """
    if label not in LABELS:
        raise ManifestError(f"CREMA-D's label is one of {', '.join(LABELS)}, found {label!r}.")
    people = _people(root)
    rows = []
    left_out: list[str] = []
    for path in audio_files(root / "AudioWAV" if (root / "AudioWAV").is_dir() else root, left_out):
        key = MISNAMED.get(path.stem, path.stem)
        name = NAME.fullmatch(key)
        if name is None:
            raise ManifestError(f"{path}: expected a name like 1001_IEO_ANG_HI. Move it elsewhere, or check --root.")
        acted = code(path, "emotion", name["emotion"], EMOTIONS)
        if people and name["actor"] not in people:
            raise ManifestError(f"{path}: actor {name['actor']} is not in {root / 'VideoDemographics.csv'}.")
        rows.append(
            {
                "utterance_id": key,
                "path": path.relative_to(root).as_posix(),
                "speaker": name["actor"],
                **people.get(name["actor"], {}),
                "label": acted,
                "acted": acted,
                "level": code(path, "level", name["level"], LEVELS),
                "text": code(path, "sentence", name["sentence"], SENTENCES),
                "fold": str(1 + (int(name["actor"]) - 1001) % N_FOLDS),
            }
        )
    if not rows:
        raise ManifestError(f"{root} holds no audio. Expected CREMA-D's AudioWAV with files like 1001_IEO_ANG_HI.wav.")
    scheme = LabelScheme(tuple(EMOTIONS.values()), corpus_labels=EMOTIONS)
    manifest = of_clips(rows, scheme, root, "crema-d", n_clips=N_CLIPS, left_out=left_out)
    return manifest if label == "acted" else _voted(manifest, voice_votes(_votes_file(root)))


def voice_votes(path: Path) -> Ratings:
    """Return the votes on the voice alone in a `tabulatedVotes.csv`.

    Annotators are numbered, for the table names none.
    """
    table = documented_table(path, (*VOTE_COLUMNS, "fileName", "numResponses"), OTHER_COLUMNS)
    ids = next((name for name in ("", "Unnamed: 0") if name in table.column_names), None)
    if ids is None:
        raise ManifestError(f"{path}: the first column must hold the rows' ids (100001, ...) and have no name.")
    voice = table.filter(pc.starts_with(table.column(ids), VOICE))
    if not voice.num_rows:
        raise ManifestError(
            f"{path}: no row's id starts with {VOICE}, which is what marks the votes on the voice alone."
        )
    columns = [numbers(voice.column(name), 0, np.inf, path, name).to_numpy() for name in VOTE_COLUMNS]
    counts = np.stack(columns, axis=1)
    responses = numbers(voice.column("numResponses"), 0, np.inf, path, "numResponses").to_numpy()
    names = voice.column("fileName").to_pylist()
    wrong = np.flatnonzero(counts.sum(1) != responses)
    if len(wrong):
        i = wrong[0]
        raise ManifestError(
            f"{path}: {names[i]} has {counts[i].sum():g} votes on the voice, numResponses says {responses[i]:g}."
        )
    return Ratings.from_counts(names, tuple(VOTE_COLUMNS.values()), counts)


def _voted(manifest: Manifest, votes: Ratings) -> Manifest:
    unheard = sorted(set(votes.keys) - set(manifest.keys))
    votes = votes.of_keys(manifest.keys)
    classes = manifest.scheme.classes
    counts = votes.counts(classes)
    table = manifest.to_arrow()
    label = pa.array([None if i < 0 else classes[i] for i in plurality(counts)], pa.string())
    table = table.set_column(table.column_names.index("label"), "label", label)
    for name, column in zip(classes, counts.T, strict=True):
        table = table.append_column(f"vote_{name}", pa.array(column))
    voted = Manifest(table, manifest.scheme, manifest.root, manifest.name, votes)
    voted.notes += manifest.notes
    unrated = [key for key, n in zip(manifest.keys, counts.sum(1), strict=True) if not n]
    voted.notes += [named("clips without a vote", unrated)] if unrated else []
    voted.notes += [named("clips with votes but no audio", unheard)] if unheard else []
    return voted


def _votes_file(root: Path) -> Path:
    for path in (root / "processedResults" / "tabulatedVotes.csv", root / "tabulatedVotes.csv"):
        if path.exists():
            return path
    raise ManifestError(
        f"{root} has no processedResults/tabulatedVotes.csv, which holds the votes on the voice. "
        "Get it from the corpus's repository, or use --label acted."
    )


def _people(root: Path) -> dict[str, dict[str, object]]:
    """Actor -> gender and age, from VideoDemographics.csv where it is there."""
    path = root / "VideoDemographics.csv"
    if not path.exists():
        return {}
    table = documented_table(path, ("ActorID", "Age", "Sex"), ("Race", "Ethnicity"))
    ages = numbers(table.column("Age"), 0, 120, path, "Age").to_pylist()
    genders = translated(table.column("Sex"), {"Male": "male", "Female": "female"}, path, "Sex").to_pylist()
    rows = zip(table.column("ActorID").to_pylist(), genders, ages, strict=True)
    return {actor: {"gender": gender, "age": age} for actor, gender, age in rows}
