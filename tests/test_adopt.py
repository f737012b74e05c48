"""Taking over the folder of mcp-vector-search: its model, its record of migrations, and nothing else of it."""

import json
import logging
import os
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import mcp_vector_search as mcp
import vecmigrate
from doors import Result, run_cli, upgrade, url
from mcp_vector_search import CODEBERT, FAILED, KEYS, MINILM, SFR, SKIPPED


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


@pytest.fixture(scope="session")
def at_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database at head that nobody opens any more."""
    path = tmp_path_factory.mktemp("head") / "service.sqlite3"
    vecmigrate.upgrade(url(path))
    return path


@pytest.fixture
def database(tmp_path: Path, at_head: Path) -> Path:
    """Return a new database at head, in a folder of its own."""
    (tmp_path / "data").mkdir()
    return Path(shutil.copy(at_head, tmp_path / "data"))


def adopt(database: Path | str, project: Path, *options: str) -> Result:
    named = ("--db-path", database) if isinstance(database, Path) else ("--database-url", database)
    return run_cli(*named, "adopt", "--project-root", project, "--json", *options)


def adopted(database: Path | str, project: Path, *options: str) -> Any:
    done = adopt(database, project, *options)
    assert done.code == 0, done.err + done.out
    return done.document


def refused(database: Path, project: Path, *options: str) -> Any:
    """Return the error of an adoption that changes nothing, neither in the database nor in the folder."""
    before = _state(database), mcp.contents(project)
    done = adopt(database, project, *options)
    assert (1, before) == (done.code, (_state(database), mcp.contents(project))), done.out
    return done.document["error"]


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def models(database: Path) -> dict[str, tuple[int, str]]:
    found = rows(database, "SELECT name, dimensions, state FROM embedding_models")
    return {name: (dimensions, state) for name, dimensions, state in found}


def _state(database: Path) -> Any:
    files = sorted(str(path) for path in database.parent.rglob("*"))
    return files, rows(database, "SELECT * FROM embedding_models"), rows(database, "SELECT * FROM vecmigrate_history")


def history(database: Path) -> Any:
    return run_cli("--db-path", database, "history", "--json").document["attempts"]


def test_the_record_of_migrations_goes_into_the_history(database: Path, project: Path) -> None:
    """With statuses, messages, durations and metadata as they are, and the file they are from."""
    source = str(mcp.sample(project) / "migrations.json")
    adopted(database, project)
    failed, skipped, own = history(database)[-3:]

    for entry, attempt in ((FAILED, failed), (SKIPPED, skipped)):
        kept = ("migration_id", "version", "name", "status", "message", "duration_seconds")
        assert {name: entry[name] for name in kept} == {name: attempt[name] for name in kept}
        assert entry["metadata"].items() <= attempt["metadata"].items()
        assert source == attempt["metadata"]["source"]
    assert ("adopt_mcp_vector_search", "success") == (own["migration_id"], own["status"])
    assert "2 entries of migrations.json" in own["message"]


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put this process into a zone that has summer time."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_times_are_local(database: Path, project: Path) -> None:
    """In winter one hour before UTC, in summer two; one with a zone is what it says, and null stays unknown."""
    times = ["2026-01-24T10:30:00.123456", "2026-07-24T10:30:00", "2026-07-24T10:30:00+00:00", None]
    entries = [FAILED | {"migration_id": f"m{number}", "executed_at": at} for number, at in enumerate(times)]
    mcp.folder(project, migrations={"migrations": entries, "last_updated": None})
    found = [each["executed_at"] for each in adopted(database, project)["attempts"]]

    assert ["2026-01-24T09:30:00.123456+00:00", "2026-07-24T08:30:00+00:00", "2026-07-24T10:30:00+00:00", None] == found
    assert found == [each["executed_at"] for each in history(database)[-5:-1]]
    assert 0 == run_cli("--db-path", database, "history").code


@pytest.mark.parametrize("status", ["success", "failed", "skipped", "pending", "running"])
def test_every_status_is_taken_as_it_is(status: str, database: Path, project: Path) -> None:
    """None of them makes one of our revisions look as if it had run."""
    before = run_cli("--db-path", database, "list", "--json").document
    mcp.folder(project, migrations={"migrations": [FAILED | {"status": status}]})
    adopted(database, project)

    assert status == history(database)[-2]["status"]
    assert before == run_cli("--db-path", database, "list", "--json").document


def test_the_mirror_has_the_entries_too(database: Path, project: Path) -> None:
    """In the format of the file that they are from, so that its readers read them."""
    mcp.sample(project)
    adopted(database, project)
    mirrored = json.loads(database.with_suffix(".migrations.json").read_text())["migrations"]

    assert [FAILED["migration_id"], SKIPPED["migration_id"]] == [each["migration_id"] for each in mirrored[-3:-1]]


def test_the_old_model_changes_nothing(database: Path, project: Path) -> None:
    """The database knows it since its first revision; what is active stays."""
    mcp.sample(project)
    before = rows(database, "SELECT * FROM embedding_models")
    document = adopted(database, project)

    assert before == rows(database, "SELECT * FROM embedding_models")
    assert {"name": MINILM, "dimensions": 384, "source": "config.json"} == document["model"]
    assert not document["activated"]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_a_second_time_changes_nothing(
    zone: str, database: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row, no backup, and no mirror: also where the zone of this machine is another one by then."""
    path = mcp.sample(project)
    mcp.folder(project, config=mcp.config(CODEBERT))
    mcp.chroma(path, 768)
    adopted(database, project)
    before = mcp.contents(database.parent)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    again = run_cli("--db-path", database, "adopt", "--project-root", project)
    monkeypatch.undo()
    time.tzset()

    assert (0, "Nothing to take over") == (again.code, again.out.partition(":")[0])
    assert before == mcp.contents(database.parent)


