"""`medusa audit`: what the parts of a manifest share, and what is wrong with its files and votes."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from featurestore.commands.recordings import OptionalManifest, manifest_of
from featurestore.commands.split import show_parts
from featurestore.errors import ConfigError
from featurestore.runtime.wording import silent_clips
from featurestore.terminal import FAILED_FILES, bar, end_with_failures, say, say_failures

if TYPE_CHECKING:
    from featurestore.corpus.audio_digest import Content
    from featurestore.corpus.audit import AuditReport
    from featurestore.corpus.manifest import Manifest
    from featurestore.corpus.overlap import Overlap

SHOWN_AS_OVERLAPS = ("utterance", "speaker", "audio")
SHOWN_PAIRS, SHOWN_PARTS, SHOWN_REPEATS = 6, 3, 20


def audit(
    corpus: Annotated[
        list[str] | None,
        Argument(help="Corpus table (.csv, .parquet), or recordings: files, folders, ...", show_default=False),
    ] = None,
    manifest: OptionalManifest = None,
    strict_text: Annotated[bool, Option("--strict-text", help="Shared texts are leakage too.")] = False,
    allow: Annotated[list[str] | None, Option(help="Not leakage: speaker, audio, utterance (repeat).")] = None,
    audio: Annotated[bool, Option(help="Decode every file and compare the samples.")] = True,
    store: Annotated[
        Path,
        Option("--store", "-s", help="Feature store, if there: what it recorded of unchanged files is not decoded."),
    ] = Path("store"),
    verify_audio: Annotated[
        bool, Option("--verify-audio", help="Decode also the files that the store recorded.")
    ] = False,
    workers: Annotated[int, Option(help="Decoding threads.", min=1)] = 2,
    as_json: Annotated[bool, Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Find speakers, identical audio and utterances shared between splits or folds, and files that can't be decoded.

    The exit code is 1 where any are found. Shared texts are reported but are no leakage, since acted corpora share
    their sentences; nor is what two test splits share. The same audio twice in one split is a warning.

    Example: `medusa audit corpus.csv`
    """
    from featurestore.corpus.audit import LEAKS
    from featurestore.corpus.audit import audit as run
    from featurestore.recordings.places import TABLES

    if manifest is None and corpus and len(corpus) == 1 and corpus[0].lower().endswith(TABLES):
        manifest, corpus = Path(corpus[0]), None
    table, failed = manifest_of(corpus, manifest, stderr=as_json)
    wrong = sorted(set(allow or []) - set(LEAKS))
    if wrong:
        raise ConfigError(f"--allow {wrong[0]}: expected one of {', '.join(LEAKS)}.")
    leaks = [kind for kind in (*LEAKS, *["text"] * strict_text) if kind not in (allow or [])]
    contents = {} if verify_audio or not audio or not store.is_dir() else _recorded(table, store)
    with bar("decoding", len(table), "") as show:
        report = run(table, leaks=leaks, audio=audio, recorded=contents, workers=workers, progress=show)
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")
    else:
        _print(report, manifest)
        if contents:
            say(f"{len(contents):,} not decoded, since {store} recorded them and their files are unchanged", "dim")
    end_with_failures(failed, manifest)
    if not report.clean:
        raise typer.Exit(FAILED_FILES)


def _recorded(table: "Manifest", place: Path) -> "dict[str, Content]":
    """Return the contents of the manifest's unchanged audio by key, as the feature sets of a store recorded them."""
    from featurestore.corpus.audio_digest import content_of_record
    from featurestore.errors import StoreError
    from featurestore.sets.sources import recorded_sounds
    from featurestore.store.feature_store import FeatureStore

    contents: dict[str, Content] = {}
    if not table.has("path"):
        return contents
    try:
        store = FeatureStore.open(place)
        names = store.names()
    except StoreError:
        return contents  # a directory of that name which is no store
    paths = table.column("path").tolist()
    for name in names:
        try:
            features = store[name]
        except StoreError:
            continue  # a damaged set: `medusa store ls` names it
        if features.spec.kind == "audio" and not features.spec.view:
            left = {
                key: table.audio(i) for i, key in enumerate(table.keys) if key not in contents and paths[i] is not None
            }
            sounds = recorded_sounds(left, features)
            contents |= {key: content_of_record(*recorded) for key, recorded in sounds.items()}
    return contents


