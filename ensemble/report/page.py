"""One HTML file of what was collected: our scripts and styles, Plotly, the data, and nothing from a network.

Charts are Plotly.js's (MIT; its licence stands in the script), which the package plotly on PyPI carries: 4.8 MB, in the
page 2.0 MB. Tables, the confusion matrix and the map of utterances are elements and a canvas of our own.

Every key, label, transcript and path is text that nobody vouches for. It stands in a JSON element in which no "<" is
left, the scripts put it into the page as text, and a Content-Security-Policy runs the scripts of this file alone, by
their digests, and lets nothing be fetched.
"""

import base64
import gzip
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from ensemble.report.packing import embedded_json
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_file, writing

SCRIPTS = (
    "core.js", "utterances.js", "audio.js", "overview.js", "matrix.js", "charts.js", "table.js", "map.js", "start.js",
)  # fmt: skip
STYLE, SKELETON = "page.css", "page.html"


def write_page(path: Path, payload: Mapping[str, Any], audio: Mapping[str, Any]) -> int:
    """Write the page, whole or not at all, and return its size in bytes; ConfigError where it can't be written."""
    html = page_of(payload, audio)
    with writing(path, ConfigError, "Choose another output path."):
        replace_file(path, lambda file: file.write(html))
    return len(html)


def page_of(payload: Mapping[str, Any], audio: Mapping[str, Any], connect: str = "'none'") -> bytes:
    """Return the page in UTF-8. audio: what `sound.audio_of` returns. connect: what scripts may fetch from."""
    scripts = [asset(name) for name in SCRIPTS]
    library, digest = plotly()
    hashes = " ".join(f"'{each}'" for each in (*map(script_digest, scripts), digest))
    # Plotly writes styles of its own; no text of ours ever becomes markup or a style.
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"media-src 'self' file: data:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": escape(policy).encode(),
        "title": escape(str(payload["title"])).encode("utf-8", "replace"),
        "style": asset(STYLE).encode(),
        "data": embedded_json(payload),
        "audio": embedded_json(audio),
        "plotly": library,
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts).encode(),
    }
    html = b""
    for n, part in enumerate(asset(SKELETON).encode().split(b"@@")):  # text, name, text, name, ...
        html += values[part.decode()] if n % 2 else part
    return html


def asset(name: str) -> str:
    """Return one of our files of the page."""
    return (files("ensemble.report") / "assets" / name).read_text(encoding="utf-8")


def script_digest(script: str) -> str:
    """Return the hash by which a Content-Security-Policy names a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


@lru_cache(1)
def plotly() -> tuple[bytes, str]:
    """Return Plotly's library as base64 of gzip, a third of its size, and the digest of the script in it."""
    script = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)), script_digest(script)
