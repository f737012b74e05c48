"""Passwords in URLs that somebody gave in the wrong place."""

import re

__all__ = ["redacted"]

_SECRETS = re.compile(r"(://[^\s/:@]*:)\S*(?=@)|(password=)[^&\s'\"]+")


def redacted(text: str) -> str:
    """Return a text without what may be a password in a URL, which somebody gave in the wrong place."""
    return _SECRETS.sub(r"\1\2***", text)
