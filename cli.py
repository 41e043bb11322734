"""The `medusa` command: arguments, one library call, and what came of it as a table.

Heavy modules are imported inside the commands, so that `medusa --help` answers at once.
"""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer import Argument, Option
from typer.core import TyperGroup

from deepser.config import LOSS_TARGETS, SELECTIONS, MemberConfig, NetworkConfig, TrainConfig
from ensemble.config import INPUTS, STARTS, MetaConfig
from featurestore.errors import ConfigError, MedusaError

if TYPE_CHECKING:
    from featurestore.featurize import FeaturizeReport
    from featurestore.manifest import Manifest

USAGE, FAILED_FILES, BY_SIGNAL = 2, 1, 128  # exit codes: a mistake; some files failed; 128 + the signal
PIPE_WIDTH = 140  # columns where no terminal tells its own
LISTED_FAILURES = 100
TRAIN, NETWORK, META = TrainConfig(), NetworkConfig(), MetaConfig()
STAGE1, STAGE2 = TRAIN.stages


def console(stderr: bool = False) -> Console:
    """stdout for results, stderr for progress and errors; neither is cut to 80 columns in a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False)


def say(text: str, style: str = "", stderr: bool = False) -> None:
    """One line, never wrapped; brackets in it are text."""
    console(stderr).print(text, style=style, markup=False, soft_wrap=True)


ORDER = ("prepare", "featurize", "fit-deepser", "fit-meta", "evaluate", "predict", "demo", "store", "bench")


class _Commands(TyperGroup):
    """Prints what a user can mend as one line, and says how to go on after an interrupt."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MedusaError as error:
            say(f"error: {' '.join(str(error).split())}", "red", stderr=True)
            raise typer.Exit(USAGE) from None
        except BrokenPipeError:
            raise  # the reader of our output left; typer ends quietly
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            say(f"error: {where}{error.strerror or error}", "red", stderr=True)
            raise typer.Exit(USAGE) from None
        except KeyboardInterrupt as stop:
            signum = getattr(stop, "signum", signal.SIGINT)
            say(f"stopped by {signal.Signals(signum).name}; run the same command again to go on.", stderr=True)
            raise typer.Exit(BY_SIGNAL + signum) from None


def _typer(**settings: Any) -> typer.Typer:
    return typer.Typer(
        context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True, add_completion=False,
        pretty_exceptions_enable=False, rich_markup_mode="markdown", **settings,
    )  # fmt: skip


app = _typer(cls=_Commands)
prepare_app = _typer(help="Make a corpus's manifest: one table of its utterances.")
store_app = _typer(help="Look into a feature store: ls, info, verify, rm.")
bench_app = _typer(help="Measure this machine.")

DATA, MODELS, TOOLS = "Corpora and features", "Members and ensembles", "Tools"
app.add_typer(prepare_app, name="prepare", rich_help_panel=DATA)
app.add_typer(store_app, name="store", rich_help_panel=TOOLS)
app.add_typer(bench_app, name="bench", rich_help_panel=TOOLS)


def _panel(title: str) -> Callable[..., Any]:
    """An option in one panel of the help: panel(help text, option names, settings)."""
    return lambda text, *names, **settings: Option(*names, help=text, rich_help_panel=title, **settings)


reads, encodes, writes = _panel("Input"), _panel("Encoder"), _panel("Output")
network, training, system = _panel("Network"), _panel("Training"), _panel("System")
ManifestOption = Annotated[Path, reads("Corpus table (.csv, .parquet).", "--manifest", "-m")]
StoreOption = Annotated[Path, reads("Feature store's directory.", "--store", "-s")]
CvOption = Annotated[str | None, reads("Manifest column of folds, e.g. fold.")]
RunsOption = Annotated[Path, writes("Directory of the run directories.")]
TableOption = Annotated[Path, Option("--output", "-o", help="Manifest to write (.csv, .parquet).")]
JoinOption = Annotated[int | None, Option(help="Join the corpus's folds to this many (former ones: fold_was).", min=2)]
DeviceOption = Annotated[str, system("auto, cpu, cuda, cuda:1, ...")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"medusa-ser {version('medusa-ser')}")
        raise typer.Exit


