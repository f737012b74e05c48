"""Unified vector_stores: sessions and named stores in one table, beside ``stores``, which stays as it is.

Released services keep their history through ``stores`` and know nothing of this revision. So each row of ``stores`` is
a named store in ``vector_stores`` as well, and triggers keep the two together. What a row of the found table can't
tell, or what the unified one can't hold, is kept in ``vecmigrate_preserved``. ``vecmigrate_named_stores`` holds the ids
of the named stores that were made here, by this script or its triggers: the way down takes these out again.

A later revision that renames a column of ``vector_stores`` which the triggers write has to make them anew.

Revision ID: 001
Revises: 000
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op

from vecmigrate.operations.v1 import (
    cache,
    cells,
    codec,
    conversion,
    found,
    kept_rows,
    notes,
    plain,
    readers,
    reversal,
    shapes,
)

revision = "001"
down_revision = "000"
branch_labels = None
depends_on = None

TABLE = "vector_stores"
MADE = "vecmigrate_named_stores"
PREFIXES = {"conversation": "project-conversations", "commit": "project-commits"}

STORES_KEY, SHAPE_KEY = "001_stores", "001_vector_stores"
meta = sa.table("vecmigrate_meta", sa.column("key", sa.Text), sa.column("value", sa.Text))

# Unix seconds outgrow PostgreSQL's INTEGER in 2038; SQLite's own holds 64 bits.
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

LEGACY = {
    "session_id": "text",
    "vector_store_id": "text",
    "provider": "text",
    "expires_at": "integer",
    "protected": "flag",
    "created_at": "integer",
    "updated_at": "integer",
}
UNIFIED = {
    "vector_store_id": "text",
    "name": "text?",
    "session_id": "text?",
    "provider": "text",
    "provider_metadata": "json?",
    "is_protected": "flag",
    "is_active": "flag",
    "created_at": "integer",
    "expires_at": "integer?",
    "updated_at": "integer",
    "document_count": "integer?",
    "rollover_from": "text?",
}
STORES = ("store_id", "store_type", "doc_count", "created_at", "is_active")

ADOPTS = {TABLE: (frozenset(LEGACY), frozenset(UNIFIED)), "stores": (frozenset(STORES),)}
"""The shapes, told by their columns, of tables that may be there before the ladder."""

ADOPTS_VIEWS = ("active_stores",)
"""The views that belong to these tables."""


def upgrade() -> None:
    if op.get_context().as_sql:
        begin_for_empty_database(f"SELECT count(*) FROM {CATALOG[dialect()]} IN ('{TABLE}', 'stores')")
        create_stores()
        create_unified(TABLE, keyed=True)
        create_keys()
        create_indexes()
        create_made()
        remember(stores="made")
    else:
        connection = op.get_bind()
        stores = "found" if found.is_there(connection, "stores") else "made"
        shape = UNIFY.shape_of(connection)
        if stores == "made":
            create_stores()
        create_made()
        remember(stores=stores, shape=SHAPE_NAMES.get(shape.key) if shape else None)
        unify(connection)
    create_triggers()


def downgrade() -> None:
    drop_triggers()
    if op.get_context().as_sql:
        begin_for_empty_database(f"SELECT count(*) FROM {TABLE}", "SELECT count(*) FROM stores")
        op.drop_table(TABLE)
        op.drop_table("stores")
    else:
        separate(op.get_bind())
    op.drop_table(MADE)
    op.execute(meta.delete().where(meta.c.key.in_([STORES_KEY, SHAPE_KEY])))


# The tables.


def create_unified(table: str, *, keyed: bool) -> None:
    # ON CONFLICT ABORT is what SQLite does anyway; written down, it makes the table like the one it is loaded from.
    keys = [sa.PrimaryKeyConstraint("vector_store_id", name="pk_vector_stores", sqlite_on_conflict="ABORT")]
    op.create_table(
        table,
        sa.Column("vector_store_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("session_id", sa.Text),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("provider_metadata", sa.Text),
        sa.Column("is_protected", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("is_active", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("created_at", BIG, nullable=False),
        sa.Column("expires_at", BIG),
        sa.Column("updated_at", BIG, nullable=False),
        sa.Column("document_count", BIG, server_default=sa.text("0")),
        sa.Column("rollover_from", sa.Text),
        *(keys if keyed else []),
        sa.CheckConstraint("(name IS NULL) <> (session_id IS NULL)", name="ck_vector_stores_name_or_session"),
    )


def create_keys() -> None:
    op.create_index("uq_vector_stores_name", TABLE, ["name"], unique=True)
    op.create_index("uq_vector_stores_session_id", TABLE, ["session_id"], unique=True)


def create_indexes() -> None:
    op.create_index("idx_vector_stores_updated", TABLE, ["updated_at"])
    for name, columns in (
        ("idx_vs_expires_at", ["expires_at"]),
        ("idx_vs_active_named", ["name", "is_active"]),
        ("idx_vs_rollover", ["rollover_from"]),
    ):
        where = sa.text(f"{columns[0]} IS NOT NULL")
        op.create_index(name, TABLE, columns, sqlite_where=where, postgresql_where=where)


def create_legacy() -> None:
    op.create_table(
        TABLE,
        # PostgreSQL loads a table faster without its key, and SQLite can't give it one later.
        sa.Column("session_id", sa.Text, primary_key=dialect() == "sqlite", nullable=False),
        sa.Column("vector_store_id", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("expires_at", BIG, nullable=False),
        sa.Column("protected", sa.Integer, server_default=sa.text("0")),
        sa.Column("created_at", BIG, nullable=False),
        sa.Column("updated_at", BIG, nullable=False),
    )


def create_legacy_keys() -> None:
    if dialect() != "sqlite":
        op.create_primary_key(None, TABLE, ["session_id"])


def create_legacy_indexes() -> None:
    op.create_index("idx_vector_stores_updated", TABLE, ["updated_at"])
    op.create_index("idx_vector_stores_expires", TABLE, ["expires_at"])


def create_found_unified() -> None:
    create_unified(TABLE, keyed=dialect() == "sqlite")


def create_found_keys() -> None:
    if dialect() != "sqlite":
        op.create_primary_key("pk_vector_stores", TABLE, ["vector_store_id"])
    create_keys()


def create_stores() -> None:
    op.create_table(
        "stores",
        sa.Column("store_id", sa.Text, primary_key=True),
        sa.Column("store_type", sa.Text, nullable=False),
        sa.Column("doc_count", BIG, nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("is_active", sa.Integer, nullable=False),
        sa.CheckConstraint("store_type IN ('conversation', 'commit')", name="ck_stores_store_type"),
        sa.CheckConstraint("is_active IN (0, 1)", name="ck_stores_is_active"),
    )
    where = sa.text("is_active = 1")
    op.create_index(
        "idx_active_store", "stores", ["store_type"], unique=True, sqlite_where=where, postgresql_where=where
    )


def create_made() -> None:
    op.create_table(MADE, sa.Column("vector_store_id", sa.Text, primary_key=True))


# What the columns mean.


def from_legacy(row: codec.Row, said: list[str]) -> codec.Row:
    result = dict.fromkeys(UNIFIED) | {"is_active": 1, "document_count": 0}
    for column in ("vector_store_id", "session_id", "provider"):
        result[column] = readers.text(row[column], column, said)
    for column in ("created_at", "expires_at", "updated_at"):
        result[column] = readers.time(row[column], column, said)
    protected = readers.flag(row["protected"], "protected", said)
    if protected is None:
        said.append("protected: NULL read as 0")
    result["is_protected"] = protected or 0
    readers.needed(result, "vector_store_id", "session_id", "provider", "created_at", "updated_at")
    return count_from_stores(row, result, said)


def to_legacy(row: codec.Row) -> codec.Row:
    if row["session_id"] is None:
        raise readers.UnfitError("name: the older table has only sessions")
    if readers.means_no(row["is_active"]):
        raise readers.UnfitError("is_active: the older table can't tell an inactive session")
    return {column: row["is_protected" if column == "protected" else column] for column in LEGACY}


READERS = {"text": readers.text, "json": readers.json_text, "flag": readers.flag, "integer": readers.time}


def from_unified(row: codec.Row, said: list[str]) -> codec.Row:
    result = {}
    for column, kind in UNIFIED.items():
        read = readers.count if column == "document_count" else READERS[kind.rstrip("?")]
        result[column] = read(row[column], column, said)
    readers.needed(result, *(column for column, kind in UNIFIED.items() if not kind.endswith("?")))
    require_one_owner(result)
    return count_from_stores(row, result, said)


def to_unified(row: codec.Row) -> codec.Row:
    return dict(row)


def require_one_owner(row: codec.Row) -> None:
    if (row["name"] is None) == (row["session_id"] is None):
        raise readers.UnfitError("name, session_id: exactly one of them must have a value")


def count_from_stores(row: codec.Row, result: codec.Row, said: list[str]) -> codec.Row:
    """The same id in both tables is one store: its count is what ``stores`` says."""
    if "doc_count" in row:
        said.append("document_count: taken from stores")
        result["document_count"] = count_told(row["doc_count"])
    return result


def count_told(value: Any) -> int:
    return readers.count(value, "doc_count", []) or 0


def rank(new: codec.Row, old: codec.Row) -> tuple[int, int, int, str]:
    """Of two rows for one key the one that is protected wins, then the active one, then the newest."""
    seconds, fraction = readers.instant(old["updated_at"]) or (new["updated_at"], "")
    return new["is_protected"], new["is_active"], seconds, fraction


UNIFY = shapes.Conversion(
    table=TABLE,
    revision=revision,
    kinds=UNIFIED,
    keys=("vector_store_id", "session_id", "name"),
    shapes=(
        shapes.Shape(
            key="session_id",
            kinds=LEGACY,
            convert=from_legacy,
            restore=to_legacy,
            renamed={"protected": "is_protected"},
            plain_back="name IS NULL AND session_id IS NOT NULL AND provider_metadata IS NULL "
            "AND rollover_from IS NULL AND is_active = 1 AND document_count = 0 AND expires_at IS NOT NULL",
        ),
        shapes.Shape(
            key="vector_store_id",
            kinds=UNIFIED,
            convert=from_unified,
            restore=to_unified,
            plain_there="(s.name IS NULL) <> (s.session_id IS NULL)",
        ),
    ),
    rank=rank,
    create=create_unified,
    create_keys=create_keys,
    create_indexes=create_indexes,
    indexes=frozenset(
        {"uq_vector_stores_name", "uq_vector_stores_session_id", "idx_vector_stores_updated", "idx_vs_expires_at"}
        | {"idx_vs_active_named", "idx_vs_rollover", "idx_vector_stores_expires", "idx_vs_session_id", "idx_vs_name"}
    ),
    fed=shapes.Fed(
        column="document_count",
        name="doc_count",
        query="(SELECT t.doc_count FROM stores t WHERE t.store_id = s.vector_store_id LIMIT 1)",
        ids="SELECT DISTINCT n.vector_store_id FROM stores t CROSS JOIN vecmigrate_new_vector_stores n "
        "WHERE n.vector_store_id = t.store_id AND t.doc_count IS NOT NULL",
        read=count_told,
    ),
    require=require_one_owner,
)
SHAPE_NAMES = {"session_id": "legacy", "vector_store_id": "unified"}


# Named stores.


def unify(connection: sa.Connection) -> None:
    with told_stores(connection) as untold:
        forget_gone(connection)
        conversion.convert_table(UNIFY, add=add_named_stores)
    if untold:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in sorted(untold.items()))
        notes.note(f"Rows that stay in stores alone, because they can't be told as named stores: {reasons}")


def tell(row: codec.Row) -> tuple[Any, ...]:
    """Return id, type, count, and time with its fraction of a named store. Raises UnfitError."""
    store_type = readers.text(row["store_type"], "store_type", [])
    if store_type not in PREFIXES:
        raise readers.UnfitError("store_type: neither conversation nor commit")
    store_id, instant = readers.text(row["store_id"], "store_id", []), readers.instant(row["created_at"])
    if store_id is None or type(store_id) is codec.RawText:
        raise readers.UnfitError("store_id: none that is text")
    if instant is None:
        raise readers.UnfitError("created_at: no clear time")
    return store_id, store_type, count_told(row["doc_count"]), *instant


@contextmanager
def told_stores(connection: sa.Connection) -> Iterator[Counter[str]]:
    """Make a temporary table of all rows of ``stores`` that can be named stores; count the others by their reason."""
    big = "INTEGER" if dialect() == "sqlite" else "BIGINT"
    columns = f"vector_store_id TEXT, store_type TEXT, document_count {big}, seconds {big}, fraction TEXT"
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE vecmigrate_told ({columns})")
    names = ("vector_store_id", "store_type", "document_count", "seconds", "fraction")
    untold: Counter[str] = Counter()
    key, is_told = plain.row_key(connection), IS_TOLD[dialect()]
    with plain.odd_rows(connection):
        plain.mark_undecodable(connection, "stores", ["store_id"])
        told = connection.exec_driver_sql(
            f"INSERT INTO vecmigrate_told SELECT s.store_id, s.store_type, s.doc_count, {SECONDS[dialect()]}, "
            f"{FRACTION[dialect()]} FROM stores s WHERE ({is_told}) AND {plain.is_plain(connection, key)}"
        )
        if told.rowcount < cells.count(connection, "stores"):
            plain.mark_odd(connection, key, "stores s", f"({is_told}) IS NOT TRUE")
        codec_name = cells.codec_of(connection)
        odd = f"SELECT {cells.cells(connection, STORES)} FROM {plain.ODD} o JOIN stores s ON {key} = o.key"
        for page in cells.fetched(connection, odd):
            rows = []
            for values in page:
                try:
                    rows.append(tell(cells.row_of(STORES, values, codec_name)))
                except readers.UnfitError as unfit:
                    untold[str(unfit)] += 1
            cells.insert(connection, "vecmigrate_told", names, rows)
    connection.exec_driver_sql("CREATE INDEX vecmigrate_told_id ON vecmigrate_told (vector_store_id)")
    # One id twice, in a table without its primary key: the first row is the store.
    twins = "SELECT t.vector_store_id FROM vecmigrate_told t GROUP BY t.vector_store_id HAVING count(*) > 1"
    place = f"row_number() OVER (PARTITION BY s.vector_store_id ORDER BY s.seconds, s.fraction, {key})"
    among = f"SELECT {key} AS key, {place} AS place FROM vecmigrate_told s WHERE s.vector_store_id IN ({twins})"
    later = f"SELECT r.key FROM ({among}) r WHERE r.place > 1"
    connection.exec_driver_sql(f"DELETE FROM vecmigrate_told WHERE {key.removeprefix('s.')} IN ({later})")
    yield untold
    connection.exec_driver_sql("DROP TABLE vecmigrate_told")


def forget_gone(connection: sa.Connection) -> None:
    """Let rows deleted from ``stores`` at 000 count, and rows of ``vector_stores`` deleted at 001 stay away."""
    waiting = f"{KEPT} AND landed = 0 AND target_key IS NOT NULL"
    key = "vecmigrate_preserved.target_key"
    gone = (
        f"NOT EXISTS (SELECT 1 FROM vecmigrate_told t WHERE t.vector_store_id = {key}) "
        f"AND NOT EXISTS (SELECT 1 FROM stores t WHERE t.store_id = {key})"
    )
    connection.exec_driver_sql(f"DELETE FROM vecmigrate_preserved WHERE {waiting} AND {gone}")
    absent = f"SELECT target_key FROM vecmigrate_preserved WHERE {KEPT} AND treatment = '{kept_rows.ABSENT}'"
    connection.exec_driver_sql(f"DELETE FROM vecmigrate_told WHERE vector_store_id IN ({absent})")
    connection.exec_driver_sql(
        "CREATE TEMPORARY TABLE vecmigrate_back AS SELECT t.vector_store_id, t.document_count, "
        "CAST(t.document_count AS TEXT) <> p.converted AS is_changed FROM vecmigrate_preserved p "
        f"JOIN vecmigrate_told t ON t.vector_store_id = p.target_key WHERE {waiting.replace(' landed', ' p.landed')}"
    )


def add_named_stores(connection: sa.Connection, new: str) -> None:
    """Make a named store of every row of ``stores`` that has none, and note which ones are of our making."""
    run = connection.exec_driver_sql
    changed = (
        "SELECT b.document_count FROM vecmigrate_back b "
        f"WHERE b.vector_store_id = {new}.vector_store_id AND b.is_changed"
    )
    if run("SELECT EXISTS (SELECT 1 FROM vecmigrate_back b WHERE b.is_changed)").scalar():
        run(f"UPDATE {new} SET document_count = ({changed} LIMIT 1) WHERE EXISTS ({changed})")
    number(connection, new, f"NOT EXISTS (SELECT 1 FROM {new} n WHERE n.vector_store_id = t.vector_store_id)", "TRUE")
    run(
        f"INSERT INTO {new} (vector_store_id, name, provider, is_protected, is_active, created_at, updated_at, "
        "document_count) SELECT vector_store_id, name, 'openai', 1, 1, seconds, seconds, document_count "
        "FROM vecmigrate_numbered"
    )
    run(
        f"INSERT INTO {MADE} (vector_store_id) SELECT vector_store_id FROM vecmigrate_numbered UNION "
        f"SELECT b.vector_store_id FROM vecmigrate_back b JOIN {new} n ON n.vector_store_id = b.vector_store_id"
    )
    run("DROP TABLE vecmigrate_numbered")
    run("DROP TABLE vecmigrate_back")


def number(connection: sa.Connection, table: str, unnamed: str, existing: str) -> None:
    """Make a temporary table of names for told stores (those that are *unnamed*), in their order, free ones only.

    Names are taken by the rows of *table* (named v) that are *existing*. Between n numbers that are taken, the k-th
    free one is k and one more for each taken one that stands before it.
    """
    collation = "" if dialect() == "sqlite" else ' COLLATE "C"'
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE vecmigrate_taken AS SELECT v.name FROM {table} v "
        f"WHERE v.name IS NOT NULL AND substr(v.name, 1, 8) = 'project-' AND {existing}"
    )
    taken = " UNION ALL ".join(
        f"SELECT '{store_type}' AS store_type, CAST(substr(v.name, {len(prefix) + 2}) AS BIGINT) AS number "
        f"FROM vecmigrate_taken v WHERE {HAS_NUMBER[dialect()].format(prefix=prefix, start=len(prefix) + 2)}"
        for store_type, prefix in PREFIXES.items()
    )
    order = f"PARTITION BY t.store_type ORDER BY t.seconds, t.fraction, t.vector_store_id{collation}"
    placed = (
        "SELECT t.vector_store_id, t.store_type, t.document_count, t.seconds, 0 AS is_taken, "
        f"row_number() OVER ({order}) AS place FROM vecmigrate_told t WHERE {unnamed}"
    )
    numbered = f"SELECT p.*, p.place AS number FROM ({placed}) p"
    if connection.exec_driver_sql("SELECT EXISTS (SELECT 1 FROM vecmigrate_taken)").scalar():
        numbered = (
            "SELECT m.*, place + sum(is_taken) OVER (PARTITION BY store_type ORDER BY place, is_taken DESC "
            f"ROWS UNBOUNDED PRECEDING) AS number FROM ({placed} UNION ALL SELECT NULL, n.store_type, NULL, NULL, 1, "
            "n.number - row_number() OVER (PARTITION BY n.store_type ORDER BY n.number) + 1 "
            f"FROM ({taken}) n) m"
        )
    connection.exec_driver_sql(
        "CREATE TEMPORARY TABLE vecmigrate_numbered AS "
        "SELECT vector_store_id, store_type, document_count, seconds, place, "
        f"'project-' || store_type || 's-' || {NUMBER_TEXT.format(n='number')} AS name FROM ({numbered}) r "
        "WHERE is_taken = 0"
    )
    connection.exec_driver_sql("DROP TABLE vecmigrate_taken")


# The way down.


def separate(connection: sa.Connection) -> None:
    shape_name, stores = remembered(connection, SHAPE_KEY), remembered(connection, STORES_KEY)
    if stores is None:
        # The revision was stamped: it made nothing, so nothing goes.
        shape_name = "legacy"
    shape = next((each for each in UNIFY.shapes if SHAPE_NAMES[each.key] == shape_name), None)
    with told_stores(connection), cache.large_cache(connection):
        leave(connection, is_unified=shape_name == "unified")
    reversal.revert_table(
        UNIFY,
        shape,
        found.found_sql(connection, TABLE),
        create=create_found_unified if shape_name == "unified" else create_legacy,
        create_keys=create_found_keys if shape_name == "unified" else create_legacy_keys,
        create_indexes=create_indexes if shape_name == "unified" else create_legacy_indexes,
        leaving="s.name IS NOT NULL AND s.vector_store_id IN (SELECT l.vector_store_id FROM vecmigrate_leaving l)",
    )
    connection.exec_driver_sql("DROP TABLE vecmigrate_leaving")
    if stores == "made":
        found.drop_if_empty(connection, "stores", view="active_stores")


def leave(connection: sa.Connection, *, is_unified: bool) -> None:
    """Choose the named stores that go, as ``stores`` tells them; keep of them what it can't tell.

    Those that the next way up would make just so are kept nowhere. Where its numbers would differ from some place on,
    all from there on are kept.
    """
    run = connection.exec_driver_sql
    ours = f"v.vector_store_id IN (SELECT m.vector_store_id FROM {MADE} m)" if is_unified else "TRUE"
    run("CREATE TEMPORARY TABLE vecmigrate_leaving (vector_store_id TEXT PRIMARY KEY, told TEXT, is_like INTEGER)")
    run(
        "INSERT INTO vecmigrate_leaving SELECT v.vector_store_id, CAST(d.document_count AS TEXT), "
        f"CASE WHEN {IS_LIKE} THEN 1 ELSE 0 END FROM {TABLE} v "
        f"JOIN vecmigrate_told d ON d.vector_store_id = v.vector_store_id WHERE v.name IS NOT NULL AND {ours}"
    )
    like = "(SELECT l.vector_store_id FROM vecmigrate_leaving l WHERE l.is_like = 1)"
    number(connection, TABLE, f"t.vector_store_id IN {like}", f"v.vector_store_id NOT IN {like}")
    run(
        "CREATE TEMPORARY TABLE vecmigrate_differing AS SELECT n.store_type, min(n.place) AS place "
        f"FROM vecmigrate_numbered n JOIN {TABLE} v ON v.vector_store_id = n.vector_store_id WHERE v.name <> n.name "
        "GROUP BY n.store_type"
    )
    run(
        "UPDATE vecmigrate_leaving SET is_like = 0 WHERE vector_store_id IN (SELECT n.vector_store_id "
        "FROM vecmigrate_numbered n JOIN vecmigrate_differing d ON d.store_type = n.store_type "
        "WHERE n.place >= d.place)"
    )
    keep_leaving(connection)
    keep_absent(connection)
    run("DROP TABLE vecmigrate_differing")
    run("DROP TABLE vecmigrate_numbered")
    told = run("SELECT count(*) FROM vecmigrate_leaving l WHERE l.is_like = 1").scalar_one()
    notes.stands_elsewhere(TABLE, told)


def keep_leaving(connection: sa.Connection) -> None:
    kept, codec_name = kept_rows.KeptRows(connection, revision=revision), cells.codec_of(connection)
    rowid_of = "s.rowid" if dialect() == "sqlite" else "NULL"
    query = (
        f"SELECT {rowid_of}, {cells.cells(connection, UNIFIED)}, l.told FROM vecmigrate_leaving l JOIN {TABLE} s "
        "ON s.vector_store_id = l.vector_store_id WHERE l.is_like = 0"
    )
    for page in cells.fetched(connection, query):
        entries = []
        for rowid, *values, told in page:
            row = cells.row_of(UNIFIED, values, codec_name)
            reason = "name: a named store, of which stores can't tell all"
            entry = kept.aside("downgrade", TABLE, row, reason, rowid=rowid)
            entries.append(entry._replace(target_key=row["vector_store_id"], converted=told))
        kept.add(entries)


def keep_absent(connection: sa.Connection) -> None:
    """Note which rows of ``stores`` have no named store, because somebody deleted it: the next way up makes none."""
    kept = kept_rows.KeptRows(connection, revision=revision)
    query = (
        "SELECT t.vector_store_id FROM vecmigrate_told t "
        f"WHERE NOT EXISTS (SELECT 1 FROM {TABLE} v WHERE v.vector_store_id = t.vector_store_id)"
    )
    for page in cells.fetched(connection, query):
        rows = [{"vector_store_id": store_id} for (store_id,) in page]
        reason = "vector_stores has no row for this row of stores"
        kept.add(
            [
                kept.landed(
                    "downgrade",
                    TABLE,
                    row,
                    reason,
                    target_key=row["vector_store_id"],
                    converted=row,
                    treatment=kept_rows.ABSENT,
                )
                for row in rows
            ]
        )


def remember(*, stores: str, shape: str | None = None) -> None:
    """Note what was found, for the way down."""
    op.execute(meta.delete().where(meta.c.key.in_([STORES_KEY, SHAPE_KEY])))
    op.execute(meta.insert().values(key=STORES_KEY, value=stores))
    if shape:
        op.execute(meta.insert().values(key=SHAPE_KEY, value=shape))


def remembered(connection: sa.Connection, key: str) -> str | None:
    value = connection.scalar(sa.select(meta.c.value).where(meta.c.key == key))
    return None if value is None else str(value)


def dialect() -> str:
    return op.get_context().dialect.name


def begin_for_empty_database(*counts: str) -> None:
    """Emit SQL that fails where there is something: only a run on the database itself can convert rows."""
    op.execute(
        "CREATE TEMPORARY TABLE vecmigrate_offline (found INTEGER, "
        "CONSTRAINT ck_vecmigrate_sql_is_for_an_empty_database CHECK (found = 0))"
    )
    for count in counts:
        op.execute(f"INSERT INTO vecmigrate_offline (found) {count}")
    op.execute("DROP TABLE vecmigrate_offline")


# SQL that differs between the databases.

KEPT = f"revision = '{revision}' AND direction = 'downgrade'"
CATALOG = {
    "sqlite": "sqlite_master WHERE type = 'table' AND lower(name)",
    "postgresql": "information_schema.tables WHERE table_schema = current_schema() AND table_name",
}
NUMBER_TEXT = "substr('00' || {n}, CASE WHEN {n} < 10 THEN 1 WHEN {n} < 100 THEN 2 ELSE 3 END)"
HAS_NUMBER = {
    "sqlite": "v.name GLOB '{prefix}-[0-9][0-9][0-9]*' AND NOT substr(v.name, {start}) GLOB '*[^0-9]*' "
    "AND (length(v.name) = {start} + 2 OR substr(v.name, {start}, 1) <> '0') AND length(v.name) < {start} + 18 "
    "AND v.name <> '{prefix}-000'",
    "postgresql": "v.name ~ '^{prefix}-([0-9]{{3}}|[1-9][0-9]{{3,17}})$' AND v.name <> '{prefix}-000'",
}
"""The name is one that a service gives: a number of three digits, or of more and no zero before it."""
IS_LIKE = (
    "v.session_id IS NULL AND v.provider = 'openai' AND v.provider_metadata IS NULL "
    "AND v.is_protected = 1 AND v.is_active = 1 AND v.created_at = d.seconds AND v.updated_at = d.seconds "
    "AND v.expires_at IS NULL AND v.document_count = d.document_count AND v.rollover_from IS NULL"
)
"""The named store is, but for its name, what the way up makes of its row in stores."""
TAIL = (
    "CASE WHEN s.created_at GLOB '*+00:00' THEN substr(s.created_at, 20, length(s.created_at) - 25) "
    "WHEN s.created_at GLOB '*Z' THEN substr(s.created_at, 20, length(s.created_at) - 20) "
    "ELSE substr(s.created_at, 20) END"
)
IS_TOLD = {
    "sqlite": (
        "typeof(s.store_id) = 'text' AND typeof(s.store_type) = 'text' AND s.store_type IN ('conversation', 'commit') "
        "AND typeof(s.doc_count) = 'integer' AND typeof(s.created_at) = 'text' "
        "AND instr(CAST(s.created_at AS BLOB), x'00') = 0 AND instr(CAST(s.store_type AS BLOB), x'00') = 0 "
        "AND s.created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]:[0-9][0-9]*' "
        "AND NOT s.created_at GLOB '0000*' AND strftime('%Y-%m-%d %H:%M:%S', substr(s.created_at, 1, 19), '+0 days') "
        "= replace(substr(s.created_at, 1, 19), 'T', ' ') "
        f"AND ({TAIL} = '' OR ({TAIL} GLOB '.[0-9]*' AND NOT substr({TAIL}, 2) GLOB '*[^0-9]*'))"
    ),
    "postgresql": (
        "s.store_id IS NOT NULL AND s.store_type IN ('conversation', 'commit') AND s.doc_count IS NOT NULL "
        "AND left(s.created_at, 4) <> '0000' "
        "AND s.created_at ~ '^[0-9]{4}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|"
        "(0[13578]|1[02])-31)[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?(Z|[+]00:00)?$'"
    ),
}
"""The row of stores, named s, needs no Python: its time is UTC in the form that services write."""
SECONDS = {
    "sqlite": "CAST(strftime('%s', substr(s.created_at, 1, 19)) AS INTEGER)",
    "postgresql": (
        "CAST(extract(epoch FROM CAST(replace(substr(s.created_at, 1, 19), 'T', ' ') AS timestamp)) AS BIGINT)"
    ),
}
FRACTION = {
    "sqlite": f"rtrim(substr({TAIL}, 2), '0')",
    "postgresql": "rtrim(coalesce(substring(s.created_at from '[.]([0-9]+)'), ''), '0')",
}


# Triggers. A row that is refused here, by an index that a service added, must not end the service's own statement,
# whose register is stores: hence IGNORE. It is no guard for the rest, because in a trigger the ON CONFLICT clause of
# the outer statement rules: under INSERT OR REPLACE these would replace rows. So each WHERE keeps out what is there.
# https://www.sqlite.org/lang_createtrigger.html

TIME = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
NEW_SECONDS = (
    f"CASE WHEN new.created_at GLOB '{TIME}[T ][0-9][0-9]:[0-9][0-9]:[0-9][0-9]*' "
    "AND strftime('%s', new.created_at) IS NOT NULL "
    "THEN strftime('%s', substr(new.created_at, 1, 19) || CASE WHEN new.created_at GLOB '*[-+][0-9][0-9]:[0-9][0-9]' "
    "THEN substr(new.created_at, -6) ELSE '' END) "
    f"WHEN new.created_at GLOB '{TIME}*' THEN strftime('%s', new.created_at) "
    "WHEN new.created_at <> '' AND NOT new.created_at GLOB '*[^0-9]*' AND length(new.created_at) < 12 "
    "THEN new.created_at END"
)
NEW_COUNT = (
    "CASE typeof(new.doc_count) WHEN 'integer' THEN new.doc_count WHEN 'real' THEN "
    "CASE WHEN abs(new.doc_count) < 9e18 THEN CAST(new.doc_count AS INTEGER) ELSE 0 END ELSE 0 END"
)
NEW_PREFIX = "'project-' || new.store_type || 's-'"
OWN_NUMBER = "(SELECT count(*) FROM stores c WHERE c.store_type = new.store_type)"
IS_FREE = f"NOT EXISTS (SELECT 1 FROM vector_stores x WHERE x.name = {NEW_PREFIX} || printf('%03d', f.number))"
NEXT_NUMBER = (
    f"coalesce((SELECT f.number FROM (SELECT {OWN_NUMBER} AS number) f WHERE {IS_FREE}), (SELECT min(f.number) FROM ("
    f"SELECT CAST(substr(v.name, length({NEW_PREFIX}) + 1) AS INTEGER) + 1 AS number FROM vector_stores v "
    f"WHERE v.name GLOB {NEW_PREFIX} || '[0-9]*') f WHERE f.number > {OWN_NUMBER} AND {IS_FREE}))"
)
IS_NEW = (
    "typeof(new.store_id) = 'text' AND new.store_type IN ('conversation', 'commit') "
    f"AND typeof(new.created_at) = 'text' AND {NEW_SECONDS} IS NOT NULL AND (NOT new.created_at GLOB '{TIME}*' "
    "OR strftime('%Y-%m-%d', substr(new.created_at, 1, 10), '+0 days') = substr(new.created_at, 1, 10)) "
    "AND NOT EXISTS (SELECT 1 FROM vector_stores v WHERE v.vector_store_id = new.store_id)"
)
SQLITE_TRIGGERS = (
    f"""CREATE TRIGGER vecmigrate_store_added AFTER INSERT ON stores BEGIN
  UPDATE OR IGNORE vector_stores SET document_count = {NEW_COUNT}
    WHERE vector_store_id = new.store_id AND document_count IS NOT {NEW_COUNT};
  INSERT OR IGNORE INTO vector_stores (vector_store_id, name, provider, is_protected, is_active, created_at,
    updated_at, document_count) SELECT new.store_id, {NEW_PREFIX} || printf('%03d', {NEXT_NUMBER}), 'openai', 1, 1,
    CAST({NEW_SECONDS} AS INTEGER), CAST({NEW_SECONDS} AS INTEGER), {NEW_COUNT} WHERE {IS_NEW};
  INSERT OR IGNORE INTO {MADE} (vector_store_id) SELECT new.store_id
    WHERE changes() > 0 AND NOT EXISTS (SELECT 1 FROM {MADE} m WHERE m.vector_store_id = new.store_id);
