"""Small corpora in their documented layouts, for parsers of corpora that can't be passed on."""

import csv
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

MSP_CONSENSUS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
MSP_ROWS = [
    ("MSP-PODCAST_0001_0008.wav", "N", "2.2", "4.0", "2.6", "30", "Male", "Train"),
    ("MSP-PODCAST_0001_0009.wav", "H", "5.5", "6.0", "4.5", "31", "Female", "Train"),
    ("MSP-PODCAST_0002_0001.wav", "X", "3.0", "3.0", "3.5", "Unknown", "Unknown", "Development"),
    ("MSP-PODCAST_0002_0002.wav", "O", "4.0", "2.0", "3.0", "30", "Male", "Test1"),
]
MSP_RATINGS = [  # file, worker, primary, secondary, arousal, valence, dominance
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000001", "Neutral", "Neutral,Concerned", 2, 4, 3),
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000002", "Neutral", "", 3, 4, 2),
    ("MSP-PODCAST_0001_0008.wav", "WORKER00000003", "Sad", "Sad,Other-Tired, rather", 2, 4, 3),
    ("MSP-PODCAST_0001_0009.wav", "WORKER00000002", "Happy", "Happy,Excited", 5, 6, 4),
    ("MSP-PODCAST_0001_0009.wav", "WORKER00000003", "Happy", "Surprise", 6, 6, 5),
    ("MSP-PODCAST_0002_0001.wav", "WORKER00000001", "Angry", "", 3, 3, 3),
    ("MSP-PODCAST_0002_0001.wav", "WORKER00000003", "Contempt", "Disgust,Dissapointed", 3, 3, 4),
    ("MSP-PODCAST_0002_0002.wav", "WORKER00000001", "Other-Sarcastic; or bored", "Other-Sarcastic", 4, 2, 3),
    ("MSP-PODCAST_0002_0002.wav", "WORKER00000002", "Other", "Annoyed", 4, 2, 3),
]
MSP_FORMS = ("1.6", "1.11", "2.0")

IEMOCAP_EVALUATION = """\
% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-E3:\tNeutral;\t()
C-E4:\tNeutral; Frustration;\t(a bit (only a bit))
C-F1:\tAnger;\t(curious)
A-E3:\tval 3; act 2; dom  2;\t()
A-E4:\tval 2; act 3; dom  3;\t(mildly aggravated)
A-F1:\tval 3; act 2; dom  1;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M000\texc\t[4.5000, 4.0000, 3.0000]
C-E2:\tExcited;\t()
C-E3:\tHappiness; Excited;\t()
C-E4:\tSurprise;\t()
A-E3:\tval 5; act 4; dom  ;\t()

[12.0000 - 13.5000]\tSes01F_impro01_F001\tfru\t[5.5000, 3.0000, 3.0000]
C-E2:\tFrustration;\t()

[14.0000 - 15.0000]\tSes01F_impro01_F002\txxx\t[2.0000, 3.0000, 3.0000]
C-E2:\tAnger;\t()
C-E3:\tSadness;\t()
"""
IEMOCAP_WORDS = """\
Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
M: [LAUGHTER]
Ses01F_impro01_M000 [010.0100-011.3925]: Do you have your forms?
"""


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_files(root: Path, contents: Mapping[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def write_wav(path: Path, n_samples: int = 1600) -> Path:
    """Write silence at 16 kHz, 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 2 * n_samples
    header = (
        b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    )
    path.write_bytes(header + b"data" + struct.pack("<I", size) + bytes(size))
    return path


def msp_detailed(path: Path, form: str, ratings: Sequence[tuple] = MSP_RATINGS) -> Path:
    """Write labels_detailed.csv in the form of release 1.6, 1.7 to 1.12, or 2.0."""
    if form == "1.11":
        detail = [
            (file, f"{worker}; {first}; {second}; A:{a:.6f}; V:{v:.6f}; D:{d:.6f};".replace("; ;", ";"))
            for file, worker, first, second, a, v, d in ratings
        ]
        return write_csv(path, ("FileName", "EmoDetail"), detail)
    worker = "Workers" if form == "1.6" else "WorkerID"
    return write_csv(
        path, ("FileName", worker, "EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom"), ratings
    )


def msp_tree(root: Path, form: str = "1.11") -> Path:
    """Write four labelled files and two hidden ones, with the folder and file names of that release."""
    old = form == "1.6"
    labels = root / ("label" if old else "Labels")
    write_csv(labels / ("labels_concensus.csv" if old else "labels_consensus.csv"), MSP_CONSENSUS, MSP_ROWS)
    msp_detailed(labels / "labels_detailed.csv", form)
    hidden = ["MSP-PODCAST_test3_0001.wav", "MSP-PODCAST_test3_0002.wav"]
    for file in [row[0] for row in MSP_ROWS] + hidden:
        write_wav(root / ("Audio" if old else "Audios") / file)
    parts = "".join(f"{row[-1]}; {row[0]}\n" for row in MSP_ROWS) + f"Test3; {hidden[0]}\n"
    speakers = "Speaker_30; Male\nSpeaker_31; Female\nSpeaker_77; Female\n\n" + "".join(
        f"{row[0]}; {row[5]}\n" for row in MSP_ROWS
    )
    write_files(
        root,
        {
            "Partitions.txt": "Partitions of the corpus\n\n" + parts,
            "Speaker_ids.txt": f"{speakers}{hidden[0]}; 77\n",
            "Transcripts/MSP-PODCAST_0001_0008.txt": "Well,\nthat's it. ",
            "Transcripts/MSP-PODCAST_test3_0001.txt": "Who knows?",
            "Transcripts/MSP-PODCAST_0001_0009.txt": " ",
        },
    )
    return root


def iemocap_tree(root: Path, evaluation: str = IEMOCAP_EVALUATION) -> Path:
    """Write four turns in session 1, one in session 5."""
    fifth = "[1.0 - 2.5]\tSes05M_script01_1b_M003\tsad\t[2.0, 2.0, 2.0]\nC-E1:\tSadness;\t()\n"
    write_files(
        root,
        {
            "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": evaluation,
            "Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt": "\0",
            "Session1/dialog/transcriptions/Ses01F_impro01.txt": IEMOCAP_WORDS,
            "Session5/dialog/EmoEvaluation/Ses05M_script01_1b.txt": fifth,
            "Session5/dialog/transcriptions/Ses05M_script01_1b.txt": "Ses05M_script01_1b_M003 [001.0-002.5]: No.\n",
        },
    )
    for key in ("F000", "M000", "F001", "F002"):
        write_wav(root / f"Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_{key}.wav")
    write_wav(root / "Session5/sentences/wav/Ses05M_script01_1b/Ses05M_script01_1b_M003.wav")
    return root
