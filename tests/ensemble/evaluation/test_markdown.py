"""Tables in Markdown: as many cells in every row, bars in text escaped, undefined scores shown as such."""

from pathlib import Path

import pytest

from ensemble.evaluation.markdown import read_report, score_rows, scores_markdown, table_markdown
from featurestore.errors import ConfigError


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    lines = table_markdown(["system", "F1"], [["a|b", "1"], ["c", ""]]).splitlines()
    assert lines == ["| system | F1 |", "| --- | ---: |", "| a\\|b | 1 |", "| c |  |"]


def test_a_score_that_is_null_in_a_report_is_not_a_number_in_its_table() -> None:
    spread = {"mean": 0.5, "std": None, "values": {"1": 0.5, "2": None}}
    row = {"name": "m1", "scores": {"macro_f1": 0.5, "uar": None}, "folds": {"macro_f1": spread}, "seeds": {}}
    rows = score_rows({"parts": {"test": [row]}})["test"]
    assert rows[0].scores["uar"] != rows[0].scores["uar"]
    assert rows[0].folds["macro_f1"].values["2"] != rows[0].folds["macro_f1"].values["2"]
    table = scores_markdown(rows).splitlines()
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert "m1" in table[2]
    assert ".500" in table[2]


@pytest.mark.parametrize("text", ["", "[]", '{"parts": 1}', '{"parts": {"test": [{"name": "a"}]}}'])
def test_a_file_that_is_no_report_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ConfigError, match=r"report\.json"):
        read_report(tmp_path / "report.json")