@app.callback()
def medusa(
    version: Annotated[bool, Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Speech emotion recognition: encode speech once, train and ensemble on the features many times.

    The way: prepare a manifest, featurize it, fit-deepser two or more members, fit-meta, evaluate, predict.
    `medusa demo` goes it on a small corpus that comes with the program.
    """


@prepare_app.command("ravdess")
def prepare_ravdess(
    root: Annotated[Path, Option(help="Directory of Actor_01 ... Actor_24.")],
    output: TableOption,
    join_folds: JoinOption = None,
) -> None:
    """Read RAVDESS's own layout (speech; wav, flac or ogg), with EmoBox's six speaker-disjoint folds.

    Example: `medusa prepare ravdess --root RAVDESS -o ravdess.csv`
    """
    from featurestore.corpora import read_ravdess

    _write_manifest(read_ravdess(root), output, join_folds)


@prepare_app.command("csv")
def prepare_csv(
    table: Annotated[Path, Argument(help="A table that you have: .csv, .tsv or .parquet.")],
    output: TableOption,
    column: Annotated[list[str] | None, Option(help="NAME=YOURS: id=FileName, label=emotion, vote_sad=Sad.")] = None,
    attribute: Annotated[list[str] | None, Option(help="NAME[=YOURS]:LOW:HIGH: arousal=EmoAct:1:7.")] = None,
    classes: Annotated[str | None, Option(help="Classes in their order, e.g. angry,sad,happy.")] = None,
    root: Annotated[Path | None, Option(help="Where relative audio paths start; default: the table's place.")] = None,
    check_audio: Annotated[bool, Option(help="Look whether every audio file exists.")] = True,
    labels: Annotated[bool, Option(help="Insist on labels, votes or attributes.")] = True,
    join_folds: JoinOption = None,
) -> None:
    """Validate a table, give its columns the manifest's names, and report every problem at once.

    Repeat --column and --attribute for each.

    Example: `medusa prepare csv labels.csv -o corpus.csv --column id=FileName --column label=EmoClass`
    """
    from featurestore.corpora import read_table

    columns = dict(_pair("--column", text) for text in column or [])
    if "id" in columns:
        columns["utterance_id"] = columns.pop("id")
    ranges = {}
    for text in attribute or []:
        name, theirs, low, high = _attribute(text)
        ranges[name] = (low, high)
        columns |= {f"attr_{name}": theirs} if theirs else {}
    manifest = read_table(
        table,
        columns=columns,
        classes=None if classes is None else _names(classes),
        attributes=ranges,
        root=root,
        check_audio=check_audio,
        require_label=labels,
    )
    _write_manifest(manifest, output, join_folds)


def _write_manifest(manifest: "Manifest", output: Path, join: int | None) -> None:
    from featurestore.corpora.folds import join_folds
    from featurestore.corpora.summary import summary_table

    notes = manifest.notes
    if join is not None:
        manifest = join_folds(manifest, join)
    manifest.write(output)
    console().print(summary_table(manifest))
    for note in notes:
        say(f"note: {note}", "dim")
    say(f"wrote {output}")


@app.command(rich_help_panel=DATA)
def featurize(
    encoder: Annotated[str, encodes("Name, hub name (org/name) or directory.")],
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    name: Annotated[str | None, writes("Feature set; default: the encoder's name.")] = None,
    weights: Annotated[Path | None, encodes("Directory of its weights.")] = None,
    layers: Annotated[str, encodes("last, all, 6,12,24, last4, last4-sum.")] = "last",
    pool: Annotated[str, writes("none, mean, mean+std (over time).")] = "none",
    dtype: Annotated[str, writes("Stored rows: float16 or float32.")] = "float16",
    whisper_window: Annotated[str | None, encodes("Whisper: pad30 (its own way) or short (faster).")] = None,
    compute: Annotated[str, encodes("Arithmetic: auto, float32, bfloat16, float16.")] = "auto",
    batch_s: Annotated[float | None, system("Seconds of audio per pass.", min=0.1)] = None,
    workers: Annotated[int, system("Decoding threads.", min=1)] = 2,
    device: DeviceOption = "auto",
    dry_run: Annotated[bool, Option("--dry-run", help="Count hours and bytes, encode nothing.")] = False,
) -> None:
    """Encode every utterance once into a feature set of the store.

    What is there already is skipped, a file that fails is reported and the rest done (exit code 1). Ctrl-C keeps what
    is finished.

    Example: `medusa featurize --encoder wavlm-large --layers 6,12,24 -m corpus.csv -s store`
    """
    from featurestore.encoders import ENCODERS, load_encoder
    from featurestore.featurize import Interrupted
    from featurestore.featurize import featurize as run
    from featurestore.featurize import plan as plan_run
    from featurestore.manifest import Manifest
    from featurestore.store import FeatureStore

    table = Manifest.read(manifest)
    with _working(f"loading {encoder}"):
        loaded = load_encoder(
            encoder, weights=weights, layers=layers, pool=pool, dtype=dtype, device=device,
            window=whisper_window, compute=compute,
        )  # fmt: skip
    chosen = name or loaded.name
    if dry_run:
        planned = plan_run(table, loaded, FeatureStore.open(store) if store.exists() else None, chosen, workers)
        hours = f", {planned.audio_s / 3600:.2f} h of audio" if planned.audio_s else ""
        say(f"{chosen}: {planned.n_utterances:,} utterances to encode{hours}, {planned.n_skipped:,} there already")
        say(
            f"{planned.n_rows:,} rows x {loaded.spec.dim} x {len(loaded.spec.layers)} layers: {_bytes(planned.n_bytes)}"
        )
        _end_with_failures(planned.failed)
        return
    if weights is None and encoder not in ENCODERS and Path(encoder).is_dir():
        weights = Path(encoder)
    with _bar(f"{loaded.name} -> {chosen}", len(table), "{task.fields[rate]}") as show:

        def on_utterance(done: int, total: int, audio_s: float) -> None:
            elapsed = max(show.task.elapsed or 0.0, 1e-3)
            rate = f"{show.task.speed or done / elapsed:.1f}/s"
            show(done, total, rate=f"{audio_s / elapsed:.0f} x real time, {rate}" if audio_s else rate)

        try:
            report = run(
                table, loaded, FeatureStore.open_or_create(store), chosen, batch_s=batch_s, workers=workers,
                weights=weights, progress=on_utterance,
            )  # fmt: skip
        except Interrupted as stop:
            show.close()
            _say_report(chosen, stop.report)
            raise
    _say_report(chosen, report)
    _end_with_failures(report.failed)


def _say_report(name: str, report: "FeaturizeReport") -> None:
    speed = f", {report.audio_s / report.wall_s:.0f} x real time" if report.audio_s and report.wall_s else ""
    empty = f" ({report.empty_texts:,} of them of empty texts)" if report.empty_texts else ""
    say(
        f"{name}: {report.done:,} done{empty}, {report.skipped:,} there already, {len(report.failed):,} failed; "
        f"{report.wall_s:.1f} s{speed}"
    )


@app.command("fit-deepser", rich_help_panel=MODELS)
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
    refs = _names(features)
    config = MemberConfig(name or _member_name(refs, seed), tuple(refs), shape, train)
    table, opened = Manifest.read(manifest), FeatureStore.open(store)
    plan = plan_folds(table, cv=cv, n_folds=folds, seed=seed)
    with _bar(config.name, len(plan.names)) as show:

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


@app.command("fit-meta", rich_help_panel=MODELS)
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
    chosen = find_members(opened) if members is None else _names(members)
    with _working("fitting the meta-classifier") as show:
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


@app.command(rich_help_panel=MODELS)
def evaluate(
    name: Annotated[str, Argument(help="A member or an ensemble in the store: m01, meta.")],
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    cv: CvOption = None,
    split: Annotated[str | None, reads("This split alone.")] = None,
    json_file: Annotated[Path | None, writes("Write the scores.", "--json")] = None,
    confusion: Annotated[Path | None, writes("Draw the confusion matrix (.png).")] = None,
) -> None:
    """Score posteriors in the store: macro-F1, accuracy, UAR, CCC, classes, confusion, spread over folds.

    Example: `medusa evaluate meta -m corpus.csv --confusion confusion.png`
    """
    import json

    from deepser.metrics import jsonable
    from deepser.report import confusion_png, evaluation_report
    from ensemble.parts import evaluate_parts
    from featurestore.manifest import Manifest
    from featurestore.store import FeatureStore

    parts = evaluate_parts(FeatureStore.open(store), Manifest.read(manifest), name, cv=cv, split=split)
    for part, evaluation in parts.items():
        console().print(evaluation_report(f"{name} ({part})", evaluation))
    if json_file is not None:
        scores = jsonable({part: evaluation.to_dict() for part, evaluation in parts.items()})
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(scores, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        say(f"wrote {json_file}")
    if confusion is not None:
        for part, evaluation in parts.items():
            path = confusion if len(parts) == 1 else confusion.with_stem(f"{confusion.stem}-{part}")
            confusion_png(evaluation.classification, path, f"{name} ({part})")
            say(f"wrote {path}")


@app.command(rich_help_panel=MODELS)
def predict(
    files: Annotated[list[Path] | None, Argument(help="Audio files.")] = None,
    model: Annotated[Path, reads("Run directory of fit-meta or fit-deepser.")] = Path("runs/meta"),
    output: Annotated[Path | None, writes(".csv or .jsonl.", "--output", "-o")] = None,
    weights: Annotated[list[str] | None, reads("NAME=DIR: weights of an encoder that moved.")] = None,
    text: Annotated[str | None, reads("What is said in the files.")] = None,
    manifest: Annotated[Path | None, reads("Predict its utterances instead.", "--manifest", "-m")] = None,
    workers: Annotated[int, system("Decoding threads.", min=1)] = 2,
    device: DeviceOption = "auto",
) -> None:
    """Predict emotions of new audio files: encoders, members, meta-classifier.

    A file that fails is reported and the rest done (exit code 1).

    Example: `medusa predict clip.wav other.flac --model runs/meta -o predictions.csv`
    """
    from ensemble.predict import Model, files_manifest
    from ensemble.predict import predict as run
    from ensemble.predictions import check_output, predictions_table
    from featurestore.manifest import Manifest

    if bool(files) == (manifest is not None):
        raise ConfigError("Give either audio files or --manifest.")
    if text is not None and manifest is not None:
        raise ConfigError("--text goes with files; a manifest has a text column of its own.")
    if output is not None:
        check_output(output)
    table = files_manifest(files or [], text) if manifest is None else Manifest.read(manifest)
    places = {name: Path(place) for name, place in (_pair("--weights", pair) for pair in weights or [])}
    with _bar("predict", len(table)) as show:
        result = run(
            Model.load(model), table, weights=places, device=device, workers=workers,
            progress=lambda what, done, total: show(done, total, what),
        )  # fmt: skip
    if output is None:
        console().print(predictions_table(result))
    else:
        result.write(output)
        say(f"wrote {len(result.keys):,} predictions to {output}")
    _end_with_failures(result.failed)


@app.command(rich_help_panel=TOOLS)
def demo(
    directory: Annotated[Path, Option(help="Where its files go.")] = Path("demo-run"),
    fresh: Annotated[bool, Option("--fresh", help="Forget what an earlier run left there.")] = False,
) -> None:
    """Go the whole way on a small corpus that comes with the program; a second run skips what is done.

    Example: `medusa demo`
    """
    from ensemble.demo import forget, steps

    if fresh:
        forget(directory)
    for title, arguments in steps(directory):
        say(f"\n{title}", "bold")
        say(f"$ medusa {shlex.join(arguments)}", "cyan")
        code = app(arguments, standalone_mode=False)
        if code:
            raise typer.Exit(code)


@store_app.command("ls")
def store_ls(store: StoreOption = Path("store")) -> None:
    """List the feature sets.

    Example: `medusa store ls -s store`
    """
    from rich import box
    from rich.table import Table

    from featurestore.store import FeatureStore

    opened = FeatureStore.open(store)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("feature set", "kind", "encoder", "layers", "dim", "dtype", "utterances", "bytes"):
        right = column in ("dim", "utterances", "bytes")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for name in opened.names():
        features = opened[name]
        spec = features.spec
        cells = [name, spec.kind, spec.encoder, ",".join(spec.layers), str(spec.dim), spec.dtype, f"{len(features):,}"]
        table.add_row(*cells, _bytes(_size(features.path)))
    console().print(table)


@store_app.command("info")
def store_info(name: Annotated[str, Argument(help="A feature set.")], store: StoreOption = Path("store")) -> None:
    """Tell what a feature set holds and how it was made.

    Example: `medusa store info wavlm-large -s store`
    """
    from featurestore.store import FeatureStore

    features = FeatureStore.open(store)[name]
    lines = {"fingerprint": features.spec.fingerprint, **features.spec.to_json()}
    lines |= {f"made with {key}": value for key, value in features.provenance.items()}
    lines |= {"utterances": len(features), "segments": len(features.segments), "bytes": _bytes(_size(features.path))}
    for key, value in lines.items():
        say(f"{key:>24}  {', '.join(map(str, value)) if isinstance(value, list) else value}")


@store_app.command("verify")
def store_verify(
    name: Annotated[str | None, Argument(help="A feature set; default: all.")] = None,
    store: StoreOption = Path("store"),
) -> None:
    """Read every byte and check it against its checksum; exit code 1 when something is damaged.

    Example: `medusa store verify -s store`
    """
    from featurestore.store import FeatureStore

    opened = FeatureStore.open(store)
    problems = {each: opened[each].verify() for each in (opened.names() if name is None else [name])}
    for each, found in problems.items():
        say(f"{each}: {'whole' if not found else f'{len(found)} problems'}", "red" if found else "")
        for problem in found:
            say(f"  {problem}", stderr=True)
    if any(problems.values()):
        raise typer.Exit(FAILED_FILES)


@store_app.command("rm")
def store_rm(
    name: Annotated[str, Argument(help="A feature set.")],
    store: StoreOption = Path("store"),
    yes: Annotated[bool, Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Remove a feature set.

    Example: `medusa store rm wavlm-large -s store`
    """
    from featurestore.store import FeatureStore

    opened = FeatureStore.open(store)
    features = opened[name]
    if not yes:
        typer.confirm(f"Remove {name}: {len(features):,} utterances, {_bytes(_size(features.path))}?", abort=True)
    opened.remove(name)
    say(f"removed {name}")


@bench_app.command("io")
def bench_io(
    directory: Annotated[Path | None, Option(help="Where to write; default: the system's temporary one.")] = None,
    utterances: Annotated[int, Option(help="How many.")] = 600,
    dim: Annotated[int, Option(help="Columns of a row.")] = 1024,
    mean_s: Annotated[float, Option(help="Mean duration of an utterance.")] = 5.5,
    batch: Annotated[int, Option(help="Utterances per batch.")] = 32,
    repeats: Annotated[int, Option(help="Runs of which the median is told.")] = 5,
    seed: Annotated[int, Option(help="Of rows and batches.")] = 0,
    cold: Annotated[bool, Option("--cold", help="Also with the files dropped from the page cache.")] = False,
    json_file: Annotated[Path | None, Option("--json", help="Write the figures.")] = None,
) -> None:
    """Read random batches through our store and through what others use, memcpy being the floor.

    Example: `medusa bench io --utterances 3000`
    """
    from benchmarks.io import io_table, run_io

    with _working("bench io") as show:
        result = run_io(
            directory, n_utterances=utterances, dim=dim, mean_s=mean_s, batch=batch, repeats=repeats, seed=seed,
            cold=cold, json_path=json_file, progress=show,
        )  # fmt: skip
    console().print(io_table(result))


class _Show:
    """Updates one progress bar: show(done, total, what is going on, further fields)."""

    def __init__(self, bar: Progress, what: str, total: float) -> None:
        self._bar = bar
        number = bar.add_task(what, total=total, rate="")
        self.task = next(task for task in bar.tasks if task.id == number)
        self.close: Callable[[], None] = bar.stop

    def __call__(self, done: float, total: float, what: str | None = None, **fields: Any) -> None:
        self._bar.update(self.task.id, completed=done, total=total, description=what, **fields)


@contextmanager
def _working(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr, where that is a terminal; gives the function that changes its text."""
    where = console(stderr=True)
    if not where.is_terminal:
        yield lambda text: None
        return
    with where.status(what) as status:
        yield status.update


@contextmanager
def _bar(what: str, total: int, *columns: str) -> Iterator[_Show]:
    """A progress bar on stderr: what, how much, further columns, remaining time."""
    texts = [TextColumn(column) for column in columns]
    where = console(stderr=True)
    count: Any = MofNCompleteColumn() if columns else TextColumn("{task.percentage:>3.0f} %")
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), count, *texts, TimeRemainingColumn(),
        console=where, transient=True, speed_estimate_period=60, disable=not where.is_terminal,
    )  # fmt: skip
    with bar:
        yield _Show(bar, what, total)


def _end_with_failures(failed: Sequence[tuple[str, str]]) -> None:
    """Name each file that failed, and end with exit code 1 when there is one."""
    for key, reason in failed[:LISTED_FAILURES]:
        say(f"failed: {reason if key in reason else f'{key}: {reason}'}", "red", stderr=True)
    if len(failed) > LISTED_FAILURES:
        say(f"... and {len(failed) - LISTED_FAILURES:,} more", "red", stderr=True)
    if failed:
        raise typer.Exit(FAILED_FILES)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _pair(option: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise ConfigError(f"{option} {text!r}: expected NAME=VALUE.")
    return name, value


def _attribute(text: str) -> tuple[str, str, float, float]:
    """NAME[=YOURS]:LOW:HIGH -> (name, column or "", low, high)."""
    try:
        left, low, high = text.rsplit(":", 2)
        name, _, theirs = left.partition("=")
        return name, theirs, float(low), float(high)
    except ValueError:
        raise ConfigError(f"--attribute {text!r}: expected NAME:LOW:HIGH or NAME=COLUMN:LOW:HIGH.") from None


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.2f} TB"


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


class _Terminated(KeyboardInterrupt):
    signum = signal.SIGTERM


def _terminate(signum: int, frame: object) -> None:
    raise _Terminated


def main() -> None:
    """The console script."""
    # Read when torch is loaded. Threads that spin while they wait made training 20 times slower on two busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminate)  # so that temporary files go and checkpoints stay whole
    app()


if __name__ == "__main__":
    main()
