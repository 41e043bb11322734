"""Readers of corpora: each takes one in its own layout, or a list somebody already has, and returns its manifest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.corpus.manifest import Manifest


@dataclass(frozen=True)
class Corpus:
    """What can be prepared under one name; its reader is imported when it is first called."""

    reader: str  # module in this package : function
    about: str
    source: str  # what the reader's first argument is
    options: Mapping[str, str] = field(default_factory=dict)  # keyword of the reader -> what it is for
    is_file: bool = False  # the first argument is a file, not a directory

    def __call__(self, source: Path | str, **options: Any) -> "Manifest":
        """Read the corpus; ManifestError says what is not as it documents, or why its audio can't be read."""
        module, _, name = self.reader.partition(":")
        reader: Callable[..., Manifest] = getattr(import_module(f"{__name__}.{module}"), name)
        manifest = reader(Path(source), **options)
        if options.get("check_audio", True):
            from featurestore.corpora.sound_check import check_sounds

            manifest.notes += check_sounds(manifest)
        return manifest


CHECK = {"check_audio": "Check that every audio file exists."}
AUDIO = "Where relative audio paths start; default: "

CORPORA = {
    "msp-podcast": Corpus(
        "msp_podcast:read_msp_podcast",
        "MSP-Podcast 1.6 to 2.0 and the 2025 challenge: consensus, annotators' votes, attributes, partitions.",
        "Directory of Audios, Labels, Transcripts, Partitions.txt.",
        {
            "scheme": "Number of classes: 8, or 9 with other.",
            "secondary": "Weight of a secondary emotion in the votes, 0 to 1 (a primary one has 1).",
            "transcripts": "Read the transcripts.",
            "check_audio": "Leave out utterances whose file is not there.",
            "durations": "Read each file's header.",
        },
    ),
    "iemocap": Corpus(
        "iemocap:read_iemocap",
        "IEMOCAP: labels, evaluators' votes, attributes, words; each session a fold.",
        "Directory of Session1 ... Session5.",
        {"scheme": "Classes: 4 (excited is happy, others are left out) or full (ten).", **CHECK},
    ),
    "crema-d": Corpus(
        "crema_d:read_crema_d",
        "CREMA-D with the public votes on the voice alone; five folds of actors.",
        "Directory of AudioWAV and processedResults.",
        {"label": "acted: the emotion meant; voice: listeners' votes and their plurality."},
    ),
    "ravdess": Corpus(
        "ravdess:read_ravdess",
        "RAVDESS's speech (wav, flac or ogg), with EmoBox's six speaker-disjoint folds.",
        "Directory of Actor_01 ... Actor_24.",
    ),
    "emodb": Corpus("emodb:read_emodb", "EmoDB, in German; five folds of two actors.", "Directory of wav."),
    "meld": Corpus(
        "meld:read_meld",
        "MELD with its official splits; the videos are read, or sound extracted beside them.",
        "Directory of the label tables and clips.",
    ),
    "savee": Corpus("savee:read_savee", "SAVEE; each of the four men is a fold.", "Directory of the clips."),
    "tess": Corpus("tess:read_tess", "TESS; each of the two women is a fold.", "Directory of the clips."),
    "emobox": Corpus(
        "emobox:read_emobox",
        "EmoBox's metadata of any of its 32 corpora: label map, folds or splits.",
        "EmoBox/data/CORPUS.",
        {"audio": f"{AUDIO}the folder that holds EmoBox's data.", **CHECK},
    ),
    "lhotse": Corpus(
        "lhotse:read_lhotse",
        "A file of lhotse cuts, each the whole or a piece of a mono file.",
        "cuts.jsonl or cuts.jsonl.gz.",
        {"label": "The custom field that holds the class.", "audio": f"{AUDIO}the file's place.", **CHECK},
        is_file=True,
    ),
    "kaldi": Corpus(
        "kaldi:read_kaldi",
        "A Kaldi data directory: wav.scp, segments, utt2spk, text, utt2emo.",
        "Directory of wav.scp.",
        {"audio": f"{AUDIO}the working directory.", **CHECK},
    ),
    "audformat": Corpus(
        "audformat:read_audformat",
        "A database in audformat (db.yaml and its tables), filewise or segmented.",
        "Directory of db.yaml.",
        {
            "label": "The column that holds the class.",
            "tables": "Tables to read, separated by commas; default: all that have the label.",
            **CHECK,
        },
    ),
    "audiofolder": Corpus(
        "audiofolder:read_audiofolder",
        "Hugging Face's audiofolder: metadata.csv or .jsonl, or folders named after classes.",
        "Directory of the clips.",
        {
            "label": "The table's column that holds the class.",
            "layout": "Levels of the folders: label, split, speaker, gender, fold or _: speaker/label.",
            **CHECK,
        },
    ),
    "challenge": Corpus(
        "challenge:read_challenge",
        "Label tables of the challenge baseline, MEDUSA and EMO-SUPERB.",
        "A table with FileName, a column for each class, Split_Set.",
        {
            "audio": f"{AUDIO}the table's place.",
            "attribute_range": "LOW:HIGH of the attributes, where no config.json beside the table has it: 1:5.",
            "speaker_by_gender": "SpkrID starts anew for each gender.",
            **CHECK,
        },
        is_file=True,
    ),
}
