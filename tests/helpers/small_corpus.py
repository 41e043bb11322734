"""Forty-eight clips of the demo corpus, and `medusa` called in this process."""

import shutil
from pathlib import Path

from typer.testing import CliRunner, Result

from cli import app

ACTORS = ("01", "11", "04", "10", "08", "09")  # two of each of three folds
FAST = [
    *("--d", "16", "--n-heads", "2", "--stride", "32", "--batch-size", "16", "--precision", "float32"),
    *("--epochs", "2", "--stage2-epochs", "1", "--lr", "3e-3", "--stage2-lr", "1e-3", "--select", "last"),
]


def copy_clips(demo_corpus: Path, directory: Path) -> Path:
    """Return a corpus in RAVDESS's layout: 6 actors x 8 emotions, one clip each."""
    for actor in ACTORS:
        target = directory / f"Actor_{actor}"
        target.mkdir(parents=True)
        for clip in sorted((demo_corpus / target.name).glob("03-01-??-01-01-01-??.ogg")):
            shutil.copy(clip, target)
    return directory


def medusa(*arguments: str | Path, exit_code: int = 0, stdin: str | None = None) -> Result:
    """Run `medusa arguments...`; assert its exit code, and that it did not end in a traceback."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    shown = f"medusa {' '.join(map(str, arguments))}\n{result.stdout}\n{result.stderr}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(shown) from result.exception
    assert result.exit_code == exit_code, shown
    return result
