"""Settings come from arguments, then the environment, then alembic.ini, then defaults."""

import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import make_url

from doors import ROOT, run_cli
from ladder import HEAD, NEXT, REVISIONS
from vecmigrate import settings
from vecmigrate.errors import ConfigurationError
from vecmigrate.settings import Settings, resolve

INI = "[alembic]\nscript_location = x\n\n[vecmigrate]\n"


def ini(folder: Path, text: str) -> str:
    path = folder / "alembic.ini"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_order_of_the_sources(tmp_path: Path) -> None:
    """An argument wins over the environment, which wins over the file, which wins over the default."""
    path = ini(tmp_path, INI + "database_url = sqlite:///ini\nkeep_backups = 3\nlock_timeout = 3\n")
    environ = {"VECMIGRATE_DATABASE_URL": "sqlite:///environ", "VECMIGRATE_KEEP_BACKUPS": "4"}

    found = resolve({"database_url": "sqlite:///argument"}, environ, ini=path)

    assert ("sqlite:///argument", 4, 3.0, "auto") == (
        found.database_url,
        found.keep_backups,
        found.lock_timeout,
        found.backup,
    )


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("backup", "never", "never"),
        ("keep_backups", "7", 7),
        ("lock_timeout", "1.5", 1.5),
        ("lock_timeout", "0", 0.0),
    ],
)
def test_each_setting_can_come_from_each_source(name: str, text: str, value: object, tmp_path: Path) -> None:
    """A value means the same wherever it stands."""
    path = ini(tmp_path, f"{INI}database_url = sqlite:///x\n{name} = {text}\n")

    found = [
        resolve({"database_url": "sqlite:///x", name: text}, {}),
        resolve({"database_url": "sqlite:///x"}, {f"VECMIGRATE_{name.upper()}": text}),
        resolve({}, {}, ini=path),
    ]

    assert [value] * 3 == [getattr(each, name) for each in found]


def test_the_defaults() -> None:
    """Without a word: backups of SQLite, ten of them, and a minute of waiting."""
    assert Settings("sqlite:///x") == resolve({"database_url": "sqlite:///x"}, {})
    assert ("auto", 10, 60.0, None, None) == (
        Settings("").backup,
        Settings("").keep_backups,
        Settings("").lock_timeout,
        Settings("").backup_dir,
        Settings("").history_file,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backup", "sometimes"),
        ("backup", "Always"),
        ("keep_backups", "0"),
        ("keep_backups", "-1"),
        ("keep_backups", "2.5"),
        ("keep_backups", "many"),
        ("lock_timeout", "-1"),
        ("lock_timeout", "soon"),
        ("lock_timeout", "nan"),
        ("lock_timeout", "inf"),
    ],
)
def test_a_bad_value_names_its_source(name: str, value: str, tmp_path: Path) -> None:
    """The error says which setting, where it stands and what is wanted."""
    with pytest.raises(ConfigurationError, match=f"VECMIGRATE_{name.upper()} is '{value}'") as raised:
        resolve({"database_url": "sqlite:///x"}, {f"VECMIGRATE_{name.upper()}": value})
    assert "Nothing was changed." in raised.value.message
    path = ini(tmp_path, f"{INI}database_url = sqlite:///x\n{name} = {value}\n")

    with pytest.raises(ConfigurationError, match=f"alembic.ini: {name} is '{value}'"):
        resolve({}, {}, ini=path)


def test_a_number_too_large_for_a_float_is_an_error() -> None:
    """Also one of more digits than Python prints."""
    for huge in (10**400, 10**5000):
        with pytest.raises(ConfigurationError, match="the argument lock_timeout is 'a huge number'"):
            resolve({"database_url": "sqlite:///x", "lock_timeout": huge}, {})


def test_an_unknown_setting_in_the_file_is_an_error(tmp_path: Path) -> None:
    """A misspelt name is told, with the names that there are."""
    path = ini(tmp_path, INI + "databse_url = x\nbackups = never\n")

    with pytest.raises(ConfigurationError, match="do not exist: backups, databse_url") as raised:
        resolve({}, {}, ini=path)

    assert all(name in raised.value.next_step for name in settings.NAMES)


def test_no_database_is_an_error_that_says_how_to_name_one() -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigurationError, match="No database is configured") as raised:
        resolve({}, {})

    assert "--db-path FILE" in raised.value.next_step


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_value_in_the_environment_counts_as_not_given(value: str | None) -> None:
    """An empty variable, as some shells leave it, overrides nothing."""
    environ = {} if value is None else {"VECMIGRATE_BACKUP": value}

    assert "auto" == resolve({"database_url": "sqlite:///x"}, environ).backup


def test_a_file_of_another_project_has_no_settings(tmp_path: Path) -> None:
    """An alembic.ini without [vecmigrate] is not ours."""
    assert None is settings.read_ini(ini(tmp_path, "[alembic]\nsqlalchemy.url = sqlite:///theirs\n"))


