"""`medusa featurize`: every utterance encoded once."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from featurestore.asr.transcripts import Transcripts
    from featurestore.augment.views import View
    from featurestore.corpus.manifest import Manifest
    from featurestore.encoders.base import Encoder
    from featurestore.featurize.engines import Job
    from featurestore.featurize.run import FeaturizePlan, FeaturizeReport
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
    shard: Annotated[str | None, system("Only part I of N, as in 2/8: for N jobs that write to one store.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Tell hours, bytes and time (from a short trial).")] = False,
    check: Annotated[
        int, Option(help="Compare so many utterances alone, in a batch and as stored; encode no more.")
    ] = 0,
) -> None:
    """Encode every utterance once into a feature set of the store.

    What is there already is skipped, a file that fails is reported and the rest done (exit code 1). Ctrl-C keeps what
    is finished.

    Example: `medusa featurize --encoder wavlm-large --layers 6,12,24 -m corpus.csv -s store`
    """
    from featurestore.asr.transcripts import Transcripts
    from featurestore.augment.mixing import heard
    from featurestore.augment.views import parse_views
    from featurestore.corpus.manifest import Manifest
    from featurestore.encoders import ENCODERS, load_encoder
    from featurestore.encoders.load import label_of
    from featurestore.featurize.engines import Job
    from featurestore.featurize.run import Interrupted
    from featurestore.featurize.run import featurize as run
    from featurestore.featurize.run import plan as plan_run
    from featurestore.featurize.sharding import Shard
    from featurestore.store.feature_store import FeatureStore

    if augment is None and (views != 1 or noise or rooms):
        raise ConfigError("--views, --noise and --rooms go with --augment.")
    table = Manifest.read(manifest)
    texts = None if transcripts is None else Transcripts.read(transcripts)
    part = None if shard is None else Shard.parse(shard)
    how: dict[str, Any] = {
        "name": encoder, "weights": weights, "layers": layers, "pool": pool, "dtype": dtype, "window": window,
        "compute": compute, "keep_special": keep_special, "source": "text" if texts is None else texts.source,
    }  # fmt: skip
    if weights is None and encoder not in ENCODERS and Path(encoder).is_dir():
        weights = Path(encoder)
    options: dict[str, Any] = {
        "batch_s": batch_s, "workers": workers, "weights": weights, "format": format, "compress": compress,
        "transcripts": texts, "max_memory_gib": max_memory,
    }  # fmt: skip
    asked: list[View | None] = [*parse_views(augment or [], n_views=views, seed=seed, noises=noise, rooms=rooms)]
    asked = asked or [None]  # the clean set
    failed: Failures = []
    if devices is not None or engine is not None:
        if part is not None or dry_run or check:
            raise ConfigError("--devices and --engine go without --shard, --dry-run and --check.")
        if devices is not None and device != "auto":
            raise ConfigError(f"--devices {devices} and --device {device}: give one of the two.")
        for view in asked:
            job = Job(manifest, Path(store), _set_name(name or label_of(encoder), view), how, options, view)
            failed += _spread(job, len(table), devices, engine, parts, device)
        end_with_failures(failed)
        return
    with working(f"loading {encoder}"):
        loaded = load_encoder(**how, device=device)
    existing = FeatureStore.open(store) if "://" in str(store) or Path(store).exists() else None
    for view in asked:
        chosen = _set_name(name or loaded.name, view)
        seen = loaded if view is None else view.encoder(loaded)
        rows = table if view is None else heard(table, view, existing, write=False)
        if len(rows) < len(table):
            say(f"{chosen}: of the {len(rows):,} utterances of split train, of {len(table):,} in all")
        if check:
            failed += _check(rows, seen, existing, chosen, check, texts)
            continue
        if existing is not None and chosen in existing:
            existing[chosen].check_spec(seen.spec)
        if dry_run:
            with working(f"trying {chosen}"):
                planned = plan_run(
                    rows, seen, existing, chosen, workers or 2, shard=part, transcripts=texts, trial_s=TRIAL_S
                )
            _say_plan(chosen, seen, planned)
            failed += planned.failed
            continue
        with bar(f"{loaded.name} -> {chosen}", len(rows), "{task.fields[rate]}") as show:
            opened = FeatureStore.open_or_create(store)
            rows = table if view is None else heard(table, view, opened)
            try:
                report = run(rows, seen, opened, chosen, **options, shard=part, progress=_with_rate(show))
            except Interrupted as stop:
                show.close()
                _say_report(chosen, stop.report)
                raise
        _say_report(chosen, report)
        failed += report.failed
    end_with_failures(failed)


def _set_name(base: str, view: "View | None") -> str:
    return base if view is None else view.name(base)


def _with_rate(show: Show) -> Callable[[int, int, float], None]:
    """Progress that also tells utterances per second, and audio per second of wall clock."""

    def on_utterance(done: int, total: int, audio_s: float) -> None:
        elapsed = max(show.task.elapsed or 0.0, 1e-3)
        rate = f"{show.task.speed or done / elapsed:.1f}/s"
        show(done, total, rate=f"{audio_s / elapsed:.0f} x real time, {rate}" if audio_s else rate)

    return on_utterance


def _spread(job: "Job", n: int, devices: str | None, engine: str | None, parts: int, device: str) -> Failures:
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


def _check(
    manifest: "Manifest",
    encoder: "Encoder",
    store: "FeatureStore | None",
    name: str,
    n: int,
    transcripts: "Transcripts | None",
) -> Failures:
    """Print what a check found; failed are rows that depend on their batch, or aren't those that are stored."""
    from rich.table import Table

    from featurestore.featurize.run import items_of
    from featurestore.featurize.trial import check_rows, tolerances

    items, failed = items_of(manifest, encoder, transcripts=transcripts)
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


def _say_report(name: str, report: "FeaturizeReport") -> None:
    speed = f", {report.audio_s / report.wall_s:.0f} x real time" if report.audio_s and report.wall_s else ""
    empty = f" ({report.empty_texts:,} of them of empty texts)" if report.empty_texts else ""
    say(
        f"{name}: {report.done:,} done{empty}, {report.skipped:,} there already, {len(report.failed):,} failed; "
        f"{report.wall_s:.1f} s{speed}"
    )
