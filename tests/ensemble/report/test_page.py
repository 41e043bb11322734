"""The file: safe to embed, strict in what it runs, small enough."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.evaluation.system import System
from ensemble.report.collect import Collected
from ensemble.report.packing import embedded_json, pack, pack_names, pack_probabilities
from ensemble.report.page import page_of
from ensemble.report.utterances import utterance_columns
from tests.helpers.report_runs import MARKUP


def element(html: str, id: str) -> Any:
    result = re.search(rf'<script type="application/json" id="{id}">(.*?)</script>', html, re.DOTALL)
    assert result is not None
    return json.loads(result[1])


def test_the_page_holds_exactly_what_was_collected(collected: Collected) -> None:
    html = page_of(collected.payload, {"links": None, "clips": {}, "note": ""}).decode()
    assert element(html, "data") == json.loads(json.dumps(collected.payload))


def test_no_string_of_the_data_is_markup_in_the_file(collected: Collected) -> None:
    html = page_of(collected.payload, {"links": [MARKUP], "clips": {}, "note": MARKUP}).decode()
    assert "<img" not in re.sub(r'<script type="text/plain".*?</script>', "", html, flags=re.DOTALL)
    assert "<b>title" not in html


def test_the_policy_names_each_script_by_its_digest_and_lets_nothing_be_fetched(collected: Collected) -> None:
    html = page_of(collected.payload, {"links": None, "clips": {}, "note": ""}).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) > 5
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"sha256-{digest}" in policy[1]
    assert "default-src &#x27;none&#x27;" in policy[1]
    assert "connect-src &#x27;none&#x27;" in policy[1]
    assert "http" not in policy[1].replace("http-equiv", "")
    assert not re.search(r'(src|href)="(https?:)?//', html)


def test_json_inside_an_element_keeps_every_string_even_no_unicode() -> None:
    value = {"text": "<!--<script>\u2028& é 漢 \udce9"}
    data = embedded_json(value)
    assert b"<" not in data
    assert b"\xe2\x80\xa8" not in data
    assert json.loads(data) == value


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4"])
def test_packed_arrays_are_little_endian_and_read_back(dtype: str) -> None:
    values = np.array([[0, 1], [2, 100]])
    packed = pack(values, dtype)
    unpacked = np.frombuffer(base64.b64decode(packed["base64"]), f"<{packed['type']}")
    np.testing.assert_array_equal(unpacked, values.ravel())


def test_a_number_that_its_type_cannot_hold_is_an_error() -> None:
    with pytest.raises(OverflowError, match="70000"):
        pack(np.array([1, 70_000]), "u2")


def test_names_are_packed_once_each_and_missing_ones_are_minus_one() -> None:
    packed = pack_names(["10", None, "2", "b", "2"])
    assert packed["values"] == ["2", "10", "b"]
    assert np.frombuffer(base64.b64decode(packed["codes"]["base64"]), "<i4").tolist() == [1, -1, 0, 2, 0]


def test_ten_thousand_utterances_of_six_systems_stay_below_ten_megabytes(
    make_corpus: Callable[..., Any], collected: Collected
) -> None:
    corpus = make_corpus(10_000, 6, no_consensus=0.1)
    systems = [
        System(
            f"posteriors/m{m}", tuple(corpus.manifest.keys), tuple(corpus.manifest.scheme.classes),
            own[:, :-1].argmax(1), own[:, :-1], ("arousal",), own[:, -1:],
        )
        for m, own in enumerate(corpus.posteriors)
    ]  # fmt: skip
    columns = utterance_columns(corpus.manifest, systems) | {"texts": ["some twenty words of speech " * 4] * 10_000}
    points = {"x": pack(np.zeros(10_000), "u2"), "y": pack(np.zeros(10_000), "u2")}
    maps = [{"name": "m", "method": method, "note": "", **points} for method in ("pca", "tsne", "umap")]
    links = [f"./audio/{key}.wav" for key in corpus.manifest.keys]
    html = page_of(collected.payload | {"utterances": columns, "maps": maps}, {"links": links, "clips": {}, "note": ""})
    assert len(html) < 10_000_000
    p = np.frombuffer(base64.b64decode(columns["systems"][2]["probabilities"]["base64"]), "<u2") / 10_000
    np.testing.assert_allclose(p.reshape(10_000, -1), systems[2].probabilities, atol=6e-5)
    assert pack_probabilities(np.array([1.0]))["type"] == "u2"


def test_the_assets_have_no_build_step_and_name_no_other_host() -> None:
    from ensemble.report.page import SCRIPTS, asset

    folder = Path(__import__("ensemble.report", fromlist=[""]).__file__).parent / "assets"
    assert {path.name for path in folder.glob("*.js")} == set(SCRIPTS)
    for name in (*SCRIPTS, "page.css", "page.html"):
        text = asset(name)
        assert "//cdn" not in text
        assert "http" not in text.replace("http-equiv", "")
        assert "innerHTML" not in text
        assert "</script" not in text or name == "page.html"
