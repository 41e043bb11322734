"""What `medusa featurize` prints: its progress, a plan, a check of rows, and what a run did."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from featurestore.runtime.wording import counted, first_names, format_bytes, format_seconds, silent_clips, special_texts
from featurestore.terminal import Show, console, say

if TYPE_CHECKING:
    from featurestore.corpus.manifest import Manifest
    from featurestore.encoders.base import Encoder
    from featurestore.encoders.by_config import SizedEncoder
    from featurestore.featurize.items import Texts
    from featurestore.featurize.plan import FeaturizePlan
    from featurestore.featurize.run import FeaturizeReport
    from featurestore.featurize.trial import Checked


def with_rate(show: Show) -> Callable[[int, int, float], None]:
    """Return progress that shows utterances per second too, and audio per second of wall clock."""

    def on_utterance(done: int, total: int, audio_s: float) -> None:
        elapsed = max(show.task.elapsed or 0.0, 1e-3)
        rate = f"{show.task.speed or done / elapsed:.1f}/s"
        show(done, total, rate=f"{audio_s / elapsed:.0f} x real time, {rate}" if audio_s else rate)

    return on_utterance


def say_computed(encoder: "Encoder", device: str) -> None:
    """Print where an encoder computes and how, and that it is not what it is called; device: as it was asked for."""
    from featurestore.encoders.catalog import unlike_its_name
    from featurestore.encoders.device import computed_by
    from featurestore.runtime.device import unused_cards

    say(f"{encoder.name}: on {', '.join(computed_by(encoder).values())}")
    if difference := unlike_its_name(encoder.spec):
        say(f"warning: {difference}", "yellow", stderr=True)
    if device == "auto" and hasattr(encoder, "compute") and (why := unused_cards(encoder.device)):
        say(f"warning: {why}", "yellow", stderr=True)


def say_plan(name: str, encoder: "Encoder", plan: "FeaturizePlan") -> None:
    hours = f", {plan.audio_s / 3600:.2f} h of audio" if plan.audio_s else ""
    say(f"{name}: {plan.n_utterances:,} utterances to encode{hours}, {plan.n_skipped:,} there already")
    size, spec = format_bytes(plan.n_bytes), encoder.spec
    say(f"{plan.n_rows:,} rows x {spec.dim} x {len(spec.layers)} layers of {spec.dtype}: {size}")
    if plan.wall_s == plan.wall_s:
        say(f"about {format_seconds(plan.wall_s)} on this machine, from a short trial")


def say_sized(name: str, sized: "SizedEncoder", manifest: "Manifest", texts: "Texts | None") -> None:
    """Print a plan made by a config.json alone: bytes of the weights in memory, and of the rows on disk."""
    texts_read = manifest.texts if texts is None else [text for _, text in texts.of(manifest)[0]]
    n_rows = sized.n_rows(list(texts_read))
    say(
        f"{name}: {sized.n_parameters / 1e6:,.1f} million parameters, {format_bytes(sized.n_bytes)} of weights in "
        f"memory ({sized.compute}); they are not here yet"
    )
    if n_rows is None:
        say(
            f"{len(texts_read):,} texts, {format_bytes(sized.row_bytes)} for each token; how many tokens these are is "
            "known with the tokenizer.json beside config.json"
        )
    else:
        say(f"{len(texts_read):,} texts, {n_rows:,} rows: {format_bytes(n_rows * sized.row_bytes)}")


def show_checks(name: str, checks: "Sequence[Checked]", in_batch: float, stored: float) -> None:
    """Print a row for each checked utterance; in_batch, stored: the largest differences that are in order."""
    from rich.table import Table

    table = Table(title=f"{name}: largest relative difference of a row, {len(checks)} utterances", title_justify="left")
    for column in ("utterance", "rows", f"alone / in a batch (<= {in_batch:g})", f"alone / stored (<= {stored:g})"):
        table.add_column(column, justify="left" if column == "utterance" else "right", overflow="fold")
    for check in checks:
        differences = ("-" if x != x else f"{x:.2g}" for x in (check.in_batch, check.stored))
        table.add_row(check.key, str(check.n_rows), *differences)
    console().print(table)


def say_report(name: str, report: "FeaturizeReport") -> None:
    speed = f", {report.audio_s / report.wall_s:.0f} x real time" if report.audio_s and report.wall_s else ""
    padding = f", {report.padding.share:.1%} padding" if report.padding.n_padded else ""
    empty = f" ({report.empty_texts:,} of them of empty texts)" if report.empty_texts else ""
    redone = f" ({report.n_again:,} of them again)" if report.n_again else ""
    say(
        f"{name}: {report.done:,} done{empty}{redone}, {report.skipped:,} there already, {len(report.failed):,} "
        f"failed; {report.wall_s:.1f} s{speed}{padding}"
    )
    if report.n_in_windows:
        say(f"{name}: {report.n_in_windows:,} longer than a window, encoded in several that overlap", "dim")
    if report.decoders:
        by = "; ".join(f"{counted(n, 'file')} by {decoder}" for decoder, n in report.decoders.most_common())
        say(f"{name}: decoded {by}", "dim")
    if report.constant:
        say(f"warning: {silent_clips(report.constant)}", "yellow")
    if report.without_noise:
        named = first_names(report.without_noise, 20)
        say(
            f"warning: {counted(len(report.without_noise), 'clip')} got no noise, as the excerpt of a noise file that "
            f"was drawn for each is silent: {named}. Cut the silence from the noise files.",
            "yellow",
        )
    if report.special:
        say(f"note: {special_texts(report.special)}", "dim")
    if report.n_unrecorded:
        say(
            f"{name}: {report.n_unrecorded:,} there already, made before identities were recorded: not compared "
            "but for their durations",
            "dim",
        )
    if report.n_unreachable:
        say(f"{name}: {report.n_unreachable:,} there already, whose files can't be reached: not compared", "dim")
