"""Fits a member over its folds into a run directory, then writes its posteriors into the store."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from deepser import trainer
from deepser.checkpoint import save_atomically
from deepser.config import CLASS_SCORES, MemberConfig, TrainConfig, from_dict, to_dict
from deepser.data import Indices, TrainingData
from deepser.device import one_thread, pick_device, resolve_precision
from deepser.folds import FoldPlan
from deepser.member import Member, PosteriorMean
from deepser.networks.network import Network
from deepser.targets import Targets
from featurestore.errors import ConfigError, ManifestError
from featurestore.loader import FeatureRef
from featurestore.manifest import Manifest
from featurestore.spec import FeatureSpec
from featurestore.splits import group_folds, speaker_groups
from featurestore.store import FeatureStore

FORMAT = 1
# Below this width one CPU thread is the faster: at d = 96 an epoch of the demo took 0.38 s on one, 0.80 s on two.
MANY_THREADS_D = 256


def fit_member(
    store: FeatureStore,
    manifest: Manifest,
    config: MemberConfig,
    plan: FoldPlan,
    directory: Path | str,
    *,
    device: str = "auto",
    overwrite: bool = False,
    into: FeatureStore | None = None,
    progress: Callable[[str, int, int, str], None] | None = None,
) -> Member:
    """Fit a member's fold models, then write `posteriors/<name>` into the store; both are continued where they stopped.

    into: another store for the posteriors than the features'.
    progress: called with (fold name, steps done, steps in all, what is going on). Raises ConfigError when `directory`
    holds a member with other settings, features or labels, listing each difference; `overwrite` starts it anew.
    """
    directory, into = Path(directory), store if into is None else into
    on = pick_device(device)
    config = replace(config, train=replace(config.train, precision=resolve_precision(config.train.precision, on)))
    targets = Targets.from_manifest(manifest, ratings=config.train.targets == "vote-dropping")
    if not config.train.learns_attributes:
        targets = targets.without_attributes()  # else the posteriors would hold an untrained layer's
    _check_attributes(config.train, targets)
    member, data = _open_data(store, config, targets, directory)
    posteriors = f"posteriors/{config.name}"
    if overwrite:
        if directory.exists():
            Member.load(directory)  # only ever removes what is a member's run directory
            shutil.rmtree(directory)
        if posteriors in into:
            into.remove(posteriors)
    _open_directory(member, targets, plan)
    if _is_finished(into, posteriors, member, plan, targets):
        return member
    total = PosteriorMean(len(targets.keys), len(member.columns))
    with one_thread() if on.type == "cpu" and config.network.d < MANY_THREADS_D else nullcontext():
        for fold in range(len(plan.names)):
            network = _fit_fold(member, data, plan, fold, manifest, on, progress)
            judged = plan.judged_at(fold)
            total.add(judged, *trainer.predict(network, data, judged, config.train, on))
    _write_posteriors(into, posteriors, member, plan, targets, total)
    return member


def _open_data(
    store: FeatureStore, config: MemberConfig, targets: Targets, directory: Path
) -> tuple[Member, TrainingData]:
    refs, layers, inputs, specs = [], [], [], []
    for text in config.features:
        ref = FeatureRef.parse(text)
        features = store[ref.name]
        missing = [key for key in targets.keys if key not in features]
        if missing:
            raise ConfigError(
                f"Feature set {ref.name!r} lacks {len(missing)} of the manifest's {len(targets.keys)} utterances "
                f"({', '.join(missing[:3])}...). Run `medusa featurize` for them, or leave them out of the manifest."
            )
        read = ref.resolve(features)
        refs.append(FeatureRef(ref.name, read))
        layers.append(read)
        inputs.append((len(read), features.dim))
        specs.append({"name": ref.name, "fingerprint": features.spec.fingerprint, "spec": features.spec.to_json(),
                      "provenance": features.provenance})  # fmt: skip
    member = Member(config, targets.classes, targets.attributes, targets.attribute_ranges, tuple(inputs), tuple(layers),
                    tuple(specs), directory)  # fmt: skip
    return member, TrainingData(store, tuple(refs), targets)


def _open_directory(member: Member, targets: Targets, plan: FoldPlan) -> None:
    """Write config.json, or check that the one that is there says the same."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (targets.labels, targets.soft, targets.attribute_values, plan.folds):
        digest.update(np.ascontiguousarray(part).tobytes())
    if targets.ratings is not None:
        digest.update(targets.ratings.counts(targets.classes).tobytes())
    digest.update("\n".join(targets.keys).encode(errors="surrogatepass"))
    wanted = {
        "format": FORMAT,
        "member": to_dict(member.config),
        "classes": member.classes,
        "attributes": member.attributes,
        "attribute_ranges": member.attribute_ranges,
        "inputs": member.inputs,
        "layers": member.layers,
        "specs": member.specs,
        "folds": {"names": plan.names, "rule": plan.rule},
        "corpus": {"utterances": len(targets.keys), "keys_labels_folds": digest.hexdigest()},
    }
    wanted = json.loads(json.dumps(wanted))
    path = member.directory / "config.json"
    if path.exists():
        try:
            found = json.loads(path.read_text())
            found["member"] = json.loads(json.dumps(to_dict(from_dict(MemberConfig, found["member"]))))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is damaged ({error}); use --overwrite to fit the member anew.") from error
        differences = list(_differences(found, wanted, ""))
        if differences:
            raise ConfigError(
                f"{member.directory} holds a member with other settings: {'; '.join(differences[:8])}. "
                "Choose another --name, or --overwrite to fit it anew."
            )
        return
    member.directory.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(".config.json.tmp")
    temporary.write_text(json.dumps(wanted, indent=1) + "\n")
    temporary.replace(path)


