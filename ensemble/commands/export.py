"""`medusa export`: a model in one directory, to hand on."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from featurestore.runtime.wording import format_bytes
from featurestore.terminal import directory_bytes, reads, say, writes


def export(
    model: Annotated[Path, Argument(help="Run directory of probe, fit-deepser or fit-meta.")],
    output: Annotated[Path, writes("Directory to make.", "--output", "-o")],
    title: Annotated[str, writes("Title of the model card; default: the directory's name.")] = "",
    manifest: Annotated[
        Path | None, reads("Corpus it was fitted on; the mapping of its labels is exported, too.", "--manifest", "-m")
    ] = None,
    overwrite: Annotated[bool, writes("Replace an earlier export.", "--overwrite")] = False,
) -> None:
    """Pack a model into one directory: members, fusion, labels, encoder names, scores, a model card; safetensors only.

    Example: `medusa export runs/meta -o emotion-model`
    """
    from ensemble.prediction.directory import require_directory

    require_directory(model)
    from ensemble.prediction.export import export_model
    from featurestore.corpus.manifest import Manifest

    scheme = None if manifest is None else Manifest.read(manifest).scheme
    packed = export_model(model, output, title=title, scheme=scheme, overwrite=overwrite)
    say(
        f"{len(packed.members)} members in {output}, {format_bytes(directory_bytes(output))}; its README.md is the card"
    )
    say(f"try it: medusa predict FILE.wav --model {output}")
