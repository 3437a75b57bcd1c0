"""The program around the commands: which there are, and how each ends."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from penstock._version import __version__
from penstock.cli.exits import MEANINGS, Exit, code_for
from penstock.cli.options import DEFAULT_URL, Shared
from penstock.errors import PenstockError

_COMMANDS: Final = {
    "serve": "Run the server.",
    "put": "Upload files.",
    "get": "Download a stream.",
    "tail": "Show the end of a stream, and what comes after it.",
    "append": "Append lines to a stream as they come.",
    "stop": "Tell who writes a stream that its readers have enough.",
    "ls": "List streams.",
    "info": "Tell about a stream.",
    "rm": "Delete streams.",
}

_EXITS: Final = "\n".join(["\b", "Exit codes:", *(f"  {code:>3}  {text}" for code, text in MEANINGS.items())])


_HINTS: Final = {
    Exit.NOT_FOUND: "('penstock ls' lists the streams.)",
    Exit.UNREACHABLE: "(--url or PENSTOCK_URL tells where it is.)",
}


class Commands(click.Group):
    """Commands that are imported when they are used, so that none waits for what only another one needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which people meet them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        extra = "server" if cmd_name == "serve" else "cli"
        try:
            command = importlib.import_module(f"penstock.cli.{cmd_name}").command
        except ImportError as error:
            raise click.ClickException(
                f"'{cmd_name}' cannot be loaded ({error}): pip install 'penstock[{extra}]'"
            ) from error
        assert isinstance(command, click.Command)  # noqa: S101 -- for the type checker
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a reader who went away (``| head``) ends it quietly."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Nothing may be written there any more, not even by the interpreter when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(Exit.PIPE_CLOSED)
        return result


@click.group(cls=Commands, name="penstock", epilog=_EXITS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option("--url", default=DEFAULT_URL, envvar="PENSTOCK_URL", show_default=True, help="The server's address.")
@click.option("--retries", type=click.IntRange(min=0), help="How many failures in a row to put up with (8).")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.pass_context
def penstock(ctx: click.Context, url: str, retries: int | None, *, quiet: bool) -> None:
    """Streams of bytes on a server: upload, download, follow, append.

    Each command has --help of its own; '-' stands for the standard input or output.
    """
    ctx.obj = Shared(url=url, retries=retries, quiet=quiet)


def run(arguments: Sequence[str]) -> NoReturn:
    """Run the command and exit."""
    code = execute(arguments)
    try:
        sys.stdout.flush()
    except OSError:
        code = code or Exit.PIPE_CLOSED
    sys.stderr.flush()
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        # One of them may sit in a read of the terminal, or in a write to a pipe that nobody reads: it would be waited
        # for without end.
        os._exit(code)
    sys.exit(code)


def execute(arguments: Sequence[str]) -> int:
    """Run the command, tell what went wrong, and return the exit code."""
    try:
        result = penstock.main(list(arguments), prog_name="penstock", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except PenstockError as error:
        code = code_for(error)
        _complain(f"{error} {_HINTS.get(code, '')}")
        return code
    except OSError as error:
        _complain(_plainly(error))
        return Exit.UNEXPECTED
    except Exception as error:  # noqa: BLE001 -- the last place where it can be told
        if os.environ.get("PENSTOCK_DEBUG"):
            traceback.print_exc()
        _complain(f"unexpected {type(error).__name__}: {error} (PENSTOCK_DEBUG=1 shows where it comes from)")
        return Exit.UNEXPECTED
    return result if isinstance(result, int) else Exit.OK


def _plainly(error: OSError) -> str:
    if error.filename is not None and error.strerror:
        hint = ": make room, and run the command again" if error.errno == errno.ENOSPC else ""
        return f"{error.filename}: {error.strerror}{hint}"
    return str(error)


def _complain(text: str) -> None:
    click.echo(f"penstock: {' '.join(text.split())}", err=True)
