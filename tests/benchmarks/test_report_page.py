"""The measurement of the report's page measures a page that works."""

from typing import Any

import pytest

from benchmarks.report_page import ACTIONS, FIGURES, measure, report


@pytest.mark.slow
def test_every_figure_is_measured(chromium: Any) -> None:
    found = measure(300, 2, chromium)
    assert set(FIGURES) < set(found)
    assert 0 < found["tables_ms"] < found["charts_ms"]
    assert all(found[action] > 0 for action in ACTIONS)
    assert report([found]).row_count == len(FIGURES)
