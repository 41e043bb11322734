"""Settings of the documentation: `make docs` builds it into docs/_build, `make docs-links` tries its links."""

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

from generate import write_pages  # noqa: E402
from generate.links import relink  # noqa: E402

write_pages(DOCS)

project = "medusa-ser"
author = "The medusa-ser developers"
copyright = "The medusa-ser developers"
release = version = installed_version("medusa-ser")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "generate", "notebook.ipynb"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # a page that is adopted may begin below level 1

html_theme = "furo"
html_title = f"medusa-ser {release}"

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"exclude-members": "__init__,__new__"}
maximum_signature_line_length = 100
# Sites that answer a browser but not a program.
linkcheck_ignore = [r"https://doi\.org/.*", r"http://127\.0\.0\.1.*"]


def adapt_links(app: Sphinx, page: str, source: list[str]) -> None:
    """Let a link to a file of the repository lead to its page here, where it has one."""
    source[0] = relink(source[0], DOCS / f"{page}.md", page)


def adapt_docstring(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Make reStructuredText of a docstring, which is plain text with code in single backticks."""
    lines[:] = [re.sub(r"`+[^`]*`+|[*|_]", _escaped, line) for line in lines]


def _escaped(match: re.Match[str]) -> str:
    text = match[0]
    return f"``{text.strip('`')}``" if text.startswith("`") else f"\\{text}"


def setup(app: Sphinx) -> None:
    """Connect the two adaptations."""
    app.connect("source-read", adapt_links)
    app.connect("autodoc-process-docstring", adapt_docstring)
