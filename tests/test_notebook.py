"""The notebook in docs runs from its first cell to its last, and shows what it says."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[1]
NOTEBOOK = REPO / "docs" / "notebook.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (pip install nbclient ipykernel)")
    client = pytest.importorskip("nbclient", reason="nbclient is not installed (pip install nbclient ipykernel)")
    command = tmp_path / "bin" / "medusa"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{REPO / "cli.py"}" "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert not any("\x1b[" in output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    html = "".join(_html(cell) for cell in notebook.cells)
    assert "feature set logmel" in html
    assert "paired differences" in html
    assert "8 predictions of 1 member" in html
    assert (tmp_path / "notebook-run" / "report.html").stat().st_size > 2_000_000


def _html(cell: Any) -> str:
    outputs = cell.get("outputs", [])
    return "".join(str(output.get("data", {}).get("text/html", "")) for output in outputs)


def test_the_notebook_is_kept_without_outputs() -> None:
    import json

    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
