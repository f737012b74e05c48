"""Operations for revision scripts that lose no row, in either direction."""

from vecmigrate.operations import v1

__all__ = ["v1"]
