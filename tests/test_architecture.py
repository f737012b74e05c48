"""The rooms of the design, and the rules of the house, held by the source itself."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from doors import ROOT, run_python
from ladder import HEAD
from vecmigrate.access import alembic_config
from vecmigrate.shapes import Shapes

PACKAGE = ROOT / "src" / "vecmigrate"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES})
REVISIONS = sorted((ROOT / "alembic" / "versions").glob("*.py"))

FLOORS = (
    {"errors", "names", "redaction", "schema", "scripts_folder"},
    {"settings"},
    {"the nouns"},
    {"runs"},
    {"environment", "migrator"},
    {"api", "cli", "boot", "booting"},
    {"__init__", "testing"},
)
"""From the ground up: every module that is not named is a noun."""

ABOUT_SQLITE_FILES = {
    "archive",
    "backups",
    "boot",
    "bystanders",
    "carrying",
    "comparison",
    "diagnosis",
    "effects",
    "manifests",
    "restore_errors",
    "restoring",
    "series",
    "soundness",
    "sqlite_driver",
    "sqlite_files",
    "testing",
    "tools",
    "unknown_sql",
    "verification",
}
DIALECTS = ("sqlite", "postgresql", "postgres", "psycopg")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(path: Path) -> str:
    """Return the room that a file belongs to: a module, or a package with all its modules."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Return every node of the source of the package, with its room."""
    return [(room_of(path), node) for path in FILES for node in ast.walk(tree(path))]


