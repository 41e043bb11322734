"""The members that one `medusa fit-deepser` asks for: one, a seed each, a preset each, or those of a recipe."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deepser.config import MemberConfig
from deepser.members.presets import PRESETS, find_preset, member_config, parse_changes
from ensemble.recipes.recipe import SUFFIXES, read_recipe
from ensemble.recipes.settings import PATHS
from featurestore.errors import ConfigError
from featurestore.runtime.json_text import read_json
from featurestore.runtime.yaml_lines import Entry, unknown_key

KNOWN = (*PATHS, "features", "preset", "set")  # what a recipe's member may say here


@dataclass(frozen=True)
class MemberOptions:
    """One member as asked for: a preset, what it reads, and what is to be changed in it."""

    preset: str = "medusa"
    features: Sequence[str] | None = None  # None: the preset's
    name: str | None = None  # None: made of features, seed and preset
    options: Mapping[str, Any] = field(default_factory=dict)  # by the options in SETTINGS
    changes: Sequence[str] = ()  # of --set

    def config(self) -> MemberConfig:
        """Return the preset with the options, then with the changes."""
        chosen, options = find_preset(self.preset), dict(self.options)
        if options.get("stage2-epochs") == 0:
            chosen = replace(chosen, train=replace(chosen.train, stages=chosen.train.stages[:1]))
            options = {name: value for name, value in options.items() if not name.startswith("stage2-")}
        lacks = [name for name in options if name.startswith("stage2-") and len(chosen.train.stages) == 1]
        if lacks:
            raise ConfigError(f"--{lacks[0]}: preset {self.preset} has one stage, {chosen.train.stages[0].name}.")
        views = [name.strip() for name in str(options.get("views", "")).split(",") if name.strip()]
        if "views" in options:
            options["views"] = [] if views == ["none"] else views
        refs = list(chosen.features if self.features is None else self.features)
        if not refs:
            raise ConfigError(f"Preset {self.preset} reads any features: name them with --features.")
        changes = {PATHS[name]: value for name, value in options.items()} | parse_changes(self.changes)
        config = member_config(self.name or "unnamed", refs, chosen, changes)
        return config if self.name else replace(config, name=_made_name(refs, views, config.train.seed, self.preset))


def members(shared: MemberOptions, seeds: str | None = None, names: str | None = None) -> list[MemberConfig]:
    """Return the members asked for.

    seeds: "6", that many from the member's own on, or "1,2,3". names: presets with commas between them, patterns of
    presets ("medusa-??"), and .yaml files, whose `members` section counts (the keys of a recipe's); the options of
    `shared` hold for all of them, those that a file has for one come before. Both: each seed of each.
    """
    options = [shared] if names is None else _named(shared, names)
    if seeds is None:
        return [one.config() for one in options]
    return [
        _seeded(one, seed).config() for one in options for seed in seeds_of(seeds, one.config().train.seed)
    ]  # fmt: skip


def _named(shared: MemberOptions, names: str) -> list[MemberOptions]:
    if shared.name or shared.preset != MemberOptions.preset:
        raise ConfigError("--members names members and their presets: leave --name and --preset out.")
    options: list[MemberOptions] = []
    for part in [part.strip() for part in names.split(",") if part.strip()]:
        if part.endswith(SUFFIXES):
            entries = read_recipe(part, values_needed=False).sections.get("members", {})
            options += [of_recipe(name, entry, shared) for name, entry in entries.items()]
            continue
        presets = fnmatch.filter(PRESETS, part) or [part]
        options += [replace(shared, preset=preset, name=preset) for preset in presets if find_preset(preset)]
    if not options:
        raise ConfigError(f"--members {names!r} names no member: expected presets, or a .yaml file with members.")
    return options


def of_recipe(name: str, entry: Entry, shared: MemberOptions | None = None) -> MemberOptions:
    """Return a recipe's member, with the options of `shared` where the recipe has none."""
    shared = shared or MemberOptions()
    values = dict(entry.entries)
    for key in values:
        if key not in KNOWN:
            raise unknown_key(values[key].place, key, KNOWN)
    features = values.pop("features").texts if "features" in values else shared.features
    preset = values.pop("preset").text if "preset" in values else shared.preset
    changes = values.pop("set").value if "set" in values else []
    options = {key: _plain(value.text) for key, value in values.items()}
    changes = [*shared.changes, *([changes] if isinstance(changes, str) else changes)]
    return MemberOptions(preset, features, name, {**shared.options, **options}, changes)


def _plain(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return text


def seeds_of(text: str, first: int) -> list[int]:
    """Return the seeds that --seeds names.

    "6": that many from `first` on. "1,2,3": those. ConfigError for anything else.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts) or (len(parts) == 1 and not int(parts[0])):
        raise ConfigError(f"--seeds {text!r}: expected how many (6), or which (1,2,3).")
    return list(range(first, first + int(parts[0]))) if len(parts) == 1 else [int(part) for part in parts]


def _seeded(member: MemberOptions, seed: int) -> MemberOptions:
    name = f"{member.name}_s{seed}" if member.name else None
    return replace(member, name=name, options={**member.options, "seed": seed})


def _made_name(features: Sequence[str], views: Sequence[str], seed: int, preset: str) -> str:
    """Return a name that is safe as a directory's and as a feature set's.

    a,b@3+4 and seed 0 -> a_b.3+4_s0, PRESET_a_b.3+4_s0.
    """
    of_preset = [] if preset == "medusa" else [preset]
    return "_".join([*of_preset, *(ref.replace("@", ".").replace("/", "-") for ref in features), *views]) + f"_s{seed}"
