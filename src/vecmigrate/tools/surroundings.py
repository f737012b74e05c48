"""What is around a database: its place, file system, rights, room on the disk, and what dead processes left."""

import os
import re
import shutil
import stat
from collections.abc import Iterator

from vecmigrate import records, trust
from vecmigrate.manifests import manifest_of
from vecmigrate.places import misplaced
from vecmigrate.shell import moving, private
from vecmigrate.tools.finding import ERROR, NOTE, WARNING, Finding, Findings, Subject

__all__ = ["disk", "leftovers", "network_fs", "permissions", "place"]

MOUNTS = "/proc/mounts"
"""Where Linux lists what is mounted; other systems have no such file, and nothing is said of them."""

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ncpfs|ceph|glusterfs|lustre|beegfs|gpfs|ocfs2|gfs2|davfs|virtiofs|vboxsf|prl_fs"
    r"|fuse\.(sshfs|s3fs|gcsfuse|rclone|glusterfs|ceph\S*|vmhgfs\S*|davfs\S*|goofys|blobfuse\S*|juicefs)"
)
_ESCAPED = re.compile(r"\\([0-7]{3})")
_KEPT = 3
_MARGIN = 1 << 16


def place(subject: Subject) -> Findings:
    """Tell of a database, backups or a mirror in the folder of mcp-vector-search."""
    said: set[str] = set()
    for what, path, variable, folder in misplaced(subject.access.database, subject.access.settings):
        outside = os.path.dirname(folder)
        message = f"{what}, {path}, is inside {folder}, which mcp-vector-search removes with all in it when it indexes "
        # What lies beside the database moves with it, and its other names are no other database.
        if "" in said or variable in said:
            continue
        said.add(variable or "")
        if variable:
            step = f"set {variable} to a place outside it, for example {os.path.join(outside, os.path.basename(path))}"
            yield Finding("place", ERROR, f"{message}anew.", step)
        else:
            step = moving(_moved_with(subject, folder), outside)
            message += "anew. Stop the service, move it, and start the service on the new path."
            yield Finding("place", ERROR, message, step)


def _moved_with(subject: Subject, folder: str) -> list[str]:
    """Return what moves with a database: its sidecars, its mirror and its backups, where they are beside it."""
    path, settings = subject.path or "", subject.access.settings
    beside = [path, *(path + suffix for suffix in ("-wal", "-shm", "-journal"))]
    others = [settings.mirror(path), settings.backup_folder(path)]
    beside += [each for each in others if os.path.dirname(each) == os.path.dirname(path)]
    return [each for each in beside if os.path.lexists(each)] or [os.path.join(folder, os.path.basename(path))]


def network_fs(subject: Subject) -> Findings:
    """Tell of a file system on which locks may not hold.

    https://sqlite.org/howtocorrupt.html#_filesystems_with_broken_or_missing_lock_implementations
    """
    kind = _file_system(subject.path) if subject.path else None
    if kind and _NETWORK.fullmatch(kind):
        yield Finding(
            "network-fs",
            WARNING,
            f"{subject.path} is on a network file system ({kind}). There locks may not hold, so that two processes can "
            "damage the database, and WAL mode does not work between machines.",
            "stop what uses it and move it, with its -wal and -shm, to a local disk; for several machines: PostgreSQL",
        )


def _file_system(path: str) -> str | None:
    """Return the type of the file system that a path is on, None where the system does not say it. Read-only."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split(" ") for line in file]
    except OSError:
        return None
    found = None
    longest = -1
    for point, kind in ((_unescaped(words[1]), words[2]) for words in mounts if len(words) > 2):  # noqa: PLR2004
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # What was mounted last over the same point is what is seen.
        if inside and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def permissions(subject: Subject) -> Findings:
    """Tell of backups, manifests and a mirror that others may read, and of a folder where others may write."""
    if subject.path is None or os.name == "nt":
        return
    wide = [path for path in _private_files(subject) if _mode(path) & 0o077]
    if wide:
        what = wide[0] if len(wide) == 1 else f"{len(wide)} files, {wide[0]} among them,"
        message = f"{what} may be read by others, and holds contents of the database."
        yield Finding("permissions", WARNING, message, private(wide))
    if os.path.isdir(subject.folder) and (why := trust.doubt(subject.folder)):
        message = f"The backup folder {subject.folder} {why}, who may exchange the backups in it."
        mine = os.stat(subject.folder).st_uid == os.geteuid() and not os.path.islink(subject.folder)
        step = private([subject.folder]) if mine else f"make {subject.folder} your own: chown and chmod 700, by root"
        yield Finding("permissions", WARNING, message, step)
    if _mode(subject.path) & stat.S_IWOTH:
        message = f"{subject.path} may be written by everybody."
        yield Finding("permissions", WARNING, message, private([subject.path]).replace("go-rwx", "o-w", 1))


def _private_files(subject: Subject) -> Iterator[str]:
    for backup in subject.backups:
        yield from (backup.path, manifest_of(backup.path))
    yield subject.access.settings.mirror(subject.path or "")
    # A folder that somebody has named may be there for more than this.
    if subject.access.settings.backup_dir is None:
        yield subject.folder


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def leftovers(subject: Subject) -> Findings:
    """Tell of temporary files of killed processes."""
    left = records.leftovers(subject.access.database, subject.access.settings)
    if left:
        total = sum(os.path.getsize(path) for path in left if os.path.exists(path))
        names = ", ".join(left)
        message = (
            f"Killed processes have left temporary files ({total:,} bytes): {names}. The command makes a backup and "
            "removes them under the lock, because a run that still goes on has such files too."
        )
        yield Finding("leftovers", NOTE, message, subject.command("backup", "create"))


def disk(subject: Subject) -> Findings:
    """Tell where the next run has no room: for its backup, and for as much again beside the database."""
    if subject.path is None or not subject.bytes:
        return
    beside = os.path.dirname(subject.path)
    saved = _nearest(subject.folder)
    needed = {beside: subject.bytes + _MARGIN}
    if subject.access.settings.backup != "never":
        shared = os.stat(beside).st_dev == os.stat(saved).st_dev
        place = beside if shared else saved
        needed[place] = needed.get(place, 0) + subject.bytes
    for folder, wanted in needed.items():
        free = shutil.disk_usage(folder).free
        if free < wanted:
            message = f"The next run may need {wanted:,} bytes on the disk of {folder}, which has {free:,}."
            can_prune = len(subject.backups) > _KEPT and os.stat(saved).st_dev == os.stat(folder).st_dev
            step = f"free {wanted - free:,} bytes there"
            if can_prune:
                step = subject.command("backup", "prune", "--keep", str(_KEPT))
            yield Finding("disk", WARNING, message, step)


def _nearest(folder: str) -> str:
    """Return a folder, or the one above it that is there."""
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder
