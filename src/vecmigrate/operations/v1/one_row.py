"""One row through Python: what it becomes, what it gets back of its original, and what of it would be lost."""

from collections.abc import Mapping
from typing import Any

from vecmigrate.causes import told
from vecmigrate.operations.v1.change import ChangeError, Function, Way
from vecmigrate.operations.v1.codec import RawText, Row, same
from vecmigrate.operations.v1.present import UNKNOWN, PresentTable
from vecmigrate.operations.v1.readers import UnfitError

__all__ = ["OneRow"]

_TYPES_OF_SQLITE = {type(None), bool, int, float, str, bytes, RawText}


class OneRow:
    """Turns rows of the source into rows of the target. ``gone_defaults`` are what gone columns get on the way back."""

    def __init__(
        self,
        way: Way,
        source: PresentTable,
        target: PresentTable,
        *,
        gone_defaults: Mapping[str, Any],
        come_defaults: Mapping[str, Any],
        only_simple_types: bool,
    ) -> None:
        self._way = way
        self.gone_defaults = gone_defaults
        self._come_defaults = {name: value for name, value in come_defaults.items() if value is not UNKNOWN}
        self._only_simple_types = only_simple_types
        gone = {column.name for column in way.gone}
        self._same = [(name, way.names.get(name, name)) for name in source.names if name not in gone]
        self._sources = {new: old for old, new in way.names.items()}
        self._needed = [name for name in way.target_touched if target.column(name).is_needed]

    def converted(self, row: Row, original: Row | None, then: Row | None, where: str) -> Row:
        """Return what a row becomes; columns that are not in it get their default.

        *original* is what was kept of it on the way here, and *then* what it became by that: an original returns
        where the present value is still the one of then. Raises UnfitError where a value is missing.
        """
        found = self._turned(row, where)
        if original is not None and then is not None:
            self._restore(found, row, original, then, where)
        for name in self._needed:
            if name in found and found[name] is None:
                raise UnfitError(f"{name}: no value, and one is needed")
        return found

    def _turned(self, row: Row, where: str) -> Row:
        forward = self._way.forward
        found = {new: row[old] for old, new in self._same if new not in forward}
        for name, function in forward.items():
            found[name] = self._called(function, name, row, where)
        return found

    def _restore(self, found: Row, row: Row, original: Row, then: Row, where: str) -> None:
        forward, names = self._way.forward, set(self._way.target_touched)
        before = self._turned(row | then, where) if forward else {}
        for name in names & original.keys():
            if name in forward:
                is_unedited = same(found[name], before[name])
            elif name in self._sources:
                old = self._sources[name]
                is_unedited = same(row[old], then.get(old, UNKNOWN))
            else:
                is_unedited = True
            if is_unedited:
                found[name] = original[name]

    def back(self, landed: Row, where: str) -> Row:
        """Return what the touched columns of a row would be after the way back, without what is kept of it."""
        way, full = self._way, self._come_defaults | landed
        found = {name: self._called(function, name, full, where) for name, function in way.backward.items()}
        for old, new in way.names.items():
            found.setdefault(old, landed[new])
        for name, default in self.gone_defaults.items():
            if default is not UNKNOWN:
                found.setdefault(name, default)
        return found

    def lost(self, row: Row, back: Row) -> list[str]:
        """Return the columns in which the way back would not give the value and storage class that was there."""
        return [name for name in self._way.touched if not same(row[name], back.get(name, UNKNOWN))]

    def _called(self, function: Function, name: str, row: Row, where: str) -> Any:
        try:
            value = function(dict(row))
        except UnfitError:
            raise
        except Exception as error:  # noqa: BLE001 - the cause is told, but not its text, which may hold a value
            raise ChangeError(
                f"Revision {self._way.revision}: the function for {name} raised {type(error).__name__} for {where}"
            ) from told(error)
        if self._only_simple_types and type(value) not in _TYPES_OF_SQLITE:
            raise ChangeError(
                f"Revision {self._way.revision}: the function for {name} returned a {type(value).__name__}, which "
                f"SQLite does not store, for {where}"
            )
        return value
