"""`medusa ablate`."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

from ensemble.commands.corpora import TestOnOption, TrainOnOption, divided, say_corpora
from ensemble.commands.protocol import StrictOption, tell_protocol
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text
from featurestore.runtime.wording import split_names
from featurestore.terminal import (
    CvOption,
    DeviceOption,
    ManifestOption,
    RunsOption,
    StoreOption,
    bar,
    console,
    panel,
    reads,
    say,
    training,
    writes,
)

what = panel("Systems")


def ablate(
    manifest: ManifestOption,
    features: Annotated[
        list[str] | None,
        reads("Feature sets of a member, a,b@3+4; repeat it: means of the members are reported."),
    ] = None,
    store: StoreOption = Path("store"),
    cv: CvOption = None,
    folds: Annotated[int, reads("Speaker-disjoint folds within split train.", min=1)] = 1,
    train_on: TrainOnOption = None,
    test_on: TestOnOption = None,
    strict: StrictOption = False,
    preset: Annotated[str, what("Preset of the full system.")] = "medusa",
    only: Annotated[
        str | None, what("Parts to take out: one-hot, late-fusion, no-mixup, no-multitask, no-stage2; default: all.")
    ] = None,
    presets: Annotated[str | None, what("Presets side by side in place of ablations: medusa,srpol-task1,...")] = None,
    change: Annotated[
        list[str] | None, what("Any setting in config.json: network.d=128; of one preset: NAME:network.d=64.", "--set")
    ] = None,
    seeds: Annotated[str, training("Seeds, a member for each: how many from 0 on (3), or which (1,2,3).")] = "1",
    resamples: Annotated[int, training("Resamples of speakers, for intervals and p.", min=1)] = 1000,
    name: Annotated[str, writes("Name of the run directory; tables in one directory share members.")] = "ablations",
    runs: RunsOption = Path("runs"),
    overwrite: Annotated[bool, writes("Start its members anew.", "--overwrite")] = False,
    json_file: Annotated[Path | None, writes("Write every score.", "--json")] = None,
    markdown: Annotated[Path | None, writes("Write the tables as a page.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Take one part after another out of a system (MEDUSA's Table 2), or set presets side by side; train and compare.

    Nothing is written into the store. A run that was stopped goes on where it was. What does not apply (no votes, no
    attributes) is named with the reason.

    Example: `medusa ablate -m corpus.csv --cv fold --features wavlm-large,roberta-large --markdown ablations.md`
    """
    from deepser.members.folds import plan_folds
    from deepser.members.presets import find_preset, parse_changes
    from ensemble.evaluation.protocol import check_protocol
    from ensemble.evaluation.sounds import known_sounds
    from ensemble.experiments.ablation import ablations_of, run_variants
    from ensemble.experiments.ablation_report import ablation_markdown, ablation_table
    from ensemble.experiments.presets import members_of, preset_variants
    from ensemble.recipes.members import seeds_of
    from featurestore.corpus.manifest import Manifest
    from featurestore.store.feature_store import FeatureStore

    if cv is not None and folds != 1:
        raise ConfigError("--cv names the folds and --folds makes them; give one of the two.")
    if presets is not None and only is not None:
        raise ConfigError("--only chooses ablations, and --presets sets presets side by side; give one of the two.")
    table, corpora = divided(Manifest.read(manifest), train_on, test_on, cv)
    lists, numbers = [split_names(text) for text in features or []], seeds_of(seeds, 0)
    say_corpora(table, corpora)
    opened = FeatureStore.open(store)
    protocol = check_protocol(table, cv, sounds=known_sounds(opened, table, []))
    tell_protocol(protocol, strict)
    if presets is None:
        members = members_of(find_preset(preset), lists, numbers, parse_changes(change or []))
        variants = ablations_of(members, table, split_names(only or ""), f"preset {preset}")
    else:
        variants = preset_variants(split_names(presets), lists, numbers, change or [])
    plan = plan_folds(table, cv=cv, n_folds=folds, corpora=corpora)
    directory, kind = runs / name, "ablations" if presets is None else "presets"
    with bar(directory.name, 1) as show:
        ablations = run_variants(
            opened, table, variants, plan, directory, cv=cv, device=device, n_resamples=resamples,
            overwrite=overwrite, progress=lambda share, text: show(share, 1, text),
        )  # fmt: skip
    console().print(ablation_table(ablations))
    scores = ablations.to_dict() | {"protocol": protocol.to_dict()}
    texts = {json_file or directory / f"{kind}.json": json.dumps(scores, indent=1, allow_nan=False) + "\n"}
    if markdown is not None:
        texts[markdown] = ablation_markdown(
            ablations, f"{kind.capitalize()} on {table.name}", shlex.join(["medusa", *sys.argv[1:]]), protocol.lines()
        )
    for path, text in texts.items():
        replace_text(path, text)
        say(f"wrote {path}")
