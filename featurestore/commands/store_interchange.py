"""`medusa store import` and `medusa store export`: features as other tools keep them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument

from featurestore.runtime.wording import split_names
from featurestore.terminal import FAILED_FILES, StoreOption, bar, encodes, end_with_failures, reads, say, writes

if TYPE_CHECKING:
    from featurestore.interchange.importing import ImportReport

SOME = 3  # keys shown of many
KeysOption = Annotated[Path | None, reads("Corpus table to compare keys with.", "--manifest", "-m")]
ChosenOption = Annotated[Path | None, reads("Corpus table: these utterances, in its order.", "--manifest", "-m")]
FormatArgument = Annotated[str, Argument(metavar="FORMAT", help="npy, hdf5, emotion2vec, safetensors; import also pt.")]


def store_import(
    source_format: FormatArgument,
    source: Annotated[Path, Argument(metavar="SOURCE", help="Directory of .npy; file; or emotion2vec's NAME.")],
    name: Annotated[str, Argument(metavar="NAME", help="Feature set to add to.")],
    store: StoreOption = Path("store"),
    manifest: KeysOption = None,
    layer: Annotated[list[str] | None, reads("LAYER[=WHERE]: 6, or 6=hidden6; repeat it.")] = None,
    flatten: Annotated[bool, reads("Keys without their directories.", "--flatten")] = False,
    encoder: Annotated[str | None, encodes("What made the rows; default: NAME.")] = None,
    kind: Annotated[str | None, encodes("audio (default), text or posteriors.")] = None,
    frame_rate: Annotated[float | None, encodes("Rows per second, in Hz; 0 (default): unknown.", min=0)] = None,
    pool: Annotated[str | None, encodes("none (default), mean, mean+std (over time).")] = None,
    columns: Annotated[str | None, encodes("Names of the dims, e.g. angry,sad,attr:arousal.")] = None,
    dtype: Annotated[str | None, writes("Round rows to it; default: as they are.")] = None,
    stored_format: Annotated[str | None, writes("Segments: zarr or hdf5.", "--format")] = None,
    compress: Annotated[str | None, writes("zstd, blosc (zarr) or gzip (hdf5).")] = None,
) -> None:
    """Take features that other tools wrote into a feature set.

    .npy per utterance (MEDUSA, MERTools, EmoBox), HDF5, emotion2vec's .npy and .lengths, safetensors.

    Keys are relative paths without suffix. Utterances already stored are skipped; a file that can't be taken is
    reported and the rest done (exit code 1, also when the manifest has more). WHERE is a layer's directory below
    SOURCE, or its dataset; without it, layers are the first axis of (L, T, D) arrays. Kind, frame rate, pooling and
    columns that `store export` recorded are taken over, unless an option says otherwise.

    Example: `medusa store import npy features/wavlm wavlm-large -m corpus.csv --frame-rate 50`
    """
    from featurestore.corpus.manifest import Manifest
    from featurestore.interchange.description import Description
    from featurestore.interchange.importing import import_features, parse_layers
    from featurestore.runtime.stopping import Interrupted
    from featurestore.store.feature_store import FeatureStore

    named = tuple(split_names(columns or ""))
    described = Description(encoder or name, kind, frame_rate, dtype, pool, named)
    layers = parse_layers(layer or [])
    expected = None if manifest is None else Manifest.read(manifest).keys
    with bar(f"{source} -> {name}", 1) as show:
        try:
            report = import_features(
                FeatureStore.open_or_create(store), name, source_format, source, described, layers=layers,
                flatten=flatten, expected_keys=expected, container=stored_format, compress=compress, progress=show,
            )  # fmt: skip
        except Interrupted as stop:
            show.close()
            _say_report(name, stop.report)
            raise
    _say_report(name, report)
    end_with_failures(report.failed, f"{store}-{name}")
    if report.missing:
        raise typer.Exit(FAILED_FILES)


def _say_report(name: str, report: "ImportReport") -> None:
    failed = f"{len(report.failed):,} failed; {report.wall_s:.1f} s"
    say(f"{name}: {report.done:,} taken, {report.skipped:,} there already, {failed}")
    for note in report.notes:
        say(f"note: {note}", "dim")
    if report.missing:
        say(f"missing: {len(report.missing):,} utterances of the manifest, {_some(report.missing)}", "red")
    if report.surplus:
        say(f"surplus: {len(report.surplus):,} utterances that the manifest lacks, {_some(report.surplus)}")


def _some(keys: Sequence[str]) -> str:
    return ", ".join(map(ascii, keys[:SOME])) + (", ..." if len(keys) > SOME else "")


def store_export(
    name: Annotated[str, Argument(metavar="NAME", help="A feature set.")],
    target_format: FormatArgument,
    target: Annotated[Path, Argument(metavar="TARGET", help="Directory; file; or emotion2vec's NAME.")],
    store: StoreOption = Path("store"),
    manifest: ChosenOption = None,
    layer: Annotated[list[str] | None, writes("A layer: 12, or its name; repeat it. Default: all.")] = None,
    resume: Annotated[bool, writes("Add the .npy files that are missing.", "--resume")] = False,
    overwrite: Annotated[bool, writes("Replace what has the same name.", "--overwrite")] = False,
) -> None:
    """Write a feature set for other tools: .npy per utterance, one HDF5 or safetensors file, emotion2vec's files.

    float16 and float32 rows bit for bit, bfloat16 as float32 (safetensors: BF16), int8 as float16. A key that is no
    file name is percent-encoded, and import reads it back.

    Example: `medusa store export wavlm-large hdf5 wavlm-large.h5 -s store`
    """
    from featurestore.corpus.manifest import Manifest
    from featurestore.corpus.splits import label_names
    from featurestore.interchange.exporting import export_features
    from featurestore.interchange.importing import layer_name
    from featurestore.store.feature_store import FeatureStore

    features = FeatureStore.open(store)[name]
    table = None if manifest is None else Manifest.read(manifest)
    names = None if table is None else label_names(table)
    labelled = () if table is None or names is None else zip(table.keys, names, strict=True)
    with bar(f"{name} -> {target}", 1) as show:
        report = export_features(
            features, target_format, target, keys=None if table is None else table.keys,
            layers=[layer_name(text) for text in layer] if layer else None,
            labels={key: label for key, label in labelled if label}, resume=resume, overwrite=overwrite, progress=show,
        )  # fmt: skip
    failed = f"{len(report.failed):,} failed"
    say(f"{name} -> {target}: {report.done:,} written, {report.skipped:,} there already, {failed}")
    for note in report.notes:
        say(f"note: {note}", "dim")
    end_with_failures(report.failed, target)
