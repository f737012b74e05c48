"""Command lines in messages, which people paste into a shell."""

import shlex
import subprocess
import sys

__all__ = ["quoted"]


def quoted(word: str) -> str:
    """Return a word of a command line, quoted for a shell of this system where it has to be."""
    return subprocess.list2cmdline([word]) if sys.platform == "win32" else shlex.quote(word)