def test_the_url_of_alembic_stands_in(tmp_path: Path) -> None:
    """sqlalchemy.url of [alembic] is the database where [vecmigrate] names none."""
    path = ini(tmp_path, "[alembic]\nsqlalchemy.url = sqlite:///ours\n[vecmigrate]\n")

    assert "sqlite:///ours" == resolve({}, {}, ini=path).database_url


@pytest.mark.parametrize(
    "text",
    [
        "[vecmigrate\n",
        "no section = at all\n",
        INI + "database_url = %(nowhere)s\n",
        INI + "database_url = a%b:s3cret\n",
    ],
)
def test_a_malformed_file_is_an_error_without_its_contents(text: str, tmp_path: Path) -> None:
    """The error names the file and quotes no line of it, which may hold a password."""
    with pytest.raises(ConfigurationError, match=r"alembic\.ini cannot be used") as raised:
        resolve({}, {}, ini=ini(tmp_path, text))

    assert "s3cret" not in str(raised.value)
    assert "%%" in raised.value.next_step
    assert None is raised.value.__cause__


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A configuration file that cannot be read is named."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        resolve({}, {}, ini=str(tmp_path / "nowhere.ini"))


def test_here_means_the_folder_of_the_file(tmp_path: Path) -> None:
    """%(here)s works as in Alembic, also in a folder with a % in its name."""
    folder = tmp_path / "100% sure"
    folder.mkdir()
    path = ini(folder, INI + "database_url = sqlite:///%(here)s/x.sqlite3\nbackup_dir = %(here)s/saved\n")

    found = resolve({}, {}, ini=path)

    assert f"sqlite:///{folder}/x.sqlite3" == found.database_url
    assert str(folder / "saved") == found.backup_dir


def test_backups_of_the_default_database_are_beside_the_file(tmp_path: Path) -> None:
    """The file's own database has its backups beside the file, every other one beside itself."""
    path = ini(tmp_path, INI + "database_url = sqlite:////data/own.sqlite3\n")

    assert str(tmp_path / "backups") == resolve({}, {}, ini=path).backup_folder("/data/own.sqlite3")
    other = resolve({"database_url": "sqlite:////data/other.sqlite3"}, {}, ini=path)
    assert "/data/backups" == other.backup_folder("/data/other.sqlite3")
    assert "/data/backups" == Settings("x").backup_folder("/data/any.sqlite3")


def test_a_backup_folder_that_is_set_always_wins(tmp_path: Path) -> None:
    """Also for the default database of a file, and with ~ for the home."""
    path = ini(tmp_path, INI + "database_url = sqlite:////data/own.sqlite3\n")
    environ = {"VECMIGRATE_BACKUP_DIR": "~/saved"}

    assert str(Path("~/saved").expanduser()) == resolve({}, environ, ini=path).backup_folder("/data/own.sqlite3")


def test_the_mirror_is_beside_the_database_or_where_it_is_set() -> None:
    """The stem of the database and .migrations.json, unless history_file says otherwise."""
    assert "/data/own.migrations.json" == Settings("x").mirror("/data/own.sqlite3")
    assert "/data/own.v1.migrations.json" == Settings("x").mirror("/data/own.v1.db")
    assert "/elsewhere" == Settings("x", history_file="/elsewhere").mirror("/data/own.sqlite3")


def test_a_url_object_is_kept_as_it_is() -> None:
    """A password with any character goes through no text."""
    url = make_url("postgresql://u@h/d").set(password="p%40:/@ %")  # noqa: S106 - no secret

    assert url is resolve({"database_url": url}, {}).database_url


def test_the_configuration_of_this_project_is_valid() -> None:
    """The alembic.ini at the root names an embedded default database beside itself."""
    found = resolve({}, {}, ini=str(ROOT / "alembic.ini"))

    assert (f"sqlite:///{ROOT}/vector_stores.sqlite3", True) == (found.database_url, found.is_default_database)
    assert str(ROOT / "backups") == found.backup_folder(str(ROOT / "vector_stores.sqlite3"))


def test_the_scripts_of_an_ini_in_use_are_the_ones_that_run(tmp_path: Path) -> None:
    """A revision beside an alembic.ini is seen by the command line too, not only by ``alembic``."""
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    added = f'revision = "{NEXT}"\ndown_revision = "{HEAD}"\n\n\ndef upgrade():\n    pass\n'
    (tmp_path / "alembic" / "versions" / f"{NEXT}_added.py").write_text(added, encoding="utf-8")
    named = ("--config", tmp_path / "alembic.ini", "--db-path", tmp_path / "new.sqlite3")

    listed = json.loads(run_cli(*named, "list", "--json").out)
    migrated = json.loads(run_cli(*named, "migrate", "--json").out)

    assert [*REVISIONS, NEXT] == [each["revision"] for each in listed["revisions"]]
    assert NEXT == migrated["to"]


def test_scripts_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    """A script_location that leads nowhere is told as such, and nothing is made."""
    path = ini(tmp_path, INI)

    result = run_cli("--config", path, "--db-path", tmp_path / "new.sqlite3", "migrate")

    assert 1 == result.code
    assert "The revision scripts in x cannot be used" in result.err
    assert [tmp_path / "alembic.ini"] == list(tmp_path.iterdir())
