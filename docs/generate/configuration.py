"""Every field of the saved settings, read from the source: its type, its default, and the comment beside it."""

import ast
import inspect
import textwrap
from typing import Any

from deepser.config import LossConfig, MemberConfig, NetworkConfig, StageConfig, TrainConfig
from deepser.probes.config import ProbeConfig
from ensemble.fusion.config import ForestConfig, MetaConfig, VoteConfig
from featurestore.format.spec import FeatureSpec
from generate.text import cell, table

# Each class with where its values are kept.
SHOWN: dict[str, list[type[Any]]] = {
    "Members (`config.json` of a run; `fit-deepser --set train.lr=...` takes these names)": [
        MemberConfig, NetworkConfig, TrainConfig, StageConfig, LossConfig,
    ],
    "Probes": [ProbeConfig],
    "Ensembles (`config.json` of a meta-classifier's run)": [MetaConfig, ForestConfig, VoteConfig],
    "Feature sets (the specification that the fingerprint is made of)": [FeatureSpec],
}  # fmt: skip


def configuration_page() -> str:
    """Return the page of all configuration fields."""
    parts = ["# Configuration fields", "Written from the source when this documentation was built."]
    for title, classes in SHOWN.items():
        parts.append(f"## {title}")
        for cls in classes:
            rows = [[f"`{name}`", f"`{cell(kind)}`", default, cell(what)] for name, kind, default, what in fields(cls)]
            parts += [f"### {cls.__name__}", inspect.getdoc(cls) or "", table(["field", "type", "default", ""], rows)]
    return "\n\n".join(parts) + "\n"


def fields(cls: type[Any]) -> list[tuple[str, str, str, str]]:
    """Return (name, type, default as Markdown, comment) of every field of a dataclass, in its order."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    saved_fields = []
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            default = "" if node.value is None else f"`{cell(ast.unparse(node.value))}`"
            saved_fields.append((node.target.id, ast.unparse(node.annotation), default, _comment(lines, node)))
    return saved_fields


def _comment(lines: list[str], node: ast.AnnAssign) -> str:
    """Return the comment behind a field, or the whole lines of comment above it."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    if "#" in behind:
        return behind.split("#", 1)[1].strip()
    above: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("#"):
            break
        above.insert(0, line.strip().removeprefix("#").strip())
    return " ".join(above)
