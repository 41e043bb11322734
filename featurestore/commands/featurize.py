"""`medusa featurize`: every utterance encoded once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from featurestore.commands.featurize_options import (
    EncoderArguments,
    InputArguments,
    OutputArguments,
    SystemArguments,
    ViewArguments,
)
from featurestore.commands.featurize_report import say_computed, say_plan, say_report, say_sized, show_checks, with_rate
from featurestore.commands.shards import part_to_do
from featurestore.errors import ConfigError
from featurestore.terminal import bar, end_with_failures, option_groups, say, working

if TYPE_CHECKING:
    from featurestore.asr.transcripts import Transcripts
    from featurestore.augment.mixing import ViewedPart
    from featurestore.corpus.manifest import Manifest
    from featurestore.encoders.base import Encoder
    from featurestore.encoders.options import EncoderOptions
    from featurestore.featurize.job import FeaturizeJob
    from featurestore.featurize.sharding import Shard
    from featurestore.store.feature_store import FeatureStore

TRIAL_S = 2.0  # of a dry run
Failures = list[tuple[str, str]]  # (key, reason)


@option_groups
def featurize(
    encoder: EncoderArguments,
    inputs: InputArguments,
    output: OutputArguments,
    augmented: ViewArguments,
    system: SystemArguments,
    verify_audio: Annotated[
        bool, Option("--verify-audio", help="Read the audio of stored utterances again, and check that it is the same.")
    ] = False,
    again: Annotated[
        list[str] | None, Option(help="Ids to encode again, or mismatched: those made from other data. Repeat it.")
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print hours, bytes and time (from a short trial), and encode nothing.")
    ] = False,
    check: Annotated[
        int, Option(help="Number of utterances to compare alone, in a batch and as stored; nothing else is encoded.")
    ] = 0,
) -> None:
    """Encode every utterance once into a feature set of the store.

    Utterances already stored are skipped, after a look at the files' sizes and dates: an id made from other data is an
    error that names both (--again mismatched encodes it again). A file that fails is reported and the rest done (exit
    code 1). Ctrl-C keeps what is finished. Files and folders need no manifest: one without labels is made of them.

    Example: `medusa featurize --encoder wavlm-large --layers 6,12,24 -m corpus.csv -s store`
    """
    from featurestore.encoders.by_config import sized_by_config
    from featurestore.encoders.load import load_with
    from featurestore.encoders.options import EncoderOptions
    from featurestore.encoders.prompt import Prompt
    from featurestore.featurize.job import FeaturizeOptions, jobs_of
    from featurestore.featurize.present import Again

    augmented.check()
    table, failed = inputs.table(keep=not (dry_run or check))
    texts = inputs.texts()
    part = part_to_do(system.shard, "encode")
    rows = EncoderOptions(
        encoder.encoder, encoder.weights, encoder.layers, output.pool, output.dtype, encoder.window, encoder.compute,
        "text" if texts is None else texts.source, encoder.keep_special, Prompt(encoder.prompt, encoder.keep_prompt),
        encoder.short,
    )  # fmt: skip
    redone = Again.parse(again, table) if again else None
    options = FeaturizeOptions(
        system.batch_s, system.workers, output.format, output.compress, texts, system.max_memory, verify_audio, redone
    )
    views = augmented.parse()
    if output.times and (texts is None or system.in_processes or check or dry_run):
        raise ConfigError(
            "--times: needs --transcripts of `transcribe --words`, without --devices, --check, --dry-run."
        )
    if system.in_processes and (part is not None or dry_run or check):
        raise ConfigError("--devices and --engine go without --shard, --dry-run and --check.")
    # A process of its own reads a manifest again: what is sent to it is the path.
    manifest = inputs.manifest if system.in_processes and inputs.manifest is not None else table
    jobs = jobs_of(manifest, inputs.store, rows, name=output.name, views=views, options=options)
    shard = "" if part is None else f"-{part.number}-of-{part.count}"
    listed = f"{inputs.store}-{jobs[0].name}{shard}"  # of shards, which run at once, each has its list
    if system.in_processes:
        end_with_failures(failed + _run_in_processes(jobs, len(table), system), listed)
        return
    if dry_run and (sized := sized_by_config(rows, system.device)) is not None:
        say_sized(jobs[0].name, sized, table, texts)
        end_with_failures(failed, listed)
        return
    if not (check or dry_run or part is not None or output.times):
        jobs, unread = _unfinished(table, jobs, rows, system.device)
        failed += unread
    if not jobs:
        end_with_failures(failed, listed)
        return
    with working(f"loading {encoder.encoder}"):
        loaded = load_with(rows, system.device)
    say_computed(loaded, system.device)
    if loaded.notice and any((store := _existing(job)) is None or job.name not in store for job in jobs):
        say(loaded.notice, "yellow")
    for job in jobs:
        if check:
            failed += _check(table, loaded, job, check)
        elif dry_run:
            failed += _try(table, loaded, job, part)
        else:
            failed += _run(table, loaded, job, part)
            if output.times and texts is not None:
                failed += _run_times(table, loaded, job, texts, part)
    end_with_failures(failed, listed)


def _unfinished(
    table: "Manifest", jobs: "list[FeaturizeJob]", encoder: "EncoderOptions", device: str
) -> "tuple[list[FeaturizeJob], Failures]":
    """Return the jobs that have anything to do, and what failed of the others, whose reports are printed."""
    from featurestore.featurize.finished import finished

    unfinished: list[FeaturizeJob] = []
    failed: Failures = []
    for job in jobs:
        report = finished(table, _existing(job), job, encoder, device)
        if report is None:
            unfinished.append(job)
        else:
            say_report(job.name, report)
            failed += report.failed
    return unfinished, failed


def _existing(job: "FeaturizeJob") -> "FeatureStore | None":
    """Return the job's store, None where nothing is there yet."""
    from featurestore.store.feature_store import FeatureStore

    if isinstance(job.store, FeatureStore):
        return job.store
    return FeatureStore.open(job.store) if "://" in str(job.store) or Path(job.store).exists() else None


