"""Semantics 1 of the operations. Released revisions rest on it: it is frozen, and held by golden files."""

from vecmigrate.operations.v1 import (
    cells,
    codec,
    conversion,
    found,
    kept_rows,
    ledger,
    notes,
    plain,
    readers,
    reversal,
    shapes,
)

__all__ = [
    "cells",
    "codec",
    "conversion",
    "found",
    "kept_rows",
    "ledger",
    "notes",
    "plain",
    "readers",
    "reversal",
    "shapes",
]
