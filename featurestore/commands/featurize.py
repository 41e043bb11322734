"""`medusa featurize`: every utterance encoded once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from featurestore.errors import ConfigError
from featurestore.runtime.wording import format_bytes, format_seconds
from featurestore.terminal import (
    DeviceOption,
    ManifestOption,
    Show,
    StoreOption,
    bar,
    console,
    encodes,
    end_with_failures,
    panel,
    reads,
    say,
    system,
    working,
    writes,
)

if TYPE_CHECKING:
    from featurestore.augment.mixing import ViewedPart
    from featurestore.corpus.manifest import Manifest
    from featurestore.encoders.base import Encoder
    from featurestore.featurize.job import FeaturizeJob
    from featurestore.featurize.plan import FeaturizePlan
    from featurestore.featurize.run import FeaturizeReport
    from featurestore.featurize.sharding import Shard
    from featurestore.store.feature_store import FeatureStore

TRIAL_S = 2.0  # of a dry run
views_of = panel("Augmented views")
Failures = list[tuple[str, str]]  # (key, reason)


def featurize(
    encoder: Annotated[str, encodes("Name, hub name (org/name) or directory.")],
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    name: Annotated[str | None, writes("Feature set; default: the encoder's name.")] = None,
    weights: Annotated[Path | None, encodes("Directory of its weights.")] = None,
    transcripts: Annotated[Path | None, reads("Text encoders: what `medusa transcribe` wrote.")] = None,
    layers: Annotated[str, encodes("last, all, 6,12,24, last4, last4-sum.")] = "last",
    pool: Annotated[str, writes("none, mean, mean+std (over time).")] = "none",
    dtype: Annotated[str, writes("Stored rows: float16, float32, bfloat16, int8.")] = "float16",
    format: Annotated[str | None, writes("New segments: zarr or hdf5; default: as the set has them, zarr.")] = None,
    compress: Annotated[str | None, writes("zstd or blosc (zarr), gzip (hdf5); default: none.")] = None,
    window: Annotated[
        str | None,
        encodes(
            "Whisper: pad30 (its own way) or short (faster). Others: window and context, such as 30s+1s, 512tok+32.",
            "--window",
            "--whisper-window",
        ),
    ] = None,
    keep_special: Annotated[bool, encodes("Text: rows of special tokens too.", "--keep-special")] = False,
    compute: Annotated[str, encodes("Arithmetic: auto, float32, bfloat16, float16.")] = "auto",
    augment: Annotated[
        list[str] | None, views_of("noise, reverb, gain or mix, or several: reverb+noise:snr=0..10. README has more.")
    ] = None,
    views: Annotated[int, views_of("Views of each kind, NAME+noise1, ...", min=1)] = 1,
    noise: Annotated[Path | None, views_of("Directory of noises; default: synthetic.")] = None,
    rooms: Annotated[Path | None, views_of("Directory of impulse responses; default: synthetic.")] = None,
    seed: Annotated[int, views_of("Of every draw.", min=0)] = 0,
    batch_s: Annotated[float | None, system("Seconds of audio per pass.", min=0.1)] = None,
    workers: Annotated[
        int | None, system("Decoding threads; default: 2, for a GPU one per core, at most 16.", min=1)
    ] = None,
    max_memory: Annotated[float | None, system("GiB of this process, or allocated on its GPU.", min=0.05)] = None,
    device: DeviceOption = "auto",
    devices: Annotated[str | None, system("all, or cuda:0,cuda:1: a process for each, at once.")] = None,
    engine: Annotated[str | None, system("ray: on a Ray cluster ('medusa-ser[ray]').")] = None,
    parts: Annotated[int, system("Ray tasks.", min=1)] = 8,
    shard: Annotated[str | None, system("Only part I of N, as 2/8; auto: as Slurm or torchrun number tasks.")] = None,
    verify_audio: Annotated[
        bool, Option("--verify-audio", help="Read what is there already again, to see that it is the same audio.")
    ] = False,
    again: Annotated[
        list[str] | None, Option(help="Ids to encode again, or mismatched: those made from other data. Repeat it.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Tell hours, bytes and time (from a short trial).")] = False,
    check: Annotated[
        int, Option(help="Compare so many utterances alone, in a batch and as stored; encode no more.")
    ] = 0,
) -> None:
    """Encode every utterance once into a feature set of the store.

    What is there already is skipped, after a look at the files' sizes and dates: an id made from other data is an error
    that names both (--again mismatched encodes it again). A file that fails is reported and the rest done (exit code
    1). Ctrl-C keeps what is finished.

    Example: `medusa featurize --encoder wavlm-large --layers 6,12,24 -m corpus.csv -s store`
    """
    from featurestore.asr.transcripts import Transcripts
    from featurestore.augment.views import parse_views
    from featurestore.corpus.manifest import Manifest
    from featurestore.encoders.load import load_with
    from featurestore.encoders.options import EncoderOptions
    from featurestore.featurize.job import FeaturizeOptions, jobs_of
    from featurestore.featurize.present import Again

    if augment is None and (views != 1 or noise or rooms):
        raise ConfigError("--views, --noise and --rooms go with --augment.")
    table = Manifest.read(manifest)
    texts = None if transcripts is None else Transcripts.read(transcripts)
    part = _own_shard(shard)
    source = "text" if texts is None else texts.source
    how = EncoderOptions(encoder, weights, layers, pool, dtype, window, compute, source, keep_special)
    redone = Again.parse(again, table) if again else None
    options = FeaturizeOptions(batch_s, workers, format, compress, texts, max_memory, verify_audio, redone)
    asked = parse_views(augment or [], n_views=views, seed=seed, noises=noise, rooms=rooms)
    failed: Failures = []
    if devices is not None or engine is not None:
        if part is not None or dry_run or check:
            raise ConfigError("--devices and --engine go without --shard, --dry-run and --check.")
        if devices is not None and device != "auto":
            raise ConfigError(f"--devices {devices} and --device {device}: give one of the two.")
        for job in jobs_of(manifest, store, how, name=name, views=asked, options=options):
            failed += _spread(job, len(table), devices, engine, parts, device)
        end_with_failures(failed)
        return
    jobs = jobs_of(table, store, how, name=name, views=asked, options=options)
    with working(f"loading {encoder}"):
        loaded = load_with(how, device)
    for job in jobs:
        if check:
            failed += _check(table, loaded, job, check)
        elif dry_run:
            failed += _try(table, loaded, job, part)
        else:
            failed += _run(table, loaded, job, part)
    end_with_failures(failed)


def _own_shard(text: str | None) -> "Shard | None":
    """Return what --shard says; ConfigError where several tasks were started and each would encode everything."""
    from featurestore.featurize.sharding import Shard
    from featurestore.runtime.launched import task_of_launcher

    own = task_of_launcher()
    if text is None and own is not None:
        raise ConfigError(
            f"{own.launcher} started {own.count} tasks, and each would encode the whole manifest: give --shard "
            "auto, or start one."
        )
    if text != "auto":
        return None if text is None else Shard.parse(text)
    part, launcher = Shard.of_task()
    say(f"part {part}, as {launcher} numbers its tasks")
    return part


def _existing(job: "FeaturizeJob") -> "FeatureStore | None":
    """Return the job's store, None where nothing is there yet."""
    from featurestore.store.feature_store import FeatureStore

    if isinstance(job.store, FeatureStore):
        return job.store
    return FeatureStore.open(job.store) if "://" in str(job.store) or Path(job.store).exists() else None