def test_what_has_come_since_is_taken_over_later(database: Path, project: Path) -> None:
    """An entry that the service wrote over with another outcome is a new attempt."""
    mcp.sample(project)
    adopted(database, project)
    mcp.folder(project, migrations={"migrations": [FAILED | {"status": "success"}, SKIPPED]})
    document = adopted(database, project)

    assert [("success", 1)] == [(each["status"], document["known"]) for each in document["attempts"]]


def test_nothing_in_the_folder_is_touched(database: Path, project: Path) -> None:
    """No byte, no time, and no file beside its index."""
    mcp.chroma(mcp.sample(project), 384)
    before = mcp.contents(project)
    adopted(database, project)

    assert before == mcp.contents(project)


def test_a_dry_run_only_tells(database: Path, project: Path) -> None:
    """It says what the real run then does, and writes nothing."""
    mcp.chroma(mcp.sample(project), 768)
    mcp.folder(project, config=mcp.config(CODEBERT))
    before = mcp.contents(database.parent)
    told = adopted(database, project, "--dry-run")
    assert before == mcp.contents(database.parent)
    done = adopted(database, project)

    assert {"dry_run", "backup"} == {name for name in told if told[name] != done[name]}
    assert (True, None) == (told["dry_run"], told["backup"])


def test_it_is_backed_up_first(database: Path, project: Path) -> None:
    """The backup holds the state before, and is named in the record."""
    mcp.sample(project)
    before = rows(database, "SELECT * FROM vecmigrate_history")
    backup = Path(adopted(database, project)["backup"])

    assert before == rows(backup, "SELECT * FROM vecmigrate_history")
    assert str(backup) == history(database)[-1]["metadata"]["backup_path"]
    listed = run_cli("--db-path", database, "backup", "list", "--json").document["backups"]
    assert [("before adopt", True)] == [
        (each["reason"], each["verified"]) for each in listed if each["path"] == str(backup)
    ]


