"""TESS, Toronto Emotional Speech Set (Pichora-Fuller & Dupuis 2020): 2 women, 7 emotions, 2,800 clips of one sentence.

A file's name is `OAF_back_angry.wav`: speaker (the older or the younger woman), the word that ends "Say the word ...",
emotion; `ps` is pleasant surprise. One file of the release is misnamed `OA_bite_neutral.wav`. Each speaker is a fold.
"""

import re
from pathlib import Path

from featurestore.corpora.assemble import audio_files, code, of_clips
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ManifestError

EMOTIONS = {
    "angry": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happy",
    "ps": "surprise",
    "sad": "sad",
    "neutral": "neutral",
}
FOLD_OF = {"OAF": "1", "YAF": "2"}
NAME = re.compile(r"(?P<speaker>[A-Za-z]+)_(?P<word>[A-Za-z]+)_(?P<emotion>[A-Za-z]+)")
MISNAMED = {"OA_bite_neutral": "OAF_bite_neutral"}
N_CLIPS = 2800


def read_tess(root: Path) -> Manifest:
    """Return the manifest of the clips at and below `root`.

    A second copy (a common re-upload has one) is left out and noted.

    Columns: utterance_id, path, speaker, gender, label, text, fold, duration_s. ManifestError: no clips there, or a
    name that is not three known codes.
    """
    rows = []
    left_out: list[str] = []
    for path in audio_files(root, left_out):
        key = MISNAMED.get(path.stem, path.stem)
        name = NAME.fullmatch(key)
        if name is None:
            raise ManifestError(f"{path}: expected a name like OAF_back_angry. Move it elsewhere, or check --root.")
        rows.append(
            {
                "utterance_id": key,
                "path": path.relative_to(root).as_posix(),
                "speaker": name["speaker"],
                "gender": "female",
                "label": code(path, "emotion", name["emotion"].lower(), EMOTIONS),
                "text": f"Say the word {name['word'].lower()}.",
                "fold": code(path, "speaker", name["speaker"], FOLD_OF),
            }
        )
    if not rows:
        raise ManifestError(
            f"{root} holds no audio. Expected TESS's folders, OAF_angry with OAF_back_angry.wav and so on."
        )
    scheme = LabelScheme(tuple(EMOTIONS.values()), corpus_labels=EMOTIONS)
    return of_clips(rows, scheme, root, "tess", n_clips=N_CLIPS, left_out=left_out)
