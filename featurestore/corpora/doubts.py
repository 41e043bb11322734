"""What in a manifest is allowed and yet looks like a mistake; `prepare` prints it as notes, whatever the corpus."""

from collections import Counter

from featurestore.corpora.assemble import named, two_genders
from featurestore.corpus.manifest import Manifest


def doubts(manifest: Manifest) -> list[str]:
    """Return a note for classes that differ in letter case or spaces alone, speakers of two genders, and one class."""
    notes = []
    by_letters: dict[str, list[str]] = {}
    for name in manifest.scheme.classes:
        by_letters.setdefault("".join(name.split()).casefold(), []).append(name)
    for names in by_letters.values():
        if len(names) > 1:
            told = " and ".join(map(repr, names))
            notes.append(f"classes {told} differ in letter case or spaces alone: --merge '{names[1]}={names[0]}'")
    if manifest.has("label"):
        occurring = Counter(label for label in manifest.labels if label is not None)
        if len(occurring) == 1:
            notes.append(f"a single class, {next(iter(occurring))!r}; check which column or folder holds the labels")
    if manifest.has("speaker") and manifest.has("gender"):
        both = two_genders(manifest.column("speaker").tolist(), manifest.column("gender").tolist())
        if both:
            notes.append(
                f"{named('speakers have two genders', both)}; where numbers start anew for each gender, "
                "`prepare csv --column speaker=GENDER+SPEAKER` joins the two columns"
            )
    return notes