def test_backups_are_rotated(database: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adopting again and again fills no disk."""
    monkeypatch.setenv("VECMIGRATE_KEEP_BACKUPS", "2")
    for number in range(4):
        mcp.folder(project, migrations={"migrations": [FAILED | {"version": f"1.2.{number}", "message": str(number)}]})
        adopted(database, project)

    assert 2 == len(run_cli("--db-path", database, "backup", "list", "--json").document["backups"])


def test_another_model_becomes_the_active_one(database: Path, project: Path) -> None:
    """The one that head asks for is built again, because the vectors are still of the folder's."""
    mcp.folder(project, config=mcp.config("BAAI/bge-small-en-v1.5"))
    document = adopted(database, project, "--dimensions", "512")

    assert document["activated"]
    assert {
        MINILM: (384, "retired"),
        SFR: (768, "building"),
        "BAAI/bge-small-en-v1.5": (512, "active"),
    } == models(database)
    (activated,) = rows(database, "SELECT activated_at FROM embedding_models WHERE state = 'active'")[0]
    assert abs(time.time() - activated) < 300


def test_the_way_back_and_forth_goes_on_from_there(database: Path, project: Path) -> None:
    """A downgrade takes away what its revision made, and leaves the model of the folder active."""
    mcp.folder(project, config=mcp.config(CODEBERT), index_metadata=mcp.index("3.0.40"))
    adopted(database, project)
    adopted_models = models(database)
    assert 0 == run_cli("--db-path", database, "rollback", "--to-version", "001").code
    assert (768, "active") == models(database)[CODEBERT]
    upgrade("cli", database)

    assert adopted_models.keys() == models(database).keys()


CHUNK = "INSERT INTO vector_store_chunks (chunk_id, file_path, content) VALUES ('c{0}', 'a.py', 'text {0}')"
VECTOR = "INSERT INTO vector_store_embeddings VALUES ('{1}', 'c{0}', zeroblob(4))"


def fill(database: Path, vectors: dict[str, int], *, chunks: int = 3) -> None:
    """Give a database chunks, and to the first few of them a vector of each model."""
    with sqlite3.connect(database) as connection:
        for number in range(chunks):
            connection.execute(CHUNK.format(number))
        for model, count in vectors.items():
            for number in range(count):
                connection.execute(VECTOR.format(number, model))
    connection.close()


@pytest.mark.parametrize("of_folder", [0, 2])
def test_search_goes_on(of_folder: int, database: Path, project: Path) -> None:
    """Where the chunks are found by another model's vectors, that stays active, and the user is told why."""
    fill(database, {SFR: 3, CODEBERT: of_folder})
    mcp.sample(project)
    mcp.folder(project, config=mcp.config(CODEBERT), index_metadata=mcp.index("3.0.40"))
    before = models(database)
    document = adopted(database, project)

    assert before == models(database)
    assert 2 == len(document["attempts"])
    assert any(f"The active model stays {SFR}" in note for note in document["notes"])


@pytest.mark.parametrize("vectors", [{}, {CODEBERT: 3}, {SFR: 3, CODEBERT: 3}, {SFR: 2, CODEBERT: 2}])
def test_a_model_that_finds_as_much_becomes_active(vectors: dict[str, int], database: Path, project: Path) -> None:
    """Chunks that the service has loaded from the folder do not stand in the way."""
    fill(database, vectors)
    mcp.folder(project, config=mcp.config(CODEBERT), index_metadata=mcp.index("3.0.40"))
    adopted(database, project)

    assert {MINILM: (384, "retired"), SFR: (768, "building"), CODEBERT: (768, "active")} == models(database)


def test_the_building_model_may_be_the_folders(tmp_path: Path, project: Path) -> None:
    """Then the one before it is retired, and nothing is left to build."""
    path = tmp_path / "service.sqlite3"
    vecmigrate.upgrade(url(path), "001")
    fill(path, {})
    vecmigrate.upgrade(url(path))
    assert (768, "building") == models(path)[SFR]
    mcp.folder(project, config=mcp.config(SFR))
    adopted(path, project)

    assert {MINILM: (384, "retired"), SFR: (1024, "active")} == models(path)


def test_other_dimensions_than_those_of_its_vectors_are_another_model(database: Path, project: Path) -> None:
    """The database has vectors of that name, so its number cannot be set right."""
    fill(database, {SFR: 1})
    mcp.folder(project, config=mcp.config(SFR))
    error = refused(database, project)

    assert "with 768 dimensions, and the folder's have 1024" in error["message"]
    assert "--model NAME" in error["next"]


def era(case: str, expected: tuple[str, int, str], *, width: Any = None, **files: Any) -> Any:
    """Return a folder of some version, and the model that its vectors are of."""
    return pytest.param(files, width, expected, id=case)


def of_config(name: str, dimensions: int) -> tuple[str, int, str]:
    return name, dimensions, "config.json"


def of_index(name: str, dimensions: int) -> tuple[str, int, str]:
    return name, dimensions, "index_metadata.json"


NAMED = {"config": mcp.config(CODEBERT)}
SHORT = {"config": mcp.config("codebert")}
ERAS = [
    era("config alone", of_config(MINILM, 384), config=mcp.CONFIG),
    era("0.5", of_config(MINILM, 384), **NAMED, index_metadata={"/a.py": 1.5}),
    era("1.2.1", of_config(MINILM, 384), **NAMED, index_metadata=mcp.index("1.2.1")),
    era("1.2.2", of_config(SFR, 1024), **NAMED, index_metadata=mcp.index("1.2.2")),
    era("2.3.30", of_config(SFR, 1024), **NAMED, index_metadata=mcp.index("2.3.30")),
    era("2.3.33", of_config(CODEBERT, 768), **NAMED, index_metadata=mcp.index("2.3.33")),
    era("a short name in 2.2.7", of_config(SFR, 1024), **SHORT, index_metadata=mcp.index("2.2.7")),
    era("a short name in 2.5.1", of_config(CODEBERT, 768), **SHORT, index_metadata=mcp.index("2.5.1")),
    era("codebert that is MiniLM", of_config(MINILM, 384), width=384, **NAMED),
    era("codebert that is SFR", of_config(SFR, 1024), width=1024, **NAMED),
    era("codebert that is codebert", of_config(CODEBERT, 768), width=768, **NAMED),
    era("width before version", of_config(MINILM, 384), width=384, **NAMED, index_metadata=mcp.index("2.4.0")),
    era("SFR as its documents have it", of_config(SFR, 768), width=768, config=mcp.config(SFR)),
    era("SFR as its table has it", of_config(SFR, 1024), config=mcp.config(SFR)),
    era("a name without its author", of_config(MINILM, 384), config=mcp.config("all-MiniLM-L6-v2")),
    era("a model not offered", of_config("BAAI/bge-m3", 1024), width=1024, config=mcp.config("BAAI/bge-m3")),
    era(
        "a model chosen by device",
        of_index(CODEBERT, 768),
        config=mcp.config(None),
        index_metadata=mcp.index("3.0.40", embedding_model=CODEBERT, embedding_dimensions=768),
    ),
    era(
        "index before configuration and an index left behind",
        of_index(MINILM, 384),
        width=1024,
        config=mcp.config(SFR) | {"last_migration": "1.2.2", "migration_date": "2026-01-24T10:30:00"},
        index_metadata=mcp.index("4.0.1", embedding_model=MINILM, embedding_dimensions=384),
    ),
    era(
        "a model of dimensions not told",
        of_index("own/model", 640),
        width=640,
        index_metadata=mcp.index("3.0.40", embedding_model="own/model", embedding_dimensions=None),
    ),
]


@pytest.mark.parametrize(("files", "width", "expected"), ERAS)
def test_which_model_the_vectors_are_of(
    files: dict[str, Any], width: int | None, expected: tuple[str, int, str], database: Path, project: Path
) -> None:
    """The index counts before what says when it was written, and that before the configuration."""
    path = mcp.folder(project, **files)
    if width is not None:
        mcp.chroma(path, width)
    name, dimensions, source = expected

    assert {"name": name, "dimensions": dimensions, "source": source} == adopted(database, project)["model"]
    if name != MINILM:
        assert (dimensions, "active") == models(database)[name]


@pytest.mark.parametrize(
    ("files", "width", "told"),
    [
        ({"config": mcp.config(CODEBERT)}, None, "stood for .* in turn, and no file tells when"),
        ({"config": mcp.config(CODEBERT), "index_metadata": mcp.index("not a version")}, None, "no file tells when"),
        ({"config": mcp.config(CODEBERT)}, 512, "do not have 512 dimensions"),
        ({"config": mcp.config(MINILM)}, 768, "do not have 768 dimensions"),
        ({"config": mcp.config(SFR)}, 384, "do not have 384 dimensions"),
    ],
)
def test_a_model_that_the_files_leave_open_is_asked_for(
    files: dict[str, Any], width: int | None, told: str, database: Path, project: Path
) -> None:
    """Nothing is guessed: the same dimensions are not the same model. Told by hand, it is taken."""
    path = mcp.folder(project, **files)
    if width is not None:
        mcp.chroma(path, width)
    error = refused(database, project)

    assert re.search(told, error["message"])
    assert error["next"].startswith(f"vecmigrate --db-path {database} adopt --project-root {project} --model NAME")
    assert {"name": "own/model", "dimensions": width or 99, "source": "--model"} == adopted(
        database, project, "--model", "own/model", "--dimensions", str(width or 99)
    )["model"]


def test_dimensions_that_no_file_tells_are_asked_for(database: Path, project: Path) -> None:
    """The next command works when it is pasted with the number."""
    mcp.folder(project, config=mcp.config("own/model"))
    error = refused(database, project)

    assert f"vecmigrate --db-path {database} adopt --project-root {project} --dimensions N" == error["next"]
    assert 640 == adopted(database, project, "--dimensions", "640")["model"]["dimensions"]


def test_dimensions_that_a_file_tells_are_not_overruled(database: Path, project: Path) -> None:
    """What is told by hand and what is in the index must agree."""
    mcp.chroma(mcp.folder(project, config=mcp.config("own/model")), 640)

    assert "--dimensions says 768, and the vectors" in refused(database, project, "--dimensions", "768")["message"]


BROKEN = ["", "{", "null", "[]", '"text"', "7", '{"some_key": 1}', "[" * 100_000, "\ufeff{}", "NaN"]


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("name", ["config", "index_metadata", "migrations"])
def test_a_broken_file_is_named_and_left_alone(name: str, text: str, database: Path, project: Path) -> None:
    """The rest is taken over, and the exit code is 0."""
    mcp.sample(project)
    mcp.folder(project, **{name: text})
    before = mcp.contents(project)
    document = adopted(database, project)
    is_of_old_version = name == "index_metadata" and text == '{"some_key": 1}'

    assert is_of_old_version or any(note.startswith(f"{name}.json ") for note in document["notes"])
    assert (0 if name == "migrations" else 2) == len(document["attempts"])
    assert (name == "config") == (document["model"] is None)
    assert before == mcp.contents(project)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("config", mcp.CONFIG | {"some_key": 1}),
        ("config", mcp.CONFIG | {"embedding_model": 7}),
        ("config", mcp.CONFIG | {"embedding_model": ""}),
        ("config", mcp.CONFIG | {"embedding_model": ["a"]}),
        ("index_metadata", mcp.index("3.0.40", some_key=1)),
        ("index_metadata", mcp.index("3.0.40", embedding_dimensions="768")),
        ("index_metadata", mcp.index("3.0.40", embedding_dimensions=True)),
        ("index_metadata", mcp.index("3.0.40", embedding_dimensions=-1)),
        ("index_metadata", {"/a.py": "a text"}),
        ("migrations", {"migrations": [FAILED], "some_key": 1}),
        ("migrations", {"migrations": {"a": FAILED}}),
        ("migrations", {"migrations": None}),
    ],
)
def test_a_file_that_no_version_writes_is_named_and_left_alone(
    name: str, document: Any, database: Path, project: Path
) -> None:
    """Keys that are not known, and values of another type."""
    mcp.sample(project)
    mcp.folder(project, **{name: document})
    notes = adopted(database, project)["notes"]

    assert any(note.startswith(f"{name}.json ") and note.endswith("left alone.") for note in notes)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        "text",
        {},
        FAILED | {"some_key": 1},
        FAILED | {"status": "interrupted"},
        FAILED | {"status": None},
        FAILED | {"status": ["failed"]},
        FAILED | {"migration_id": 7},
        FAILED | {"migration_id": ""},
        FAILED | {"migration_id": "two\nlines"},
        FAILED | {"name": None},
        FAILED | {"executed_at": "yesterday"},
        FAILED | {"executed_at": 1753870000},
        FAILED | {"executed_at": "0001-01-01T00:00:00+23:59"},
        FAILED | {"duration_seconds": "2.5"},
        FAILED | {"duration_seconds": float("nan")},
        FAILED | {"metadata": []},
        FAILED | {"message": "\ud800"},
        FAILED | {"metadata": {"\ud800": 1}},
        {name: value for name, value in FAILED.items() if name != "version"},
    ],
)
def test_an_entry_that_no_version_writes_is_named_and_left_alone(entry: Any, database: Path, project: Path) -> None:
    """The entries beside it are taken over."""
    mcp.folder(project, migrations={"migrations": [SKIPPED, entry], "last_updated": None})
    document = adopted(database, project)

    assert [SKIPPED["migration_id"]] == [each["migration_id"] for each in document["attempts"]]
    assert "Entry 2 of migrations.json is none that mcp-vector-search writes; it was left alone." in document["notes"]


