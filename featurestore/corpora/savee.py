"""SAVEE, Surrey Audio-Visual Expressed Emotion (Haq & Jackson 2009): 4 men, 7 emotions, 480 clips.

A clip is `AudioData/DC/a01.wav`, or `DC_a01.wav` in one folder as it is often passed on: speaker, emotion, number. The
sentences are TIMIT's and not part of the names. Each speaker is a fold.
"""

import re
from pathlib import Path

from featurestore.corpora.assemble import audio_files, code, of_clips
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ManifestError

EMOTIONS = {
    "a": "angry",
    "d": "disgust",
    "f": "fear",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprise",
}
FOLD_OF = {"DC": "1", "JE": "2", "JK": "3", "KL": "4"}
NAME = re.compile(r"(?:(?P<speaker>[A-Z]+)_)?(?P<emotion>[a-z]+)(?P<number>\d\d)")
N_CLIPS = 480


def read_savee(root: Path) -> Manifest:
    """Return the manifest of the clips at and below `root`.

    Columns: utterance_id (such as DC_a01), path, speaker, gender, label, fold, duration_s. ManifestError: no clips
    there, or a name that is not known codes.
    """
    rows = []
    left_out: list[str] = []
    for path in audio_files(root, left_out):
        name = NAME.fullmatch(path.stem)
        if name is None:
            raise ManifestError(f"{path}: expected a name like DC_a01, or DC/a01. Move it elsewhere, or check --root.")
        speaker = name["speaker"] or path.parent.name
        rows.append(
            {
                "utterance_id": f"{speaker}_{name['emotion']}{name['number']}",
                "path": path.relative_to(root).as_posix(),
                "speaker": speaker,
                "gender": "male",
                "label": code(path, "emotion", name["emotion"], EMOTIONS),
                "fold": code(path, "speaker", speaker, FOLD_OF),
            }
        )
    if not rows:
        raise ManifestError(f"{root} holds no audio. Expected SAVEE's clips, AudioData/DC/a01.wav or DC_a01.wav.")
    scheme = LabelScheme(tuple(EMOTIONS.values()), corpus_labels=EMOTIONS)
    return of_clips(rows, scheme, root, "savee", n_clips=N_CLIPS, left_out=left_out)
