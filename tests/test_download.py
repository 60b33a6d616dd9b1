"""Downloads from a server that cuts off, corrupts, redirects, stalls and refuses."""

import errno
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gptbook.download import Patience, RemoteFile, download, locked, try_lock
from tests.web_server import (
    Answer,
    Handler,
    Server,
    corrupt,
    cut_off_after,
    ignore_range,
    page,
    redirect,
    running,
    serve,
    silent,
    stall,
    status,
    without_length,
    wrong_part,
)

ROOT = Path(__file__).resolve().parents[1]
# A connection that is slow because the machine is busy must not count as broken.
QUICK = Patience(attempts=3, stall_seconds=120, backoff_seconds=0.001)


@pytest.fixture
def content(rng: random.Random) -> bytes:
    return rng.randbytes(100_000)


@pytest.fixture
def server(content: bytes) -> Iterator[Server]:
    with running(content) as server:
        yield server


@pytest.fixture
def file(server: Server, content: bytes) -> RemoteFile:
    return RemoteFile(server.url(), len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.txt"


def fetch(file: RemoteFile, target: Path, patience: Patience = QUICK) -> bytes:
    path = download(file, target, patience=patience, progress=False)
    assert path == target
    assert {p.name for p in target.parent.iterdir()} <= {"file.txt", "file.txt.lock"}
    return target.read_bytes()


def test_whole_file_and_no_second_request(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    assert fetch(file, target) == content
    assert fetch(file, target) == content
    assert server.ranges == [None]


def test_file_put_there_by_hand_needs_no_network_nor_a_writable_folder(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "file.txt").write_bytes(content)
    file = RemoteFile("http://127.0.0.1:1/x", len(content), hashlib.sha256(content).hexdigest())
    download(file, tmp_path / "file.txt", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_cut_off_is_continued_where_it_stopped(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [cut_off_after(30_000), cut_off_after(1), cut_off_after(40_000)]
    assert fetch(file, target) == content
    assert server.ranges == [None, "bytes=30000-", "bytes=30001-", "bytes=70001-"]


def test_many_cuts_do_not_use_up_the_attempts(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [cut_off_after(5_000)] * 15
    assert fetch(file, target) == content


def test_attempts_are_counted_in_a_row(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [status(503), status(503), cut_off_after(9)] * 3
    assert fetch(file, target) == content


def test_server_that_ignores_ranges_and_cuts_off_ends_the_download(
    server: Server, file: RemoteFile, target: Path
) -> None:
    """Every other answer brings more than the one before, but never anything new."""
    cuts = iter([60_000, 10_000] * 50)
    server.usual = lambda handler: ignore_range(handler, next(cuts))
    with pytest.raises(ConnectionError, match="cut off"):
        fetch(file, target)
    assert len(server.ranges) == 1 + QUICK.attempts


def test_later_run_continues(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [cut_off_after(60_000)] + [status(503)] * 3
    with pytest.raises(ConnectionError, match="503"):
        fetch(file, target)
    assert not target.exists()
    assert target.with_name("file.txt.part").stat().st_size == 60_000
    assert fetch(file, target) == content
    assert server.ranges[-1] == "bytes=60000-"


def test_changed_file_is_not_continued(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    """The part is of another file of the same size: If-Range makes the server send the new one."""
    server.content = content[::-1]
    server.script = [cut_off_after(60_000)] + [status(503)] * 3
    with pytest.raises(ConnectionError):
        fetch(file, target)
    server.content = content
    server.ranges.clear()
    assert fetch(file, target) == content
    assert server.ranges == ["bytes=60000-"]


def test_part_of_unknown_origin_is_checked_at_the_end(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    target.parent.mkdir()
    target.with_name("file.txt.part").write_bytes(b"?" * 50_000)  # and no ETag
    assert fetch(file, target) == content
    assert server.ranges == ["bytes=50000-", None]


@pytest.mark.parametrize("have", [100_000, 100_001])
def test_part_that_is_as_long_or_longer(
    server: Server, file: RemoteFile, target: Path, content: bytes, have: int
) -> None:
    target.parent.mkdir()
    target.with_name("file.txt.part").write_bytes((content + b"?")[:have])
    assert fetch(file, target) == content
    assert server.ranges == ([] if have == len(content) else [None])


def test_server_that_ignores_ranges(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [cut_off_after(30_000)]
    server.usual = ignore_range
    assert fetch(file, target) == content
    assert server.ranges == [None, "bytes=30000-"]


def test_server_that_sends_another_part(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [cut_off_after(30_000), wrong_part]
    assert fetch(file, target) == content


def test_server_that_says_416(server: Server, file: RemoteFile, target: Path) -> None:
    server.script = [cut_off_after(30_000), status(416)]
    fetch(file, target)
    assert server.ranges == [None, "bytes=30000-", None]


def test_server_that_states_no_length(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.usual = without_length
    assert fetch(file, target) == content
    server.content = content + b"more than wanted"
    target.unlink()
    assert fetch(file, target) == content  # the rest is not read; the checksum is right


def test_corruption_is_noticed_and_mended(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [corrupt]
    assert fetch(file, target) == content
    assert server.ranges == [None, None]


def test_corruption_that_stays_is_an_error(server: Server, file: RemoteFile, target: Path) -> None:
    server.usual = corrupt
    with pytest.raises(ValueError, match=f"wanted {file.sha256}"):
        fetch(file, target)
    assert [path.name for path in target.parent.iterdir()] == ["file.txt.lock"]


def test_corruption_in_a_continued_part(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [cut_off_after(50_000), corrupt]
    assert fetch(file, target) == content
    assert server.ranges == [None, "bytes=50000-", None]


def test_stall_ends_and_is_continued(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    """Long enough a stall that a busy server, which answers in milliseconds, makes none."""
    server.script = [stall]
    started = time.monotonic()
    assert fetch(file, target, replace(QUICK, stall_seconds=4)) == content
    assert time.monotonic() - started < 60  # the server would stall for hours
    assert server.ranges == [None, "bytes=3-"]


def test_stall_before_the_first_byte(server: Server, file: RemoteFile, target: Path) -> None:
    server.usual = silent
    with pytest.raises(ConnectionError, match="timed out"):
        fetch(file, target, replace(QUICK, stall_seconds=0.2))
    # On a busy machine a request may be read only after nobody waits for its answer.
    wait_until(lambda: len(server.ranges) >= QUICK.attempts)
    assert len(server.ranges) == QUICK.attempts


def test_redirect_keeps_the_range(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    there = redirect(server.url("elsewhere"))
    server.script = [there, cut_off_after(10), there, serve]
    assert fetch(file, target) == content
    assert server.ranges == [None, None, "bytes=10-", "bytes=10-"]


@pytest.mark.parametrize("scheme", ["file", "ftp", "data"])
def test_redirect_leaves_the_web(
    server: Server, file: RemoteFile, target: Path, tmp_path: Path, content: bytes, scheme: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content)  # even the right bytes are not read
    server.usual = redirect(f"{scheme}://127.0.0.1{secret}")
    with pytest.raises(ConnectionError, match="redirect"):
        fetch(file, target)
    assert len(server.ranges) == 1
    assert not target.exists()


def test_redirect_in_a_circle(server: Server, file: RemoteFile, target: Path) -> None:
    server.usual = redirect(server.url())
    with pytest.raises(ConnectionError, match="redirect"):
        fetch(file, target)


@pytest.mark.parametrize("code", [404, 410])
def test_not_there(server: Server, file: RemoteFile, target: Path, code: int) -> None:
    server.usual = status(code)
    with pytest.raises(FileNotFoundError, match=f"{code}.*by hand"):
        fetch(file, target)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("code", [401, 403])
def test_refused(server: Server, file: RemoteFile, target: Path, code: int) -> None:
    server.usual = status(code)
    with pytest.raises(ConnectionError, match=str(code)):
        fetch(file, target)
    assert len(server.ranges) == 1


def test_momentary_errors_are_waited_out(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [status(500), status(429)]
    assert fetch(file, target) == content
    server.usual = status(503)
    target.unlink()
    with pytest.raises(ConnectionError, match="503"):
        fetch(file, target)
    assert len(server.ranges) == 3 + QUICK.attempts


def test_pauses_double(
    server: Server, file: RemoteFile, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("gptbook.download.time.sleep", pauses.append)
    server.usual = status(503)
    with pytest.raises(ConnectionError):
        fetch(file, target, Patience(attempts=4, backoff_seconds=0.5))
    assert pauses == [0.5, 1.0, 2.0]


def test_another_size_is_an_error_at_once(server: Server, file: RemoteFile, target: Path) -> None:
    server.usual = page
    with pytest.raises(ValueError, match="has 5 bytes now, and gptbook knows one of 100000"):
        fetch(file, target)
    assert len(server.ranges) == 1
    assert not target.exists()


def test_offline(tmp_path: Path) -> None:
    with socket.socket() as taken:  # not listening; and while it has the port nobody else can
        taken.bind(("127.0.0.1", 0))
        file = RemoteFile(f"http://127.0.0.1:{taken.getsockname()[1]}/file.txt", 10, "00" * 32)
        with pytest.raises(ConnectionError, match=r"refused.*connect to the network.*by hand"):
            fetch(file, tmp_path / "file.txt")


def test_damaged_file_in_the_cache_is_replaced(
    file: RemoteFile, target: Path, content: bytes
) -> None:
    target.parent.mkdir()
    for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), b""):
        target.write_bytes(damaged)
        with pytest.warns(UserWarning, match="is damaged"):
            assert fetch(file, target) == content


def test_disk_that_is_full_from_the_start(
    server: Server, file: RemoteFile, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total, used, _ = shutil.disk_usage("/")
    usage = type("usage", (), {"total": total, "used": used, "free": 99_999})
    monkeypatch.setattr("gptbook.download.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="100,000 bytes are needed and 99,999 free") as caught:
        fetch(file, target)
    assert caught.value.errno == errno.ENOSPC
    assert server.ranges == []


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "100,000 bytes are needed"), (errno.EIO, "Input/output")]
)
def test_disk_that_fails_on_the_way(
    server: Server,
    file: RemoteFile,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    message: str,
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("gptbook.download.os.fsync", fail)
    with pytest.raises(OSError, match=message) as caught:
        fetch(file, target)
    assert caught.value.errno == number
    assert len(server.ranges) == 1
    assert not target.exists()


def test_two_processes_at_once_make_one_download(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    """The first to come waits for its answer until the others have said that they wait for it."""
    all_are_here = threading.Event()

    def late(handler: Handler) -> None:
        all_are_here.wait(300)
        serve(handler)

    server.usual = late
    code = (
        "from pathlib import Path; from gptbook.download import Patience, RemoteFile, download;"
        f"download({file!r}, Path({str(target)!r}), patience=Patience(stall_seconds=300),"
        "progress=False)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said: list[str] = []

    def listen(process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:  # one thread each, and append() is atomic
            said.append(line)

    listeners = [threading.Thread(target=listen, args=[process]) for process in processes]
    for listener in listeners:
        listener.start()
    try:
        wait_until(lambda: sum("waiting for another process" in line for line in said) == 2)
    finally:
        all_are_here.set()
        codes = [process.wait(300) for process in processes]
        for listener in listeners:
            listener.join()
    assert codes == [0, 0, 0], said
    assert target.read_bytes() == content
    assert server.ranges == [None]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_killed_download_leaves_a_part_that_is_continued(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [stall]
    code = (
        "from pathlib import Path; from gptbook.download import RemoteFile, download;"
        f"download({file!r}, Path({str(target)!r}), progress=False)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        part = target.with_name("file.txt.part")
        wait_until(lambda: len(server.ranges) == 1 and part.exists())
        os.kill(process.pid, signal.SIGKILL)
    assert not target.exists()
    assert fetch(file, target) == content


def wait_until(happened: object, seconds: float = 300) -> None:
    assert callable(happened)
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_lock_is_exclusive_and_freed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with open(path, "ab") as other:
        with locked(path):
            assert not try_lock(other)
        assert try_lock(other)


@pytest.mark.parametrize("etag", [b"\xff\xfe", b"", b'"a\nX-Other: 1"', b"no quotes"])
def test_damaged_etag_is_not_sent(
    server: Server, file: RemoteFile, target: Path, content: bytes, etag: bytes
) -> None:
    target.parent.mkdir()
    target.with_name("file.txt.part").write_bytes(content[:50_000])
    target.with_name("file.txt.part.etag").write_bytes(etag)
    assert fetch(file, target) == content
    assert server.ranges == ["bytes=50000-"]


def test_server_that_hangs_up_soon_is_asked_after_a_pause(
    server: Server,
    file: RemoteFile,
    target: Path,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("gptbook.download.time.sleep", pauses.append)
    server.script = [cut_off_after(10)] * 3
    assert fetch(file, target, Patience(backoff_seconds=0.5)) == content
    assert pauses == [0.5] * 3
    target.unlink()
    pauses.clear()
    monkeypatch.setattr("gptbook.download.BLOCK", 10_000)
    server.script = [cut_off_after(10_000)] * 3
    assert fetch(file, target) == content
    assert pauses == []


def test_server_that_sends_no_more_than_so_much_at_a_time(
    server: Server, file: RemoteFile, target: Path, content: bytes
) -> None:
    server.script = [cut_off_after(100)]
    server.usual = capped(30_000)
    assert fetch(file, target) == content
    assert server.ranges[1:] == [f"bytes={n}-" for n in (100, 30_100, 60_100, 90_100)]


def test_compressed_answer_is_an_error(server: Server, file: RemoteFile, target: Path) -> None:
    server.usual = compressed
    with pytest.raises(ValueError, match="came with Content-Encoding gzip"):
        fetch(file, target)
    assert len(server.ranges) == 1


def test_redirect_to_what_is_no_address(server: Server, file: RemoteFile, target: Path) -> None:
    server.usual = redirect("http://[bad/")
    with pytest.raises(ConnectionError, match=r"file.txt could not be downloaded.*no web address"):
        fetch(file, target)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("url", ["nonsense", "gopher://127.0.0.1/x"])
def test_address_that_is_none(target: Path, url: str) -> None:
    with pytest.raises(ConnectionError, match=rf"{url} could not be downloaded.*unknown url type"):
        fetch(RemoteFile(url, 10, "00" * 32), target)


def test_cache_that_cannot_be_made(file: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / "file" / "cache"
    with pytest.raises(OSError, match=rf"cannot be made.*GPTBOOK_CACHE.*{folder}"):
        fetch(file, folder / "file.txt")


def test_folder_that_cannot_be_written_to(
    file: RemoteFile, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("gptbook.download.os.fsync", refuse)
    with pytest.raises(PermissionError, match=rf"written to.*GPTBOOK_CACHE.*{target.parent}"):
        fetch(file, target)


def test_destination_that_is_a_folder(server: Server, file: RemoteFile, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="give the path of a file"):
        fetch(file, target)
    assert server.ranges == []


def test_remote_file_is_checked() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        RemoteFile("http://x/y", 0, "00" * 32)
    for digest in ("00", "AB" * 32, "00" * 32 + "\n"):
        with pytest.raises(ValueError, match="64 digits from 0 to f"):
            RemoteFile("http://x/y", 1, digest)


def capped(n_bytes: int) -> Answer:
    """Send at most n_bytes of the range that was asked for, and say so."""

    def answer(handler: Handler) -> None:
        content = handler.server.content
        start = int(str(handler.headers["Range"]).removeprefix("bytes=").removesuffix("-"))
        part = content[start : start + n_bytes]
        handler.send_response(206)
        stated = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        handler.send_header("Content-Range", stated)
        handler.send_header("Content-Length", str(len(part)))
        handler.end_headers()
        handler.wfile.write(part)

    return answer


def compressed(handler: Handler) -> None:
    """Answer as if the file were compressed."""
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()
    handler.wfile.write(handler.server.content)


def test_progress_counts_the_bytes(
    server: Server, file: RemoteFile, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = [cut_off_after(30_000)]
    download(file, target, patience=QUICK)
    assert "100%" in capsys.readouterr().err
