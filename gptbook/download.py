# Exported from chapters/02_training_data.md. Edit the cells there and run `make export`, or edit
# this file and run `python -m book.tools.export --back`.
"""Download a file of known content, so that a broken download is never taken for a whole one.

The file is written beside its place under another name and moved there when its SHA-256 is right.
What was received is kept when the connection breaks, and the next attempt asks for the rest.
"""

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn
from urllib.parse import urlsplit

from tqdm import tqdm

BLOCK = 1 << 20
"""Bytes that are read, hashed and written at a time."""

MOMENTARY = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses after which the same request may well succeed."""

CONNECTION_ERRORS = (
    urllib.error.URLError,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    http.client.HTTPException,
)
"""What goes wrong with a connection; other OSErrors come from the disk."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)

STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')


class BadAddress(OSError):
    """An address, given or redirected to, that is none."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web: where it is, how many bytes it has, and their SHA-256 in hexadecimal."""

    url: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}, but must be at least 1")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 is {self.sha256!r}, but must be 64 digits from 0 to f")


@dataclass(frozen=True)
class Patience:
    """How long a download waits, and how often it begins again.

    Attributes:
        attempts: failures in a row, with no byte received between them, that end the download.
        stall_seconds: without a byte for so long, a connection counts as broken.
        backoff_seconds: the pause after the first failure; it doubles with each further one. So
            long is also the pause after an answer that brought less than a block.
    """

    attempts: int = 4
    stall_seconds: float = 30.0
    backoff_seconds: float = 1.0


# --- one process at a time ---


