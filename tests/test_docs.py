"""The documentation: pages made from the code name all of it, links lead somewhere, and Sphinx builds it."""

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import generate
from ensemble.recipes.arguments import keys_of
from ensemble.recipes.recipe import SECTIONS, built_in
from featurestore import errors
from featurestore.corpus import checks
from generate import configuration, manifest, readers
from generate.commands import walk
from generate.links import SHOWN, relink
from tests.test_imports import MAY_IMPORT

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"
PAGES = [REPO / "README.md", *sorted(DOCS.glob("*.md")), REPO / "CONTRIBUTING.md", REPO / "SECURITY.md"]


@pytest.fixture(scope="module")
def made() -> Mapping[str, str]:
    """Every generated page by its name."""
    return generate.pages()


def test_the_reference_names_every_option_of_every_command_with_its_help(made: Mapping[str, str]) -> None:
    parts = {part.partition("\n")[0]: part for part in made["reference/command-line"].split("\n## medusa ")}
    commands = dict(walk())
    assert len(commands) > 40
    for words, command in commands.items():
        for parameter in command.params:
            for option in parameter.opts:
                shown = option if option.startswith("-") else (parameter.metavar or option).upper()
                assert f"`{shown}" in parts[words], f"{words}: {option}"
            assert " ".join(parameter.help.split()).replace("|", "\\|") in parts[words], f"{words}: {parameter.name}"


def test_the_reference_names_every_key_that_a_recipe_may_have(made: Mapping[str, str]) -> None:
    parts = {part.partition("\n")[0]: part for part in made["reference/recipe-keys"].split("\n## ")}
    assert set(SECTIONS) < set(parts)
    commands = dict(walk())
    for parameter in commands["fit-deepser"].params:
        assert all(f"`{key}`" in parts["members"] for key in keys_of(parameter)[:1])
    assert "`prepare iemocap`" in parts["prepare"]


def test_the_reference_has_every_field_of_the_saved_settings_with_its_comment(made: Mapping[str, str]) -> None:
    page = made["reference/configuration"]
    for cls in (cls for classes in configuration.SHOWN.values() for cls in classes):
        shown = [name for name, *_ in configuration.fields(cls)]
        assert shown == [field.name for field in dataclasses.fields(cls)]
        assert f"### {cls.__name__}\n" in page
    assert "| `sampler` | `str` |" in page
    assert "the gradient's norm at most" in page  # a comment behind a field
    assert "Of valid frames" in page  # and one above it


def test_the_reference_has_the_columns_that_manifests_have() -> None:
    assert tuple(manifest.STRINGS) == checks.STRING_COLUMNS
    assert all(split in manifest.manifest_page() for split in checks.SPLITS)


def test_the_reference_has_every_exception(made: Mapping[str, str]) -> None:
    names = [
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    assert len(names) > 10
    assert all(f"`{name}`" in made["reference/errors"] for name in names)


def test_versions_of_readers_are_those_of_the_constraints() -> None:
    tested = readers.versions()
    assert all(f"| {tested[package]} |" in readers.readers_page() for package, *_ in readers.READERS)
    assert all(f'"{package}"' in (REPO / readers.TEST).read_text() for package, *_ in readers.READERS)


def test_the_reference_has_every_room_with_what_it_is_for(made: Mapping[str, str]) -> None:
    lines = [line.split(" | ") for line in made["reference/rooms"].splitlines() if line.startswith("| `")]
    assert {line[0].strip("| `") for line in lines} == set(MAY_IMPORT)
    assert all(line[1].strip() for line in lines)


def test_every_result_that_is_kept_has_a_page(made: Mapping[str, str]) -> None:
    results = {path.stem for path in generate.RESULTS.iterdir() if path.suffix in (".md", ".json")}
    assert results <= {name.partition("/")[2] for name in made}


def test_pages_of_an_earlier_build_are_removed(tmp_path: Path, made: Mapping[str, str]) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "gone.md").write_text("# Gone\n")
    names = generate.write_pages(tmp_path)
    assert names == sorted(made)
    assert {path.relative_to(tmp_path).with_suffix("").as_posix() for path in tmp_path.rglob("*.md")} == set(made)


def test_every_page_is_in_the_index(made: Mapping[str, str]) -> None:
    listed = set(re.findall(r"^[\w/.*-]+$", (DOCS / "index.md").read_text(), re.MULTILINE))
    results = {name for name in made if name.startswith("results/")}
    pages = {path.stem for path in DOCS.glob("*.md") if path.stem != "index"}
    assert listed - {"results/*"} == pages | (set(made) - results)
    assert "results/*" in listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path, made: Mapping[str, str]) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    targets = [page.parent / link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    generated = {DOCS / f"{name}.md" for name in made}
    assert not [target for target in targets if target not in generated and not target.exists()]


def test_a_link_moves_with_its_page() -> None:
    assert relink("[a](x.sh)", REPO / "findings" / "README.md", "project/findings") == "[a](../../findings/x.sh)"
    assert relink("[f](../findings/README.md#why)", DOCS / "a.md", "a") == "[f](project/findings.md#why)"
    assert relink("[w](https://zarr.dev) [h](#here)", DOCS / "a.md", "a") == "[w](https://zarr.dev) [h](#here)"
    assert all((REPO / source).exists() for source in SHOWN)


def test_the_documentation_names_the_recipes_that_there_are() -> None:
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in built_in() if name not in page] == []


@pytest.mark.slow
def test_sphinx_builds_it_without_a_warning(tmp_path: Path) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")):
        pytest.skip("Sphinx, MyST or furo is not installed (pip install 'medusa-ser[docs]')")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, tmp_path / "html"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    assert "fit-deepser" in (tmp_path / "html" / "reference" / "command-line.html").read_text(encoding="utf-8")
