"""``penstock put`` with all that it can: folders, several at once, parts, limits, keys, files that grow."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest

from penstock.cli.sizes import Size
from penstock.client import SyncClient
from servers import Server

COMMAND = [sys.executable, "-m", "penstock"]
DATA = random.Random(8).randbytes(3_000_000)


class Putting:
    """Runs ``penstock put`` in a folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "PENSTOCK_URL": url, "XDG_STATE_HOME": str(folder.parent / "state")}

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*COMMAND, "put", *arguments], cwd=self.folder, env=self._environment, **pipes)  # type: ignore[call-overload, no-any-return]  # the pipes

    def run(self, *arguments: str, code: int = 0) -> tuple[list[Any], str]:
        """Run it, and return the JSON documents and the errors."""
        with self.start(*arguments, "--json") as process:
            output, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors.decode()
        assert b"Traceback" not in errors
        return [json.loads(line) for line in output.splitlines()], errors.decode()


@pytest.fixture
def putting(server: Server, tmp_path: Path) -> Putting:
    folder = tmp_path / "folder"
    (folder / "photos/2026").mkdir(parents=True)
    for name, data in {"photos/a.jpg": DATA, "photos/2026/b c.jpg": DATA[:10], "notes.txt": b"notes"}.items():
        (folder / name).write_bytes(data)
    return Putting(server.url, folder)


def read(server: Server, name: str) -> bytes:
    with SyncClient(server.url) as client:
        return b"".join(bytes(chunk.data) for chunk in client.read(name))


def test_folders_go_up_with_all_that_is_in_them(putting: Putting, server: Server, name: str) -> None:
    stored, errors = putting.run("photos", "notes.txt", f"{name}/", "--jobs", "3", "--parts", "2")
    assert errors == ""
    assert [(one["file"], one["name"], one["tail"]) for one in stored] == [
        ("photos/a.jpg", f"{name}/photos/a.jpg", len(DATA)),
        ("photos/2026/b c.jpg", f"{name}/photos/2026/b c.jpg", 10),
        ("notes.txt", f"{name}/notes.txt", 5),
    ]
    assert {one["state"] for one in stored} == {"closed"}
    assert stored[0]["content_type"] == "image/jpeg"
    assert read(server, f"{name}/photos/a.jpg") == DATA


def test_one_that_fails_does_not_keep_the_others(putting: Putting, server: Server, name: str) -> None:
    with SyncClient(server.url) as client:
        client.append(f"{name}/photos/2026/b c.jpg", "an open one")
    stored, errors = putting.run("photos", "notes.txt", f"{name}/", code=4)
    assert [one["name"] for one in stored] == [f"{name}/photos/a.jpg", f"{name}/notes.txt"]
    assert errors.startswith("penstock: photos/2026/b c.jpg: The stream")
    assert errors.count("\n") == 1
    (stored,), _ = putting.run("notes.txt", f"{name}/own", "--key", f"k-{name}")
    (again,), _ = putting.run("notes.txt", f"{name}/own", "--key", f"k-{name}")
    assert stored["incarnation"] == again["incarnation"]
    assert "Upload-Key" in putting.run("photos/a.jpg", f"{name}/own", "--key", f"k-{name}", code=1)[1]


def test_a_limit_of_bodies_is_kept_to(server: Server, putting: Putting, name: str) -> None:
    (stored,), _ = putting.run("photos/a.jpg", name, "--max-body", "700KB")
    assert stored["tail"] == len(DATA)
    assert read(server, name) == DATA


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["notes.txt", "--max-body", "big"], "no number of bytes"),
        (["notes.txt", "--max-body", "0"], "no number of bytes"),
        (["photos", "--key", "k"], "for one file"),
        (["-", "name", "--watch"], "standard input"),
        (["notes.txt", "--idle", "3"], "goes with --watch"),
        (["none"], "no file"),
    ],
)
def test_what_cannot_be_is_refused(putting: Putting, arguments: list[str], text: str) -> None:
    assert text in putting.run(*arguments, code=2)[1]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1000000", 10**6),
        ("100MB", 10**8),
        ("100 mb", 10**8),
        ("64MiB", 64 * 2**20),
        ("1.5k", 1500),
        ("2Gi", 2**31),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1TB", "1e9", "0.1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Size().convert(text, None, None)


def tail_of(server: Server, name: str, at_least: int) -> None:
    deadline = time.monotonic() + 30
    with SyncClient(server.url) as client:
        while not any(stream.tail >= at_least for stream in client.list(name)):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_growing_file_is_watched_until_it_is_interrupted(server: Server, putting: Putting, name: str) -> None:
    log = putting.folder / "notes.txt"
    with putting.start("notes.txt", name, "--watch", "--json") as process:
        tail_of(server, name, 5)
        with log.open("ab") as file:
            file.write(b" and more")
        tail_of(server, name, 14)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"Ctrl-C again" in errors
    assert (json.loads(output)["state"], json.loads(output)["tail"]) == ("closed", 14)
    assert read(server, name) == b"notes and more"


def test_a_watch_that_is_left_is_gone_on_with(server: Server, putting: Putting, name: str) -> None:
    log = putting.folder / "notes.txt"
    with putting.start("notes.txt", name, "--watch") as process:
        tail_of(server, name, 5)
        process.kill()
    with log.open("ab") as file:
        file.write(b" and more")
    (stored,), _ = putting.run("notes.txt", name, "--watch", "--idle", "0.5")
    assert (stored["state"], stored["tail"]) == ("closed", 14)
    assert read(server, name) == b"notes and more"


def test_an_interrupted_upload_is_gone_on_with(server: Server, putting: Putting, name: str) -> None:
    big = putting.folder / "big.bin"
    with big.open("wb") as file:
        file.truncate(400 * 1024 * 1024)
    with putting.start("big.bin", name) as process:
        tail_of(server, name, 1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, b"")
    with SyncClient(server.url) as client:
        before = client.info(name)
        assert before.state == "open"
    (stored,), _ = putting.run("big.bin", name)
    assert (stored["state"], stored["tail"]) == ("closed", 400 * 1024 * 1024)
    assert stored["incarnation"] == before.incarnation
