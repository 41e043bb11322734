"""EmoDB, the Berlin Database of Emotional Speech (Burkhardt et al. 2005): 10 actors, 7 emotions, 535 German clips.

A file's name is `03a01Fa.wav`: speaker, sentence, the first letter of the emotion's German name, version. The folds are
ours, a man and a woman each: no speaker is in two of them.
"""

import re
from pathlib import Path

from featurestore.corpora.assemble import audio_files, code, of_clips
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ManifestError

EMOTIONS = {
    "W": "angry",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happy",  # Freude
    "T": "sad",  # Trauer
    "N": "neutral",
}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
MEN, WOMEN = ("03", "10", "11", "12", "15"), ("08", "09", "13", "14", "16")
SPEAKERS = {**dict.fromkeys(MEN, "male"), **dict.fromkeys(WOMEN, "female")}
FOLD_OF = {speaker: str(i + 1) for pair in (MEN, WOMEN) for i, speaker in enumerate(pair)}
NAME = re.compile(r"(?P<speaker>\d\d)(?P<sentence>[a-z]\d\d)(?P<emotion>[A-Z])(?P<version>[a-z])")
N_CLIPS = 535


def read_emodb(root: Path) -> Manifest:
    """Return the manifest of the clips at and below `root` (the corpus has them in `wav`).

    Columns: utterance_id, path, speaker, gender, label, text (German), version, fold, duration_s. ManifestError: no
    clips there, or a name that is not four known codes.
    """
    rows = []
    left_out: list[str] = []
    for path in audio_files(root, left_out):
        name = NAME.fullmatch(path.stem)
        if name is None:
            raise ManifestError(f"{path}: expected a name like 03a01Fa. Move it elsewhere, or check --root.")
        rows.append(
            {
                "utterance_id": path.stem,
                "path": path.relative_to(root).as_posix(),
                "speaker": name["speaker"],
                "gender": code(path, "speaker", name["speaker"], SPEAKERS),
                "label": code(path, "emotion", name["emotion"], EMOTIONS),
                "text": code(path, "sentence", name["sentence"], SENTENCES),
                "version": name["version"],
                "fold": FOLD_OF[name["speaker"]],
            }
        )
    if not rows:
        raise ManifestError(f"{root} holds no audio. Expected EmoDB's folder wav with files like 03a01Fa.wav.")
    scheme = LabelScheme(tuple(EMOTIONS.values()), corpus_labels=EMOTIONS)
    return of_clips(rows, scheme, root, "emodb", n_clips=N_CLIPS, left_out=left_out)
