"""The page in a real Chromium: nothing fails, markup stays text, cells and regions filter, clips play."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ensemble.report.collect import Collected, PageOptions, collect
from ensemble.report.page import SCRIPTS, write_page
from ensemble.report.runs import find_runs
from ensemble.report.scores import Scoring
from ensemble.report.sound import audio_of
from featurestore.corpus.manifest import LabelScheme, Manifest
from tests.helpers.messages import mentions
from tests.helpers.report_runs import ATTRIBUTE, CLASSES, LAYER_SCORES, MARKUP, N

PLAYABLE = "() => document.querySelector('audio').readyState >= 2 && document.querySelector('audio').duration > 0.1"


@dataclass
class Opened:
    """A page that is open, and what its console said that is worse than a message."""

    page: Any
    problems: list[str] = field(default_factory=list)


def opened(browser: Any, url: str, **context: Any) -> Opened:
    page = Opened(browser.new_page(**context))
    page.page.on(
        "console", lambda message: page.problems.append(message.text) if message.type in ("error", "warning") else None
    )
    page.page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.page.goto(url)
    page.page.wait_for_selector("html[data-ready='charts']")
    return page


@pytest.fixture(scope="module")
def shown(chromium: Any, html: Path) -> Iterator[Opened]:
    page = opened(chromium, html.as_uri())
    yield page
    page.page.close()


@pytest.fixture
def page(shown: Opened) -> Any:
    shown.page.click("#clear")
    return shown.page


def test_nothing_fails_and_every_chart_is_drawn(shown: Opened) -> None:
    assert shown.problems == []
    plots = shown.page.locator(".plot")
    assert plots.count() >= 4
    assert shown.page.locator(".plot .main-svg").count() >= plots.count()


def test_markup_in_keys_labels_transcripts_paths_and_speakers_is_inert(shown: Opened) -> None:
    page = shown.page
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, object, embed, b").count() == 0
    assert page.locator("body script:not([type])").count() == len(SCRIPTS) + 1  # and Plotly
    assert page.locator("h1").inner_text() == "<b>title</b>"
    row = page.locator("#table tbody tr").first.inner_text()
    assert f"u0{MARKUP}" in row
    assert f"text 0 {MARKUP}" in row
    assert f"s0{MARKUP}" in page.locator("#warnings").inner_text()
    assert CLASSES[0] in page.locator("#matrix").inner_text()
    assert ATTRIBUTE in page.locator("#attributes").inner_text()
    assert '"><img src=x' in page.locator("#groups .plot").text_content()


def test_the_policy_runs_no_script_but_the_pages_own(shown: Opened) -> None:
    shown.page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.hacked = 2";
        document.body.append(script);
    }""")
    assert shown.page.evaluate("window.hacked") is None
    assert len(shown.problems) == 1
    shown.problems.clear()


def test_a_cell_of_the_matrix_shows_its_utterances(page: Any) -> None:
    for cell in page.locator("#matrix .cell").all()[:4]:
        n = int(cell.locator("span").inner_text())
        cell.click()
        assert page.locator("#status").inner_text().startswith(f"{n} of {N} utterances: label ")
        assert page.locator("#table tbody tr").count() == n
        assert cell.get_attribute("aria-pressed") == "true"


def test_the_heat_map_of_a_probe_shows_every_layers_score(page: Any) -> None:
    section = page.locator("#probe")
    assert section.locator(".heat").all_inner_texts() == [f"{score:.3f}" for score in LAYER_SCORES]
    assert section.locator(".most").inner_text() == f"{max(LAYER_SCORES):.3f}"
    assert f"tone{MARKUP}" in section.locator("tbody").inner_text()
    assert f"p{MARKUP} 0.605" in section.inner_text()


def test_search_and_order_change_the_table(page: Any, collected: Collected) -> None:
    page.fill("#search", "TEXT 17 ")
    page.wait_for_function("() => document.querySelectorAll('#table tbody tr').length === 1")
    assert f"u17{MARKUP}" in page.locator("#table tbody").inner_text()
    page.click("#clear")
    page.get_by_role("button", name="Hardest first").click()
    first = page.locator("#table tbody tr").first
    assert collected.rows.keys[collected.hardest[0]] in first.inner_text()
    page.click("button[data-sort='duration']")
    assert f"u0{MARKUP}" in page.locator("#table tbody tr").first.inner_text()
    page.click("button[data-sort='duration']")
    assert f"u{N - 1}{MARKUP}" in page.locator("#table tbody tr").first.inner_text()


