"""`medusa fit-deepser`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from deepser.config import (
    LOSS_TARGETS,
    NETWORKS,
    POOLINGS,
    SCHEDULES,
    SELECTIONS,
    MemberConfig,
    NetworkConfig,
    TrainConfig,
)
from deepser.presets import find_preset, member_config, parse_changes
from featurestore.errors import ConfigError
from featurestore.terminal import (
    CvOption,
    DeviceOption,
    ManifestOption,
    RunsOption,
    StoreOption,
    bar,
    console,
    panel,
    reads,
    say,
    split_names,
    system,
    writes,
)

if TYPE_CHECKING:
    from featurestore.manifest import Manifest


def of_preset(title: str) -> Callable[..., Any]:
    """An option that changes the preset where it is given; the help shows MEDUSA's value as its default."""
    plain = panel(title)
    return lambda text, *names, default, **settings: plain(text, *names, show_default=str(default), **settings)


preset_panel = panel("Preset")
shape, stage, train_option = of_preset("Network"), of_preset("Stages"), of_preset("Training")
TRAIN, NETWORK = TrainConfig(), NetworkConfig()
STAGE1, STAGE2 = TRAIN.stages


def fit_deepser(
    manifest: ManifestOption,
    features: Annotated[str | None, reads("Feature sets, layers after @: a,b@3+4,c. Default: the preset's.")] = None,
    store: StoreOption = Path("store"),
    cv: CvOption = None,
    folds: Annotated[int, reads("Speaker-disjoint folds within split train.", min=1)] = 1,
    preset: Annotated[str, preset_panel("A published system; what follows changes it. README lists them.")] = "medusa",
    change: Annotated[
        list[str] | None, preset_panel("Any setting in config.json: train.mixup_alpha=0.4.", "--set")
    ] = None,
    name: Annotated[str | None, writes("Default: from features, or preset, and seed.")] = None,
    runs: RunsOption = Path("runs"),
    overwrite: Annotated[bool, writes("Start a member of that name anew.", "--overwrite")] = False,
    kind: Annotated[str | None, shape(", ".join(NETWORKS) + ".", "--network", default=NETWORK.kind)] = None,
    d: Annotated[int | None, shape("Width.", default=NETWORK.d)] = None,
    n_layers: Annotated[int | None, shape("Transformer layers of each Enc.", default=NETWORK.n_layers)] = None,
    n_heads: Annotated[int | None, shape("Attention heads; they divide d.", default=NETWORK.n_heads)] = None,
    pooling: Annotated[str | None, shape(", ".join(POOLINGS) + ".", default=NETWORK.pooling)] = None,
    dropout: Annotated[float | None, shape("Share of units dropped.", default=NETWORK.dropout)] = None,
    stride: Annotated[int | None, shape("Frames averaged into one.", default=TRAIN.stride)] = None,
    epochs: Annotated[int | None, stage("Stage 1: all clips.", default=STAGE1.epochs, min=1)] = None,
    stage2_epochs: Annotated[int | None, stage("Stage 2: balanced; 0: none.", default=STAGE2.epochs, min=0)] = None,
    lr: Annotated[float | None, stage("Learning rate of stage 1.", default=STAGE1.lr)] = None,
    stage2_lr: Annotated[float | None, stage("Learning rate of stage 2.", default=STAGE2.lr)] = None,
    schedule: Annotated[str | None, stage(", ".join(SCHEDULES) + ".", default=STAGE1.schedule)] = None,
    warmup_epochs: Annotated[float | None, stage("Linear warm-up of stage 1.", default=STAGE1.warmup_epochs)] = None,
    seed: Annotated[int | None, train_option("Of weights, order and MixUp.", default=TRAIN.seed)] = None,
    batch_size: Annotated[int | None, train_option("Utterances per step.", default=TRAIN.batch_size)] = None,
    weight_decay: Annotated[float | None, train_option("Of AdamW.", default=TRAIN.weight_decay)] = None,
    mixup: Annotated[float | None, train_option("Share of clips mixed.", default=TRAIN.mixup_p)] = None,
    targets: Annotated[str | None, train_option(", ".join(LOSS_TARGETS) + ".", default=TRAIN.targets)] = None,
    label_smoothing: Annotated[
        float | None, train_option("Share of the target spread evenly.", default=TRAIN.label_smoothing)
    ] = None,
    select: Annotated[
        str | None, train_option(f"Epoch kept: {', '.join(SELECTIONS)}, ccc:ATTRIBUTE.", default=TRAIN.select)
    ] = None,
    precision: Annotated[str | None, system("auto, float32, bfloat16.", show_default=TRAIN.precision)] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train one member, DeepSER or another network over cached features, and keep its posteriors in the store.

    With --cv every utterance is judged by a model that learned from the other folds; otherwise the manifest's split
    says what to learn from. An interrupted fit goes on at its last finished epoch.

    Example: `medusa fit-deepser --features wavlm-large,whisper-large-v3,roberta-large -m corpus.csv --name m01`
    """
    from deepser.fit import fit_member
    from deepser.folds import plan_folds
    from featurestore.manifest import Manifest
    from featurestore.store import FeatureStore

    if cv is not None and folds != 1:
        raise ConfigError("--cv names the folds and --folds makes them; give one of the two.")
    flags = {
        "network.kind": kind, "network.d": d, "network.n_layers": n_layers, "network.n_heads": n_heads,
        "network.pooling": pooling, "network.dropout": dropout, "train.stride": stride, "train.seed": seed,
        "train.stages.0.epochs": epochs, "train.stages.1.epochs": stage2_epochs, "train.stages.0.lr": lr,
        "train.stages.1.lr": stage2_lr, "train.stages.*.schedule": schedule,
        "train.stages.0.warmup_epochs": warmup_epochs, "train.batch_size": batch_size,
        "train.weight_decay": weight_decay, "train.mixup_p": mixup, "train.targets": targets,
        "train.label_smoothing": label_smoothing, "train.select": select, "train.precision": precision,
    }  # fmt: skip
    config = _member(preset, features, name, flags, change or [], one_stage=stage2_epochs == 0)
    table, opened = Manifest.read(manifest), FeatureStore.open(store)
    plan = plan_folds(table, cv=cv, n_folds=folds, seed=config.train.seed)
    with bar(config.name, len(plan.names)) as show:

        def on_step(fold: str, done: int, total: int, what: str) -> None:
            of = f" fold {fold}," if len(plan.names) > 1 else ""
            show(plan.names.index(fold) + done / total, len(plan.names), f"{config.name}:{of} {what}")

        fit_member(
            opened, table, config, plan, runs / config.name, device=device, overwrite=overwrite, progress=on_step
        )
        show(len(plan.names), len(plan.names), config.name)
    _print_scores(opened, table, config.name, cv)
    if not config.train.learns_classes:
        say("note: only attributes were learned; its class posteriors are an untrained layer's, leave them out.", "dim")
    say(f"member in {runs / config.name}, posteriors in {store} as posteriors/{config.name}")


def _member(
    preset: str, features: str | None, name: str | None, flags: dict[str, Any], changes: Sequence[str], one_stage: bool
) -> MemberConfig:
    """The preset with the flags that were given (not None), then with what --set says."""
    chosen = find_preset(preset)
    if one_stage:
        chosen = replace(chosen, train=replace(chosen.train, stages=chosen.train.stages[:1]))
        flags = {path: value for path, value in flags.items() if not path.startswith("train.stages.1.")}
    refs = split_names(features) if features is not None else list(chosen.features)
    if not refs:
        raise ConfigError(f"Preset {preset} reads any features: name them with --features.")
    given = {path: value for path, value in flags.items() if value is not None}
    config = member_config(name or "unnamed", refs, chosen, given | parse_changes(changes))
    return config if name else replace(config, name=_member_name(refs, config.train.seed, preset))


def _member_name(features: Sequence[str], seed: int, preset: str) -> str:
    """A name that is safe as a directory's and a feature set's: a,b@3+4 and seed 0 -> a_b.3+4_s0, PRESET_a_b.3+4_s0."""
    of_preset = [] if preset == "medusa" else [preset]
    return "_".join([*of_preset, *(ref.replace("@", ".").replace("/", "-") for ref in features)]) + f"_s{seed}"


def _print_scores(store: Any, manifest: "Manifest", name: str, cv: str | None) -> None:
    from deepser.metrics import ScoreRow
    from deepser.report import scores_table
    from ensemble.parts import evaluate_parts

    parts = evaluate_parts(store, manifest, name, cv=cv)
    rows = [ScoreRow.of(f"{name} ({part})", evaluation) for part, evaluation in parts.items()]
    console().print(scores_table(rows))
