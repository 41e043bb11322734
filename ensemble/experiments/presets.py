"""Presets side by side: the variants that `ablation` trains and compares, from names and settings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deepser.config import N_INPUTS, MemberConfig
from deepser.members.presets import Preset, find_preset, member_config, parse_changes
from ensemble.experiments.ablation import Variant, named
from featurestore.errors import ConfigError


def members_of(
    preset: Preset, features: Sequence[Sequence[str]], seeds: Sequence[int], changes: dict[str, Any]
) -> tuple[MemberConfig, ...]:
    """One member for each feature list and seed; without feature lists the preset's own."""
    lists = features or ([preset.features] if preset.features else [])
    if not lists:
        raise ConfigError("This preset reads any features: name them with --features.")
    members = [member_config("unnamed", refs, preset, changes) for refs in lists]
    return tuple(named(replace(m, train=replace(m.train, seed=seed))) for m in members for seed in seeds)


def preset_variants(
    names: Sequence[str], features: Sequence[Sequence[str]], seeds: Sequence[int], texts: Sequence[str]
) -> list[Variant]:
    """Return a variant for each preset; one that reads a single feature set becomes one for each set that is named.

    texts: changes as in `--set`; "PRESET:path=value" counts for that preset alone.
    """
    variants = []
    for name in names:
        preset = find_preset(name)
        changes = changes_of(texts, name, names)
        lists: list[Sequence[str]] = list(features)
        most = N_INPUTS.get(preset.network.kind, (2, None))[1]
        if most == 1:
            lists = [(ref,) for ref in dict.fromkeys(ref for refs in features for ref in refs)]
        groups = [[refs] for refs in lists] if most == 1 and lists else [lists]
        for group in groups:
            members = members_of(preset, group, seeds, changes)
            called = f"{name} {group[0][0]}" if len(groups) > 1 else name
            variants.append(Variant(called, preset.about, members))
    return variants


def changes_of(texts: Sequence[str], preset: str, presets: Sequence[str]) -> dict[str, Any]:
    """Return the changes that count for one preset; ConfigError for one that names a preset that is not asked for."""
    changes = []
    for text in texts:
        owner, separator, _ = text.partition("=")[0].partition(":")
        if separator and owner not in presets:
            raise ConfigError(f"--set {text!r}: {owner!r} is none of the presets asked for, {', '.join(presets)}.")
        if not separator or owner == preset:
            changes.append(text[len(owner) + 1 :] if separator else text)
    return parse_changes(changes)
