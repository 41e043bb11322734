"""The public names of a package, each of them imported when it is first used."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return the `__getattr__`, `__dir__` and `__all__` of a package whose names lie in its modules.

    homes: the names of each module, which is named without its package. Type checkers see nothing of this: the package
    imports the same names under TYPE_CHECKING too.
    """
    module_of = {name: f"{package}.{module}" for module, names in homes.items() for name in names}
    public = sorted(module_of)

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module_of[name]), name)

    def names() -> list[str]:
        return sorted({*vars(import_module(package)), *public})

    return get, names, public