def imports(node: ast.AST) -> Iterator[str]:
    """Yield the full names that a node imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def rooms(room: str) -> set[str]:
    """Return the other rooms that a room imports, at its top or later."""
    names = (name.split(".") for each, node in nodes() if each == room for name in imports(node))
    return {parts[1] for parts in names if parts[0] == "vecmigrate" and parts[1] in ROOMS} - {room}


def importers(prefix: str) -> set[str]:
    return {room for room, node in nodes() if any(f"{name}.".startswith(prefix) for name in imports(node))}


def floor(room: str) -> int:
    named = (number for number, names in enumerate(FLOORS) if room in names)
    return next(named, FLOORS.index({"the nouns"}))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_from_above(room: str) -> None:
    """Rooms know what is under them and not what is above; only boot fetches the whole house, late."""
    assert set() == {other for other in rooms(room) if floor(other) > floor(room)}


@pytest.mark.parametrize("room", sorted({"cli", "api", "environment", "migrator", "runs", "settings", "schema"}))
def test_a_named_room_does_not_import_one_beside_it(room: str) -> None:
    """Rooms on one floor do not import each other."""
    assert set() == {other for other in rooms(room) if floor(other) == floor(room)}


def test_no_imports_go_in_a_circle() -> None:
    """Except for the report of boot, which its long way fills in, the modules can be ordered."""
    waiting = {room: rooms(room) for room in ROOMS}
    waiting["booting"].discard("boot")
    while free := {room for room, needed in waiting.items() if not needed & waiting.keys()}:
        waiting = {room: needed for room, needed in waiting.items() if room not in free}

    assert set() == waiting.keys()


def test_only_the_doors_reach_the_migrator() -> None:
    """The migrator is called by the command line, the Python functions, boot and the fixtures, and by nothing below."""
    assert {"api", "booting", "cli", "testing"} == {room for room in ROOMS if "migrator" in rooms(room)}


def test_only_the_command_line_knows_click() -> None:
    """No other module imports click."""
    assert {"cli"} == importers("click.")


def test_only_the_command_line_prints() -> None:
    """No other module calls print or writes to standard output."""
    printing = {
        room
        for room, node in nodes()
        if (isinstance(node, ast.Call) and ast.unparse(node.func) == "print")
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.stdout", "sys.__stdout__"})
    }

    assert set() == printing - {"cli"}


def test_only_the_command_line_exits_the_process() -> None:
    """No other module calls sys.exit or os._exit."""
    ends = {"sys.exit", "os._exit", "exit", "quit"}
    exiting = {room for room, node in nodes() if isinstance(node, ast.Call) and ast.unparse(node.func) in ends}

    assert {"cli"} == exiting


def test_only_the_migrator_calls_the_commands_of_alembic() -> None:
    """One module is the only caller of alembic.command."""
    assert {"migrator"} == importers("alembic.command.")


def test_only_the_engine_and_the_locks_know_dialects() -> None:
    """What differs between SQLite and PostgreSQL is decided by the connection, its URL, the catalog and the locks.

    The tables name both only for types and partial indexes that SQLAlchemy has for each.
    """
    knowing = {room for room, node in nodes() if isinstance(node, ast.Constant) and node.value in DIALECTS}

    assert set() == knowing - {"engine", "urls", "catalog", "locks", "schema"} - ABOUT_SQLITE_FILES


def test_only_modules_about_sqlite_files_use_its_driver() -> None:
    """The driver sqlite3 is imported where files of SQLite and its errors are the subject, and nowhere else."""
    assert set() == importers("sqlite3.") - {"engine", "locks", "causes"} - ABOUT_SQLITE_FILES


def ladder_tables() -> set[str]:
    """Return the tables that the revisions make or adopt, found by running them."""
    shapes = Shapes(ScriptDirectory.from_config(alembic_config()), HEAD)
    assert shapes.is_known
    return set(shapes.tables)


def test_no_module_names_a_revision_or_a_table_of_one() -> None:
    """What revisions make is learned from them; only the models name it, and what embeds its own three tables."""
    tables = ladder_tables()
    embedding = {"embedding_models", "vector_store_chunks", "vector_store_embeddings"}
    assert embedding < tables
    told = {
        (room, name)
        for room, node in nodes()
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for name in {node.value} | {name for name in tables if re.search(rf"\b{name}\b", node.value)}
        if (re.fullmatch(r"\d{3}", name) or name in tables) and not is_docstring(node)
    }

    allowed = {("schema", name) for name in tables}
    allowed |= {(room, name) for room in ("embedding", "tools") for name in embedding}
    # It builds what services leave, which is no revision's.
    allowed |= {("testing", name) for name in tables}
    assert set() == told - allowed


@functools.cache
def docstrings() -> frozenset[int]:
    """Return the strings that stand alone as statements: they document, and decide nothing."""
    alone = (node.value for _, node in nodes() if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    return frozenset(map(id, alone))


def is_docstring(node: ast.AST) -> bool:
    return id(node) in docstrings()


def functions() -> Iterator[tuple[str, int]]:
    """Yield every function of the package and of the revisions with its number of lines."""
    for path in [*FILES, *REVISIONS, ROOT / "alembic" / "env.py"]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{path.stem}.{node.name}", node.end_lineno - node.lineno + 1


def test_no_function_is_long() -> None:
    """No function has more than 45 lines."""
    assert {} == {name: length for name, length in functions() if length > 45}


def test_functions_are_short_on_the_whole() -> None:
    """Nine functions in ten have at most 30 lines, and half of them at most 12."""
    lengths = sorted(length for _, length in functions())

    assert lengths[len(lengths) * 9 // 10] <= 30
    assert lengths[len(lengths) // 2] <= 12


def test_no_module_is_long() -> None:
    """No module of the package has more than 350 lines."""
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}

    assert {} == {name: length for name, length in lengths.items() if length > 350}


def test_every_module_declares_what_it_offers() -> None:
    """Each module has an __all__, in order, and everything in it is defined or imported there."""
    for path in FILES:
        names = [
            ast.literal_eval(node.value)
            for node in tree(path).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        assert 1 == len(names), path
        assert sorted(names[0], key=lambda name: (not name.isupper(), not name[0].isupper(), name)) == names[0], path


def test_importing_the_package_is_light() -> None:
    """`import vecmigrate` brings in neither SQLAlchemy nor Alembic nor click, and only a handful of modules."""
    code = (
        "import sys; before = set(sys.modules); import vecmigrate; after = set(sys.modules) - before; "
        "print(sorted(name for name in sys.modules if name.partition('.')[0] in "
        "{'sqlalchemy', 'alembic', 'click', 'packaging', 'logging', 'tomllib', 'json'})); print(sorted(after))"
    )
    heavy, new = run_python(code).out.splitlines()

    assert "[]" == heavy
    assert "['vecmigrate']" == new


def test_booting_a_current_database_is_light(tmp_path: Path) -> None:
    """`ensure_current` on a database at head imports neither SQLAlchemy nor Alembic nor click."""
    code = (
        "import sys, vecmigrate; url = 'sqlite:///' + sys.argv[1]; "
        "print(vecmigrate.ensure_current(url, on_failure='raise').state); "
        "print(sorted(set(sys.modules) & {'sqlalchemy', 'alembic', 'click'}))"
    )
    first, second = (run_python(code, tmp_path / "service.sqlite3").out.splitlines() for _ in range(2))

    assert "migrated" == first[0]
    assert ["current", "[]"] == second


def test_the_folder_of_the_scripts_does_not_hide_the_library() -> None:
    """There is no alembic/__init__.py, so from the root `import alembic` finds the library."""
    assert not (ROOT / "alembic" / "__init__.py").exists()


def test_the_environment_of_alembic_is_a_few_lines() -> None:
    """env.py only calls the safety net."""
    lines = (ROOT / "alembic" / "env.py").read_text(encoding="utf-8").splitlines()

    assert len([line for line in lines if line and not line.startswith(('"', "#"))]) <= 5


def test_nothing_names_the_machine_it_was_written_on() -> None:
    """No file of the project holds an absolute path of somebody's machine."""
    files = [path for folder in ("src", "alembic", "tests") for path in (ROOT / folder).rglob("*.py")]
    hits = {
        str(path.relative_to(ROOT))
        for path in files
        for prefix in ("work", "root", "home")
        if f'"/{prefix}/' in path.read_text(encoding="utf-8")
    }

    assert set() == hits
