"""`medusa fit-deepser` and `medusa fit-meta`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from deepser.config import LOSS_TARGETS, SELECTIONS, MemberConfig, NetworkConfig, TrainConfig
from ensemble.config import INPUTS, STARTS, MetaConfig
from featurestore.errors import ConfigError
from featurestore.terminal import (
    CvOption,
    DeviceOption,
    ManifestOption,
    RunsOption,
    StoreOption,
    bar,
    console,
    network,
    reads,
    say,
    split_names,
    system,
    training,
    working,
    writes,
)

if TYPE_CHECKING:
    from featurestore.manifest import Manifest

TRAIN, NETWORK, META = TrainConfig(), NetworkConfig(), MetaConfig()
STAGE1, STAGE2 = TRAIN.stages


def fit_deepser(
    features: Annotated[str, reads("Two or more feature sets, layers after @: a,b@3+4,c.")],
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    cv: CvOption = None,
    folds: Annotated[int, reads("Speaker-disjoint folds within split train.", min=1)] = 1,
    name: Annotated[str | None, writes("Default: from features and seed.")] = None,
    runs: RunsOption = Path("runs"),
    overwrite: Annotated[bool, writes("Start a member of that name anew.", "--overwrite")] = False,
    d: Annotated[int, network("Width.")] = NETWORK.d,
    n_layers: Annotated[int, network("Transformer layers of each Enc.")] = NETWORK.n_layers,
    n_heads: Annotated[int, network("Attention heads; they divide d.")] = NETWORK.n_heads,
    dropout: Annotated[float, network("Share of units dropped.")] = NETWORK.dropout,
    stride: Annotated[int, network("Frames averaged into one.")] = TRAIN.stride,
    seed: Annotated[int, training("Of weights, order and MixUp.")] = TRAIN.seed,
    epochs: Annotated[int, training("Stage 1: all clips.", min=1)] = STAGE1.epochs,
    stage2_epochs: Annotated[int, training("Stage 2: balanced; 0: none.", min=0)] = STAGE2.epochs,
    lr: Annotated[float, training("Learning rate of stage 1.")] = STAGE1.lr,
    stage2_lr: Annotated[float, training("Learning rate of stage 2.")] = STAGE2.lr,
    schedule: Annotated[str, training("constant or cosine.")] = STAGE1.schedule,
    warmup_epochs: Annotated[float, training("Linear warm-up of stage 1.")] = STAGE1.warmup_epochs,
    batch_size: Annotated[int, training("Utterances per step.")] = TRAIN.batch_size,
    weight_decay: Annotated[float, training("Of AdamW.")] = TRAIN.weight_decay,
    mixup: Annotated[float, training("Share of clips mixed.")] = TRAIN.mixup_p,
    targets: Annotated[str, training(" or ".join(LOSS_TARGETS) + ".")] = TRAIN.targets,
    label_smoothing: Annotated[float, training("Share of the target spread evenly.")] = TRAIN.label_smoothing,
    select: Annotated[str, training(f"Epoch kept: {' or '.join(SELECTIONS)}.")] = TRAIN.select,
    precision: Annotated[str, system("auto, float32, bfloat16.")] = TRAIN.precision,
    device: DeviceOption = "auto",
) -> None:
    """Train one member, DeepSER over two or more feature sets, and keep its posteriors in the store.

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
    stages = [replace(STAGE1, epochs=epochs, lr=lr, schedule=schedule, warmup_epochs=warmup_epochs)]
    if stage2_epochs:
        stages.append(replace(STAGE2, epochs=stage2_epochs, lr=stage2_lr, schedule=schedule))
    train = replace(
        TRAIN, stages=tuple(stages), batch_size=batch_size, weight_decay=weight_decay, mixup_p=mixup, targets=targets,
        label_smoothing=label_smoothing, select=select, stride=stride, seed=seed, precision=precision,
    )  # fmt: skip
    shape = replace(NETWORK, d=d, n_layers=n_layers, n_heads=n_heads, dropout=dropout)
    refs = split_names(features)
    config = MemberConfig(name or _member_name(refs, seed), tuple(refs), shape, train)
    table, opened = Manifest.read(manifest), FeatureStore.open(store)
    plan = plan_folds(table, cv=cv, n_folds=folds, seed=seed)
    with bar(config.name, len(plan.names)) as show:

        def on_step(fold: str, done: int, total: int, what: str) -> None:
            of = f" fold {fold}," if len(plan.names) > 1 else ""
            show(plan.names.index(fold) + done / total, len(plan.names), f"{config.name}:{of} {what}")

        fit_member(
            opened, table, config, plan, runs / config.name, device=device, overwrite=overwrite, progress=on_step
        )
        show(len(plan.names), len(plan.names), config.name)
    _print_scores(opened, table, config.name, cv)
    say(f"member in {runs / config.name}, posteriors in {store} as posteriors/{config.name}")


