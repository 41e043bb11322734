"""The one JSON file that all steps add to, the Markdown table made of it, and the aims that were missed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from featurestore.runtime.durable import replace_text

Record = dict[str, Any]  # of a step: figures by name


@dataclass(frozen=True)
class Aim:
    """A figure that steps of these names ought to reach."""

    steps: str  # a pattern
    figure: str
    at_least: float
    words: str


AIMS = (
    Aim("featurize:*", "x_per_file", 20.0, "times the per-file float32 loop"),
    Aim("featurize:*", "x_padded", 2.5, "times padded batches in the same arithmetic"),
    Aim("featurize:wavlm-large", "mfu", 0.35, "MFU (valid frames, of the matrix rate measured, files to segments)"),
    Aim("featurize:hubert-large", "mfu", 0.40, "MFU (valid frames, of the matrix rate measured, files to segments)"),
    Aim("featurize:*", "busy", 0.95, "of the time a kernel runs"),
    Aim("train", "x_field", 4.0, "times the field's loop"),
    Aim("rows:*", "same_alone", 1.0, "float32 rows alone and in a batch the same to 1e-4"),
    Aim("resume", "resumed", 1.0, "a killed run goes on"),
    Aim("transcribe", "same_texts", 0.97, "of the texts those of whisper.transcribe"),
)


def read(path: Path) -> dict[str, Record]:
    """Return the steps recorded so far, by name."""
    return json.loads(path.read_text()) if path.exists() else {}


def add(path: Path, step: str, record: Record) -> dict[str, Record]:
    """Replace a step's figures in the file and return those of all steps."""
    steps = {**read(path), step: record}
    replace_text(path, json.dumps(steps, indent=1) + "\n")
    return steps


def missed(steps: dict[str, Record]) -> Iterator[str]:
    """Yield a line for each figure that missed its aim, or was not measured."""
    for step, record in steps.items():
        if "error" in record:
            yield f"{step}: not measured ({record['error']})"
            continue
        for aim in AIMS:
            if fnmatch(step, aim.steps):
                value = record.get(aim.figure)
                if not isinstance(value, int | float) or value != value:
                    yield f"{step}: {aim.figure} not measured, aim {aim.at_least:g} {aim.words}"
                elif value < aim.at_least:
                    yield f"{step}: {value:.3g}, aim {aim.at_least:g} {aim.words}"


def markdown(steps: dict[str, Record]) -> str:
    """Return a table of every figure, and the list of missed aims."""
    lines = ["# On a GPU", "", "| step | figure | value |", "|---|---|---|"]
    for step, record in steps.items():
        lines += [f"| {step} | {name} | {_shown(value)} |" for name, value in record.items()]
    lines += ["", "## Missed aims", ""]
    lines += [f"- {line}" for line in missed(steps)] or ["- none"]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    return str(value).replace("|", "/").replace("\n", " ")
