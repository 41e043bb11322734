"""Columns of a manifest, from the checks that read them."""

from featurestore.corpus import checks
from featurestore.corpus.pieces import END, START
from generate.text import table

# What each column of strings holds; a test compares the names with those that the program knows.
STRINGS = {
    "utterance_id": "the name of the utterance: any text, once in the table; the key of its rows in every feature set",
    "path": "its audio file; a relative path starts at the manifest's directory",
    "text": "its words, which text encoders read; a table needs `path` or `text`",
    "speaker": "who speaks; scores' intervals, held-out parts and folds go by it",
    "gender": "of the speaker; `evaluate --by gender` compares groups",
    "label": "its emotion: a class of the label scheme, empty where there is no consensus",
    "split": "its official part: one of " + ", ".join(f"`{name}`" for name in checks.SPLITS),
    "fold": "its fold of cross-validation: any name",
}
NUMBERS = {
    START: "seconds at which the utterance begins in its file; empty: at the beginning",
    END: "seconds at which it ends; empty: at the end of the file",
    "duration_s": "seconds, where known",
    "vote_<class>": "votes for this class, counts or weights of 0 or more; a column for each class, or none",
    "attr_<attribute>": "a value within the attribute's range in the label scheme; empty where it was not rated",
}


def manifest_page() -> str:
    """Return the page of a manifest's columns and of the files beside it."""
    spellings = ", ".join(f"`{name}`" for name in checks.SPLIT_NAMES)
    rows = [[f"`{name}`", kind, what] for kind, columns in (("text", STRINGS), ("number", NUMBERS))
            for name, what in columns.items()]  # fmt: skip
    return (
        "\n\n".join(
            [
                "# Columns of a manifest",
                "A manifest is a table, `.csv` or `.parquet`, with a row for each utterance. Other columns are kept, and "
                "commands name them where they want one (`--cv`, `--by`, `--speaker-of`). An empty cell is a missing value.",
                table(["column", "type", "what it holds"], rows),
                f"`medusa prepare csv` understands these names of splits: {spellings}; `--split-name YOURS=train` adds others.",
                "Beside `corpus.csv` lie `corpus.scheme.json` (the classes in their order, the range of each attribute, and "
                "what each of the corpus's own labels became) and, where annotators are known, `corpus.ratings.parquet` (a "
                "row for each rating).",
            ]
        )
        + "\n"
    )