END""",
    f"""CREATE TRIGGER vecmigrate_store_counted AFTER UPDATE OF doc_count ON stores
WHEN new.doc_count IS NOT old.doc_count BEGIN
  UPDATE OR IGNORE vector_stores SET document_count = {NEW_COUNT} WHERE vector_store_id = new.store_id;
END""",
)
POSTGRESQL_TRIGGERS = (
    f"""CREATE FUNCTION vecmigrate_store_added() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  seconds bigint;
  number bigint;
BEGIN
  UPDATE vector_stores SET document_count = new.doc_count WHERE vector_store_id = new.store_id;
  IF FOUND OR new.store_type NOT IN ('conversation', 'commit') THEN RETURN NULL; END IF;
  IF new.created_at ~ '^[0-9]{{1,11}}$' THEN
    seconds = CAST(new.created_at AS bigint);
  ELSIF new.created_at ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}.*(Z|[-+][0-9]{{2}}(:?[0-9]{{2}})?)$'
    AND length(new.created_at) > 10 THEN
    seconds = floor(extract(epoch FROM CAST(new.created_at AS timestamptz)));
  ELSIF new.created_at ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}' THEN
    seconds = floor(extract(epoch FROM CAST(new.created_at AS timestamp)));
  ELSE
    RETURN NULL;
  END IF;
  SELECT count(*) INTO number FROM stores WHERE store_type = new.store_type;
  LOOP
    INSERT INTO vector_stores (vector_store_id, name, provider, is_protected, is_active, created_at, updated_at,
      document_count) VALUES (new.store_id, 'project-' || new.store_type || 's-' ||
      {NUMBER_TEXT.format(n="number")}, 'openai', 1, 1, seconds, seconds, new.doc_count) ON CONFLICT DO NOTHING;
    EXIT WHEN FOUND;
    -- Somebody else made the very store meanwhile, or the name is taken.
    IF EXISTS (SELECT 1 FROM vector_stores WHERE vector_store_id = new.store_id) THEN RETURN NULL; END IF;
    number = number + 1;
  END LOOP;
  INSERT INTO {MADE} (vector_store_id) VALUES (new.store_id) ON CONFLICT DO NOTHING;
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  -- The service's own statement goes on: its register is stores.
  RETURN NULL;
END $$""",
    """CREATE FUNCTION vecmigrate_store_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE vector_stores SET document_count = new.doc_count WHERE vector_store_id = new.store_id;
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $$""",
    """CREATE TRIGGER vecmigrate_store_added AFTER INSERT ON stores FOR EACH ROW
EXECUTE FUNCTION vecmigrate_store_added()""",
    """CREATE TRIGGER vecmigrate_store_counted AFTER UPDATE OF doc_count ON stores FOR EACH ROW
WHEN (new.doc_count IS DISTINCT FROM old.doc_count) EXECUTE FUNCTION vecmigrate_store_counted()""",
)


def create_triggers() -> None:
    for statement in SQLITE_TRIGGERS if dialect() == "sqlite" else POSTGRESQL_TRIGGERS:
        op.execute(sa.text(statement.replace(":", r"\:")))


def drop_triggers() -> None:
    for name in ("vecmigrate_store_added", "vecmigrate_store_counted"):
        if dialect() == "sqlite":
            op.execute(f"DROP TRIGGER IF EXISTS {name}")
        else:
            op.execute(f"DROP FUNCTION IF EXISTS {name}() CASCADE")
