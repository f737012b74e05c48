"""The ledger of a step: every row that went in must be found again, in the tables or set aside."""

from collections.abc import Mapping

import sqlalchemy as sa

from vecmigrate.catalog import quoted
from vecmigrate.operations.v1.kept_rows import KeptRows

__all__ = ["Ledger", "require_equal"]


class Ledger:
    """Counts of the rows of some tables on one way, begun before they move.

    ``source`` is the number of rows there are. What the same direction set aside before stays where it is meanwhile.
    """

    def __init__(self, kept: KeptRows, direction: str, *, source: int, tables: tuple[str, ...]) -> None:
        self._kept = kept
        self._direction = direction
        self._opposite = "downgrade" if direction == "upgrade" else "upgrade"
        self._source = source
        self._tables = tables
        self._before = self._aside(direction)
        self._waiting = self._aside(self._opposite)

    def _aside(self, direction: str) -> int:
        return sum(self._kept.count(direction, table, landed=0) for table in self._tables)

    def check(self, landed: int) -> None:
        """Raise RuntimeError, which ends the run, if a row was lost or doubled."""
        aside = self._aside(self._direction) - self._before
        returned = self._waiting - self._aside(self._opposite)
        if landed + aside != self._source + returned:
            raise RuntimeError(
                f"Revision {self._kept.revision} would have lost or doubled rows of {', '.join(self._tables)}: of "
                f"{self._source} rows and {returned} kept ones that came back, {landed} landed and {aside} were set "
                "aside."
            )


def require_equal(
    connection: sa.Connection, kinds: Mapping[str, str], *sides: tuple[str, Mapping[str, str]], revision: str
) -> None:
    """Raise RuntimeError if the rows that moved set by set differ between the two sides.

    A side is what stands behind FROM, and the names that columns have there if they differ.
    """
    sums = [
        f"sum(length({{{column}}}))" if kind.startswith(("text", "json")) else f"sum({{{column}}} % 1000003)"
        for column, kind in kinds.items()
    ]
    template = ", ".join(["count(*)", *sums])
    names = {each: each for each in kinds}
    before, after = (
        connection.execute(
            sa.text(f"SELECT {template.format(**{k: quoted(v) for k, v in (names | dict(other)).items()})} FROM {rows}")
        ).one()
        for rows, other in sides
    )
    if before != after:
        raise RuntimeError(
            f"Revision {revision} would have changed rows that need no conversion: {before[0]} left, "
            f"{after[0]} arrived."
        )
