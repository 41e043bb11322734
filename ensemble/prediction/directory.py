"""Where a model should be, asked before torch is loaded for it."""

from pathlib import Path

from featurestore.errors import ConfigError

MARKS = "config.json", "members.json"  # of a member or a meta-classifier, and of a meta-classifier or an export


def require_directory(directory: Path) -> None:
    """Raise ConfigError, which names the models that lie beside it, unless `directory` is one."""
    if directory.is_dir():
        return
    neighbours = sorted({path.parent.name for mark in MARKS for path in directory.parent.glob(f"*/{mark}")})
    others = (
        f"; {directory.parent} holds {', '.join(neighbours[:8])}{', ...' * (len(neighbours) > 8)}" if neighbours else ""
    )
    problem = "is a file" if directory.exists() else "no such directory"
    raise ConfigError(
        f"{directory}: {problem}; give what `medusa probe`, fit-deepser, fit-meta or export wrote{others}."
    )
