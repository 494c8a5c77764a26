"""What SQLite needs of the file system: a lock between programs, and a local disk."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

from onward.errors import StoreError

try:
    import fcntl
except ImportError:  # no such locks outside POSIX: SQLite's own lock has to do there
    fcntl = None  # type: ignore[assignment]

# On these, locks and shared memory are not what SQLite needs them to be, and files are lost by it.
NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "fuse.sshfs",
    "fuse.glusterfs",
    "fuse.s3fs",
}
_PAUSE_FIRST_S, _PAUSE_LONGEST_S = 0.0002, 0.005
_GIVE_WAY_EVERY_S = 0.05


class LockHeld(StoreError):
    """Another program holds the lock; nothing was tried."""


class FileLock:
    """An exclusive lock between threads and programs: each holder opens the file for itself. Freed when its holder dies.

    With path None it locks nothing. Waits at most `timeout` seconds, then StoreError.
    """

    def __init__(self, path: str | None, timeout: float) -> None:
        self._timeout = timeout
        self._path = path
        self._file: int | None = None
        self._gave_way_at = 0.0
        if path is not None and fcntl is not None:
            try:
                self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise StoreError(
                    f"cannot open {path}: {error.strerror}", hint="it and its folder must be writable for this user"
                ) from None

    def __enter__(self) -> None:
        if self._file is None:
            return
        pause, until = _PAUSE_FIRST_S, time.monotonic() + self._timeout
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise LockHeld(
                        f"another program has held {self._path} for {self._timeout:g} s",
                        hint="is a worker stopped or swapped out? It goes on by itself once that one lets go",
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, _PAUSE_LONGEST_S)
            else:
                return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def give_way(self) -> None:
        """For who takes it again and again: now and then leaves it free for so long that all who wait have looked for it."""
        if self._file is not None and time.monotonic() > self._gave_way_at + _GIVE_WAY_EVERY_S:
            time.sleep(_PAUSE_LONGEST_S * 1.2)
            self._gave_way_at = time.monotonic()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def file_system_of(path: str, mounts: str) -> str:
    """The type of file system that holds `path`, by a table in the form of /proc/self/mounts; '' if it does not say."""
    where = os.path.realpath(path)
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        mount = fields[1].replace("\\040", " ")
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind


def refuse_network_file_system(path: str, mounts: str | None = None) -> None:
    """Raises StoreError if `path` lies on a network file system. Where the system does not tell, it is believed local."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
    kind = file_system_of(path, mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"{path} lies on a network file system ({kind}), on which SQLite loses data",
            hint="put the file on a local disk: --store sqlite:////var/lib/…/onward.db",
        )
