"""The scores of every layer that a probe keeps beside its model, and the fit that they belong to."""

from pathlib import Path

from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text, sync_directory, writing
from featurestore.runtime.weights_digest import parts_of_files, weights_digest

WEIGHTS = "fold-all/model.safetensors"
CONFIG = "config.json"
SCORES = "scores.json"
FIT = "fit"  # key of `fit_of` in the file


def fit_of(directory: Path) -> dict[str, str]:
    """Return the digests of a run directory's configuration and weights; ConfigError if one of the files is missing.

    Another fit has others: of features, folds, settings or training utterances.
    """
    files = {"config": directory / CONFIG, "weights": directory / WEIGHTS}
    try:
        return {name: weights_digest(parts_of_files([path])) for name, path in files.items()}
    except OSError as error:
        raise ConfigError(
            f"{error.filename} can't be read ({error.strerror}); run the same `medusa probe` again."
        ) from error


def keep_scores(directory: Path, text: str) -> None:
    """Write the scores of the fit that a run directory holds, whole or not at all; ConfigError if that fails."""
    path = directory / SCORES
    with writing(path, ConfigError):
        replace_text(path, text)


def forget_scores(directory: Path) -> None:
    """Remove the scores of an earlier fit, before another takes its place; ConfigError if that fails."""
    path = directory / SCORES
    if path.exists():
        with writing(path, ConfigError):
            path.unlink()
            sync_directory(directory)
