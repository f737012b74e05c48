"""The tables at head, for services and for autogenerate, and the tables of the tool itself."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

__all__ = [
    "ADOPTED",
    "CLAIMS",
    "HISTORY",
    "META",
    "OWN_PREFIX",
    "PRESERVED",
    "VERSION_TABLE",
    "include_name",
    "is_in_models",
    "is_ours",
    "metadata",
    "tool_metadata",
]

VERSION_TABLE = "vecmigrate_version"
OWN_PREFIX = "vecmigrate_"
"""What the tables of the tool, and the triggers and functions that revisions make, begin with."""

metadata = MetaData()
_BIG = BigInteger().with_variant(Integer(), "sqlite")
"""Unix seconds outgrow PostgreSQL's INTEGER in 2038; SQLite's own holds 64 bits."""
tool_metadata = MetaData()


def _partial(name: str, *columns: str, where: str) -> Index:
    condition = text(f"{where} IS NOT NULL")
    return Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


Table(
    "vector_stores",
    metadata,
    Column("vector_store_id", Text, primary_key=True),
    Column("name", Text),
    Column("session_id", Text),
    Column("provider", Text, nullable=False),
    Column("provider_metadata", Text),
    Column("is_protected", Integer, nullable=False, server_default=text("0")),
    Column("is_active", Integer, nullable=False, server_default=text("1")),
    Column("created_at", _BIG, nullable=False),
    Column("expires_at", _BIG),
    Column("updated_at", _BIG, nullable=False),
    Column("document_count", _BIG, server_default=text("0")),
    Column("rollover_from", Text),
    CheckConstraint("(name IS NULL) <> (session_id IS NULL)", name="ck_vector_stores_name_or_session"),
    Index("uq_vector_stores_name", "name", unique=True),
    Index("uq_vector_stores_session_id", "session_id", unique=True),
    Index("idx_vector_stores_updated", "updated_at"),
    _partial("idx_vs_expires_at", "expires_at", where="expires_at"),
    _partial("idx_vs_active_named", "name", "is_active", where="name"),
    _partial("idx_vs_rollover", "rollover_from", where="rollover_from"),
)

Table(
    "vector_store_chunks",
    metadata,
    Column("chunk_id", Text, primary_key=True),
    Column("vector_store_id", Text),
    Column("file_path", Text, nullable=False),
    Column("start_line", Integer),
    Column("end_line", Integer),
    Column("content", Text, nullable=False),
)

Table(
    "embedding_models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("dimensions", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("activated_at", _BIG),
    CheckConstraint("dimensions > 0", name="ck_embedding_models_dimensions"),
    CheckConstraint("state IN ('active', 'building', 'retired')", name="ck_embedding_models_state"),
    Index(
        "uq_embedding_models_active",
        "state",
        unique=True,
        sqlite_where=text("state = 'active'"),
        postgresql_where=text("state = 'active'"),
    ),
    Index(
        "uq_embedding_models_building",
        "state",
        unique=True,
        sqlite_where=text("state = 'building'"),
        postgresql_where=text("state = 'building'"),
    ),
)

Table(
    "vector_store_embeddings",
    metadata,
    Column("model", Text, nullable=False),
    Column("chunk_id", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),
    PrimaryKeyConstraint("model", "chunk_id"),
)

META = Table(
    "vecmigrate_meta",
    tool_metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

HISTORY = Table(
    "vecmigrate_history",
    tool_metadata,
    Column("id", Integer, primary_key=True),
    Column("migration_id", Text, nullable=False),
    Column("revision", Text),
    Column("version", Text),
    Column("name", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("executed_at", Text, nullable=False),
    Column("duration_seconds", Float, nullable=False),
    Column("metadata", Text, nullable=False),
)

PRESERVED = Table(
    "vecmigrate_preserved",
    tool_metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("source_table", Text, nullable=False),
    Column("row", Text, nullable=False),
    Column("landed", Integer, nullable=False),
    Column("target_key", Text),
    Column("converted", Text),
    Column("reason", Text, nullable=False),
    Column("preserved_at", Text, nullable=False),
    Column("treatment", Text, nullable=False, server_default=text("'restore'")),
    Column("memory", Text),
    Column("operation", Text, nullable=False, server_default=text("''")),
    Column("source_rowid", BigInteger),
    CheckConstraint("landed IN (0, 1)", name="ck_vecmigrate_preserved_landed"),
    Index("idx_vecmigrate_preserved_target", "revision", "direction", "target_key"),
    Index("idx_vecmigrate_preserved_kept", "revision", "direction", "source_table", "landed", "id"),
)

ADOPTED = Table(
    "vecmigrate_adopted",
    tool_metadata,
    Column("type", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("sql", Text, nullable=False),
    PrimaryKeyConstraint("type", "name"),
)

CLAIMS = Table(
    "vecmigrate_claims",
    tool_metadata,
    Column("model", Text, nullable=False),
    Column("chunk_id", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("until", Float, nullable=False),
    PrimaryKeyConstraint("model", "chunk_id"),
)
"""Who is embedding which chunk; ``until`` is in Unix seconds by the clock of the database."""

# Revision 001 makes stores where it is missing, and the service goes on writing it.
_LADDER = frozenset(metadata.tables) | {"stores"}


def include_name(name: str | None, type_: str, _parent_names: object) -> bool:
    """Return False for tables of vecmigrate: pass it to ``context.configure`` in the service's own ``env.py``.

    With it, the service's ``alembic check`` and ``revision --autogenerate`` neither see nor drop our tables.
    """
    return type_ != "table" or name is None or not (name in _LADDER or name.startswith(OWN_PREFIX))


def is_ours(name: str | None, type_: str, _parent_names: object) -> bool:
    """Return True for tables of the models: ``include_name`` of our own comparisons."""
    return type_ != "table" or name in metadata.tables


def is_in_models(_object: object, _name: str | None, type_: str, reflected: bool, compare_to: object) -> bool:  # noqa: FBT001
    """Leave out indexes that the models do not name: a service makes some of its own on boot."""
    return not (type_ == "index" and reflected and compare_to is None)
