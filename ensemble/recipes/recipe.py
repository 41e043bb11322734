"""Recipes: a YAML file that declares a whole run. Reading one names every mistake with its line.

    about: one line
    variables: {corpus: null, weights: models}      # null: must be given, --set corpus=DIR; used as ${corpus}
    cv: fold                                        # for members and all that follows, where they say nothing else
    prepare: {corpus: ravdess, root: "${corpus}"}   # or manifest: FILE, which is there already
    split, transcribe: {...}
    featurize: {NAME: {...}, ...}                   # NAME is the feature set, and the encoder unless one is named
    members: {defaults: {...}, NAME: {features: [a, b@3+4], ...}, ...}
    meta, compare, evaluate: {...}

A section's keys are the options of its command (`medusa prepare CORPUS`, `split`, `transcribe`, `featurize`,
`fit-deepser`, `fit-meta`, `compare`, `evaluate`) without the dashes, and its arguments by their names in small letters
(`table:` of `prepare csv`, `manifests: [a.csv, b.csv]` of `prepare join`). `plan.py` beside this file makes the
commands.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.recipes.demo import CORPUS
from featurestore.errors import ConfigError
from featurestore.runtime.yaml_lines import Entry, read_tree, tree_of, unknown_key

BUILT_IN = Path(__file__).resolve().parent
SUFFIXES = (".yaml", ".yml")
SECTIONS = ("prepare", "split", "transcribe", "featurize", "members", "meta", "compare", "evaluate")
NAMED_SECTIONS = ("featurize", "members")  # a mapping of names, each with options; the others have options alone
DEFAULTS = "defaults"  # of a named section: options of every entry that doesn't say otherwise
TOP = ("about", "variables", "manifest", "cv", *SECTIONS)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read: its sections, each as entries of options by name ("" where a section has no names)."""

    name: str
    about: str
    source: Path
    variables: Mapping[str, str | None]
    manifest: Entry | None
    cv: Entry | None
    sections: Mapping[str, Mapping[str, Entry]]
    mistakes: tuple[str, ...] = ()  # unknown keys, which `plan.steps_of` refuses together with those of sections


def built_in() -> list[str]:
    """Return the names of the recipes that come with the program."""
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def find_recipe(place: str) -> Path:
    """Return the file of a built-in recipe's name, or of a path; ConfigError with near names."""
    if place.endswith(SUFFIXES):
        if not Path(place).is_file():
            raise ConfigError(f"{place}: no such file; give a recipe's path, or one of {', '.join(built_in())}.")
        return Path(place)
    if place not in built_in():
        near = difflib.get_close_matches(place, built_in(), cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(built_in())}."
        raise ConfigError(f"No recipe is called {place!r}; {hint} A file's name ends in .yaml.")
    return BUILT_IN / f"{place}.yaml"


def read_recipe(place: str, settings: Sequence[str] = (), *, values_needed: bool = True) -> Recipe:
    """Read and check a recipe, by name or path, but for the options themselves, which the commands know.

    settings: "NAME=VALUE", a variable, or an entry by its keys with dots between them (members.m01.seed=3); VALUE is
    YAML. One for a section of options adds the section where the recipe lacks it (transcribe.model=base), and manifest
    takes the place of the prepare section. values_needed: a variable without a value is an error. Raises ConfigError
    that names file and line.
    """
    path = find_recipe(place)
    tree = read_tree(path, trusted=path.parent == BUILT_IN).entries
    strange = [str(unknown_key(tree[key].place, key, TOP)) for key in tree if key not in TOP]
    provided = {"demo_corpus": str(CORPUS)}  # the audio that comes with the program needs no variable
    variables = {
        key: None if entry.value is None else _filled(entry, provided).text
        for key, entry in _section(tree, "variables").items()
    }
    changes: dict[str, Entry] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set {setting}: expected NAME=VALUE.")
        if name in variables:
            variables[name] = text
        else:
            changes[name] = tree_of(text, f"--set {name}")
    for name, entry in changes.items():
        _change(tree, name, entry, TOP, list(variables))
    if "manifest" in changes and not any(name.startswith("prepare") for name in changes):
        tree.pop("prepare", None)
    if values_needed:
        values = provided | variables
        tree = {key: entry if key == "variables" else _filled(entry, values) for key, entry in tree.items()}
    if "cv" in tree:
        _ = tree["cv"].text
    sections = {name: _entries(tree[name], name) for name in SECTIONS if name in tree}
    return Recipe(
        name=path.stem,
        about=tree["about"].text if "about" in tree else "",
        source=path,
        variables=variables,
        manifest=tree.get("manifest"),
        cv=tree.get("cv"),
        sections=sections,
        mistakes=tuple(strange),
    )


def _section(tree: Mapping[str, Entry], name: str) -> dict[str, Entry]:
    """Return a section's entries; none where it is missing or empty."""
    if name not in tree or tree[name].value is None:
        return {}
    return tree[name].entries


def _entries(section: Entry, name: str) -> dict[str, Entry]:
    """Return a section's options by name, each with the section's defaults."""
    options = {} if section.value is None else section.entries
    if name not in NAMED_SECTIONS:
        return {"": Entry(options, section.place)}
    defaults = _section(options, DEFAULTS)
    entries = {}
    for key, entry in options.items():
        if not _NAME.fullmatch(key):
            raise ConfigError(f"{entry.place}: {key!r} can't be a name; use letters, digits and . _ + -.")
        if key != DEFAULTS:
            entries[key] = Entry(defaults | ({} if entry.value is None else entry.entries), entry.place)
    if not entries:
        raise ConfigError(f"{section.place}: {name} names nothing; leave it out, or say what to make.")
    return entries


def _change(tree: dict[str, Entry], path: str, entry: Entry, new_keys: Sequence[str], variables: Sequence[str]) -> None:
    """Put an entry where a dotted path leads; names may hold dots themselves, so the longest that is there counts.

    new_keys: the keys that may be new at this level; none given: any.
    """
    if path.startswith(f"{DEFAULTS}.") and not new_keys:
        tree.setdefault(DEFAULTS, Entry({}, entry.place))
    section = path.partition(".")[0]
    of_options = new_keys and section != path and section in SECTIONS and section not in NAMED_SECTIONS
    if of_options and (section not in tree or tree[section].value is None):
        tree[section] = Entry({}, entry.place)
    within = [key for key, below in tree.items() if isinstance(below.value, dict) and path.startswith(f"{key}.")]
    if within:
        key = max(within, key=len)
        _change(tree[key].value, path[len(key) + 1 :], entry, (), variables)
    elif "." in path or (new_keys and path not in new_keys):
        variables_text = (
            f"the recipe's variables are {', '.join(variables)}" if variables else "the recipe has no variables"
        )
        raise ConfigError(
            f"{entry.place}: leads nowhere; {variables_text}, and entries go by keys, such as members.m01.seed."
        )
    else:
        tree[path] = entry


def _filled(entry: Entry, values: Mapping[str, str | None]) -> Entry:
    """Return the entry with ${name} replaced in every text."""

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            raise unknown_key(entry.place, name, list(values), "variable")
        value = values[name]
        if value is None:
            raise ConfigError(f"{entry.place}: {name} has no value; give it with --set {name}=VALUE.")
        return value

    if isinstance(entry.value, dict):
        return Entry({key: _filled(below, values) for key, below in entry.value.items()}, entry.place)
    if isinstance(entry.value, list):
        return Entry([_VARIABLE.sub(value_of, text) for text in entry.value], entry.place)
    if isinstance(entry.value, str):
        return Entry(_VARIABLE.sub(value_of, entry.value), entry.place)
    return entry