def _part(table: "Manifest", encoder: "Encoder", job: "FeaturizeJob") -> "ViewedPart | None":
    """Return what a view is of, and print how much of the manifest that is; None for the clean set."""
    from featurestore.augment.mixing import heard

    if job.view is None:
        return None
    job.view.spec(encoder.spec)  # refuses a text encoder, before anything is read or written
    part = heard(table, job.view, _existing(job), write=False)
    if len(part.manifest) < len(table):
        say(f"{job.name}: of the {len(part.manifest):,} utterances of split train, of {len(table):,} in all")
    return part


def _refuse_other_set(encoder: "Encoder", job: "FeaturizeJob") -> None:
    from featurestore.augment.views import viewed_spec

    existing = _existing(job)
    if existing is not None and job.name in existing:
        existing[job.name].check_spec(viewed_spec(encoder.spec, job.view))


def _run(table: "Manifest", encoder: "Encoder", job: "FeaturizeJob", part: "Shard | None") -> Failures:
    """Encode in this process, and print what was done; what failed."""
    from featurestore.runtime.stopping import Interrupted

    viewed = _part(table, encoder, job)
    _refuse_other_set(encoder, job)
    n = len(table if viewed is None else viewed.manifest)
    with bar(f"{encoder.name} -> {job.name}", n, "{task.fields[rate]}") as show:
        try:
            report = replace(job, encoder=encoder).run(part, progress=_with_rate(show))
        except Interrupted as stop:
            show.close()
            _say_report(job.name, stop.report)
            raise
    _say_report(job.name, report)
    return report.failed


def _try(table: "Manifest", encoder: "Encoder", job: "FeaturizeJob", part: "Shard | None") -> Failures:
    """Print the size of a run, and its time from a short trial; what failed already."""
    from featurestore.featurize.plan import plan

    _part(table, encoder, job)
    _refuse_other_set(encoder, job)
    with working(f"trying {job.name}"):
        planned = plan(
            table, encoder, _existing(job), job.name, job.options.workers,
            shard=part, transcripts=job.options.transcripts, view=job.view, trial_s=TRIAL_S,
            verify_audio=job.options.verify_audio, again=job.options.again,
        )  # fmt: skip
    _say_plan(job.name, encoder, planned)
    return planned.failed


