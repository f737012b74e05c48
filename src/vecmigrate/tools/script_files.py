"""Revision scripts as they stand in their files: read, not run."""

import ast
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = ["ScriptFile", "read", "twins"]

_NAME = re.compile(r"(\d+)_\w+\.py")
_ALLOWED = frozenset(sys.stdlib_module_names) | {"alembic", "sqlalchemy"}
_OPERATIONS = "vecmigrate.operations"


@dataclass(frozen=True)
class ScriptFile:
    """One file of the folder ``versions``. ``tree`` is None for one that is no Python."""

    path: str
    tree: ast.Module | None

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def stem(self) -> str:
        return os.path.splitext(self.name)[0]

    @cached_property
    def number(self) -> str | None:
        """The number in its name, None for one that is not named ``NNN_slug.py``."""
        matched = _NAME.fullmatch(self.name)
        return matched[1] if matched else None

    @cached_property
    def revision(self) -> Any:
        return self._assigned("revision")

    @cached_property
    def down_revision(self) -> Any:
        return self._assigned("down_revision")

    def _assigned(self, name: str) -> Any:
        """Return the literal that a name at the top of the module has, None where it has none."""
        for node in self.tree.body if self.tree else ():
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            value = getattr(node, "value", None)
            if value is not None and any(isinstance(each, ast.Name) and each.id == name for each in targets):
                try:
                    return ast.literal_eval(value)
                except ValueError:
                    return None
        return None

    @property
    def functions(self) -> frozenset[str]:
        """The functions at the top of the module."""
        return (
            frozenset(node.name for node in self.tree.body if isinstance(node, ast.FunctionDef))
            if self.tree
            else (frozenset())
        )

    def imports_that_may_change(self) -> list[str]:
        """Return what it imports beside Alembic, SQLAlchemy, the standard library and ``vecmigrate.operations``."""
        names = {name for node in (ast.walk(self.tree) if self.tree else ()) for name in _imported(node)}
        return sorted(name for name in names if not _is_allowed(name))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        yield from (f"{module}.{alias.name}" if module.strip(".") else module + alias.name for alias in node.names)


def _is_allowed(name: str) -> bool:
    if name == _OPERATIONS or name.startswith(f"{_OPERATIONS}."):
        return True
    return name.partition(".")[0] in _ALLOWED


def read(folder: str) -> list[ScriptFile]:
    """Return the scripts of a folder, in the order of their names. Read-only. Raises OSError."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".py") and name != "__init__.py")
    return [_read(os.path.join(folder, name)) for name in names]


def _read(path: str) -> ScriptFile:
    with open(path, "rb") as file:
        text = file.read()
    try:
        return ScriptFile(path, ast.parse(text))
    except (SyntaxError, ValueError):
        return ScriptFile(path, None)


def twins(files: list[ScriptFile]) -> list[list[ScriptFile]]:
    """Return the scripts that share a number, by number."""
    by_number: dict[int, list[ScriptFile]] = {}
    for each in files:
        if each.number is not None:
            by_number.setdefault(int(each.number), []).append(each)
    return [found for _, found in sorted(by_number.items()) if len(found) > 1]
