"""What made a file: the versions, the command and the date."""

import platform
import shlex
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def provenance(weights: Path | str | None = None) -> dict[str, str]:
    """Return versions, command, date and where the weights lie: for a set's record, not for its fingerprint."""
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
    }
    for package in (
        "medusa-ser",
        "torch",
        "transformers",
        "openai-whisper",
        "opensmile",
        "peft",
        "numpy",
        "soundfile",
        "soxr",
        "av",
    ):
        installed = installed_version(package)
        if installed is not None:
            record[package] = installed
    if weights is not None:
        record["weights"] = str(Path(weights).resolve())
    return record


@cache
def installed_version(package: str) -> str | None:
    """Return the version of a package, None where it isn't installed; looked up once, among all packages' metadata."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
