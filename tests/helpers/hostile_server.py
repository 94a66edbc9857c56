"""A web server on this machine that replies as it is told: honestly, wrongly, or not at all."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from small_data import ARCHIVES, GZ_IMAGES

SECONDS = 30.0  # longer than any client waits


class Server(ThreadingHTTPServer):
    """Replies as `reply` does, until it is `over`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply: Reply = silence
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, *_: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients hang up
            raise


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.reply(self)

    def log_message(self, *_: object) -> None:
        pass


Reply = Callable[[Handler], None]


def send_head(handler: Handler, status: int = 200, **headers: object) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def send(handler: Handler, payload: bytes) -> None:
    send_head(handler, Content_Type="text/html", Content_Length=len(payload))  # as pip wants it
    handler.wfile.write(payload)


def serve(files: Mapping[str, bytes]) -> Reply:
    def reply(handler: Handler) -> None:
        name = handler.path.rpartition("/")[2]
        send(handler, files[name]) if name in files else handler.send_error(404)

    return reply


def web_page(handler: Handler) -> None:
    send(handler, b"<!doctype html><title>Sign in to the network</title>")


def status(code: int) -> Reply:
    return lambda handler: handler.send_error(code)


def silence(handler: Handler) -> None:
    handler.server.over.wait(SECONDS)


def stall(handler: Handler) -> None:
    send_head(handler, Content_Length=1000)
    silence(handler)


def flood_of_headers(handler: Handler) -> None:
    send_head(handler, **{f"X-{number}": "x" for number in range(1000)})


def half(handler: Handler) -> None:
    send_head(handler, Content_Length=len(ARCHIVES[GZ_IMAGES]))
    handler.wfile.write(ARCHIVES[GZ_IMAGES][:500])


def half_a_chunk(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nhalf")


def another_protocol(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")


def redirect(to: Callable[[str], str]) -> Reply:
    return lambda handler: send_head(handler, 302, Location=to(handler.path))