def _part(table: "Manifest", encoder: "Encoder", job: "FeaturizeJob") -> "ViewedPart | None":
    """Return what a view is of, and print how much of the manifest that is; None for the clean set."""
    from featurestore.augment.mixing import viewed_part

    if job.view is None:
        return None
    job.view.spec(encoder.spec)  # refuses a text encoder, before anything is read or written
    part = viewed_part(table, job.view, _existing(job), write=False)
    if len(part.manifest) < len(table):
        say(f"{job.name}: of the {len(part.manifest):,} utterances of split train, of {len(table):,} in all")
    return part


def _refuse_other_set(encoder: "Encoder", job: "FeaturizeJob") -> None:
    from featurestore.augment.views import viewed_spec

    existing = _existing(job)
    if existing is not None and job.name in existing:
        existing[job.name].check_spec(viewed_spec(encoder.spec, job.view))
    elif existing is not None and (note := job.check_beside_clean(existing, encoder)):
        say(note, "yellow")


def _run(table: "Manifest", encoder: "Encoder", job: "FeaturizeJob", part: "Shard | None") -> Failures:
    """Encode in this process, and print what was done; what failed."""
    from featurestore.runtime.stopping import Interrupted

    viewed = _part(table, encoder, job)
    _refuse_other_set(encoder, job)
    n = len(table if viewed is None else viewed.manifest)
    with bar(f"{encoder.name} -> {job.name}", n, "{task.fields[rate]}") as show:
        try:
            report = replace(job, encoder=encoder).run(part, progress=with_rate(show))
        except Interrupted as stop:
            show.close()
            say_report(job.name, stop.report)
            raise
    say_report(job.name, report)
    return report.failed


def _run_times(
    table: "Manifest", encoder: "Encoder", job: "FeaturizeJob", texts: "Transcripts", part: "Shard | None"
) -> Failures:
    """Store the time of every token beside its row."""
    from featurestore.encoders.text import TextEncoder
    from featurestore.encoders.token_times import ENDING, TokenTimes

    if not isinstance(encoder, TextEncoder):
        raise ConfigError(f"--times: {encoder.name} encodes audio; its rows have their times by their rate.")
    options = replace(job.options, transcripts=texts.timed(), max_memory_gib=None)  # it takes none
    return _run(table, TokenTimes(encoder), replace(job, name=job.name + ENDING, options=options), part)


def _run_in_processes(jobs: "Sequence[FeaturizeJob]", n: int, system: SystemArguments) -> Failures:
    """Encode each set of n utterances with several processes, and print what they did together; what failed."""
    if system.devices is not None and system.device != "auto":
        raise ConfigError(f"--devices {system.devices} and --device {system.device}: give one of the two.")
    if system.engine not in (None, "ray") or (system.engine and system.devices):
        raise ConfigError(f"--engine {system.engine}: expected ray, and no --devices with it.")
    failed: Failures = []
    for job in jobs:
        failed += _spread(job, n, system)
    return failed


def _spread(job: "FeaturizeJob", n: int, system: SystemArguments) -> Failures:
    from featurestore.featurize.engines import featurize_on_devices, visible_devices
    from featurestore.featurize.ray_engine import featurize_with_ray
    from featurestore.runtime.stopping import Interrupted

    with bar(job.name, n, "{task.fields[rate]}") as show:
        try:
            if system.engine:
                report = featurize_with_ray(job, system.parts, system.device, progress=with_rate(show), announce=say)
            else:
                report = featurize_on_devices(job, visible_devices(system.devices or ""), with_rate(show), say)
        except Interrupted as stop:
            show.close()
            say_report(job.name, stop.report)
            raise
    say_report(job.name, report)
    for note in report.notes:
        say(note, "yellow")
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
    say_plan(job.name, encoder, planned)
    return planned.failed


def _check(manifest: "Manifest", encoder: "Encoder", job: "FeaturizeJob", n: int) -> Failures:
    """Print what a check found; failed are rows that depend on their batch, or aren't those that are stored."""
    from featurestore.featurize.items import items_of
    from featurestore.featurize.trial import check_rows, tolerances

    store, name = _existing(job), job.name
    viewed = _part(manifest, encoder, job)
    items, failed = items_of(manifest, encoder, transcripts=job.options.transcripts, view=viewed)
    stored = store[name] if store is not None and name in store else None
    with working(f"checking {name}"):
        checks = check_rows(encoder, items, n, stored=stored)
    in_batch, of_stored = tolerances(encoder)
    show_checks(name, checks, in_batch, of_stored)
    wrong = [(each.key, "its rows differ by more than arithmetic explains") for each in checks
             if each.in_batch > in_batch or each.stored > of_stored]  # fmt: skip
    return [*failed, *((each.key, each.error) for each in checks if each.error), *wrong]