@pytest.mark.parametrize("files", [{}, {"config": "{"}, {"config": mcp.config(None), "migrations": {"migrations": []}}])
def test_where_nothing_can_be_taken_over_it_fails(files: dict[str, Any], database: Path, project: Path) -> None:
    """The error says why, and leaves everything as it was."""
    mcp.folder(project, **files)

    assert f"Nothing of {project / '.mcp-vector-search'} could be taken over." in refused(database, project)["message"]


def test_a_project_without_a_folder_is_refused(database: Path, project: Path) -> None:
    """So is the folder itself in place of its project, and then the next command names that."""
    path = mcp.sample(project)
    (project / "src").mkdir()

    assert f"{project / 'src'} has no folder .mcp-vector-search." in refused(database, project / "src")["message"]
    assert f"--project-root {project}" in refused(database, path)["next"]
    assert "has no folder" in refused(database, project / "nowhere")["message"]


def test_what_is_no_file_is_named(database: Path, project: Path) -> None:
    """A folder, and a pipe that would never end."""
    path = mcp.sample(project)
    (path / "config.json").unlink()
    os.mkfifo(path / "config.json")
    (path / "index_metadata.json").unlink()
    (path / "index_metadata.json").mkdir()
    notes = adopted(database, project)["notes"]

    assert ["config.json", "index_metadata.json"] == [note.partition(" is no file")[0] for note in notes[:2]]


