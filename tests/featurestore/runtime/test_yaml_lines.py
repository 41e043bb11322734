"""YAML whose values know their lines: scalars as they are written, and every mistake with its line."""

from pathlib import Path

import pytest

from featurestore.errors import ConfigError
from featurestore.runtime.yaml_lines import Entry, read_tree, shown, tree_of, unknown_key


def test_scalars_stay_as_they_are_written_and_know_their_line() -> None:
    tree = tree_of("a: 1e-5\nb: 006\nc:\n  d: [1, two]\n  e: yes\n  f:\n", "x.yaml").entries
    assert (tree["a"].text, tree["b"].text) == ("1e-5", "006")
    assert tree["b"].place == "x.yaml, line 2"
    inner = tree["c"].entries
    assert inner["d"].texts == ["1", "two"]
    assert inner["e"].value is True
    assert inner["f"].value is None
    assert inner["f"].place == "x.yaml, line 6"


def test_an_empty_text_has_no_keys_and_commas_make_a_list() -> None:
    assert tree_of("", "x").entries == {}
    assert Entry("a, b,,", "x").texts == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        *[("a: 1\na: 2\n", 2), ("a: 1\n? [b]\n: 2\n", 2), ("a:\n  - {b: 1}\n", 2)],
        *[("a: {b: {c: {d: {e: 1}}}}\n", 1), ("a: 1\nb: [\n", 3)],
    ],
)
def test_a_mistake_is_reported_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=f"x, line {line}:"):
        tree_of(text, "x")


def test_what_an_option_gives_has_no_line() -> None:
    assert tree_of("{a: 1}", "--set m").entries["a"].place == "--set m"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_can_not_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        read_tree(tmp_path / "r.yaml")


def test_the_wrong_kind_of_value_is_shown_where_it_stands() -> None:
    tree = tree_of("a: {b: 1}\nc: 2\n", "x").entries
    with pytest.raises(ConfigError, match=r"x, line 1: .*the keys b"):
        _ = tree["a"].text
    with pytest.raises(ConfigError, match=r"x, line 2: .*'2'"):
        _ = tree["c"].entries
    assert shown({}) == "no keys"


def test_a_near_key_is_offered() -> None:
    assert "lrr" in str(unknown_key("x", "lrr", ["lr", "seed"]))
    assert "mean lr" in str(unknown_key("x", "lrr", ["lr", "seed"]))
    assert "lr, seed" in str(unknown_key("x", "zzz", ["lr", "seed"]))


def test_aliases_that_multiply_are_refused_before_they_are_read() -> None:
    lines = ["a0: &a0 {x: 1, y: 2}"] + [
        f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(10))}}}" for i in range(1, 9)
    ]
    with pytest.raises(ConfigError, match=r"aliases.*10,000"):
        tree_of("\n".join(lines), "x")
    assert tree_of("a: &a {x: 1}\nb: *a", "x").entries["b"].entries["x"].text == "1"


def test_deep_nesting_is_an_error_of_the_file() -> None:
    for text in ("[" * 5000, "{a: " * 5000):
        with pytest.raises(ConfigError, match="x"):
            tree_of(text, "x")
