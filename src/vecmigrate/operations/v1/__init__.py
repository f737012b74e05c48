"""Semantics 1 of the operations. Released revisions rest on it: it is frozen, and held by golden files."""

__all__: list[str] = []
