"""Training as one sees it: lines, a live table, curves, event files; a run that goes on tells no epoch twice."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from deepser.members.folds import plan_folds
from deepser.watch import terminal as module
from deepser.watch.curves import curves_png, read_histories, score_of
from deepser.watch.tensorboard import TensorBoard
from deepser.watch.terminal import SHOWN_EPOCHS, Watch, draw_curves, epoch_line, epochs_table, watching
from featurestore.errors import ConfigError
from tests.helpers.fitting import fit_member
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa
from tests.helpers.synthetic_corpus import corpus, member

PNG = b"\x89PNG"


def record(epoch: int, stage: str = "stage1", **further: float) -> dict[str, object]:
    fields = {"stage": stage, "epoch": epoch, "loss": 2.0 / epoch, "lr": 1e-4, "waiting_share": 0.004, "seconds": 1.25}
    return {**fields, **further}


def events(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = EventAccumulator(str(directory))
    result.Reload()
    return {tag: [(e.step, e.value) for e in result.Scalars(tag)] for tag in result.Tags()["scalars"]}


def test_a_line_says_what_an_epoch_was() -> None:
    line = epoch_line("m", "2", record(4, dev_macro_f1=0.5))
    assert mentions(line, "m", "fold 2", "stage1", "4", "loss 0.5000", "macro_f1 0.500", "1.2 s", "0.4%")
    line = epoch_line("m", "", record(4))
    assert mentions(line, "m", "stage1", "4", "loss 0.5000", "1.2 s", "0.4%")
    assert "fold" not in line
    assert "macro_f1" not in line


def test_the_table_names_what_there_are_several_of() -> None:
    rows = [("[b]m", "1", record(1, dev_uar=0.25)), ("[b]m", "2", record(2))]
    for members in (True, False):
        console = Console(width=100, file=io.StringIO())
        with console.capture() as capture:
            console.print(epochs_table(rows, members=members, folds=True))
        output = capture.get()
        assert "uar 0.250" in output
        assert ("[b]m" in output) is members


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch("m", ["m"], ["1", "2"], None)
    with watch.shown():
        watch.step("1", 3, 6, "stage1 epoch 1/2")
        watch.epoch("m", "1", [record(1)])
        watch.epoch("m", "1", [record(1), record(2)])
        watch.epoch("m", "2", [record(1)])
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "m fold 1, stage1 epoch 1", "m fold 1, stage1 epoch 2", "m fold 2, stage1 epoch 1",
    ]  # fmt: skip


def test_a_terminal_shows_the_last_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(module, "console", lambda stderr=False: terminal)
    watch = Watch("m", ["m"], ["1"], None)
    with watch.shown():
        watch.step("1", 1, 2, "stage1 epoch 1/2")
        watch.epoch("m", "1", [record(n) for n in range(1, SHOWN_EPOCHS + 4)])
    output = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue())  # type: ignore[attr-defined]
    last = output.rstrip().splitlines()[-SHOWN_EPOCHS:]
    assert [line.split()[1] for line in last] == [str(n) for n in range(4, SHOWN_EPOCHS + 4)]
    assert "%" not in last[-1].replace("0.4%", "")  # the bar is gone


def test_curves_and_event_files_of_a_real_fit(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    plan, directory = plan_folds(manifest, cv="fold"), tmp_path / "m"
    config = member(select="macro_f1", dev_fraction=0.3)
    with watching({"m": directory}, plan.names, tensorboard=True) as watch:
        fit_member(store, manifest, config, plan, directory, progress=watch.step, on_epoch=watch.epoch)
    assert (directory / "curves.png").read_bytes().startswith(PNG)
    for fold, history in read_histories(directory).items():
        assert [each["stage"] for each in history] == ["stage1"] * 3 + ["stage2"] * 2
        result = events(directory / "tensorboard" / f"fold-{fold}")
        assert result["loss"] == [(n, pytest.approx(each["loss"])) for n, each in enumerate(history, start=1)]
        scores = [score_of(each) for each in history]
        assert result["dev/macro_f1"] == [(n, pytest.approx(s[1])) for n, s in enumerate(scores, start=1) if s]
        assert result.keys() == {"loss", "lr", "dev/macro_f1", "waiting_share", "seconds"}


def test_a_fold_that_goes_on_is_written_once(tmp_path: Path) -> None:
    for n in (2, 4):  # as after a kill: the first call tells what was done before
        board = TensorBoard({"m": tmp_path})
        board.epoch("m", "1", [record(i) for i in range(1, n + 1)])
        board.epoch("m", "1", [record(i) for i in range(1, n + 2)])
        board.close()
    assert [step for step, _ in events(tmp_path / "tensorboard" / "fold-1")["loss"]] == [1, 2, 3, 4, 5]


def test_curves_break_where_the_score_becomes_another(tmp_path: Path) -> None:
    records = [record(1, dev_uar=0.2), record(2, dev_uar=0.3), record(1, "stage2", dev_mean_ccc=0.1)]
    curves_png({"1": records, "10": records[:1]}, tmp_path / "c.png", "two $folds$")
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)
    curves_png({"all": [record(1)]}, tmp_path / "l.svg")  # no score, one fold
    assert "<svg" in (tmp_path / "l.svg").read_text()


def test_curves_are_drawn_again_when_there_is_more(tmp_path: Path) -> None:
    draw_curves("m", tmp_path)
    assert not list(tmp_path.iterdir())  # nothing was trained
    metrics = tmp_path / "fold-1" / "metrics.jsonl"
    metrics.parent.mkdir()
    metrics.write_text(json.dumps(record(1)) + "\n")
    draw_curves("m", tmp_path)
    (tmp_path / "curves.png").write_bytes(b"kept")
    draw_curves("m", tmp_path)
    assert (tmp_path / "curves.png").read_bytes() == b"kept"
    metrics.write_text("{}\n")
    with pytest.raises(ConfigError, match=r"metrics.jsonl, line 1"):
        read_histories(tmp_path)


def test_without_the_package_the_remedy_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    store, manifest = corpus(tmp_path)
    manifest.write(tmp_path / "c.csv")
    arguments = [
        "fit-deepser",
        "-m",
        tmp_path / "c.csv",
        "-s",
        store.path,
        "--cv",
        "fold",
        "--features",
        "first,second",
    ]
    output = medusa(*arguments, "--runs", tmp_path / "r", "--name", "m", "--tensorboard", exit_code=2).stderr
    assert "pip install 'medusa-ser[tensorboard]'" in output
    assert not (tmp_path / "r").exists()


class Hidden:
    """Finds no tensorboard, and ends the search for it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == "tensorboard":
            raise ModuleNotFoundError(name)