class TestChroma:
    """The index of the first versions."""

    def test_one_in_wal_mode_is_read_and_left_alone(self, database: Path, project: Path) -> None:
        """Nothing appears beside it."""
        path = mcp.folder(project, config=mcp.config(CODEBERT))
        file = mcp.chroma(path, 768)
        rows(file, "PRAGMA journal_mode = WAL")
        before = mcp.contents(project)

        assert CODEBERT == adopted(database, project)["model"]["name"]
        assert before == mcp.contents(project)

    @pytest.mark.parametrize("suffix", ["-wal", "-journal"])
    def test_one_in_use_is_named(self, suffix: str, database: Path, project: Path) -> None:
        """What is still to be written into it may change its width, so it is not read."""
        path = mcp.sample(project)
        mcp.chroma(path, 768)
        (path / f"chroma.sqlite3{suffix}").write_bytes(b"pages")
        document = adopted(database, project)

        assert any(note.startswith("chroma.sqlite3 was not read") for note in document["notes"])
        assert "config.json" == document["model"]["source"]

    @pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + b"\xff" * 4000])
    def test_a_damaged_one_is_named(self, content: bytes, database: Path, project: Path) -> None:
        """The next source in the order counts."""
        path = mcp.sample(project)
        (path / "chroma.sqlite3").write_bytes(content)

        assert any(note.startswith("chroma.sqlite3 cannot be read") for note in adopted(database, project)["notes"])

    @pytest.mark.parametrize("dimension", [None, 0])
    def test_a_collection_without_vectors_tells_nothing(
        self, dimension: int | None, database: Path, project: Path
    ) -> None:
        """Then the configuration counts."""
        mcp.chroma(mcp.sample(project), dimension)

        assert 384 == adopted(database, project)["model"]["dimensions"]

    def test_the_collection_of_the_service_counts_before_others(self, database: Path, project: Path) -> None:
        """Other collections may be anything."""
        path = mcp.folder(project, config=mcp.config("own/model"))
        file = mcp.chroma(path, 640)
        with sqlite3.connect(file) as connection:
            connection.execute(
                "INSERT INTO collections SELECT 'a', 'another', 99, database_id, NULL, NULL FROM collections"
            )
        connection.close()

        assert 640 == adopted(database, project)["model"]["dimensions"]


