"""Training as one sees it: a live table of epochs and a bar on a terminal, a line per epoch elsewhere; then curves."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from deepser.watch.curves import History, curves_png, read_histories, score_of
from deepser.watch.tensorboard import TensorBoard
from featurestore.terminal import console, say

SHOWN_EPOCHS = 12
CURVES = "curves.png"


class Watch:
    """What `fit_members` is to call: `step` after each step, `epoch` after each epoch."""

    def __init__(self, title: str, members: Sequence[str], folds: Sequence[str], board: TensorBoard | None) -> None:
        self._title, self._folds, self._several = title, folds, len(members) > 1
        self._board = board
        self._told: dict[tuple[str, str], int] = {}
        self._rows: list[tuple[str, str, Mapping[str, Any]]] = []
        self._where = console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(), console=self._where, speed_estimate_period=60,
        )  # fmt: skip
        self._task = self._progress.add_task(title, total=len(folds))
        self.live: Live | None = None

    def step(self, fold: str, done: int, total: int, text: str) -> None:
        """Show that `done` steps of `total` of a fold's models are done."""
        of = f" fold {fold}," if len(self._folds) > 1 else ""
        n_folds_done = self._folds.index(fold) + done / total
        self._progress.update(self._task, completed=n_folds_done, description=f"{self._title}:{of} {text}")

    def epoch(self, member: str, fold: str, history: History) -> None:
        """Show the records of a fold's epochs that are new."""
        if self._board is not None:
            self._board.epoch(member, fold, history)
        new = history[self._told.get((member, fold), 0) :]
        self._told[member, fold] = len(history)
        self._rows = [*self._rows, *((member, fold, record) for record in new)][-SHOWN_EPOCHS:]
        if self.live is not None:
            self.live.update(self._shown())
        else:
            for record in new:
                say(epoch_line(member, fold if len(self._folds) > 1 else "", record), stderr=True)

    @contextmanager
    def shown(self) -> Iterator["Watch"]:
        """On a terminal live until the end, when the last epochs stay there."""
        if not self._where.is_terminal:
            yield self
            return
        with Live(self._shown(), console=self._where, refresh_per_second=4) as self.live:
            try:
                yield self
            finally:
                self.live.update(self._table())

    def _shown(self) -> Group:
        return Group(self._table(), self._progress)

    def _table(self) -> Table:
        return epochs_table(self._rows, members=self._several, folds=len(self._folds) > 1)


@contextmanager
def watching(directories: Mapping[str, Path], folds: Sequence[str], *, tensorboard: bool = False) -> Iterator[Watch]:
    """Show the training of members (run directories by name) over folds; curves are drawn however it ends.

    ConfigError where `tensorboard` is asked for and isn't there.
    """
    board = TensorBoard(directories) if tensorboard else None
    members = list(directories)
    watch = Watch(members[0] if len(members) == 1 else f"{len(members)} members", members, folds, board)
    try:
        with watch.shown():
            yield watch
    finally:
        if board is not None:
            board.close()
        for name, directory in directories.items():
            draw_curves(name, directory)


def draw_curves(name: str, directory: Path) -> None:
    """Draw a member's curves.png from its metrics, unless it is newer than they are."""
    times_ns = [path.stat().st_mtime_ns for path in directory.glob("fold-*/metrics.jsonl")]
    picture = directory / CURVES
    if times_ns and not (picture.exists() and picture.stat().st_mtime_ns >= max(times_ns)):
        curves_png(read_histories(directory), picture, name)


def epochs_table(rows: Sequence[tuple[str, str, Mapping[str, Any]]], *, members: bool, folds: bool) -> Table:
    """Return a line per epoch, of (member, fold, record); names of members and folds where they are asked for."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in (*(["member"] if members else []), *(["fold"] if folds else []), "stage"):
        table.add_column(name)
    for name in ("epoch", "loss", "held out", "rate", "waiting", "seconds"):
        table.add_column(name, justify="right")
    for member, fold, record in rows:
        score = score_of(record)
        cells = [*([member] if members else []), *([fold] if folds else []), record["stage"], str(record["epoch"])]
        cells += [f"{record['loss']:.4f}", f"{score[0]} {score[1]:.3f}" if score else "", f"{record['lr']:.1e}"]
        table.add_row(*map(Text, cells), f"{record['waiting_share']:.1%}", f"{record['seconds']:.1f}")
    return table


def epoch_line(member: str, fold: str, record: Mapping[str, Any]) -> str:
    """Return an epoch as one line."""
    score = score_of(record)
    held_out = f", {score[0]} {score[1]:.3f} held out" if score else ""
    of_fold = f" fold {fold}" if fold else ""
    return (
        f"{member}{of_fold}, {record['stage']} epoch {record['epoch']}: loss {record['loss']:.4f}{held_out}, "
        f"{record['seconds']:.1f} s, waiting {record['waiting_share']:.1%}"
    )
