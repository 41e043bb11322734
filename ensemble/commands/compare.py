"""`medusa compare`: ways of fusing against sets of members."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from ensemble.commands.choices import counts, known_rows, one_of
from ensemble.commands.corpora import TestOnOption, TrainOnOption, divided_as_made
from ensemble.commands.protocol import StrictOption, tell_protocol
from ensemble.fusion.config import INPUTS, SELECTIONS, SOUPS, MetaConfig
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text, writing
from featurestore.runtime.wording import split_names
from featurestore.terminal import (
    CvOption,
    ManifestOption,
    StoreOption,
    console,
    panel,
    reads,
    say,
    training,
    working,
    writes,
)

META = MetaConfig()
choice = panel("Rows and columns")
ROWS = "majority,soft,weighted,linear"


def compare(
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    members: Annotated[str | None, reads("Members, e.g. m01,m02; default: every member in the store.")] = None,
    cv: CvOption = None,
    in_sample: Annotated[bool, reads("Allow posteriors of training utterances.", "--in-sample")] = False,
    train_on: TrainOnOption = None,
    test_on: TestOnOption = None,
    strict: StrictOption = False,
    rows: Annotated[
        str,
        choice(
            "Rows of the table: majority, soft, weighted, attributes, linear, mlp, forest, linear:logits ...; all.",
            callback=known_rows,
        ),
    ] = ROWS,
    top: Annotated[
        str | None,
        choice(
            "Numbers of best members, a column each: 14,7,5; default: all, half, five in fourteen.", callback=counts
        ),
    ] = None,
    greedy: Annotated[bool, choice("Add a column of members chosen by greedy forward selection.", "--greedy")] = False,
    replacement: Annotated[bool, choice("Greedy may choose a member again.", "--replacement")] = False,
    seeds: Annotated[int, training("Seeds of each meta-classifier, trained at once.", min=1)] = len(META.seeds),
    inputs: Annotated[str, training(", ".join(INPUTS) + ".", callback=one_of(INPUTS))] = META.inputs,
    soup: Annotated[str, training(" or ".join(SOUPS) + ".", callback=one_of(SOUPS))] = META.soup,
    select: Annotated[
        str, training(f"Which round is kept: {' or '.join(SELECTIONS)}.", callback=one_of(SELECTIONS))
    ] = META.select,
    bootstrap: Annotated[int, reads("Resamples of the speakers, for intervals; 0: none.", min=0)] = 1000,
    output: Annotated[Path | None, writes("Write the tables in Markdown (.md).", "--output", "-o")] = None,
    json_file: Annotated[Path | None, writes("Write every score.", "--json")] = None,
) -> None:
    """Compare ways of fusing members over all and the best few (MEDUSA's Table 3): macro-F1, UAR, accuracy, CCC.

    Members, rounds and weights are chosen on other utterances than those scored: other folds, train or development.

    Example: `medusa compare -m corpus.csv --top 14,7,5 --greedy --json table3.json`
    """
    import json

    from ensemble.evaluation.markdown import comparison_markdown
    from ensemble.evaluation.protocol import check_protocol, made_of
    from ensemble.evaluation.sounds import known_sounds
    from ensemble.experiments.compare import columns_of
    from ensemble.experiments.compare import compare as run
    from ensemble.experiments.compare_report import comparison_table
    from ensemble.fusion.members import find_members
    from ensemble.fusion.techniques import techniques_of
    from featurestore.corpus.manifest import Manifest
    from featurestore.store.feature_store import FeatureStore

    table, opened = Manifest.read(manifest), FeatureStore.open(store)
    table.check_labelled()
    config = replace(META, seeds=tuple(range(seeds)), inputs=inputs, soup=soup, select=select)
    scheme = table.scheme
    ways = techniques_of(rows, config, attributes=bool(scheme.attributes), classes=bool(scheme.classes))
    chosen = find_members(opened, table.keys) if members is None else split_names(members)
    table = divided_as_made(table, opened, chosen, train_on, test_on, cv=cv)
    protocol = check_protocol(table, cv, made_of(opened, chosen), sounds=known_sounds(opened, table, chosen))
    tell_protocol(protocol, strict)
    tops: Any = top  # numbers, by the option's callback
    columns = columns_of(len(chosen), tops, greedy or replacement, replacement)
    with working("comparing") as show:
        comparison = run(opened, table, chosen, ways, columns, folds=cv, in_sample=in_sample, n_resamples=bootstrap,
                    progress=show)  # fmt: skip
    console().print(comparison_table(comparison))
    for note in comparison.notes:
        say(f"note: {note}", "dim")
    if output is not None:
        notes = [f"- {line}" for line in (*protocol.lines(), *comparison.notes)]
        text = "\n\n".join([*comparison_markdown(comparison.to_dict()), "\n".join(notes)]).rstrip() + "\n"
        with writing(output, ConfigError):
            replace_text(output, text)
        say(f"wrote {output}")
    if json_file is not None:
        scores = comparison.to_dict() | {"protocol": protocol.to_dict()}
        text = json.dumps(scores, indent=2, ensure_ascii=False, allow_nan=False)
        replace_text(json_file, text + "\n")
        say(f"wrote {json_file}")