def test_lancedb_that_cannot_be_read_here_is_told(database: Path, project: Path) -> None:
    """Without its package the next source in the order counts."""
    path = mcp.sample(project)
    (path / "lance" / "vectors.lance").mkdir(parents=True)
    document = adopted(database, project)

    assert any("the package lancedb is not installed" in note for note in document["notes"])
    assert "config.json" == document["model"]["source"]


LANCEDB = """
import json, os

class Table:
    def __init__(self, path):
        with open(os.path.join(path, "table.json")) as file:
            self.told = json.load(file)
    def count_rows(self): return self.told["rows"]
    @property
    def schema(self): return self
    @property
    def names(self): return ["vector", "model_version"] if "models" in self.told else ["vector"]
    @property
    def type(self): return self
    def field(self, name): return self
    @property
    def list_size(self): return self.told["width"]
    def search(self): return self
    def select(self, names): return self
    def to_arrow(self): return self
    def column(self, name): return self
    def unique(self): return self
    def to_pylist(self): return self.told["models"]

class connect:
    def __init__(self, path): self.path = path
    def open_table(self, name): return Table(os.path.join(self.path, name + ".lance"))
"""
"""Stands in for the package, which is large: as much of it as is called, in the words that the real one took."""


class TestLanceDB:
    """The index of later versions, read only where the service's package is there."""

    @pytest.fixture(autouse=True)
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / "lancedb.py").write_text(LANCEDB)
        monkeypatch.syspath_prepend(tmp_path / "packages")
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        monkeypatch.delitem(sys.modules, "lancedb", raising=False)

    def table(self, path: Path, **told: Any) -> None:
        path.mkdir(parents=True)
        (path / "table.json").write_text(json.dumps({"rows": 5, "width": 768} | told))

    @pytest.mark.parametrize("place", ["lance/vectors.lance", "vectors.lance"])
    def test_the_models_that_it_names_count_first(self, place: str, database: Path, project: Path) -> None:
        """Before the file that says what was written last, and an index of Chroma that was left behind."""
        metadata = mcp.index("3.0.40", embedding_model=MINILM, embedding_dimensions=384)
        path = mcp.folder(project, config=mcp.CONFIG, index_metadata=metadata)
        self.table(path / place, models=["migrated", CODEBERT, None])
        mcp.chroma(path, 384)

        assert {"name": CODEBERT, "dimensions": 768, "source": place} == adopted(database, project)["model"]

    @pytest.mark.parametrize("told", [{"models": ["migrated"]}, {}])
    def test_one_that_names_none_has_a_width(self, told: dict[str, Any], database: Path, project: Path) -> None:
        """What a migration of the service wrote is no model."""
        path = mcp.folder(project, config=mcp.config(CODEBERT), index_metadata=mcp.index("2.3.40"))
        self.table(path / "lance" / "code_search.lance", width=1024, **told)

        assert SFR == adopted(database, project)["model"]["name"]

    def test_an_empty_one_tells_nothing(self, database: Path, project: Path) -> None:
        """The next place that a version has used is looked at."""
        path = mcp.folder(project, config=mcp.config(CODEBERT))
        self.table(path / "lance" / "vectors.lance", rows=0)
        self.table(path / "code_search.lance", width=384)

        assert MINILM == adopted(database, project)["model"]["name"]

    def test_several_models_are_asked_for(self, database: Path, project: Path) -> None:
        """Vectors of one width may be of several models, which nobody compares with each other."""
        path = mcp.sample(project)
        self.table(path / "lance" / "vectors.lance", models=[CODEBERT, "microsoft/graphcodebert-base", "migrated"])

        assert (
            f"vectors of several models: {CODEBERT}, microsoft/graphcodebert-base"
            in refused(database, project)["message"]
        )

    def test_a_damaged_one_is_named(self, database: Path, project: Path) -> None:
        """The next source in the order counts."""
        path = mcp.sample(project)
        (path / "lance" / "vectors.lance").mkdir(parents=True)
        document = adopted(database, project)

        assert any(note.startswith("lance/vectors.lance cannot be read") for note in document["notes"])
        assert "config.json" == document["model"]["source"]


