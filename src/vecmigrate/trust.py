"""Folders in which somebody else may exchange files, and private places for what has to stay as it was checked."""

import logging
import os
import stat

__all__ = ["doubt", "private_place", "warn"]

log = logging.getLogger("vecmigrate")


def doubt(folder: str) -> str | None:
    """Return why somebody else may exchange files in a folder, None where nobody but root may. Read-only."""
    if os.name == "nt":
        return None
    mine = {0, os.geteuid()}
    link, status = os.lstat(folder), os.stat(folder)
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in mine:
        return f"is a link that the user {link.st_uid} owns"
    if status.st_uid not in mine:
        return f"belongs to the user {status.st_uid}"
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        return "may be written by everybody"
    if status.st_mode & stat.S_IWGRP and status.st_gid != os.getegid() and not status.st_mode & stat.S_ISVTX:
        return f"may be written by the group {status.st_gid}"
    return None


def warn(folder: str) -> None:
    """Log where somebody else may exchange the backups in a folder."""
    try:
        if why := doubt(folder):
            log.warning(
                "The backup folder %s %s, who may exchange what is in it. Make it your own: chown and chmod 700.",
                folder,
                why,
            )
    except OSError:
        # Whoever needs the folder says so.
        return


def private_place(folder: str, otherwise: str) -> str:
    """Return *folder*, or *otherwise* where somebody else may exchange files in it. Raises OSError."""
    return otherwise if doubt(folder) else folder
