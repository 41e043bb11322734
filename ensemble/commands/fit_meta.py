"""`medusa fit-meta`: a meta-classifier or a vote over members' posteriors."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ensemble.commands.choices import one_of
from ensemble.commands.corpora import TestOnOption, TrainOnOption, divided_as_made
from ensemble.commands.protocol import StrictOption, tell_protocol
from ensemble.fusion.config import (
    INPUTS,
    METAS,
    N_HIDDEN,
    SELECTIONS,
    SOUPS,
    STARTS,
    ForestConfig,
    MetaConfig,
    check_inputs_of,
    config_of,
)
from featurestore.errors import ConfigError
from featurestore.runtime.wording import split_names
from featurestore.terminal import (
    CvOption,
    ManifestOption,
    RunsOption,
    StoreOption,
    console,
    reads,
    say,
    training,
    working,
    writes,
)

if TYPE_CHECKING:
    from ensemble.fusion.selection import Rule

META, FOREST = MetaConfig(), ForestConfig()


def fit_meta(
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    members: Annotated[str | None, reads("Members, e.g. m01,m02; default: every member in the store.")] = None,
    cv: CvOption = None,
    in_sample: Annotated[bool, reads("Allow posteriors of training utterances.", "--in-sample")] = False,
    train_on: TrainOnOption = None,
    test_on: TestOnOption = None,
    strict: StrictOption = False,
    top: Annotated[int | None, reads("Use only this many of the best members.", min=1)] = None,
    greedy: Annotated[bool, reads("Use only members that greedy forward selection takes.", "--greedy")] = False,
    name: Annotated[str, writes("Name of the ensemble.")] = "meta",
    runs: RunsOption = Path("runs"),
    weights_plot: Annotated[Path | None, writes("Draw weights and reliability by member and class (.png).")] = None,
    meta: Annotated[str, training(", ".join(METAS) + ".", callback=one_of(METAS))] = METAS[0],
    seeds: Annotated[int, training("Number of seeds, trained at once and then averaged.", min=1)] = len(META.seeds),
    inputs: Annotated[
        str | None,
        training(f"{', '.join(INPUTS)}; default: {META.inputs}, a forest's logits.", callback=one_of(INPUTS)),
    ] = None,
    soup: Annotated[
        str, training("How the seeds' weights are averaged: " + " or ".join(SOUPS) + ".", callback=one_of(SOUPS))
    ] = META.soup,
    hidden: Annotated[int, training("Hidden units of an MLP.", min=1)] = N_HIDDEN,
    lr: Annotated[float, training("Learning rate.")] = META.lr,
    batch_size: Annotated[int, training("Utterances per step.")] = META.batch_size,
    rounds: Annotated[int, training("Rounds of training, at most.")] = META.rounds,
    start: Annotated[str, training(" or ".join(STARTS) + ".", callback=one_of(STARTS))] = META.start,
    select: Annotated[
        str, training(f"Which round is kept: {' or '.join(SELECTIONS)}.", callback=one_of(SELECTIONS))
    ] = META.select,
) -> None:
    """Fit a meta-classifier, or a vote, on members' posteriors, and compare members, votes, meta and soup.

    Members, rounds and weights are chosen on other utterances than those scored.

    Example: `medusa fit-meta --seeds 6 --members m01,m02,m03 -m corpus.csv --weights-plot weights.png`
    """
    from deepser.scores.report import scores_table
    from ensemble.evaluation.held_out import held_out_lines
    from ensemble.evaluation.protocol import check_protocol, made_of
    from ensemble.evaluation.sounds import known_sounds
    from ensemble.experiments.compare_report import learned_picture, learned_tables
    from ensemble.experiments.floor import shortcomings
    from ensemble.fusion.fit import fit_ensemble
    from ensemble.fusion.members import find_members, record_members
    from featurestore.corpus.manifest import Manifest
    from featurestore.format.spec import check_set_name
    from featurestore.store.feature_store import FeatureStore

    if weights_plot is not None and meta != "linear":
        raise ConfigError("--weights-plot shows a linear meta-classifier's weights; leave it out, or --meta linear.")
    if inputs is not None:
        check_inputs_of(meta, inputs)
    check_set_name(f"posteriors/{name}")
    linear = replace(
        META, inputs=inputs or META.inputs, seeds=tuple(range(seeds)), lr=lr, batch_size=batch_size, rounds=rounds,
        start=start, select=select, soup=soup, hidden=hidden if meta == "mlp" else 0,
    )  # fmt: skip
    config = config_of(meta, linear, ForestConfig(inputs=inputs or FOREST.inputs))
    table, opened = Manifest.read(manifest), FeatureStore.open(store)
    table.check_labelled()
    chosen = find_members(opened, table.keys) if members is None else split_names(members)
    table = divided_as_made(table, opened, chosen, train_on, test_on, cv=cv)
    protocol = check_protocol(table, cv, made_of(opened, chosen), sounds=known_sounds(opened, table, chosen))
    tell_protocol(protocol, strict)
    with working("fitting the meta-classifier") as show:
        _, report = fit_ensemble(
            opened, table, chosen, name=name, config=config, select=_rule(top, greedy), folds=cv,
            in_sample=in_sample, directory=runs / name, progress=show, protocol=protocol,
        )  # fmt: skip
    unknown = record_members(runs / name, opened, report.members, runs)
    for part, rows in report.parts.items():
        console().print(scores_table(rows, title=part))
    if report.learned is not None:
        console().print(learned_tables(report.learned, table.scheme.attributes))
        if weights_plot is not None:
            learned_picture(report.learned, weights_plot, name)
            say(f"wrote {weights_plot}")
    for line in held_out_lines(name, report.held_out):
        say(line, "dim" if line.startswith("note") else "")
    for note in report.notes:
        say(f"note: {note}", "dim")
    for sentence in shortcomings(opened, table, name, report.evaluations, cv, "Its members may be too weak."):
        say(f"warning: {sentence}", "yellow", stderr=True)
    if unknown:
        say(f"note: no run directory in {runs} made {', '.join(unknown)}; `medusa predict` needs it.", "dim")
    say(f"ensemble in {runs / name}, posteriors in {store} as posteriors/{name}")


def _rule(k: int | None, forward: bool) -> "Rule | None":
    from ensemble.fusion.selection import greedy, top

    if k is not None and forward:
        raise ConfigError("--top and --greedy both choose members; give one of the two.")
    return greedy() if forward else None if k is None else top(k)
