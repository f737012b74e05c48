"""Where a database is, and what to say when that is a revision of a newer version."""

import re

from packaging.version import InvalidVersion, Version
from sqlalchemy import Connection, column, inspect, select, table

from vecmigrate import adoption, meta
from vecmigrate.errors import AheadError, NeedsPersonError
from vecmigrate.revisions import Revisions
from vecmigrate.schema import VERSION_TABLE

__all__ = ["current_heads", "one_of", "require_at"]

_REVISION = re.compile(r"\w[\w.-]*", re.ASCII)


def current_heads(
    connection: Connection, revisions: Revisions, *, option: str, app_version: str | None = None
) -> tuple[str, ...]:
    """Return the revision of a database as Alembic's heads. Read-only.

    ``option`` is what names the database in commands. Raises AheadError for a revision that this version
    does not know, NeedsPersonError for several, NotOursError for a version table that is not ours.
    """
    adoption.require_own_tables(connection)
    if not inspect(connection).has_table(VERSION_TABLE):
        return ()
    version = table(VERSION_TABLE, column("version_num"))
    heads = tuple(connection.scalars(select(version.c.version_num)))
    if len(heads) > 1:
        raise NeedsPersonError(
            f"The table {VERSION_TABLE} names {len(heads)} revisions, and there must be one. Nothing was changed.",
            next_step=f"look at the tables, then keep the row that fits them: DELETE FROM {VERSION_TABLE} WHERE ...",
        )
    if heads and not (isinstance(heads[0], str) and _REVISION.fullmatch(heads[0])):
        raise NeedsPersonError(
            f"The row of the table {VERSION_TABLE} holds no revision. Nothing was changed.",
            next_step=f"vecmigrate {option} backup list, then: vecmigrate {option} restore NAME; or, if it is known "
            f"where the tables are: UPDATE {VERSION_TABLE} SET version_num = ...",
        )
    if heads and heads[0] not in revisions.ids:
        raise ahead(heads[0], meta.read(connection), revisions, option=option, app_version=app_version)
    return heads


def require_at(connection: Connection, revision: str | None, *, database: str) -> None:
    """Raise NeedsPersonError unless the version table says what a run did, None for base. Read-only."""
    version = table(VERSION_TABLE, column("version_num"))
    found = list(connection.scalars(select(version.c.version_num)))
    if found != ([] if revision is None else [revision]):
        said = ", ".join(map(str, found)) or "nothing"
        raise NeedsPersonError(
            f"The run leads to {revision or 'base'}, and before its commit the table {VERSION_TABLE} said {said}: a "
            f"revision script or a trigger of the service has changed it. The database {database} is as it was before.",
            next_step=f"take out of the scripts and the triggers what writes to {VERSION_TABLE}, then run it again",
        )


def ahead(
    revision: str, known: dict[str, str], revisions: Revisions, *, option: str, app_version: str | None = None
) -> AheadError:
    """Return the error for a database at a revision of a newer version."""
    mine = app_version or str(revisions.versions.newest.version)
    writer, oldest = known.get("app_version"), known.get("compatible_from")
    compatible = _is_compatible(mine, oldest)
    is_newer = writer is not None and _is_compatible(writer, mine) and writer != mine
    wanted = f"app version {writer}" if is_newer else f"the app version that has revision {revision}"
    return AheadError(
        f"The database is at revision {revision}, written by app version {writer or 'unknown'}; this is {mine}, "
        f"which knows revisions up to {revisions.head}"
        + (f" and may still run on it (compatible from {oldest})." if compatible else " and must not run on it.")
        + " Nothing was changed.",
        next_step=f"install {wanted}, or go back: vecmigrate {option} rollback "
        f"--to-version {revisions.head} --from-backup",
        revision=revision,
        app_version=writer,
        compatible=compatible,
    )


def _is_compatible(mine: str, oldest: str | None) -> bool:
    try:
        return oldest is not None and Version(mine) >= Version(oldest)
    except InvalidVersion:
        return False


def one_of(heads: tuple[str, ...]) -> str | None:
    """Return the revision that Alembic's heads name, None for base."""
    return next(iter(heads), None)
