"""The command, against the server, as a person or a script runs it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from applications import serving
from penstock import Streams, StreamSpec
from scripted import CuttingProxy
from servers import Server

COMMAND = [sys.executable, "-m", "penstock"]


class Shell:
    """Runs the command in a folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "PENSTOCK_URL": url}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([*COMMAND, *arguments], cwd=self.folder, env=self._environment, **pipes)

    def run(self, *arguments: str, data: bytes = b"", code: int = 0) -> bytes:
        with self.start(*arguments) as process:
            output, errors = process.communicate(data, timeout=60)
        assert process.returncode == code, errors.decode()
        assert b"Traceback" not in errors
        assert errors.count(b"\n") <= 1, errors.decode()
        assert bool(errors) == (code != 0), errors.decode()
        return output

    def json(self, *arguments: str, data: bytes = b"") -> Any:
        documents = [json.loads(line) for line in self.run(*arguments, "--json", data=data).splitlines()]
        return documents[0] if len(documents) == 1 else documents


@pytest.fixture
def shell(server: Server, tmp_path: Path) -> Shell:
    return Shell(server.url, tmp_path)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    return f"cli/{request.node.name}"


def read_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def close_input(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None


def eventually(shell: Shell, *arguments: str) -> bytes:
    deadline = time.monotonic() + 20
    while True:
        result = subprocess.run([*COMMAND, *arguments], check=False, capture_output=True, env=shell._environment)
        if result.returncode == 0 or time.monotonic() > deadline:
            return result.stdout


def test_files_go_up_and_down_and_away(shell: Shell, server: Server, name: str) -> None:
    data = os.urandom(3_000_000)
    (shell.folder / "one.bin").write_bytes(data)
    (shell.folder / "two.txt").write_text("two\n")
    assert shell.run("put", "one.bin", "two.txt", f"{name}/").decode().split() == [
        f"{server.url}/files/{name}/one.bin",
        f"{server.url}/files/{name}/two.txt",
    ]
    assert shell.run("ls", f"{name}/").decode().split() == [f"{name}/one.bin", f"{name}/two.txt"]
    assert b"2.9 MiB" in shell.run("ls", "-l", f"{name}/one")
    listed = shell.json("ls", f"{name}/")
    assert [(one["tail"], one["content_type"]) for one in listed] == [
        (3_000_000, "application/octet-stream"),
        (4, "text/plain"),
    ]
    told = shell.json("info", f"{name}/one.bin")
    assert (told["state"], told["etag"], told["url"]) == ("closed", listed[0]["etag"], listed[0]["url"])
    assert hashlib.sha256(data).hexdigest().encode() in shell.run("info", f"{name}/one.bin")

    (shell.folder / "one.bin").unlink()
    got = shell.json("get", f"{name}/one.bin")
    assert (got["path"], got["size"], got["verified"], got["sha256"]) == (
        "one.bin",
        3_000_000,
        True,
        hashlib.sha256(data).hexdigest(),
    )
    assert (shell.folder / "one.bin").read_bytes() == data
    assert shell.run("get", f"{name}/one.bin", "-o", "-") == data
    assert shell.run("get", f"{name}/two.txt", "-q") == b""
    assert shell.run("get", f"{name}/two.txt", "-o", "there").decode() == "there\n"

    shell.run("put", "-n", "two.txt", f"{name}/one.bin", code=4)
    shell.run("put", "--if-match", '"other"', "two.txt", f"{name}/one.bin", code=4)
    shell.run("put", "--if-match", told["etag"], "two.txt", f"{name}/one.bin")
    assert shell.json("rm", f"{name}/one.bin") == {"name": f"{name}/one.bin", "deleted": True}
    shell.run("get", f"{name}/one.bin", code=3)
    shell.run("info", f"{name}/one.bin", code=3)
    shell.run("rm", f"{name}/one.bin", code=3)
    shell.run("rm", "-f", f"{name}/one.bin", f"{name}/two.txt")
    assert shell.run("ls", f"{name}/") == b""


def test_standard_input_goes_up(shell: Shell, name: str) -> None:
    data = os.urandom(2_000_000)
    stored = shell.json("put", "-", name, "-t", "application/x-test", "--ttl", "500", data=data)
    assert (stored["tail"], stored["content_type"]) == (len(data), "application/x-test")
    assert stored["expires_at"] is not None
    assert shell.run("get", name, "-o", "-") == data


def test_a_partial_file_is_gone_on_with(shell: Shell, server: Server, name: str, tmp_path: Path) -> None:
    data = os.urandom(4_000_000)
    (shell.folder / "source").write_bytes(data)
    shell.run("put", "source", name)
    with CuttingProxy(server.port, [2_500_000]) as proxy:
        Shell(proxy.url, tmp_path).run("--retries", "0", "get", name, "-o", "copy", code=5)
    assert not (shell.folder / "copy").exists()
    partial = (shell.folder / "copy.part").stat().st_size
    assert 0 < partial < len(data)
    got = shell.json("get", name, "-o", "copy")
    assert (got["resumed_at"], got["verified"]) == (partial, True)
    assert (shell.folder / "copy").read_bytes() == data
    assert sorted(path.name for path in shell.folder.iterdir()) == ["copy", "source"]


def test_a_download_that_is_killed_is_gone_on_with(shell: Shell, name: str) -> None:
    with shell.start("append", name, "--close", "--type", "text") as upload:
        write(upload, b"one\n" * 3)
        assert eventually(shell, "info", name)
        with shell.start("get", name, "--follow", "-o", "copy") as download:
            deadline = time.monotonic() + 20
            while not list(shell.folder.glob("copy.part")) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.3)
            download.kill()
        write(upload, b"two\n")
        upload.communicate(timeout=30)
    got = shell.json("get", name, "-o", "copy")
    assert got["resumed_at"] > 0
    assert (shell.folder / "copy").read_bytes() == b"one\n" * 3 + b"two\n"


