"""The option `--strict`, and what commands print of the check of a division."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text, writing
from featurestore.terminal import reads, say

if TYPE_CHECKING:
    from featurestore.corpus.protocol import ProtocolReport

StrictOption = Annotated[
    bool,
    reads("Refuse folds or splits that share speakers or recordings, or that lack a class, in place of a warning.",
          "--strict"),
]  # fmt: skip


def tell_protocol(report: "ProtocolReport", strict: bool, *, stderr: bool = False) -> None:
    """Print what is wrong with a division; ProtocolError where it must not be used. stderr: see `tell_lines`."""
    report.refuse(strict)
    tell_lines(report.lines(), stderr=stderr)


def write_protocol(directory: Path, report: "ProtocolReport") -> None:
    """Write the check into a run directory, as protocol.json."""
    path = directory / "protocol.json"
    text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with writing(path, ConfigError):
            replace_text(path, text)


def tell_lines(lines: Sequence[str], *, stderr: bool = False) -> None:
    """Print warnings in yellow on stderr, notes on stdout; stderr=True prints all there, beside a table on stdout."""
    for line in lines:
        warning = not line.startswith("note")
        say(line, "yellow" if warning else "dim", stderr=warning or stderr)