def test_the_map_draws_every_utterance_and_a_region_fills_the_table(page: Any) -> None:
    canvas = page.locator("#map-canvas")
    canvas.scroll_into_view_if_needed()
    assert canvas.get_attribute("data-points") == str(N)
    box = canvas.bounding_box()
    left, top, right, bottom = 2, 2, box["width"] - 2, box["height"] - 2
    page.mouse.move(box["x"] + left, box["y"] + top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.up()
    assert mentions(page.locator("#status").inner_text(), N, N, "utterances", "map")
    for option in page.locator("#map select").nth(1).locator("option").all():
        page.locator("#map select").nth(1).select_option(option.get_attribute("value"))
        assert canvas.get_attribute("data-points") == str(N)


def test_a_point_under_the_mouse_shows_its_utterance_and_how_to_play_it(page: Any) -> None:
    canvas, tip = page.locator("#map-canvas"), page.locator("#map .tip")
    assert "click" in page.locator("#map-caption").inner_text()
    canvas.scroll_into_view_if_needed()
    edges = page.evaluate("""() => {
        const { px, py } = Medusa.map;
        const ends = (values) => [values.indexOf(Math.min(...values)), values.indexOf(Math.max(...values))];
        return [...ends([...px]), ...ends([...py])];
    }""")
    box = canvas.bounding_box()
    for i in edges:
        x, y = page.evaluate("(i) => [Medusa.map.px[i], Medusa.map.py[i]]", i)
        canvas.hover(position={"x": x, "y": y})
        index = page.evaluate("() => Medusa.map.cursor")  # another may lie on it
        assert f"u{index}{MARKUP}" in tip.inner_text()
        assert f"text {index} {MARKUP}" in tip.inner_text()
        assert "play" in tip.inner_text()
        inner = tip.bounding_box()
        assert box["x"] <= inner["x"]
        assert inner["x"] + inner["width"] <= box["x"] + box["width"]
    page.mouse.move(0, 0)
    assert tip.is_hidden()


def test_a_click_on_the_map_plays_that_utterance(page: Any) -> None:
    canvas = page.locator("#map-canvas")
    canvas.scroll_into_view_if_needed()
    x, y = page.evaluate("() => [Medusa.map.px[5], Medusa.map.py[5]]")
    canvas.click(position={"x": x, "y": y})
    assert page.locator(".playing").inner_text().startswith("u")
    page.wait_for_function(PLAYABLE)


def test_keys_move_open_and_play(page: Any) -> None:
    page.locator("#table tbody tr").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    details = page.locator("#table tr.details")
    assert details.count() == 1
    assert f"u1{MARKUP}" in details.inner_text()
    assert "meta" in details.inner_text()
    page.keyboard.press(" ")
    page.wait_for_function(PLAYABLE)
    page.keyboard.press("Enter")
    assert page.locator("#table tr.details").count() == 0


def test_a_button_that_a_key_pressed_keeps_the_focus(page: Any) -> None:
    page.get_by_role("button", name="Errors alone").focus()
    page.keyboard.press("Enter")
    assert page.locator("#status").inner_text().endswith(": errors")
    assert page.evaluate("document.activeElement.textContent") == "Errors alone"
    page.locator("button[data-sort='group gender']").focus()
    for sort in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.dataset.sort") == "group gender"
        assert (
            page.locator("th", has=page.locator("button[data-sort='group gender']")).get_attribute("aria-sort") == sort
        )


def test_clips_inside_the_page_and_files_beside_it_play(chromium: Any, html: Path, collected: Collected) -> None:
    linked = html.with_name("linked.html")
    write_page(linked, collected.payload, audio_of(collected.rows, "link", linked))
    for path, begins in ((html, "data:audio/ogg"), (linked, "file:")):
        page = opened(chromium, path.as_uri())
        page.page.locator("#table .play").nth(3).click()
        assert page.page.evaluate("document.querySelector('audio').src").startswith(begins)
        page.page.wait_for_function(PLAYABLE)
        assert page.problems == []
        page.page.close()


def test_it_is_dark_where_the_reader_asks_for_it_and_prints(chromium: Any, html: Path) -> None:
    page = opened(chromium, html.as_uri(), color_scheme="dark")
    red, green, blue = page.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(red, green, blue) < 60
    page.page.emulate_media(media="print", color_scheme="dark")
    assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert {plot.bounding_box()["width"] for plot in page.page.locator(".plot .svg-container").all()} == {980}
    page.page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.page.emulate_media(media="screen", color_scheme="dark")
    assert page.page.pdf().startswith(b"%PDF-")
    assert page.problems == []
    page.page.close()


def test_a_corpus_of_attributes_alone_has_no_columns_of_classes(chromium: Any, tmp_path: Path) -> None:
    """Shows annotators' and predicted values, those beyond the scale too, and sorts by how far they are apart."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 7, (20, 2))
    truth[3, 0] = 7
    table = pa.table({
        "utterance_id": [f"u{i}" for i in range(20)], "text": ["مرحبا" for _ in range(20)],
        "attr_arousal": truth[:, 0], "attr_valence": truth[:, 1],
    })  # fmt: skip
    Manifest(table, LabelScheme((), {"arousal": (1, 7), "valence": (1, 7)}), tmp_path).write(tmp_path / "m.csv")
    predicted = np.clip(truth + 0.1, 1, 7)
    predicted[7], predicted[3, 0] = 8 - truth[7], 7.25
    lines = [f"u{i},{a:.4f},{v:.4f}" for i, (a, v) in enumerate(predicted.tolist())]
    (tmp_path / "own.csv").write_text("\n".join(["utterance_id,attr_arousal,attr_valence", *lines]) + "\n")
    runs = find_runs([str(tmp_path / "own.csv")], tmp_path / "m.csv")
    collected = collect(runs, PageOptions(Scoring(n_resamples=10)))
    assert collected.hardest[0] == 7
    write_page(tmp_path / "page.html", collected.payload, {"links": None, "clips": {}, "note": ""})
    page = opened(chromium, (tmp_path / "page.html").as_uri())
    heads = page.page.locator("#table thead th").all_inner_texts()
    assert [head for head in heads if head in ("label", "predicted", "confidence", "wrong by")] == []
    assert "arousal (predicted)" in heads
    page.page.get_by_role("button", name="Hardest first").click()
    assert page.page.locator("#table tbody tr").first.inner_text().startswith("u7")
    assert page.page.locator("#map-canvas").get_attribute("data-points") == "20"
    assert page.page.locator("#confusion").count() == 0
    assert "beyond the scale, 1 to 7: 1." in page.page.locator("#attributes").inner_text()
    least, most = page.page.evaluate("document.querySelector('#attributes .js-plotly-plot').layout.yaxis.range")
    assert (least, most) == (1, 7.25)
    assert page.problems == []
    page.page.close()