def try_lock(file: IO[bytes]) -> bool:
    """Lock an open file against other processes; return whether it was free."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


@contextlib.contextmanager
def locked(path: Path, wait_seconds: float = 0.2) -> Iterator[None]:
    """Hold the lock file at path, waiting for the process that holds it.

    The system frees the lock when its holder ends, however it ends. The empty file stays: to delete
    it could give two processes a lock each.
    """
    with open(path, "ab") as file:
        if not try_lock(file):
            print(f"waiting for another process that works on {path}", file=sys.stderr)
            while not try_lock(file):
                time.sleep(wait_seconds)
        yield


# --- the request ---


class WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follow a redirect from the web to the web, and nowhere else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request to make next."""
        if urlsplit(newurl).scheme not in ("http", "https"):
            reason = f"it redirects to {newurl}, which is not on the web"
            raise urllib.error.HTTPError(req.full_url, code, reason, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def web_opener() -> urllib.request.OpenerDirector:
    """Return an opener that knows http, https and proxies, but no file:, ftp: or data: address."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        WebRedirects(),
    ):
        opener.add_handler(handler)
    return opener


def request_rest(file: RemoteFile, have: int, etag: str) -> urllib.request.Request:
    """Return the request for all bytes from the first that is missing.

    With If-Range a server whose file has changed since sends the new one whole, not a part of it.
    """
    headers = {"User-Agent": "gptbook", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if etag:
            headers["If-Range"] = etag
    return urllib.request.Request(file.url, headers=headers)


def accepted_offset(file: RemoteFile, response: http.client.HTTPResponse, have: int) -> int:
    """Return where in the file the response's first byte belongs: have, or 0 for a whole file.

    A server may send less than was asked for, as long as it begins at the right byte.

    Raises:
        ValueError: the response is part of a file of another size, or compressed.
        ConnectionError: the response is another part than the one asked for.
    """
    stated = response.headers.get("Content-Range", "")
    length = response.headers.get("Content-Length", str(file.size))
    encoding = response.headers.get("Content-Encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        raise ValueError(
            f"{file.url} came with Content-Encoding {encoding}, though gptbook asked for the file "
            "as it is: the server or a proxy compresses it; try another network"
        )
    if response.status == 206:
        part = re.fullmatch(rf"bytes {have}-([0-9]{{1,20}})/{file.size}", stated)
        if part and have <= int(part[1]) < file.size:
            return have
        length = stated.rpartition("/")[2]
        if length == str(file.size):
            raise ConnectionError(f"it sent {stated!r} when asked for the bytes from {have} on")
    if length != str(file.size):
        raise ValueError(
            f"{file.url} has {length} bytes now, and gptbook knows one of {file.size}: the file "
            "was replaced, or a proxy answered in its place; look at that address in a browser"
        )
    return 0


# --- the file ---


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(path: Path, file: RemoteFile) -> bool:
    """Return whether path holds exactly that file; reads it, at about 1 GB a second."""
    return path.is_file() and path.stat().st_size == file.size and sha256_of(path) == file.sha256


def disk_full(folder: Path, needed: int) -> OSError:
    """Return the error for a folder without room for so many bytes more."""
    free = shutil.disk_usage(folder).free
    return OSError(
        errno.ENOSPC,
        f"the disk is full: {needed:,} bytes are needed and {free:,} free; make room, or set "
        "GPTBOOK_CACHE to a folder on another disk",
        str(folder),
    )


def not_writable(folder: Path, error: OSError) -> OSError:
    """Return the error for a folder that cannot be made or written to."""
    return OSError(
        error.errno,
        f"the folder cannot be made or written to ({error.strerror}); set GPTBOOK_CACHE to one "
        "that can",
        str(folder),
    )


@dataclass
class PartialFile:
    """What was received so far, beside its final place, with the ETag of where it came from."""

    path: Path

    @property
    def etag_path(self) -> Path:
        """Where the ETag is kept."""
        return self.path.with_name(self.path.name + ".etag")

    def received(self, size: int) -> int:
        """Return how many bytes there are; more than the file can have are dropped."""
        have = self.path.stat().st_size if self.path.exists() else 0
        if have > size:
            self.discard()
            return 0
        return have

    def etag(self) -> str:
        """Return the ETag of what was received, or an empty string, also if it is damaged."""
        etag = self.etag_path.read_text("ascii", "replace") if self.etag_path.exists() else ""
        return etag if STRONG_ETAG.fullmatch(etag) else ""

    def discard(self) -> None:
        """Forget what was received."""
        self.path.unlink(missing_ok=True)
        self.etag_path.unlink(missing_ok=True)

    def keep_etag(self, response: http.client.HTTPResponse) -> None:
        """Remember a strong ETag; a weak one ("W/...") does not promise the same bytes."""
        etag = response.headers.get("ETag", "")
        if STRONG_ETAG.fullmatch(etag):
            self.etag_path.write_text(etag, "ascii")
        else:
            self.etag_path.unlink(missing_ok=True)

    def append(
        self, response: http.client.HTTPResponse, start: int, size: int, bar: "tqdm[NoReturn]"
    ) -> None:
        """Write what the response sends from byte start on, at most to byte size."""
        bar.n = start
        with open(self.path, "r+b" if start else "wb") as file:
            file.seek(start)
            while start < size and (block := response.read1(BLOCK)):
                start += file.write(block[: size - start])
                bar.update(start - bar.n)
            file.flush()
            os.fsync(file.fileno())

    def publish(self, destination: Path) -> None:
        """Move the file, now whole, to its place."""
        os.replace(self.path, destination)
        self.discard()


# --- the download ---


def receive_once(
    file: RemoteFile, part: PartialFile, patience: Patience, bar: "tqdm[NoReturn]"
) -> None:
    """Make one request and append what it brings; return early if the connection breaks off."""
    have = part.received(file.size)
    try:
        request = request_rest(file, have, part.etag())
        opened = web_opener().open(request, timeout=patience.stall_seconds)
    except ValueError as error:
        raise BadAddress(f"it is no web address, or redirects to what is none: {error}") from error
    with opened as response:
        start = accepted_offset(file, response, have)
        part.keep_etag(response)
        part.append(response, start, file.size, bar)


def receive(file: RemoteFile, part: PartialFile, patience: Patience, bar: "tqdm[NoReturn]") -> None:
    """Request until every byte is there; a failure counts if it brought nothing new."""
    failures = 0
    most = part.received(file.size)  # a server that ignores Range may bring less than before
    while part.received(file.size) < file.size:
        reason: Exception = ConnectionError("the connection was cut off")
        try:
            receive_once(file, part, patience, bar)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the part cannot be continued: begin again
                part.discard()
            elif error.code not in MOMENTARY:
                raise
            reason = error
        except CONNECTION_ERRORS as error:
            reason = error
        if (have := part.received(file.size)) > most:
            is_little = have - most < BLOCK and have < file.size
            failures, most = 0, have
            if is_little:  # a server that always hangs up so soon is not asked without pause
                time.sleep(patience.backoff_seconds)
            continue
        failures += 1
        if failures >= patience.attempts:
            raise reason
        time.sleep(patience.backoff_seconds * 2 ** (failures - 1))


def by_hand(file: RemoteFile, destination: Path) -> str:
    """Return the remedy that is always left."""
    return (
        f"connect to the network and try again, or put that file at {destination} by hand "
        f"({file.size:,} bytes, SHA-256 {file.sha256})"
    )


def explained(error: Exception, file: RemoteFile, destination: Path) -> Exception:
    """Return the error to show: what was wanted, what happened, and what to do."""
    remedy = by_hand(file, destination)
    if isinstance(error, urllib.error.HTTPError):
        kind = FileNotFoundError if error.code in (404, 410) else ConnectionError
        return kind(f"{file.url} cannot be had: HTTP status {error.code} {error.reason}; {remedy}")
    if isinstance(error, (*CONNECTION_ERRORS, BadAddress)):
        cause = getattr(error, "reason", error) or type(error).__name__
        return ConnectionError(f"{file.url} could not be downloaded ({cause}): {remedy}")
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return disk_full(destination.parent, file.size)
    if isinstance(error, OSError) and error.errno in NOT_ALLOWED:
        return not_writable(destination.parent, error)
    return error


def download(
    file: RemoteFile,
    destination: Path,
    *,
    patience: Patience | None = None,
    progress: bool = True,
) -> Path:
    """Return destination, holding that file: from earlier, or downloaded now.

    A file that is there already is read and its checksum compared. Otherwise one process at a time
    downloads to `destination` + ".part" and moves it when size and SHA-256 are right, so that what
    stands at destination is whole. A part that was cut off is continued (HTTP Range), also by a
    later run; if the whole then has a wrong checksum, it is downloaded once more from the start.

    Raises:
        ConnectionError: no connection, or it failed patience.attempts times in a row (what was
            received is kept), or the server refuses or redirects elsewhere than to http(s).
        FileNotFoundError: the server does not have the file.
        ValueError: the server's file has another size or checksum, or comes compressed.
        IsADirectoryError: destination is a folder.
        OSError: the disk is full (ENOSPC) or cannot be written to.
    """
    if is_whole(destination, file):
        return destination
    if destination.is_dir():
        raise IsADirectoryError(f"{destination} is a folder: give the path of a file")
    lock = destination.with_name(destination.name + ".lock")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        lock.open("ab").close()
    except OSError as error:
        raise not_writable(destination.parent, error) from error
    with locked(lock):
        if is_whole(destination, file):  # another process had the lock and downloaded it
            return destination
        if destination.exists():
            warnings.warn(f"{destination} is damaged; downloading it again", stacklevel=2)
        part = PartialFile(destination.with_name(destination.name + ".part"))
        missing = file.size - part.received(file.size)
        if shutil.disk_usage(destination.parent).free < missing:
            raise disk_full(destination.parent, missing)
        try:
            fetch_checked(file, part, patience or Patience(), destination.name, progress)
        except (OSError, http.client.HTTPException) as error:
            raise explained(error, file, destination) from error
        part.publish(destination)
    return destination


def fetch_checked(
    file: RemoteFile, part: PartialFile, patience: Patience, name: str, progress: bool
) -> None:
    """Fill part; raise ValueError if its content is wrong twice."""
    for is_last in (False, True):
        bar: tqdm[NoReturn] = tqdm(
            total=file.size, desc=name, unit="B", unit_scale=True, disable=not progress
        )
        with bar:
            receive(file, part, patience, bar)
        found = sha256_of(part.path)
        if found == file.sha256:
            return
        part.discard()  # also when it is the last time: a later run must not continue it
        if is_last:
            raise ValueError(
                f"{file.url} sent {file.size} bytes with SHA-256 {found}, wanted {file.sha256}: "
                "they were damaged on the way or replaced; try again later"
            )
