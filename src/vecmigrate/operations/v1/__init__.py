"""Semantics 1 of the operations. Released revisions rest on it: it is frozen, and held by golden files."""

from vecmigrate.operations.v1 import cells, codec, kept_rows, ledger, plain, readers

__all__ = ["cells", "codec", "kept_rows", "ledger", "plain", "readers"]
