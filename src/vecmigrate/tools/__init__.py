"""What looks at a project or a database as a whole, and at what other tools left beside it."""

__all__ = []
