"""`medusa probe`: which layer of which encoder carries emotion, and a strong baseline, in seconds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from deepser.config import NORMALISATIONS
from deepser.probes.config import (
    PROBE_POOLS,
    PROBE_SELECTIONS,
    PROBE_TARGETS,
    REFINEMENTS,
    SOLVERS,
    ProbeConfig,
)
from ensemble.commands.choices import one_of
from ensemble.commands.corpora import TestOnOption, TrainOnOption, divided, say_corpora
from ensemble.commands.protocol import StrictOption, tell_protocol
from featurestore.errors import ConfigError
from featurestore.runtime.durable import check_directory, replace_text, writing
from featurestore.runtime.wording import split_names
from featurestore.terminal import (
    CvOption,
    DeviceOption,
    ManifestOption,
    RunsOption,
    StoreOption,
    bar,
    console,
    reads,
    say,
    training,
    writes,
)

if TYPE_CHECKING:
    from featurestore.store.feature_store import FeatureStore


def probe(
    manifest: ManifestOption,
    features: Annotated[
        str | None, reads("Feature sets, layers after @: a,b@3+4. Default: every set of audio or text.")
    ] = None,
    store: StoreOption = Path("store"),
    cv: CvOption = None,
    folds: Annotated[int, reads("Number of speaker-disjoint folds within split train.", min=1)] = 1,
    train_on: TrainOnOption = None,
    test_on: TestOnOption = None,
    strict: StrictOption = False,
    pool: Annotated[str, reads(", ".join(PROBE_POOLS) + " (over time).", callback=one_of(PROBE_POOLS))] = "auto",
    normalise: Annotated[
        str, reads(f"{', '.join(NORMALISATIONS)}; several, comma-separated: chosen inside the training part.")
    ] = "none",
    refine: Annotated[
        str,
        reads(
            f"{', '.join(REFINEMENTS)}; several: chosen inside. Learn from a judged speaker's own clips, unlabelled; "
            "shares: as if every speaker showed the classes as often."
        ),
    ] = "none",
    name: Annotated[str, writes("Name of the probe as a member.")] = "probe",
    runs: RunsOption = Path("runs"),
    json: Annotated[Path | None, writes("Write every score, interval and choice as JSON.")] = None,
    heat_map: Annotated[Path | None, writes("Draw layers x encoders (.png, .svg, .pdf).", "--heat-map")] = None,
    overwrite: Annotated[bool, writes("Replace another member of that name.", "--overwrite")] = False,
    solver: Annotated[str, training(", ".join(SOLVERS) + ".", callback=one_of(SOLVERS))] = "auto",
    lambdas: Annotated[str | None, training("Ridge penalties to choose from: 0.01,0.1 (logistic: 1 / C).")] = None,
    bandwidths: Annotated[str | None, training("RBF bandwidths to choose from, in roots of the dims.")] = None,
    targets: Annotated[
        str, training(" or ".join(PROBE_TARGETS) + " (votes or labels).", callback=one_of(PROBE_TARGETS))
    ] = "soft",
    balanced: Annotated[bool, training("Treat all classes as equally frequent.")] = True,
    select: Annotated[
        str, training(", ".join(PROBE_SELECTIONS) + ": what the choice maximises.", callback=one_of(PROBE_SELECTIONS))
    ] = "auto",
    combine: Annotated[bool, training("Score combinations of layers as well.")] = True,
    seed: Annotated[int, training("Seed of the inner folds and the intervals.", min=0)] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Judge every layer of every encoder in closed form, and keep the best choice as a member.

    Penalty, bandwidth, layers and combinations are chosen inside each training part; the row "nested" is the honest
    score of that. The rows of single layers and named combinations compare them: the best of those rows is chosen on
    the utterances that are scored.

    Example: `medusa probe -m corpus.csv --cv fold --heat-map layers.png`
    """
    from deepser.members.folds import plan_folds
    from deepser.probes.fit import fit_probe
    from deepser.probes.member import ProbeMember
    from deepser.probes.posteriors import check_free, write_probe_posteriors
    from deepser.probes.scores_file import fit_of, forget_scores, keep_scores
    from ensemble.evaluation.parts import evaluate_parts
    from ensemble.evaluation.protocol import check_protocol
    from ensemble.evaluation.sounds import known_sounds
    from ensemble.evaluation.systems import NORMALISED, REFINED, adapted_scores
    from ensemble.experiments.floor import shortcomings
    from ensemble.experiments.probe_report import (
        check_picture,
        choices_text,
        probe_json,
        probe_rows,
        probe_tables,
    )
    from ensemble.experiments.probe_report import (
        heat_map as draw,
    )
    from featurestore.corpus.manifest import Manifest
    from featurestore.store.feature_store import FeatureStore

    if cv is not None and folds != 1:
        raise ConfigError("--cv names the folds and --folds makes them; give one of the two.")
    if heat_map is not None:
        check_picture(heat_map)
    table, corpora = divided(Manifest.read(manifest), train_on, test_on, cv)
    opened = FeatureStore.open(store)
    config = ProbeConfig(
        name=name, features=tuple(split_names(features) if features else _all_sets(opened)), solver=solver, pool=pool,
        normalise=tuple(split_names(normalise)), refine=tuple(split_names(refine)),
        lambdas=_numbers("--lambdas", lambdas),
        bandwidths=_numbers("--bandwidths", bandwidths), balanced=balanced, targets=targets, select=select,
        combine=combine, seed=seed,
    )  # fmt: skip
    say_corpora(table, corpora)
    check_free(opened, name, overwrite)
    with writing(runs / name, ConfigError):
        check_directory(runs / name)
    tell_protocol(check_protocol(table, cv, sounds=known_sounds(opened, table, config.features)), strict)
    plan = plan_folds(table, cv=cv, n_folds=folds, seed=seed, corpora=corpora)
    with bar("probe", 1) as show:
        result = fit_probe(
            opened, table, config, plan, device=device, progress=lambda what, i, n: show(i, n, f"fold {what}")
        )
    rows = probe_rows(result, table)
    if rows:
        console().print(probe_tables(result, rows))
    for line in choices_text(result):
        say(line, "dim")
    for note in result.notes:
        say(f"note: {note}", "dim")
    if config.speaker_adapted and result.confounding.is_high:
        say(f"warning: {result.confounding.warning()}", "yellow", stderr=True)
    forget_scores(runs / name)
    member = ProbeMember.save(result, opened, runs / name)
    write_probe_posteriors(opened, member, result)
    scores = probe_json(result, rows, table.name, fit_of(runs / name))
    if rows:
        keep_scores(runs / name, scores)
    if result.problem.n_classes and (result.problem.labels >= 0).any():
        parts = evaluate_parts(opened, table, name, cv=cv)
        for sentence in shortcomings(opened, table, name, parts, cv, "Other layers or features may do better."):
            say(f"warning: {sentence}", "yellow", stderr=True)
    if result.speaker_adapted:
        ways = {NORMALISED: result.normalises_by_speaker, REFINED: result.refines}
        say(adapted_scores([way for way, is_used in ways.items() if is_used]))
    if json is not None:
        replace_text(json, scores)
        say(f"wrote {json}")
    if heat_map is not None and rows:
        draw(result, rows, heat_map)
        say(f"wrote {heat_map}")
    say(f"member in {runs / name}, posteriors in {store} as posteriors/{name}")


def _all_sets(store: "FeatureStore") -> list[str]:
    """Every set of audio or text that is no augmented view."""
    names = [name for name in store.names() if store[name].spec.kind != "posteriors"]
    names = [name for name in names if not store[name].spec.view]
    if not names:
        raise ConfigError(f"Store {store.path} holds no features; run `medusa featurize` first.")
    return names


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in split_names(text)) if text else ()
    except ValueError:
        raise ConfigError(f"{option} {text!r}: expected numbers, comma-separated, such as 0.01,0.1.") from None