def test_a_download_follows_an_upload(shell: Shell, name: str) -> None:
    with shell.start("put", "-", name) as upload:
        write(upload, b"first\n")
        assert b"open" in eventually(shell, "info", name)
        with shell.start("get", name, "--follow", "-o", "-") as download:
            assert read_line(download) == b"first\n"
            write(upload, b"second\n")
            assert read_line(download) == b"second\n"
            close_input(upload)
            assert download.communicate(timeout=20)[0] == b""
            assert download.returncode == 0
        upload.communicate(timeout=20)
        assert upload.returncode == 0


def test_an_upload_that_is_interrupted_leaves_nothing(shell: Shell, name: str) -> None:
    with shell.start("put", "-", name) as upload:
        write(upload, b"first\n")
        assert eventually(shell, "info", name)
        upload.send_signal(signal.SIGINT)
        _, errors = upload.communicate(timeout=20)
        assert upload.returncode == 130
        assert b"Traceback" not in errors
    deadline = time.monotonic() + 10
    while shell.run("ls", name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert shell.run("ls", name) == b""


def test_lines_are_seen_as_they_are_appended(shell: Shell, name: str) -> None:
    with shell.start("append", name, "--close", "--json") as writer:
        write(writer, b"one\n")
        assert eventually(shell, "info", name)
        with shell.start("tail", "-f", name) as reader, shell.start("tail", "-f", name, "--json") as programs:
            assert read_line(reader) == b"one\n"
            for line in (b"two\n", b"\n", b"three\n"):
                write(writer, line)
                assert read_line(reader) == line
            close_input(writer)
            assert reader.wait(20) == 0
            assert reader.stderr is not None
            assert reader.stderr.read().decode() == f"penstock: {name} was closed at offset 15\n"
            *documents, end = [json.loads(line) for line in programs.communicate(timeout=20)[0].splitlines()]
        assert [one["record"] for one in documents] == ["one", "two", "", "three"]
        assert [one["offset"] for one in documents] == [4, 8, 9, 15]
        assert end == {"state": "closed", "offset": 15}
        output, _ = writer.communicate(timeout=20)
        assert json.loads(output) == {"name": name, "offset": 15, "records": 4}
    shell.run("append", name, data=b"late\n", code=4)
    assert shell.run("tail", name, "-n", "1") == b"three\n"
    assert shell.run("tail", name, "--last", "2") == b"\nthree\n"
    assert shell.run("tail", name, "--from", "4") == b"two\n\nthree\n"
    assert shell.run("tail", name, "--since", "-3600") == b"one\ntwo\n\nthree\n"
    assert shell.run("tail", name, "--since", "2100-01-01T00:00:00Z") == b""
    with shell.start("tail", name, "--since", "yesterday") as usage:
        _, errors = usage.communicate(timeout=20)
        assert (usage.returncode, b"--since: since is a date-time" in errors) == (2, True)
    assert shell.run("tail", name, "--from", "8") == b"\nthree\n"
    assert shell.run("tail", name, "--from", "15") == b""
    shell.run("tail", name, "--from", "16", code=4)
    shell.run("tail", name + "x", code=3)


def test_a_reader_stops_a_stream_and_all_are_told_why(shell: Shell, name: str) -> None:
    shell.run("append", name, data=b"one\n")
    with shell.start("tail", "-f", name, "--json") as reader:
        assert json.loads(read_line(reader)) == {"offset": 4, "record": "one"}
        while shell.json("info", name, "--presence")["readers"] != 1:
            pass
        assert b"readers:     1\n" in shell.run("info", name, "--presence")
        stopped = {"name": name, "state": "closed", "offset": 4, "reason": "enough"}
        assert shell.json("stop", name, "--reason", "enough") == stopped
        output, errors = reader.communicate(timeout=20)
        assert json.loads(output) == {"state": "closed", "offset": 4, "reason": "enough"}
        assert errors.decode() == f"penstock: {name} was closed at offset 4: enough\n"
        assert reader.returncode == 0
    shell.run("append", name, data=b"two\n", code=4)
    shell.run("stop", name + "x", code=3)


def test_a_reader_of_what_is_deleted_is_told_so(shell: Shell, name: str) -> None:
    shell.run("append", name, data=b"one\n")
    with shell.start("tail", "-f", name) as reader:
        assert read_line(reader) == b"one\n"
        shell.run("rm", name)
        _, errors = reader.communicate(timeout=20)
        assert (reader.returncode, errors.count(b"\n")) == (4, 1)


def test_bytes_without_records_are_shown_as_lines(shell: Shell, name: str) -> None:
    shell.run("put", "-", name, "--type", "application/octet-stream", data=b"a\nb\n\xffc")
    assert shell.run("tail", name, "-n", "2") == b"b\n\xffc"
    assert shell.run("tail", "-f", name, "-q", "--from", "2") == b"b\n\xffc"


async def test_a_server_that_has_only_files_is_read_all_the_same(name: str, tmp_path: Path) -> None:
    streams = Streams(":memory:")
    app = FastAPI(lifespan=streams.lifespan)
    app.include_router(streams.files())
    async with serving(app) as port:
        shell = Shell(f"http://127.0.0.1:{port}", tmp_path)
        await streams.append("log", [b"1\n", b"2\n"], create=StreamSpec(content_type="application/x-ndjson"))
        assert await asyncio.to_thread(shell.run, "tail", "log", "-n", "1") == b"2\n"
        with shell.start("tail", "-f", "log", "-n", "1") as reader:
            assert await asyncio.to_thread(read_line, reader) == b"2\n"
            await streams.append("log", [b"3\n"], close=True)
            output, errors = await asyncio.to_thread(reader.communicate)
            assert (output, reader.returncode) == (b"3\n", 0)
            assert errors == b"penstock: log was closed at offset 6\n"


def test_types_of_lines_are_found_out(shell: Shell, name: str) -> None:
    assert shell.json("append", name, data=b'{"n":  1}\n\n[2]')["records"] == 2
    assert shell.json("append", name, data=b"3\n")["records"] == 1  # the stream is there, and says what it holds
    assert shell.run("get", name, "-o", "-", "-q") == b'{"n":1}\n[2]\n3\n'
    shell.run("append", name, data=b"no JSON\n", code=2)
    shell.run("append", name, "--type", "text", data=b"text\n", code=4)
    assert shell.json("append", name + "-text", data=b"3\n{}\n")["records"] == 2
    assert shell.json("info", name + "-text")["content_type"] == "text/plain; charset=utf-8"


def test_many_lines_arrive_once(shell: Shell, name: str) -> None:
    lines = b"".join(b'{"n":%d}\n' % number for number in range(20_000))
    assert shell.json("append", name, "--close", data=lines)["records"] == 20_000
    assert shell.run("tail", name, "--from", "0") == lines


@pytest.mark.parametrize("command", ["tail", "get", "append"])
def test_an_interrupt_ends_at_once_and_quietly(shell: Shell, name: str, command: str) -> None:
    shell.run("append", name, data=b"one\n")
    arguments = {"tail": ["-f", name], "get": ["-f", name, "-o", "-"], "append": [name]}[command]
    with shell.start(command, *arguments) as process:
        if command == "append":
            write(process, b"two\n")
            while b"two" not in shell.run("tail", name):
                time.sleep(0.05)
        else:
            assert read_line(process) == b"one\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert (output.strip(), errors.strip()) == (b"", b"")


@pytest.mark.parametrize("command", ["tail", "get", "ls"])
def test_a_reader_who_goes_away_ends_it_quietly(shell: Shell, name: str, command: str) -> None:
    shell.run("put", "-", name, data=b"x" * 999 + b"\n" * 500_000)
    arguments = {"tail": [name, "--from", "0"], "get": [name, "-o", "-"], "ls": [name]}[command]
    with shell.start(command, *arguments) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (141, b"")


def test_no_file_is_written_outside_the_folder(shell: Shell, name: str) -> None:
    shell.run("put", "-", name + "/.hidden", data=b"x")
    assert shell.run("get", name + "/.hidden") == b"hidden\n"
    shell.run("get", "a/../b", code=2)
    assert [path.name for path in shell.folder.iterdir()] == ["hidden"]


def test_an_open_stream_is_told_of(shell: Shell, name: str) -> None:
    shell.run("append", name, data=b"one\n")
    with shell.start("get", name, "-o", "copy") as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"still open" in errors
    shell.run("put", "copy", name, code=4)


def test_it_comes_back_to_a_server_that_starts_anew(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        shell = Shell(server.url, tmp_path)
        with shell.start("append", "log", "--close") as writer:
            write(writer, b"one\n")
            assert eventually(shell, "info", "log")
            with shell.start("tail", "-f", "log") as reader:
                assert read_line(reader) == b"one\n"
                server.kill()
                write(writer, b"two\n")
                server.start()
                assert read_line(reader) == b"two\n"
                writer.communicate(timeout=30)
                reader.communicate(timeout=30)
                assert (writer.returncode, reader.returncode) == (0, 0)
