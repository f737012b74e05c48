"""How many copies a service keeps that fails at every start, and which."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import legacy
import vecmigrate
from doors import run_cli, url
from ladder import NEXT
from scripts import Scripts
from vecmigrate import archive
from vecmigrate.errors import NeedsPersonError, RunFailedError

FAILS = 'op.execute("INSERT INTO nowhere VALUES (1)")'
# Only on the real database, and not where a run is rehearsed on a copy without rows.
KILLS = """
if op.get_bind().scalar(sa.text("SELECT count(*) FROM vector_stores")):
    os.kill(os.getpid(), signal.SIGKILL)
"""
UPGRADE = """
import sys
from vecmigrate import scripts_folder
scripts_folder._HERE = sys.argv[2]
import vecmigrate
vecmigrate.upgrade(sys.argv[1])
"""


def copies(path: Path) -> list[str]:
    return sorted(each.name for each in (path.parent / "backups").glob("*.sqlite3"))


def write(path: Path, number: int) -> None:
    """Write what the service writes between two starts."""
    legacy.execute(path, f"INSERT INTO touched VALUES ({number})")


def fail(path: Path) -> str:
    with pytest.raises(RunFailedError) as raised:
        vecmigrate.upgrade(url(path))
    assert raised.value.backup is not None
    return Path(raised.value.backup).name


def die(path: Path, scripts: Scripts) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UPGRADE, url(path), str(scripts.versions.parent.parent)],
        env=dict(os.environ),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert -signal.SIGKILL == done.returncode, done.stderr


@pytest.fixture
def kept_before(released_file: Path) -> list[str]:
    """Return the copies of a database at head that were there before anything failed."""
    vecmigrate.upgrade(url(released_file))
    vecmigrate.backup(url(released_file))
    return copies(released_file)


def test_a_service_that_fails_at_every_start_keeps_the_first_copy_and_the_newest(
    scripts: Scripts, released_file: Path, kept_before: list[str]
) -> None:
    """However often it fails, with writes in between, and whatever was there before stays."""
    scripts.add(FAILS)
    made = []
    for number in range(6):
        write(released_file, number)
        made.append(fail(released_file))

    assert 6 == len(set(made))
    assert [*kept_before, made[0], made[-1]] == copies(released_file)
    assert 50 + 1 == _touched(released_file, made[0])
    assert 50 + 6 == _touched(released_file, made[-1])


def _touched(path: Path, copy: str) -> int:
    return len(legacy.rows(path.parent / "backups" / copy, "touched"))


def test_a_later_series_has_a_first_copy_of_its_own(
    scripts: Scripts, released_file: Path, kept_before: list[str]
) -> None:
    """A run that succeeds ends the series; what is left of it is counted by the rotation like any other backup."""
    script = scripts.add(FAILS)
    for number in range(3):
        write(released_file, number)
        fail(released_file)
    first_series = copies(released_file)[len(kept_before) :]
    scripts.add("pass")
    vecmigrate.upgrade(url(released_file))
    before = copies(released_file)
    assert set(first_series) < set(before)
    assert script.exists()

    scripts.add(FAILS, revision=f"{int(NEXT) + 1:03d}", down=NEXT)
    made = []
    for number in range(3, 7):
        write(released_file, number)
        made.append(fail(released_file))

    assert [*before, made[0], made[-1]] == copies(released_file)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_a_service_that_is_killed_at_every_start_keeps_as_few(
    scripts: Scripts, released_file: Path, kept_before: list[str]
) -> None:
    """A run that dies is recorded by the next, which replaces its copy."""
    scripts.add(KILLS)
    for number in range(4):
        write(released_file, number)
        die(released_file, scripts)

    assert len(kept_before) + 2 == len(copies(released_file))
    assert 50 + 4 == _touched(released_file, copies(released_file)[-1])


def test_a_refused_run_in_the_series_keeps_the_newest_copy(
    scripts: Scripts, released_file: Path, kept_before: list[str]
) -> None:
    """A run that is refused leaves no copy, but for one that has replaced another."""
    scripts.add(FAILS)
    for number in range(2):
        write(released_file, number)
        fail(released_file)
    write(released_file, 2)
    # Only the rows show that it breaks a foreign key, so it is refused at the end.
    legacy.execute(
        released_file,
        "CREATE TABLE child (parent TEXT REFERENCES vector_stores(vector_store_id))",
        "INSERT INTO child SELECT vector_store_id FROM vector_stores LIMIT 1",
    )
    scripts.add("""op.execute("UPDATE vector_stores SET vector_store_id = vector_store_id || '-'")""")

    with pytest.raises(NeedsPersonError):
        vecmigrate.upgrade(url(released_file))

    assert len(kept_before) + 2 == len(copies(released_file))
    assert 50 + 3 == _touched(released_file, copies(released_file)[-1])


def test_a_restore_that_fails_again_and_again_keeps_as_few(
    released_file: Path, kept_before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try saves the present state first; between the first and the newest of these copies none stays."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "carry_over", fails)
    for number in range(5):
        write(released_file, number)
        assert 0 != run_cli("--db-path", released_file, "restore", kept_before[0]).code

    assert len(kept_before) + 2 == len(copies(released_file))
    assert 50 + 1 == _touched(released_file, copies(released_file)[-2])
    assert 50 + 5 == _touched(released_file, copies(released_file)[-1])
