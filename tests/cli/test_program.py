"""What all commands have in common: help, options, exit codes, and how errors are told."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from penstock import __version__, errors
from penstock.cli.describe import size
from penstock.cli.exits import MEANINGS, Exit, code_for
from penstock.cli.program import _COMMANDS, Commands, execute, penstock
from penstock.client import CorruptTransfer, ServerError, SourceChanged, Unreachable
from scripted import Asked, Reply, ScriptedServer


def exit_code(*arguments: str) -> int:
    return execute(arguments)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    yield
    logger = logging.getLogger("penstock.client")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.StreamNotFound("x"), 3),
        (errors.StreamExists("x"), 4),
        (errors.StreamIsOpen("x"), 4),
        (errors.StreamBusy("x"), 4),
        (errors.StreamClosed("x", 1), 4),
        (errors.StreamGone("x", "1"), 4),
        (errors.PreconditionFailed("x"), 4),
        (errors.ContentTypeMismatch("x", "a", "b"), 4),
        (errors.ProducerOutOfSequence("x", "p", 1, 0), 4),
        (errors.OffsetOutOfRange("x", 2, 1), 4),
        (errors.StreamFailed("x", 1, "why"), 6),
        (errors.DigestMismatch("x", "sha-256", b"", b"1"), 6),
        (CorruptTransfer("x", "sha-256", b"", b"1"), 6),
        (SourceChanged("x", 2, 1), 6),
        (errors.InvalidName("..", "why"), 2),
        (errors.InvalidRecord("why"), 2),
        (Unreachable("why"), 5),
        (errors.Stopping(), 5),
        (errors.StorageFailed("why"), 5),
        (ServerError(503, "Later"), 5),
        (ServerError(429, "Later"), 5),
        (errors.StorageFull(), 1),
        (ServerError(500, "Broken"), 1),
        (ServerError(403, "Forbidden"), 1),
        (OSError("why"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert code_for(error) == code
    assert Exit(code) in MEANINGS


def test_help_names_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    text = capsys.readouterr().out
    for word in (*_COMMANDS, *MEANINGS.values(), "PENSTOCK_URL" if "PENSTOCK_URL" in text else "--url"):
        assert word in text
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"penstock {__version__}\n"


@pytest.mark.parametrize("name", _COMMANDS)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(name, "--help") == 0
    assert "Usage: penstock " + name in capsys.readouterr().out


def test_help_imports_no_more_than_it_needs() -> None:
    script = (
        "import sys\n"
        "from penstock.cli.program import penstock\n"
        "penstock.main(['--help'], standalone_mode=False)\n"
        "loaded = {'httpx', 'rich', 'fastapi', 'anyio'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["put"],
        ["get"],
        ["get", "a", "b"],
        ["tail", "x", "--from", "1", "-n", "1"],
        ["tail", "x", "-n", "-1"],
        ["get", "x", "-o", "-", "--json"],
        ["--url", "localhost:8080", "ls"],
        ["ls", "--url", "nonsense"],
        ["info", "../x"],
        ["rm", ""],
        ["append", "x", "--type", "csv"],
    ],
)
def test_misuse_is_told_in_a_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments) == Exit.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.strip()
    assert "Traceback" not in told.err


def test_an_error_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--retries", "0", "--url", "http://127.0.0.1:1", "ls") == Exit.UNREACHABLE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith("penstock: Cannot connect to http://127.0.0.1:1")


def test_retries_are_told_unless_it_is_to_be_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.client.retry.Backoff.pause", lambda _self, _failures: 0.001)
    for options, lines in (([], 3), (["-q"], 1)):
        assert exit_code("--url", "http://127.0.0.1:1", "ls", "--retries", "2", *options) == Exit.UNREACHABLE
        assert capsys.readouterr().err.count("\n") == lines


def test_what_stands_after_the_command_counts(capsys: pytest.CaptureFixture[str]) -> None:
    page = b'{"streams": [], "next": null}'
    with ScriptedServer(lambda _: Reply(200, {}, page)) as server:
        assert exit_code("--url", "http://127.0.0.1:1", "ls", "--url", server.url) == 0


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(200, {}, b"<html>"), 1),
        (Reply(200, {}, b"[]"), 1),
        (Reply(200, {}, b'{"streams": [{}], "next": null}'), 1),
        (Reply(302, {"location": "https://elsewhere/"}), 1),
        (Reply(403), 1),
        (Reply(500, {}, b"x" * 100_000), 1),
        (Reply(503, {"retry-after": "0"}), 5),
    ],
)
def test_odd_answers_are_told_plainly(reply: Reply, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(lambda _: reply) as server:
        assert exit_code("--url", server.url, "--retries", "0", "ls") == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_failed_stream_is_an_error_of_integrity(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    def script(asked: Asked) -> Reply:
        headers = {"stream-state": "failed", "stream-failure": "disk", "stream-tail": "4", "stream-incarnation": "1"}
        return Reply(200, headers, b"four", cut=None if asked.method == "HEAD" else 4, chunked=True)

    with ScriptedServer(script) as server:
        assert exit_code("--url", server.url, "get", "x", "-o", "-") == Exit.INTEGRITY
    told = capfdbinary.readouterr()
    assert told.out == b"four"
    assert b"failed at offset 4: disk" in told.err


def test_an_unexpected_error_has_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(Commands, "invoke", explode)
    monkeypatch.delenv("PENSTOCK_DEBUG", raising=False)
    assert exit_code("ls") == Exit.UNEXPECTED
    assert capsys.readouterr().err.startswith("penstock: unexpected ZeroDivisionError: surprise")
    monkeypatch.setenv("PENSTOCK_DEBUG", "1")
    assert exit_code("ls") == Exit.UNEXPECTED
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_extra_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "penstock.cli.ls", None)
    assert exit_code("ls") == Exit.UNEXPECTED
    assert "pip install 'penstock[cli]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 * 2**30, "5.0 GiB"),
        (3 * 2**50, "3072.0 TiB"),
    ],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size(count) == text


def test_the_group_is_called_like_the_program() -> None:
    assert penstock.name == "penstock"
