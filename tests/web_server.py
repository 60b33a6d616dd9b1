"""A web server on this machine that answers as it is told to, for tests of downloads."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]

HOURS = 10_000.0
"""In seconds, how long a server that stalls would; it ends with the test."""


class Server(ThreadingHTTPServer):
    """Serves `content`; the first requests get the answers in `script`, later ones `usual`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.script: list[Answer] = []
        self.usual: Answer = serve
        self.ranges: list[str | None] = []  # the Range header of each request
        self.stop = threading.Event()

    def url(self, name: str = "file.txt") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        answer = self.server.script.pop(0) if self.server.script else self.server.usual
        with contextlib.suppress(ConnectionError):  # the client went away
            answer(self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def etag(self) -> str:
        return f'"{hash(self.server.content):x}"'

    def body(self) -> bytes:
        """Send the headers for what was asked for, and return the bytes that belong to them."""
        content = self.server.content
        asked = self.headers.get("Range")
        if asked and self.headers.get("If-Range", self.etag) == self.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return b""
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            content = content[start:]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", self.etag)
        self.end_headers()
        return content


def serve(handler: Handler) -> None:
    """Answer as one should."""
    handler.wfile.write(handler.body())


def cut_off_after(n_bytes: int) -> Answer:
    """Promise all of it and hang up after n_bytes."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(handler.body()[:n_bytes])
        handler.close_connection = True

    return answer


def corrupt(handler: Handler) -> None:
    """Flip a bit of the first byte sent."""
    body = handler.body()
    handler.wfile.write(bytes([body[0] ^ 1]) + body[1:])


def stall(handler: Handler) -> None:
    """Send three bytes and then nothing, while the connection stays open."""
    handler.wfile.write(handler.body()[:3])
    handler.server.stop.wait(HOURS)


def silent(handler: Handler) -> None:
    """Take the request and never answer."""
    handler.server.stop.wait(HOURS)


def ignore_range(handler: Handler, n_bytes: int | None = None) -> None:
    """Send the whole file, or its first n_bytes, whatever was asked for."""
    del handler.headers["Range"]
    handler.wfile.write(handler.body()[:n_bytes])
    handler.close_connection = True


def without_length(handler: Handler) -> None:
    """Send the file without saying how long it is."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(handler.server.content)


def wrong_part(handler: Handler) -> None:
    """Answer a request for a range with another one."""
    total = len(handler.server.content)
    content = handler.server.content[7:]
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 7-{total - 1}/{total}")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def page(handler: Handler) -> None:
    """Answer with a page, as the login of a hotel's network does."""
    handler.send_response(200)
    handler.send_header("Content-Length", "5")
    handler.end_headers()
    handler.wfile.write(b"login")


def status(code: int) -> Answer:
    """Answer with an error."""
    return lambda handler: handler.send_error(code)


def redirect(location: str) -> Answer:
    """Send the client elsewhere."""

    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@contextlib.contextmanager
def running(content: bytes) -> Iterator[Server]:
    """Run a server in a thread."""
    server = Server(content)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        server.server_close()