def _differences(found: Any, wanted: Any, where: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({*found, *wanted}):
            if key != "provenance":
                yield from _differences(found.get(key), wanted.get(key), f"{where}.{key}" if where else key)
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
            yield from _differences(a, b, f"{where}[{i}]")
    elif found != wanted:
        yield f"{where} is {found!r} there, {wanted!r} asked"


def _fit_fold(
    member: Member,
    data: TrainingData,
    plan: FoldPlan,
    fold: int,
    manifest: Manifest,
    device: torch.device,
    progress: Callable[[str, int, int, str], None] | None,
) -> Network:
    config, name = member.config.train, plan.names[fold]
    directory = member.directory / f"fold-{name}"
    directory.mkdir(exist_ok=True)
    weights = directory / "model.safetensors"
    torch.manual_seed(int(np.random.SeedSequence((config.seed, 77, fold)).generate_state(1)[0]))
    network = member.new_network()
    if weights.exists():
        network.load_state_dict(load_file(weights))
        return network.to(device)
    train_at, dev_at = _hold_out(member, data.targets, plan.train_at(fold), manifest)
    on_step = None if progress is None else lambda done, n, what: progress(name, done, n, what)
    history = trainer.train(network, data, train_at, dev_at, config, directory, device=device, progress=on_step)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    save_atomically(dict(network.state_dict()), weights)
    (directory / "checkpoint.safetensors").unlink(missing_ok=True)
    return network


def _check_attributes(config: TrainConfig, targets: Targets) -> None:
    """ConfigError when a stage learns or is selected by attributes that the corpus does not have."""
    known = ", ".join(targets.attributes) or "none"
    for stage in config.stages:
        rule = config.rule(stage)
        if not stage.loss.classification_weight and not targets.attributes:
            raise ConfigError(f"{stage.name} learns attributes alone, and the manifest has no attr_<attribute> column.")
        if (rule == "mean_ccc" and not targets.attributes) or (
            rule.startswith("ccc:") and rule.removeprefix("ccc:") not in targets.attributes
        ):
            raise ConfigError(f"--select {rule}: there is no such attribute to learn; there is {known}.")


def _hold_out(member: Member, targets: Targets, at: Indices, manifest: Manifest) -> tuple[Indices, Indices]:
    """Of the training part: what to learn from, and the speaker-disjoint part that selects the best epoch."""
    config = member.config.train
    at = at[targets.usable[at]]
    if config.drop_no_consensus:
        at = at[targets.labels[at] >= 0]
    if not len(at):
        raise ManifestError(
            f"Member {member.config.name!r}: no training utterance has a label, a vote or an attribute."
        )
    if not config.holds_out:
        return at, at[:0]
    n_parts = max(2, round(1 / config.dev_fraction))
    part = group_folds(speaker_groups(manifest)[at].tolist(), n_parts, seed=config.seed)
    train_at, dev_at = at[part != 0], at[part == 0]
    by_class = any(config.rule(stage) in CLASS_SCORES for stage in config.stages)
    if not len(train_at) or not len(dev_at) or (by_class and not (targets.labels[dev_at] >= 0).any()):
        raise ManifestError(
            f"Member {member.config.name!r}: {len(at)} training utterances are too few speakers to hold "
            f"{config.dev_fraction:.0%} out for selection; use --select last."
        )
    return train_at, dev_at


def _is_finished(store: FeatureStore, name: str, member: Member, plan: FoldPlan, targets: Targets) -> bool:
    """Are there all weights, and the posteriors that they give?"""
    made = [(member.directory / f"fold-{fold}" / "model.safetensors").exists() for fold in plan.names]
    if not all(made) or name not in store:
        return False
    posteriors = store[name]
    judged = {int(i) for fold in range(len(plan.names)) for i in plan.judged_at(fold)}
    same = posteriors.spec.fingerprint == _posteriors_spec(member, plan).fingerprint
    return same and all(targets.keys[i] in posteriors for i in judged)


def _posteriors_spec(member: Member, plan: FoldPlan) -> FeatureSpec:
    digest = hashlib.sha256()
    for path in member.weights():
        digest.update(path.read_bytes())
    return FeatureSpec(
        kind="posteriors",
        encoder=member.config.name,
        weights=f"sha256:{digest.hexdigest()[:16]}",
        layers=("posteriors", "logits"),
        dim=len(member.columns),
        dtype="float32",
        columns=member.columns,
        extra=(("oof", plan.oof), ("folds", plan.rule), ("features", ",".join(member.config.features))),
    )


def _write_posteriors(
    store: FeatureStore, name: str, member: Member, plan: FoldPlan, targets: Targets, total: PosteriorMean
) -> None:
    spec = _posteriors_spec(member, plan)
    posteriors, logits = total.means()
    with store.writer(name, spec, provenance={"member": member.config.name}) as writer:
        for i in np.flatnonzero(total.count):
            if targets.keys[i] not in writer:
                writer.append(targets.keys[i], {"posteriors": posteriors[i : i + 1], "logits": logits[i : i + 1]})
