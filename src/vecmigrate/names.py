"""Names of files, which have at most 255 bytes on most systems."""

import hashlib
import os

__all__ = ["LONGEST", "fitting"]

LONGEST = 255


def fitting(name: str, room: int) -> str:
    """Return a name, or of one with more bytes than there is room for the beginning, and a hash of all of it."""
    whole = os.fsencode(name)
    if len(whole) <= room:
        return name
    digest = hashlib.sha256(whole).hexdigest()[:16]
    return whole[: room - len(digest) - 1].decode(errors="ignore") + f"~{digest}"