def _member_name(features: Sequence[str], seed: int) -> str:
    """A name that is safe as a directory's and a feature set's: a,b@3+4 and seed 0 -> a_b.3+4_s0."""
    return "_".join(ref.replace("@", ".").replace("/", "-") for ref in features) + f"_s{seed}"


def _print_scores(store: Any, manifest: "Manifest", name: str, cv: str | None) -> None:
    from deepser.metrics import ScoreRow
    from deepser.report import scores_table
    from ensemble.parts import evaluate_parts

    parts = evaluate_parts(store, manifest, name, cv=cv)
    rows = [ScoreRow.of(f"{name} ({part})", evaluation) for part, evaluation in parts.items()]
    console().print(scores_table(rows))


def fit_meta(
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    members: Annotated[str | None, reads("m01,m02,...; default: every member in the store.")] = None,
    cv: CvOption = None,
    in_sample: Annotated[bool, reads("Allow posteriors of training utterances.", "--in-sample")] = False,
    name: Annotated[str, writes("Of the ensemble.")] = "meta",
    runs: RunsOption = Path("runs"),
    seeds: Annotated[int, training("Trained at once, then averaged.", min=1)] = len(META.seeds),
    inputs: Annotated[str, training(" or ".join(INPUTS) + ".")] = META.inputs,
    lr: Annotated[float, training("Learning rate.")] = META.lr,
    batch_size: Annotated[int, training("Utterances per step.")] = META.batch_size,
    rounds: Annotated[int, training("Rounds of training, at most.")] = META.rounds,
    start: Annotated[str, training(" or ".join(STARTS) + ".")] = META.start,
    select: Annotated[str, training(f"Round kept: {' or '.join(SELECTIONS)}.")] = META.select,
) -> None:
    """Fit the linear meta-classifier on members' posteriors, and compare members, votes, meta and soup.

    Example: `medusa fit-meta --seeds 6 --members m01,m02,m03 -m corpus.csv`
    """
    from deepser.report import scores_table
    from ensemble.fit import fit_ensemble
    from ensemble.members import find_members, record_members
    from featurestore.manifest import Manifest
    from featurestore.store import FeatureStore

    config = replace(
        META, inputs=inputs, seeds=tuple(range(seeds)), lr=lr, batch_size=batch_size, rounds=rounds, start=start,
        select=select,
    )  # fmt: skip
    table, opened = Manifest.read(manifest), FeatureStore.open(store)
    chosen = find_members(opened) if members is None else split_names(members)
    with working("fitting the meta-classifier") as show:
        _, report = fit_ensemble(
            opened, table, chosen, name=name, config=config, folds=cv, in_sample=in_sample, directory=runs / name,
            progress=lambda what: show(f"meta-classifier: {what}"),
        )  # fmt: skip
    unknown = record_members(runs / name, opened, report.members, runs)
    for part, rows in report.parts.items():
        console().print(scores_table(rows, title=part))
    for note in report.notes:
        say(f"note: {note}", "dim")
    if unknown:
        say(f"note: no run directory in {runs} made {', '.join(unknown)}; `medusa predict` needs it.", "dim")
    say(f"ensemble in {runs / name}, posteriors in {store} as posteriors/{name}")
