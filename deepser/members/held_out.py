"""The speakers of each fold's training part that choose the epoch that is kept, and their record in a run directory."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepser.config import CLASS_SCORES, TrainConfig
from deepser.members.folds import FoldPlan
from deepser.members.member import Member
from deepser.training.data import Indices
from deepser.training.targets import Targets
from featurestore.corpus.held_out import HeldOut, choose_held_out
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import group_folds, speaker_groups
from featurestore.errors import ConfigError, ManifestError
from featurestore.runtime.json_text import read_json

NAME = "held_out.json"


@dataclass(frozen=True, eq=False)
class Parts:
    """What a fold's model learns from, what chooses its epoch (none: the last is kept), and how it is trained then.

    held_out: who was chosen, None where nothing is asked for or an earlier version chose.
    """

    train_at: Indices
    dev_at: Indices
    config: TrainConfig
    held_out: HeldOut | None = None


Known = dict[tuple[int, bytes, float, int], HeldOut]  # who is held out, of those asked for before


def parts_of(
    member: Member,
    targets: Targets,
    manifest: Manifest,
    rows: Indices,
    *,
    earlier: bool = False,
    choices: Known | None = None,
) -> Parts:
    """Divide the training utterances `rows` (n,) of a fold by speaker.

    choices: those made for other members with the same `targets`, to which this one is added.
    earlier: as versions did that left no held_out.json, so that a run that one of them began goes on as it was. Where
    no part can choose an epoch, all is learned from and the last epoch is kept. ManifestError: nothing to learn from,
    or a stage that can't do without a held-out part.
    """
    config = member.config.train
    rows = rows[targets.usable[rows]]
    if config.drop_no_consensus:
        rows = rows[targets.labels[rows] >= 0]
    if not len(rows):
        raise ManifestError(
            f"Member {member.config.name!r}: no training utterance has a label, a vote or an attribute."
        )
    if not config.holds_out:
        return Parts(rows, rows[:0], config)
    if earlier:
        return Parts(*_of_earlier(member, targets, rows, speaker_groups(manifest)[rows].tolist()), config)
    choices = {} if choices is None else choices
    identity = (id(targets), rows.tobytes(), config.dev_fraction, config.stream_seed)
    if identity not in choices:
        groups = speaker_groups(manifest)[rows].tolist()
        choices[identity] = choose_held_out(
            groups, config.dev_fraction, labels=targets.labels[rows], seed=config.stream_seed
        )
    held_out = choices[identity]
    why = held_out.why_not or _lacks(config, targets, rows[held_out.mask])
    if not why:
        return Parts(rows[~held_out.mask], rows[held_out.mask], config, held_out)
    if any(stage.confusion_exponent for stage in config.stages):
        raise ManifestError(
            f"Member {member.config.name!r}: classes are weighed by how they are confused in a held-out part, and "
            f"{why}. Set confusion_exponent to 0, or another dev_fraction."
        )
    nobody = HeldOut(np.zeros(len(rows), bool), (), config.dev_fraction, {}, why)
    return Parts(rows, rows[:0], replace(config, dev_fraction=0.0), nobody)


def record(
    member: Member, targets: Targets, manifest: Manifest, plan: FoldPlan, choices: Known | None = None
) -> dict[str, Any]:
    """Return the held-out speakers of each fold, as held_out.json keeps them; {} where none are required."""
    folds: dict[str, Any] = {}
    for fold, name in enumerate(plan.names):
        held_out = parts_of(member, targets, manifest, plan.train_at(fold), choices=choices).held_out
        if held_out is not None:
            folds[name] = held_out.to_dict(targets.classes)
    return folds


def read_record(directory: Path) -> dict[str, Any]:
    """Return the record made when the run began, by fold; {} where there is none."""
    path = directory / NAME
    if not path.is_file():
        return {}
    try:
        return dict(read_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); use --overwrite to fit the member anew.") from None


def _lacks(config: TrainConfig, targets: Targets, dev_at: Indices) -> str:
    """Return a reason if a held-out part lacks the targets by which a stage is judged."""
    rules = [config.rule(stage) for stage in config.stages]
    if any(rule in CLASS_SCORES for rule in rules) and not (targets.labels[dev_at] >= 0).any():
        return "no utterance of the speakers that could be held out has a label"
    for rule in rules:
        attributes = [rule.removeprefix("ccc:")] if rule.startswith("ccc:") else targets.attributes
        attribute_values = [targets.attribute_values[dev_at, targets.attributes.index(name)] for name in attributes]
        if (rule == "mean_ccc" or rule.startswith("ccc:")) and all(
            np.isnan(values).all() for values in attribute_values
        ):
            return f"no utterance of the speakers that could be held out has {' or '.join(attributes)}"
    return ""


def _of_earlier(member: Member, targets: Targets, rows: Indices, groups: list[str]) -> tuple[Indices, Indices]:
    config = member.config.train
    n_parts = max(2, round(1 / config.dev_fraction))
    part = group_folds(groups, n_parts, seed=config.stream_seed)
    train_at, dev_at = rows[part != 0], rows[part == 0]
    by_class = any(config.rule(stage) in CLASS_SCORES for stage in config.stages)
    if not len(train_at) or not len(dev_at) or (by_class and not (targets.labels[dev_at] >= 0).any()):
        raise ManifestError(
            f"Member {member.config.name!r}: {len(rows)} training utterances are too few speakers to hold "
            f"{config.dev_fraction:.0%} out for selection; use --select last."
        )
    return train_at, dev_at
