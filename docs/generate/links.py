"""Links of Markdown files, moved with them: a page keeps pointing at what it pointed at."""

import os
import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
DOCS = REPO / "docs"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")

# Files of the repository that are pages of the documentation, by the name of the page.
SHOWN = {
    "featurestore/format/FORMAT.md": "reference/format",
    "findings/README.md": "project/findings",
    "CONTRIBUTING.md": "project/contributing",
    "SECURITY.md": "project/security",
    "CHANGELOG.md": "project/changelog",
    "benchmarks/results/ablations-ravdess.md": "results/ablations-ravdess",
    "benchmarks/results/presets-ravdess.md": "results/presets-ravdess",
    "benchmarks/results/medusa14-small.md": "results/medusa14-small",
    "benchmarks/results/featurize.md": "results/featurize",
    "benchmarks/results/learning-curves.md": "results/learning-curves",
    "benchmarks/results/alignment.md": "results/alignment",
    "benchmarks/results/small-corpora.md": "results/small-corpora",
}


def relink(text: str, source: Path, page: str) -> str:
    """Return the text of the file `source` with its relative links rewritten for the page `page` below docs/.

    A link to a file that the documentation shows leads to that page; other files of the repository are downloads.
    """
    folder = (DOCS / page).parent

    def moved(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = Path(os.path.normpath(source.parent / target))
        shown = SHOWN.get(path.relative_to(REPO).as_posix())
        if shown is not None:
            path = DOCS / f"{shown}.md"
        relative = os.path.relpath(path, folder)
        return f"{match[1]}{relative}{'#' + anchor if anchor else ''}{match[3]}"

    return LINK.sub(moved, text)


def adopted(source: Path, page: str) -> str:
    """Return the Markdown of a file elsewhere in the repository as a page of the documentation."""
    return relink(source.read_text(encoding="utf-8"), source, page)
