"""The measurement of the report's page measures a page that works."""

from typing import Any

import pytest

from benchmarks.report_page import ACTIONS, FIGURES, measure, report


@pytest.mark.slow
def test_every_figure_is_measured(chromium: Any) -> None:
    result = measure(300, 2, chromium)
    assert set(FIGURES) < set(result)
    assert 0 < result["tables_ms"] < result["charts_ms"]
    assert all(result[action] > 0 for action in ACTIONS)
    assert report([result]).row_count == len(FIGURES)
