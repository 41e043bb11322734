"""`medusa fit-deepser`."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from deepser.config import MemberConfig
from ensemble.commands.corpora import TestOnOption, TrainOnOption, divided, say_corpora
from ensemble.commands.preset_options import preset_options
from ensemble.commands.protocol import StrictOption, tell_protocol, write_protocol
from featurestore.errors import ConfigError
from featurestore.runtime.wording import split_names
from featurestore.terminal import (
    CvOption,
    DeviceOption,
    ManifestOption,
    RunsOption,
    StoreOption,
    console,
    panel,
    reads,
    say,
    system,
    writes,
)

if TYPE_CHECKING:
    from deepser.members.folds import FoldPlan
    from featurestore.corpus.manifest import Manifest


preset_panel = panel("Preset")


@preset_options
def fit_deepser(
    manifest: ManifestOption,
    features: Annotated[str | None, reads("Feature sets, layers after @: a,b@3+4,c. Default: the preset's.")] = None,
    store: StoreOption = Path("store"),
    cv: CvOption = None,
    folds: Annotated[int, reads("Speaker-disjoint folds within split train.", min=1)] = 1,
    train_on: TrainOnOption = None,
    test_on: TestOnOption = None,
    strict: StrictOption = False,
    preset: Annotated[
        str | None,
        preset_panel("A system by name (docs/presets.md lists them). Default: small below 10,000 clips, or medusa."),
    ] = None,
    change: Annotated[
        list[str] | None, preset_panel("Any setting in config.json: train.mixup_alpha=0.4.", "--set")
    ] = None,
    seeds: Annotated[
        str | None,
        preset_panel("Seeds, a member for each, all on one reading of the store: how many (6), or which (1,2,3)."),
    ] = None,
    several: Annotated[
        str | None,
        preset_panel(
            "Several members on one reading of the store: presets (medusa-08,medusa-??), or a recipe's FILE.yaml.",
            "--members",
        ),
    ] = None,
    name: Annotated[str | None, writes("Name of the member; default: made from features or preset, and seed.")] = None,
    runs: RunsOption = Path("runs"),
    overwrite: Annotated[bool, writes("Start a member of that name anew.", "--overwrite")] = False,
    tensorboard: Annotated[
        bool, writes("Write TensorBoard's event files into the run directory.", "--tensorboard")
    ] = False,
    options: dict[str, Any] | None = None,
    device: DeviceOption = "auto",
    deterministic: Annotated[
        bool,
        system("Use only deterministic kernels on CUDA: equal weights in every run, but slower.", "--deterministic"),
    ] = False,
    at_once: Annotated[int, system("Number of members in memory at once; 0: all.", min=0)] = 0,
) -> None:
    """Train one member, DeepSER or another network over cached features, and keep its posteriors in the store.

    With --cv every utterance is predicted by a model that was trained on the other folds. Otherwise the manifest's
    split, or --train-on and --test-on for a joined manifest, names the training part. An interrupted fit goes on at its
    last finished epoch. Started by `torchrun`, or by `srun` as several tasks, several processes split each batch.

    Example: `medusa fit-deepser --features wavlm-large,whisper-large-v3,roberta-large -m corpus.csv --name m01`
    """
    from deepser.members.fit import fit_members
    from deepser.members.folds import plan_folds
    from deepser.members.presets import default_preset
    from deepser.training.device import deterministic as deterministic_kernels
    from deepser.training.processes import joined
    from deepser.training.together import sharing
    from deepser.watch.terminal import watching
    from ensemble.evaluation.protocol import check_protocol
    from ensemble.evaluation.sounds import known_sounds
    from ensemble.recipes.members import MemberOptions, members
    from featurestore.corpus.manifest import Manifest
    from featurestore.runtime.device import describe_device, unused_cards
    from featurestore.store.feature_store import FeatureStore

    if cv is not None and folds != 1:
        raise ConfigError("--cv names the folds and --folds makes them; give one of the two.")
    refs = None if features is None else split_names(features)
    table, corpora = divided(Manifest.read(manifest), train_on, test_on, cv)
    note = ""
    if preset is None:
        is_plain = set(options or ()) <= {"normalise"} and not change and several is None
        n_training = len(table) if cv or not table.has("split") else int((table.column("split") == "train").sum())
        preset = default_preset(n_training, is_plain)
        if is_plain:
            note = f"preset {preset}, for {n_training:,} training clips; --preset names another (docs/presets.md)."
    configs = sharing(members(MemberOptions(preset, refs, name, options or {}, change or []), seeds, several))
    with joined(device) as world, deterministic_kernels(world.device) if deterministic else nullcontext():
        opened = FeatureStore.open(store)
        reading = opened.keeping_sets()
        plan = plan_folds(table, cv=cv, n_folds=folds, seed=configs[0].train.stream_seed, corpora=corpora)
        protocol = check_protocol(
            table, cv, sounds=known_sounds(reading, table, [name for c in configs for name in c.features])
        )
        places = world.gather(describe_device(world.device))
        precisions = {world.one_precision(config.train.precision) for config in configs}
        if world.first:
            if note:
                say(note)
            say(f"training on {'; '.join(places)}: {', '.join(sorted(precisions))}")
            if device == "auto" and (why := unused_cards(world.device)):
                say(f"warning: {why}", "yellow", stderr=True)
            say_corpora(table, corpora)
            tell_protocol(protocol, strict)
        protocol.refuse(strict)
        if world.first and any(config.train.normalise == "speaker" for config in configs):
            warn_of_confounding(table, plan)
        if world.first:
            warn_of_thin_draws(table, plan, configs)
        directories = {config.name: runs / config.name for config in configs}
        shown = watching(directories, plan.names, tensorboard=tensorboard) if world.first else nullcontext()
        with shown as watch:
            fit_members(
                reading, table, configs, plan, list(directories.values()), world=world, at_once=at_once,
                overwrite=overwrite, into=opened, progress=watch.step if watch else None,
                on_epoch=watch.epoch if watch else None,
            )  # fmt: skip
        if world.first:
            for directory in directories.values():
                write_protocol(directory, protocol)
            _print_fit(opened, table, configs, cv, runs, store)


def warn_of_thin_draws(manifest: "Manifest", plan: "FoldPlan", configs: Sequence[MemberConfig]) -> None:
    """Warn where a rare class leaves hardly any clips to a balanced stage."""
    from deepser.members.folds import thin_draws
    from deepser.training.targets import Targets

    targets = Targets.from_manifest(manifest)
    sentences = [each for config in configs for each in thin_draws(config.train, targets.labels, targets.classes, plan)]
    for sentence in dict.fromkeys(sentences):
        say(f"warning: {sentence}", "yellow", stderr=True)


def warn_of_confounding(manifest: "Manifest", plan: "FoldPlan") -> None:
    """Warn where speakers of the training part speak in one emotion each: their own statistics carry it away."""
    from deepser.probes.confounding import Confounding
    from deepser.training.targets import Targets
    from featurestore.corpus.splits import speaker_groups

    learned = plan.folds >= 0
    labels, classes = Targets.from_manifest(manifest).labels[learned], manifest.scheme.classes
    confounding = Confounding.of(labels, speaker_groups(manifest)[learned], len(classes))
    if confounding.is_high:
        say(f"warning: {confounding.warning()}", "yellow", stderr=True)


def _print_fit(
    store: Any, manifest: "Manifest", configs: Sequence[MemberConfig], cv: str | None, runs: Path, place: Path
) -> None:
    from deepser.members.held_out import read_record
    from deepser.members.member import Member
    from deepser.scores.metrics import ScoreRow
    from deepser.scores.report import scores_table
    from ensemble.evaluation.held_out import held_out_lines
    from ensemble.evaluation.parts import evaluate_parts
    from ensemble.evaluation.systems import ADAPTED, NORMALISED, adapted_scores
    from ensemble.experiments.floor import shortcomings

    rows, short = [], []
    for config in configs:
        parts = evaluate_parts(store, manifest, config.name, cv=cv)
        short += shortcomings(store, manifest, config.name, parts, cv) if config.train.learns_classes else []
        adapted = f", {ADAPTED}" if config.train.normalise == "speaker" else ""
        rows += [ScoreRow.of(f"{config.name} ({part}{adapted})", evaluation) for part, evaluation in parts.items()]
    console().print(scores_table(rows))
    for sentence in short:
        say(f"warning: {sentence}", "yellow", stderr=True)
    if any(config.train.normalise == "speaker" for config in configs):
        say(adapted_scores([NORMALISED]))
    for config in configs:
        for line in held_out_lines(config.name, read_record(runs / config.name)):
            say(line)
        unrated = set(manifest.scheme.attributes) - set(Member.load(runs / config.name).attributes)
        if unrated and config.train.learns_attributes:
            named = ", ".join(name for name in manifest.scheme.attributes if name in unrated)
            say(f"note: no output for {named}, which nobody rated in the training part of some fold.", "dim")
        if not config.train.learns_classes:
            say(f"note: {config.name} learned attributes alone; leave its class posteriors out.", "dim")
        drawn = Member.load(runs / config.name).config.train.views
        if drawn:
            say(f"{config.name} was trained from the views {', '.join(drawn)}, too; config.json lists them.")
        say(f"member in {runs / config.name}, posteriors in {place} as posteriors/{config.name}")
