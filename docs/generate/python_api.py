"""The public names of the three packages, for autodoc."""

import inspect
from importlib import import_module

PACKAGES = {
    "featurestore": "Corpora and the store",
    "deepser": "Members",
    "ensemble": "Ensembles, scores and predictions",
}


def python_page() -> str:
    """Return the page of the Python API: every name of each package's `__all__`."""
    parts = [
        "# Python API",
        "These names are public: `import featurestore` costs nothing, and each name loads what it needs when it is first "
        "used. Whatever else the packages hold may change in any release.",
    ]
    for package, title in PACKAGES.items():
        module = import_module(package)
        parts += [f"## {package}: {title}", inspect.getdoc(module) or ""]
        for name in module.__all__:
            parts.append(f"```{{eval-rst}}\n{_directive(package, name)}\n```")
    return "\n\n".join(parts) + "\n"


def _directive(package: str, name: str) -> str:
    value = getattr(import_module(package), name)
    if inspect.isclass(value) and issubclass(value, Exception):
        return f".. autoexception:: {package}.{name}"
    if inspect.isclass(value):
        return f".. autoclass:: {package}.{name}\n   :members:"
    return f".. autofunction:: {package}.{name}"
