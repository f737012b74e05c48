"""Which kept row of the way back belongs to which row that is there now."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

from vecmigrate.operations.v1.cells import driver_sql, insert
from vecmigrate.operations.v1.codec import Row, encoded, key_text
from vecmigrate.operations.v1.kept_rows import ABSENT, READ, RESTORE, KeptRow, KeptRows

__all__ = ["Pairs"]


class Pairs:
    """What the last way back kept of rows that are in a table now, each to be paired with one of them.

    A kept row belongs to the row that is as it was then, and else to one with its key. Makes temporary tables.
    """

    def __init__(self, kept: KeptRows, direction: str, source: str) -> None:
        self._connection = kept.connection
        self._run("CREATE TEMPORARY TABLE vecmigrate_kept (id INTEGER PRIMARY KEY, key TEXT, exact TEXT, note INTEGER)")
        self._run("CREATE TEMPORARY TABLE vecmigrate_pairs (text TEXT, number INTEGER, id INTEGER)")
        for page in kept.pages(direction, source, landed=1):
            found = [each for each in page if each.treatment != ABSENT]
            rows = [
                (each.id, each.target_key, exact_text(each.converted), int(each.treatment != RESTORE)) for each in found
            ]
            insert(self._connection, "vecmigrate_kept", ("id", "key", "exact", "note"), rows)
        self._run("CREATE INDEX vecmigrate_kept_key ON vecmigrate_kept (key)")
        self._run("CREATE INDEX vecmigrate_pairs_id ON vecmigrate_pairs (id)")
        self._run("CREATE INDEX vecmigrate_pairs_text ON vecmigrate_pairs (text, number)")
        self._number("exact")

    def is_empty(self) -> bool:
        found = self._connection.exec_driver_sql("SELECT EXISTS (SELECT 1 FROM vecmigrate_kept)").scalar()
        return not found

    @property
    def keys(self) -> str:
        """Return a query of the keys of all that is kept, as rows have them where they are text."""
        return "SELECT k.key FROM vecmigrate_kept k"

    def drop(self) -> None:
        self._run("DROP TABLE vecmigrate_kept")
        self._run("DROP TABLE vecmigrate_pairs")

    def of_same(self, rows: Sequence[Row]) -> list[KeptRow | None]:
        """Return for each row the kept row of one that was just so, and give it to no other."""
        return self._take([exact_text(row) for row in rows])

    def begin_edited(self) -> None:
        """Go on with rows that were edited since. What went back as it was says nothing of an edited row."""
        self._run("DELETE FROM vecmigrate_kept WHERE note = 1 OR id NOT IN (SELECT id FROM vecmigrate_pairs)")
        self._run("DELETE FROM vecmigrate_pairs")
        self._number("key")

    def of_key(self, keys: Sequence[object]) -> list[KeptRow | None]:
        """Return for each key the kept row of one with this key, and give it to no other."""
        return self._take([key_text(key) for key in keys])

    def _number(self, by: str) -> None:
        """Number those of one text, so that a page of rows finds its own among very many of them."""
        number = f"row_number() OVER (PARTITION BY k.{by} ORDER BY k.id)"
        self._run(
            f"INSERT INTO vecmigrate_pairs (text, number, id) SELECT k.{by}, {number}, k.id FROM vecmigrate_kept k"
        )
        twins = "SELECT DISTINCT p.text FROM vecmigrate_pairs p WHERE p.number = 2"
        self._twins = {text for (text,) in self._connection.exec_driver_sql(twins)}
        self._seen: Counter[str] = Counter()

    def _take(self, texts: Sequence[str]) -> list[KeptRow | None]:
        wanted = [(text, self._next(text)) for text in texts]
        found: dict[tuple[str, int], KeptRow] = {}
        marks = ", ".join("(?, ?)" for _ in wanted)
        query = (
            f"SELECT k.text, k.number, {READ} FROM vecmigrate_pairs k JOIN vecmigrate_preserved p ON p.id = k.id "
            f"WHERE (k.text, k.number) IN (VALUES {marks})"
        )
        values = tuple(value for pair in wanted for value in pair)
        for text, number, *kept in self._connection.exec_driver_sql(driver_sql(self._connection, query), values):
            found[(text, number)] = KeptRow(*kept)
        # Two rows of one text that has but one kept row: the first has it.
        pairs = [found.pop(each, None) for each in wanted]
        taken = [(each.id,) for each in pairs if each]
        if taken:
            self._connection.exec_driver_sql(
                driver_sql(self._connection, "DELETE FROM vecmigrate_pairs WHERE id = ?"), taken
            )
        return pairs

    def _next(self, text: str) -> int:
        if text not in self._twins:
            return 1
        self._seen[text] += 1
        return self._seen[text]

    def _run(self, statement: str) -> None:
        self._connection.exec_driver_sql(statement)


def exact_text(row: Row) -> str:
    """Return a short text that is the same for rows that are the same by value and storage class."""
    content = json.dumps({column: encoded(value) for column, value in row.items()}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