def test_keys_reach_nothing(database: Path, project: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """No output, log, history, mirror or backup holds one: neither those of config.json nor what an entry quotes."""
    others = ["sk-canary-message-0003", "canary-nested-0004", "hf_canary_key_0005"]
    entry = FAILED | {
        "message": f"Migration failed: 401 Incorrect API key provided: {others[0]}",
        "metadata": {"config": {"openai_api_key": others[1]}, "seen": [f"used {others[2]} for it", 3]},
    }
    mcp.sample(project)
    mcp.folder(project, migrations={"migrations": [entry]}, config=mcp.CONFIG | {KEYS[0]: KEYS[1]})
    caplog.set_level(logging.DEBUG)
    said = []
    for options in (["--dry-run"], [], []):
        for more in ([], ["--json"]):
            done = run_cli("-vv", "--db-path", database, "adopt", "--project-root", project, *options, *more)
            said += [str(done.code), done.out, done.err]
    said += [record.getMessage() for record in caplog.records]
    said += [run_cli("--db-path", database, "history", "--json").out, repr(history(database))]
    written = b"".join(path.read_bytes() for path in tmp_path.joinpath("data").rglob("*") if path.is_file())

    for key in (*KEYS, *others):
        assert key not in "".join(said)
        assert key.encode() not in written
    assert "Incorrect API key provided: ***" in "".join(said)
    assert ["used *** for it", 3] == history(database)[-2]["metadata"]["seen"]


@pytest.mark.parametrize("target", [None, "001"])
def test_a_database_below_head_is_migrated_first(target: str | None, tmp_path: Path, project: Path) -> None:
    """The next command does that, and nothing is created before."""
    mcp.sample(project)
    path = tmp_path / "data" / "service.sqlite3"
    path.parent.mkdir()
    if target:
        vecmigrate.upgrade(url(path), target)
    before = mcp.contents(path.parent)
    done = adopt(path, project)

    assert (1, before) == (done.code, mcp.contents(path.parent))
    assert f"vecmigrate --db-path {path} migrate, then: vecmigrate" in done.document["error"]["next"]


def test_a_locked_database_is_told(database: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 4, as of every command that writes."""
    monkeypatch.setenv("VECMIGRATE_LOCK_TIMEOUT", "0.2")
    mcp.sample(project)
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    done = adopt(database, project)
    holder.close()

    assert 4 == done.code
    assert 0 == adopt(database, project).code


def test_a_failure_leaves_everything_as_it_was(database: Path, project: Path) -> None:
    """The model and the history are written in one transaction."""
    mcp.sample(project)
    mcp.folder(project, config=mcp.config(CODEBERT), index_metadata=mcp.index("3.0.40"))
    with sqlite3.connect(database) as connection:
        connection.execute(
            "CREATE TRIGGER no_more BEFORE INSERT ON vecmigrate_history WHEN NEW.name LIKE 'adopt%' "
            "BEGIN SELECT RAISE(ABORT, 'a value'); END"
        )
    connection.close()
    before = models(database), rows(database, "SELECT * FROM vecmigrate_history")
    done = adopt(database, project)

    assert 0 != done.code
    assert before == (models(database), rows(database, "SELECT * FROM vecmigrate_history"))


def test_postgresql_takes_it_over_too(postgresql: sa.URL, project: Path) -> None:
    """There is no backup and no mirror of a server's database."""
    postgres_url = postgresql.render_as_string(hide_password=False)
    vecmigrate.upgrade(postgres_url)
    mcp.sample(project)
    mcp.folder(project, config=mcp.config(CODEBERT), index_metadata=mcp.index("3.0.40"))
    document = adopted(postgres_url, project)
    again = adopted(postgres_url, project)
    engine = sa.create_engine(postgresql)
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT name, state FROM embedding_models"))
        states = {row.name: row.state for row in found}
    engine.dispose()

    assert (2, True, None) == (len(document["attempts"]), document["activated"], document["backup"])
    assert (0, False, 2) == (len(again["attempts"]), again["activated"], again["known"])
    assert {MINILM: "retired", SFR: "building", CODEBERT: "active"} == states
