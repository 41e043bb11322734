"""Reference and results pages, written from the code and from benchmarks/results when the documentation is built."""

from pathlib import Path

from generate.commands import commands_page, recipe_keys_page
from generate.configuration import configuration_page
from generate.errors import errors_page
from generate.links import REPO, adopted
from generate.manifest import manifest_page
from generate.python_api import python_page
from generate.readers import readers_page
from generate.results import RESULTS, results_pages
from generate.rooms import rooms_page

# Pages that live elsewhere in the repository: where the documentation shows them.
ADOPTED = {
    "reference/format": "featurestore/format/FORMAT.md",
    "project/findings": "findings/README.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/security": "SECURITY.md",
    "project/changelog": "CHANGELOG.md",
}


def pages() -> dict[str, str]:
    """Return the Markdown of every generated page by its name below docs/, without the suffix."""
    texts = {
        "reference/command-line": commands_page(),
        "reference/recipe-keys": recipe_keys_page(),
        "reference/python": python_page(),
        "reference/configuration": configuration_page(),
        "reference/manifest": manifest_page(),
        "reference/errors": errors_page(),
        "reference/readers": readers_page(),
        "reference/rooms": rooms_page(),
    }
    texts |= {f"results/{name}": text for name, text in results_pages().items()}
    return texts | {page: adopted(REPO / source, page) for page, source in ADOPTED.items()}


def write_pages(docs: Path) -> list[str]:
    """Write every generated page below `docs`, and return their names.

    Pages that are up to date are left alone; those of an earlier build that are no longer made are removed.
    """
    texts = pages()
    for directory in {name.partition("/")[0] for name in texts}:
        for path in (docs / directory).glob("*.md"):
            if f"{directory}/{path.stem}" not in texts:
                path.unlink()
    for name, text in texts.items():
        path = docs / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    return sorted(texts)


__all__ = ["ADOPTED", "RESULTS", "pages", "write_pages"]
