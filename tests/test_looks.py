"""How answers look: tables that fit, times of here, colour only on a terminal, and what to do next."""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import legacy
from doors import run_cli
from ladder import HEAD, NAMES
from scripts import Scripts
from vecmigrate.cli.looks import Screen, counted, local

SCREENS = (
    ("status",),
    ("list",),
    ("history",),
    ("versions",),
    ("backup", "list"),
    ("embeddings", "list"),
    ("doctor",),
    ("migrate", "--force", "--target", "1", "--dry-run"),
)


@pytest.fixture(scope="module")
def migrated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a short path with a migrated database, in which a new model is being built."""
    path = legacy.build(tmp_path_factory.mktemp("m") / "s.sqlite3", "released")
    assert 0 == run_cli("--db-path", path, "migrate", "--target", "1").code
    legacy.execute(path, "INSERT INTO vector_store_chunks VALUES ('c', 'vs_u00001', '/a.py', 1, 2, 'text')")
    assert 0 == run_cli("--db-path", path, "migrate").code
    return path.parent


@pytest.fixture
def migrated(migrated_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(migrated_folder, tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path / "m" / "s.sqlite3"


def too_long(lines: list[str], width: int) -> list[str]:
    """Return the lines that do not fit, but commands and paths, which are not broken."""
    return [
        line for line in lines if len(line) > width and "Next: " not in line and not re.search(r"\S*/\S{20,}$", line)
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("words", SCREENS, ids=" ".join)
def test_a_screen_fits(words: tuple[str, ...], width: int, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of it is wider than the terminal, and nothing of what a wide one shows is missing."""
    monkeypatch.setenv("COLUMNS", str(width))
    shown = run_cli("--db-path", migrated, *words).out
    assert [] == too_long(shown.splitlines(), width)
    if words in {("list",), ("history",)}:
        told = re.sub(r"\s", "", shown)
        assert [] == [name for name in NAMES.values() if name not in told]
        assert f"-> {HEAD}" in re.sub(r" +", " ", shown) or words == ("history",)


def test_without_a_terminal_lines_are_whole(migrated: Path) -> None:
    """What is piped into another program has a row on a line."""
    lines = run_cli("--db-path", migrated, "history").out.splitlines()
    assert 1 + len(NAMES) == len(lines)


def test_times_are_of_here_for_people_and_utc_for_machines(migrated: Path) -> None:
    """The same moment, in the zone of the process and in the answer for programs."""
    code = "from vecmigrate.cli import main; main()"

    def answer(*words: str) -> str:
        named = [sys.executable, "-c", code, "--db-path", str(migrated), *words]
        return subprocess.run(
            named, env={**os.environ, "TZ": "Asia/Tokyo"}, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    executed = re.search(r'"executed_at": "(.*)"', answer("list", "--json"))
    assert executed
    moment = executed[1]
    assert moment.endswith("+00:00")
    hour = (int(moment[11:13]) + 9) % 24
    assert f" {hour:02d}:{moment[14:16]} " in answer("list")


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-23T06:30:26"])
def test_what_is_no_time_with_a_zone_stays(text: str) -> None:
    """A registry that was taken over may have any text, and times of no zone."""
    assert text[:16].replace("T", " ") == local(text)


def on_terminal(path: Path, *words: str, environ: dict[str, str]) -> str:
    """Return what a command writes to a real terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from vecmigrate.cli import main; main()", "--db-path", str(path), *words],
        stdout=follower,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != "NO_COLOR"} | environ,
    )
    os.close(follower)
    found = b""
    try:
        while block := os.read(leader, 1 << 16):
            found += block
    except OSError:  # Linux says so at the end of a terminal
        pass
    finally:
        os.close(leader)
        process.wait(timeout=60)
    return found.decode()


def test_colour_is_for_terminals_that_want_it(migrated: Path) -> None:
    """States are coloured on a terminal; not with NO_COLOR, on a dumb one, in a pipe, or in JSON."""
    green = "\x1b[32mapplied"
    assert green in on_terminal(migrated, "list", environ={"TERM": "xterm"})
    for environ in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_terminal(migrated, "list", environ=environ)
    assert "\x1b" not in on_terminal(migrated, "list", "--json", environ={"TERM": "xterm"})
    assert "\x1b" not in run_cli("--db-path", migrated, "list").out


def test_status_names_the_model_and_what_is_left(migrated: Path) -> None:
    """The one that is searched, the one being built, and the command that makes its vectors; JSON has it too."""
    out = run_cli("--db-path", migrated, "status").out
    document = run_cli("--db-path", migrated, "status", "--json").document
    assert {"active", "building"} == document["embedding"].keys()
    assert re.search(rf"embedding model: +{document['embedding']['active']}\n", out)
    assert re.search(rf"being built: +{document['embedding']['building']}: 1 chunk left\n", out)
    assert f"Next: vecmigrate --db-path {migrated} reembed --embedder E" == out.splitlines()[-1]


def test_states_are_told_in_plain_words(vecmigrate_legacy: Callable[[str], Path], tmp_path: Path) -> None:
    """And the next command where there is one; a database at head has none."""

    def told(path: Path) -> tuple[str, str]:
        lines = run_cli("--db-path", path, "status").out.splitlines()
        return lines[1].partition(":")[2].strip(), lines[-1]

    path = vecmigrate_legacy("released")
    migrate = f"Next: vecmigrate --db-path {path} migrate"
    assert ("never migrated", migrate) == told(path)
    assert "not there yet" == told(tmp_path / "none.sqlite3")[0]
    run_cli("--db-path", path, "migrate", "--target", "-1" if HEAD == "000" else "000")
    assert (f"behind by {counted(len(NAMES) - 1, 'revision')}", migrate) == told(path)
    run_cli("--db-path", path, "migrate")
    assert "up to date" == told(path)[0]
    assert "Next" not in told(path)[1]
    legacy.execute(path, "UPDATE vecmigrate_version SET version_num = '909'")
    assert "newer than this version of vecmigrate" == told(path)[0]


def test_what_a_revision_depends_on_is_listed(released_file: Path, scripts: Scripts) -> None:
    """By its depends_on, for people and in JSON; the run honours it."""
    script = scripts.add("pass")
    script.write_text(script.read_text().replace("depends_on = None", 'depends_on = "001"'))
    assert "added (depends on 001)" in run_cli("--db-path", released_file, "list").out
    document = run_cli("--db-path", released_file, "list", "--json").document
    assert [["001"]] == [each["depends_on"] for each in document["revisions"] if each["depends_on"]]
    assert 0 == run_cli("--db-path", released_file, "migrate").code


def test_a_table_keeps_what_is_to_be_pasted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is broken first; where names do not fit beside each other, rows become blocks."""
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("NAME", "WHY"), ("n" * 12, "because of this and that and more")]
    table = Screen(None).table(rows)
    assert ["NAME          WHY", f"{'n' * 12}  because of this and that"] == table[:2]
    wide = [("NAME", "BYTES", "WHY"), ("n" * 30, "1,000", "because")]
    assert ["n" * 30, "  bytes 1,000, why because"] == Screen(None).table(wide, whole=(0, 1))