def _with_rate(show: Show) -> Callable[[int, int, float], None]:
    """Progress that also tells utterances per second, and audio per second of wall clock."""

    def on_utterance(done: int, total: int, audio_s: float) -> None:
        elapsed = max(show.task.elapsed or 0.0, 1e-3)
        rate = f"{show.task.speed or done / elapsed:.1f}/s"
        show(done, total, rate=f"{audio_s / elapsed:.0f} x real time, {rate}" if audio_s else rate)

    return on_utterance


def _spread(job: "FeaturizeJob", n: int, devices: str | None, engine: str | None, parts: int, device: str) -> Failures:
    """Encode with several processes, and say what they did together; what failed."""
    from featurestore.featurize.engines import featurize_on_devices, featurize_with_ray, visible_devices
    from featurestore.runtime.stopping import Interrupted

    if engine not in (None, "ray") or (engine and devices):
        raise ConfigError(f"--engine {engine}: expected ray, and no --devices with it.")
    with bar(job.name, n, "{task.fields[rate]}") as show:
        try:
            if engine:
                report = featurize_with_ray(job, parts, device, progress=_with_rate(show))
            else:
                report = featurize_on_devices(job, visible_devices(devices or ""), progress=_with_rate(show))
        except Interrupted as stop:
            show.close()
            _say_report(job.name, stop.report)
            raise
    _say_report(job.name, report)
    return report.failed


def _say_plan(name: str, encoder: "Encoder", plan: "FeaturizePlan") -> None:
    hours = f", {plan.audio_s / 3600:.2f} h of audio" if plan.audio_s else ""
    say(f"{name}: {plan.n_utterances:,} utterances to encode{hours}, {plan.n_skipped:,} there already")
    size, spec = format_bytes(plan.n_bytes), encoder.spec
    say(f"{plan.n_rows:,} rows x {spec.dim} x {len(spec.layers)} layers of {spec.dtype}: {size}")
    if plan.wall_s == plan.wall_s:
        say(f"about {format_seconds(plan.wall_s)} on this machine, from a short trial")


def _check(manifest: "Manifest", encoder: "Encoder", job: "FeaturizeJob", n: int) -> Failures:
    """Print what a check found; failed are rows that depend on their batch, or aren't those that are stored."""
    from rich.table import Table

    from featurestore.featurize.items import items_of
    from featurestore.featurize.trial import check_rows, tolerances

    store, name = _existing(job), job.name
    viewed = _part(manifest, encoder, job)
    items, failed = items_of(manifest, encoder, transcripts=job.options.transcripts, view=viewed)
    stored = store[name] if store is not None and name in store else None
    with working(f"checking {name}"):
        found = check_rows(encoder, items, n, stored=stored)
    in_batch, kept = tolerances(encoder)
    table = Table(title=f"{name}: largest relative difference of a row, {len(found)} utterances", title_justify="left")
    for column in ("utterance", "rows", f"alone / in a batch (<= {in_batch:g})", f"alone / stored (<= {kept:g})"):
        table.add_column(column, justify="left" if column == "utterance" else "right", overflow="fold")
    for each in found:
        table.add_row(
            each.key, str(each.n_rows), *("-" if x != x else f"{x:.2g}" for x in (each.in_batch, each.stored))
        )
    console().print(table)
    wrong = [(each.key, "its rows differ by more than arithmetic explains") for each in found
             if each.in_batch > in_batch or each.stored > kept]  # fmt: skip
    return [*failed, *((each.key, each.error) for each in found if each.error), *wrong]


SHOWN_CONSTANT = 20  # clips of one value that are named


def _say_report(name: str, report: "FeaturizeReport") -> None:
    speed = f", {report.audio_s / report.wall_s:.0f} x real time" if report.audio_s and report.wall_s else ""
    empty = f" ({report.empty_texts:,} of them of empty texts)" if report.empty_texts else ""
    redone = f" ({report.n_again:,} of them again)" if report.n_again else ""
    say(
        f"{name}: {report.done:,} done{empty}{redone}, {report.skipped:,} there already, {len(report.failed):,} "
        f"failed; {report.wall_s:.1f} s{speed}"
    )
    if report.constant:
        more = f" and {len(report.constant) - SHOWN_CONSTANT:,} more" if len(report.constant) > SHOWN_CONSTANT else ""
        shown = ", ".join(report.constant[:SHOWN_CONSTANT])
        say(f"warning: {len(report.constant):,} silent, all samples of one value: {shown}{more}", "yellow")
    if report.n_unrecorded:
        say(
            f"{name}: {report.n_unrecorded:,} there already, made before identities were recorded: not compared "
            "but for their durations",
            "dim",
        )
    if report.n_unreachable:
        say(f"{name}: {report.n_unreachable:,} there already, whose files can't be reached: not compared", "dim")