def _print(report: "AuditReport", manifest: Path | None) -> None:
    for column, parts in report.parts.items():
        show_parts(column, parts)
    for line in _agreement_lines(report):
        say(line)
    for line in _speaker_lines(report):
        say(line)
    for overlap in report.overlaps:
        _say_overlap(overlap)
    for protocol in report.protocols:
        for finding in protocol.findings:
            if finding.kind not in SHOWN_AS_OVERLAPS:
                say(f"{finding.severity}: {finding.message}", "" if finding.severity == "note" else "yellow")
    for repeat in report.repeats[:SHOWN_REPEATS]:
        labels = f", labelled {', '.join(map(str, repeat.labels))}" if len(set(repeat.labels)) > 1 else ""
        say(f"warning: the same {repeat.kind} within one part: {', '.join(repeat.keys)}{labels}", "yellow")
    if len(report.repeats) > SHOWN_REPEATS:
        say(f"... and {len(report.repeats) - SHOWN_REPEATS:,} more such groups (--json lists all)", "yellow")
    if report.constant:
        say(f"warning: {silent_clips(report.constant, SHOWN_REPEATS)}", "yellow")
    say_failures(report.unreadable, manifest, word="unreadable", stderr=False)
    for note in report.notes:
        say(f"note: {note}", "dim")
    kinds = ", ".join(f"{leak.kind} across {leak.column}s" for leak in report.leaks)
    say(
        f"{report.name}: {report.n_utterances:,} utterances, {f'leakage: {kinds}' if kinds else 'no leakage'}, "
        f"{len(report.repeats):,} repeated, {len(report.constant):,} silent, {len(report.unreadable):,} unreadable",
        "green" if report.clean else "red",
    )


def _speaker_lines(report: "AuditReport") -> list[str]:
    from featurestore.corpus.speakers import sentences

    return [] if report.speakers is None else list(sentences(report.speakers))


def _say_overlap(overlap: "Overlap") -> None:
    pairs = [f"{pair}: {n:,}" for pair, n in overlap.pairs.items()]
    more = f" and {len(pairs) - SHOWN_PAIRS} more pairs" if len(pairs) > SHOWN_PAIRS else ""
    noun = {"audio": "audio clips"}.get(overlap.kind, f"{overlap.kind}s")
    verdict = "LEAK" if overlap.leak else "shared"
    say(
        f"{verdict}: {overlap.n_items:,} {noun} ({overlap.n_utterances:,} utterances) "
        f"in more than one {overlap.column} ({'; '.join(pairs[:SHOWN_PAIRS])}{more})",
        "red" if overlap.leak else "",
    )
    for item, places in overlap.examples.items() if overlap.leak else ():
        examples = "; ".join(f"{part}: {', '.join(keys[:2])}" for part, keys in list(places.items())[:SHOWN_PARTS])
        say(f"  {overlap.kind if overlap.kind == 'audio' else item}  {examples}", "red")


def _agreement_lines(report: "AuditReport") -> list[str]:
    agreement = report.agreement
    if agreement is None:
        return []
    by = "" if agreement.n_annotators is None else f" by {agreement.n_annotators:,} annotators"
    lines = [
        f"votes: {agreement.n_ratings:,}{by}, {agreement.n_rated:,} utterances rated, {agreement.n_tied:,} tied, "
        f"{agreement.n_label_against_plurality:,} labelled against their plurality",
        f"agreement: Fleiss' kappa {agreement.fleiss_kappa:.3f}, "
        f"Krippendorff's alpha {agreement.krippendorff_nominal:.3f}",
    ]
    alphas = ", ".join(f"{name} {alpha:.3f}" for name, alpha in agreement.krippendorff_interval.items())
    return lines + ([f"agreement: Krippendorff's alpha (interval) {alphas}"] if alphas else [])
