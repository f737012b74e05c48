"""The identity of a database: a UUID that it keeps in itself, and each of its backups with it."""

from sqlalchemy import Connection

from vecmigrate import lost, manifests, meta
from vecmigrate.engine import Database
from vecmigrate.journal import Report
from vecmigrate.settings import Settings

__all__ = ["identity_for"]


def identity_for(connection: Connection, database: Database, settings: Settings, report: Report) -> str:
    """Return the identity of a database, the one it has, had before its first run, or a new one."""
    known, path = meta.read(connection).get("database_id"), database.path
    if known is not None or path is None:
        return known or meta.new_database_id()
    folder = settings.backup_folder(path)
    if not report.created:
        known = manifests.id_before_first_run(folder, database_path=path)
    given = known or meta.new_database_id()
    if note := lost.note_on_another(folder, path, database_id=given, is_new=report.created):
        report.warn(note)
    return given
