"""The rooms of the packages: what each is for, and what it may import."""

import ast

from generate.links import REPO
from generate.text import cell, table

TABLE = REPO / "tests" / "test_imports.py"


def rooms_page() -> str:
    """Return the page of all rooms, from the table that the tests hold the imports to."""
    rows = []
    for room, allowed in may_import().items():
        path = REPO / room.replace(".", "/")
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        names = ", ".join(f"`{name}`" for name in allowed.split())
        rows.append([f"`{room}`", cell(docstring.partition("\n\n")[0]), names])
    return (
        "# Rooms\n\nFrom the ground up. All may also import `featurestore.errors` and `featurestore.runtime`; names without a "
        "package are of the same package.\n\n" + table(["room", "what it is", "may import"], rows) + "\n"
    )


def may_import() -> dict[str, str]:
    """Return the table MAY_IMPORT of tests/test_imports.py."""
    for node in ast.parse(TABLE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MAY_IMPORT":
            rooms: dict[str, str] = ast.literal_eval(node.value)
            return rooms
    raise LookupError(f"{TABLE} has no table MAY_IMPORT")
