"""`--tensorboard`: every epoch's figures as event files in the run directory, one run per fold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepser.watch.curves import SCORE, History
from featurestore.errors import ConfigError


class TensorBoard:
    """Writes what `fit_members` reports after each epoch to <run directory>/tensorboard/fold-<name>.

    A fold that is continued is written anew from its first epoch on, so that no epoch stands there twice.
    """

    def __init__(self, directories: Mapping[str, Path]) -> None:
        """directories: run directories by member. ConfigError where the package is missing."""
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            message = "--tensorboard needs the package tensorboard: pip install 'medusa-ser[tensorboard]'."
            raise ConfigError(message) from error
        self._directories = directories
        self._writers: dict[tuple[str, str], Any] = {}
        self._n_written: dict[tuple[str, str], int] = {}

    def epoch(self, member: str, fold: str, history: History) -> None:
        """Write the records that aren't written yet; the step is the number of the epoch, stages counted on."""
        writer_key = (member, fold)
        if writer_key not in self._writers:
            self._writers[writer_key] = self._open(self._directories[member] / "tensorboard" / f"fold-{fold}")
            self._n_written[writer_key] = 0
        for step, record in list(enumerate(history, start=1))[self._n_written[writer_key] :]:
            for name, value in record.items():
                if isinstance(value, int | float) and name != "epoch":
                    tag = name.replace(SCORE, "dev/", 1) if name.startswith(SCORE) else name
                    self._writers[writer_key].add_scalar(tag, value, step)
        self._n_written[writer_key] = len(history)
        self._writers[writer_key].flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    @staticmethod
    def _open(directory: Path) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        for old in directory.glob("events.out.tfevents.*"):
            old.unlink()
        return SummaryWriter(directory)
