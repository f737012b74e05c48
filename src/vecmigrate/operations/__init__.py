"""Operations for revision scripts that lose no row, in either direction."""

__all__: list[str] = []
