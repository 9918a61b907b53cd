"""Files that are there whole or not at all, and a disk's refusals in words."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import UserError


def write(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename.

    Not `lasting`: without the fsync, for files whose readers check them. A killed process loses
    nothing by that; a machine without power may lose the file, or leave part of it.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}-{uuid.uuid4().hex[:8]}"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_part(path: Path, data: bytes, about: Mapping[str, str] | None = None) -> None:
    """Write a file of work in progress: its data, what it was made with, and the SHA-256 of both at its end."""
    told = json.dumps(dict(about or {})).encode()
    body = data + told + len(told).to_bytes(4, "big")
    write(path, body + hashlib.sha256(body).digest(), lasting=False)


def read_part(path: Path) -> tuple[bytes, dict[str, str]] | None:
    """What `write_part` wrote; None if it is not there or not whole."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    body, digest = whole[:-32], whole[-32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    end = len(body) - 4 - int.from_bytes(body[-4:], "big")
    return body[:end], json.loads(body[end:-4])


def claim(path: Path) -> int | None:
    """Hold a lock file until the handle is closed or this process dies; None if another process holds it.

    On a disk that knows no locks everybody may go on: records are whole whoever writes them.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        pass
    return handle


def sync(path: Path) -> None:
    """Ask the disk to have this file or folder for good."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a disk may refuse into a user's error that names the place."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: ("the disk is full", "free some room and run the same command again"),
            errno.EDQUOT: ("the disk quota is used up", "free some room and run the same command again"),
            errno.EROFS: ("the disk is read-only", "run in a folder you may write to"),
            errno.EACCES: ("no permission to write here", "run in a folder you may write to"),
            errno.EPERM: ("no permission to write here", "run in a folder you may write to"),
            errno.ENOTDIR: ("a file stands where a folder belongs", "move it away"),
            errno.EEXIST: ("a file stands where a folder belongs", "move it away"),
            errno.EISDIR: ("a folder stands where a file belongs", "move it away"),
            errno.EFBIG: ("larger than a file may be here", "raise the limit (ulimit -f) and run the command again"),
            errno.ENAMETOOLONG: ("the name is too long for this disk", "choose a shorter folder"),
            errno.EIO: ("the disk fails", "check it, then run the same command again"),
        }
        if error.errno not in reasons:
            raise
        what, fix = reasons[error.errno]
        raise UserError(str(error.filename or path), what, fix) from None


def now() -> str:
    """This moment, UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
