"""Which revision an app version needs, compared as versions and not as text."""

from pathlib import Path

import pytest

from ladder import HEAD, NEWEST
from vecmigrate import app_versions
from vecmigrate.errors import ConfigurationError, TargetError

THREE = """
["0.0.0"]
revision = "000"
["1.0.0"]
revision = "001"
["1.2.2"]
revision = "002"
"""


def written(folder: Path, text: str) -> str:
    path = folder / "app_versions.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("version", "revision"),
    [
        ("0.0.0", "000"),
        ("0.9", "000"),
        ("1.0.0", "001"),
        ("1.0", "001"),
        ("1.0.0.post1", "001"),
        ("1.2.1", "001"),
        ("1.2.2rc1", "001"),
        ("v1.2.2", "002"),
        ("1.2.2+local", "002"),
        ("1.2.2", "002"),
    ],
)
def test_a_version_means_the_entry_at_or_below_it(version: str, revision: str, tmp_path: Path) -> None:
    """A version between two entries means the lower one, in the order of PEP 440."""
    entry, _ = app_versions.load(written(tmp_path, THREE)).resolve(version)

    assert revision == entry.revision


@pytest.mark.parametrize("version", [f"{NEWEST}.1", "90.10.0", "99.9", "2026.1"])
def test_a_version_above_the_newest_means_the_newest_with_a_note(version: str) -> None:
    """The user is told which version is meant."""
    entry, note = app_versions.load().resolve(version)

    assert (HEAD, f"{version} is above the newest known app version; {NEWEST} is meant.") == (entry.revision, note)


@pytest.mark.parametrize("version", [NEWEST, "1.0.0", "1.1"])
def test_a_known_version_has_no_note(version: str) -> None:
    """Nothing is said where nothing is unusual."""
    assert None is app_versions.load().resolve(version)[1]


@pytest.mark.parametrize("version", ["0.0.0.dev1", "0.0.0a1"])
def test_a_version_below_the_lowest_is_an_error(version: str) -> None:
    """There is no revision for what is older than the oldest entry."""
    with pytest.raises(TargetError, match=r"is older than 0\.0\.0"):
        app_versions.load().resolve(version)


@pytest.mark.parametrize("version", ["", "latest", "1.2.x", "1..2", "1.2.2 beta two", "\u0661.\u0662.x", "1.2\n\0"])
def test_what_is_no_version_is_an_error(version: str) -> None:
    """A text that is not PEP 440 is told as such, with the next command."""
    with pytest.raises(TargetError, match="is not a version number") as raised:
        app_versions.load().resolve(version)

    assert "vecmigrate versions" == raised.value.next_step


def test_versions_are_ordered_as_versions(tmp_path: Path) -> None:
    """1.10 is above 1.9, whatever the order in the file."""
    path = written(tmp_path, '["1.10"]\nrevision = "002"\n["1.9"]\nrevision = "001"\n["1.0"]\nrevision = "000"\n')

    versions = app_versions.load(path)

    assert ["1.0", "1.9", "1.10"] == [str(entry.version) for entry in versions.entries]
    assert "001" == versions.resolve("1.9.9")[0].revision


def test_compatible_from_is_the_version_itself_by_default(tmp_path: Path) -> None:
    """Without compatible_from, only this version and later ones may run on a revision."""
    text = THREE + 'compatible_from = "1.0.0"\n'
    entries = app_versions.load(written(tmp_path, text)).entries

    assert ["0.0.0", "1.0.0", "1.0.0"] == [str(entry.compatible_from) for entry in entries]


def test_all_faults_of_a_map_are_told_at_once(tmp_path: Path) -> None:
    """Every bad entry is named in one error, with what is wrong with it."""
    path = written(
        tmp_path,
        '["not a version"]\nrevision = "000"\n'
        '["1.0"]\nrevision = 1\n'
        '["1.1"]\nrevision = "777"\n'
        '["1.2"]\nrevision = "001"\ncolour = "red"\n'
        '["1.3"]\nrevision = "001"\ncompatible_from = "2.0"\n'
        '["1.4"]\nrevision = "001"\ncompatible_from = 3\n'
        '["1.5"]\n',
    )

    with pytest.raises(ConfigurationError) as raised:
        app_versions.load(path, revisions=["000", "001", "002"])

    message = raised.value.message
    for fault in (
        '["not a version"] is not a version number',
        '["1.0"] has no revision number',
        '["1.1"] names revision 777, and there is no such revision',
        '["1.2"] has an unknown key colour',
        '["1.3"] has a compatible_from that is newer than itself',
        '["1.4"] compatible_from is not a version number',
        '["1.5"] has no revision number',
    ):
        assert fault in message
    assert path in message


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it names no app version"),
        ("this is no toml", "Expected"),
        ('"1.0" = "000"', '["1.0"] is not a table with a revision'),
        ('["1.0"]\nrevision = "000"\n["1.0.0"]\nrevision = "001"\n', "1.0 and 1.0.0 are the same version"),
        ('["1.0"]\nrevision = "001"\n["2.0"]\nrevision = "000"\n', '["2.0"] has revision 000, not above 001 of 1.0'),
        ('["1.0"]\nrevision = "000"\n["1.0"]\nrevision = "001"\n', "1.0"),
    ],
)
def test_a_malformed_map_is_an_error(text: str, fault: str, tmp_path: Path) -> None:
    """What is wrong with the file as a whole is told too."""
    with pytest.raises(ConfigurationError) as raised:
        app_versions.load(written(tmp_path, text))

    assert fault in raised.value.message


def test_a_missing_map_is_an_error(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml.*cannot be read|nowhere\.toml"):
        app_versions.load(str(tmp_path / "nowhere.toml"))
