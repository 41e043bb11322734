"""What emotions are called: the words and letter codes under which corpora and tools keep the same class."""

from featurestore.corpora import msp_podcast
from featurestore.corpus.label_scheme import LabelScheme

OTHER, NO_AGREEMENT = "other", "no agreement"
LETTERS = msp_podcast.LETTERS | {"O": OTHER, "X": NO_AGREEMENT}
# Other spellings in circulation of the project's words.
SPELLINGS = {
    "angry": ("anger", "ang"),
    "sad": ("sadness",),
    "happy": ("happiness", "hap", "joy"),
    "surprise": ("surprised", "sur"),
    "fear": ("fearful", "fea"),
    "disgust": ("disgusted", "dis"),
    "contempt": ("contemptuous", "con"),
    "neutral": ("neu",),
}
CANONICAL = {word: name for name, words in SPELLINGS.items() for word in (name, *words)}
CANONICAL |= {OTHER: OTHER, NO_AGREEMENT: NO_AGREEMENT}


def canonical(name: str) -> str:
    """Return the project's name for a class name, "" where it is none of MSP-Podcast's."""
    return CANONICAL.get(name.strip().casefold(), "")


def letter_of(name: str) -> str:
    """Return MSP-Podcast's letter of a class name, "" where it has none."""
    word = canonical(name)
    return next((letter for letter, known in LETTERS.items() if known == word), "")


def class_named(text: str, scheme: LabelScheme) -> str | None:
    """Return the scheme's class that `text` means, None where it means none of them, or could mean two.

    It may be the class's name in any case, one of the corpus's own labels (`scheme.corpus_labels`), another spelling,
    or MSP-Podcast's letter.
    """
    if text in scheme.classes:
        return text
    text = text.strip()
    spellings = [name for name in scheme.classes if name.strip().casefold() == text.casefold()]
    if spellings:
        return text if text in spellings else spellings[0] if len(spellings) == 1 else None
    if text in scheme.corpus_labels:
        return scheme.corpus_labels[text]
    word = canonical(text) or LETTERS.get(text, "")
    matches = [name for name in scheme.classes if word and canonical(name) == word]
    return matches[0] if len(matches) == 1 else None
