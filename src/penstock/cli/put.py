"""``penstock put``: upload files."""

from __future__ import annotations

import asyncio
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.describe import as_json
from penstock.cli.exits import Exit, code_for
from penstock.cli.options import Shared, shared_options
from penstock.cli.progress import Bars, progress_bars
from penstock.cli.sizes import Size
from penstock.errors import PenstockError, PreconditionFailed

if TYPE_CHECKING:
    from penstock.client import Client, RemoteStream


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options say of each upload.

    Attributes:
        options: the arguments of `Client.put` and `Client.put_growing`.
        parts: in how many parts at once.
        watch: whether files are followed as they grow.
        idle: seconds without growth after which one is complete.
    """

    options: dict[str, Any]
    parts: int
    watch: bool
    idle: float | None


@click.command("put")
@click.argument("files", nargs=-1, required=True, metavar="FILE... [NAME]")
@click.option("-t", "--type", "content_type", metavar="TYPE", help="The content type (default: guessed from the name).")
@click.option("-n", "--no-clobber", is_flag=True, help="Fail if there is such a stream already.")
@click.option("--if-match", metavar="ETAG", help="Replace only what has this entity tag.")
@click.option("--ttl", type=click.IntRange(min=1), metavar="SECONDS", help="Expire after this time without a change.")
@click.option("--verify/--no-verify", default=True, help="Compare checksums with the server (default).")
@click.option("--resume/--no-resume", default=True, help="Go on with what an earlier run has left (default).")
@click.option("-j", "--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="How many files at once.")
@click.option("--parts", type=click.IntRange(1, 64), default=1, show_default=True, help="Parts of a file sent at once.")
@click.option("--max-body", type=Size(), metavar="SIZE", help="Most bytes of a request: 100MB, where a CDN sets that.")
@click.option("--key", metavar="TEXT", help="A key to find the upload by, and go on with it, from another machine.")
@click.option("-w", "--watch", is_flag=True, help="Follow files as they grow; Ctrl-C completes them.")
@click.option(
    "--idle", type=click.FloatRange(min=0.1), metavar="SECONDS", help="With --watch: complete after no growth."
)
@shared_options
def command(
    shared: Shared,
    files: tuple[str, ...],
    content_type: str | None,
    if_match: str | None,
    ttl: int | None,
    jobs: int,
    parts: int,
    max_body: int | None,
    key: str | None,
    idle: float | None,
    *,
    no_clobber: bool,
    verify: bool,
    resume: bool,
    watch: bool,
) -> None:
    """Upload each FILE, folders with all that is in them; the URLs are written to the standard output.

    A last argument that is no existing file is the stream's NAME, or, ending in '/', what the names begin with;
    otherwise each stream is named like its file. '-' reads the standard input, and needs a NAME.

    An upload that was interrupted goes on where it ended when the command is run again.
    """
    uploads = names_for(files)
    if key is not None and len(uploads) > 1:
        raise click.UsageError("--key is for one file.")
    if watch and any(file == "-" for file, _ in uploads):
        raise click.UsageError("--watch is for files: the standard input is followed anyway.")
    if idle is not None and not watch:
        raise click.UsageError("--idle goes with --watch.")
    options: dict[str, Any] = {
        "content_type": content_type,
        "if_none_match": no_clobber,
        "if_match": if_match,
        "ttl": ttl,
        "verify": verify,
        "max_body": max_body,
        "key": key,
        "resume": resume,
    }
    wanted = Wanted(options, parts, watch, idle)
    asyncio.run(_run(shared, uploads, wanted, max(jobs, len(uploads)) if watch else jobs))


async def _run(shared: Shared, uploads: Sequence[tuple[str, str]], wanted: Wanted, jobs: int) -> None:
    from penstock.client.folders import at_once

    failed: list[Exception] = []
    async with shared.client() as client, _until_interrupted(shared, watch=wanted.watch) as ended:
        sizes = [_size_of(file) for file, _ in uploads]
        total = None if wanted.watch or None in sizes else sum(filter(None, sizes))
        with progress_bars(show=not shared.quiet, files=len(uploads), size=total) as bars:
            sender = _Sender(client, bars, wanted, ended)
            works = [partial(sender.send, file, name) for file, name in uploads]
            async with aclosing(at_once(works, jobs)) as results:
                each = iter(uploads)
                async for result in results:
                    file, name = next(each)
                    if not isinstance(result, Exception):
                        shared.say(result.url or name)
                        shared.document({**as_json(result), "file": file})
                        continue
                    failed.append(result)
                    if len(uploads) > 1:
                        click.echo(f"penstock: {file}: {' '.join(str(result).split())}", err=True)
    if len(uploads) == 1 and failed:
        raise failed[0]
    if failed:
        raise click.exceptions.Exit(int(code_for(failed[0])))


class _Sender:
    """Uploads files, several at once."""

    def __init__(self, client: Client, bars: Bars, wanted: Wanted, ended: Callable[[], bool]) -> None:
        self._client = client
        self._bars = bars
        self._wanted = wanted
        self._ended = ended

    async def send(self, file: str, name: str) -> RemoteStream | Exception:
        """Upload a file, and return what became of it."""
        with self._bars.bar(name) as progress:
            try:
                return await self._put(file, name, progress)
            except PreconditionFailed as error:
                error.args = (_what_is_there(name, no_clobber=self._wanted.options["if_none_match"]),)
                return error
            except (PenstockError, OSError) as error:
                return error

    async def _put(self, file: str, name: str, progress: Any) -> RemoteStream:
        wanted = self._wanted
        if wanted.watch:
            return await self._client.put_growing(
                file, name, ended=self._ended, idle=wanted.idle, progress=progress, **wanted.options
            )
        source = sys.stdin.buffer if file == "-" else Path(file)
        return await self._client.put(source, name, parts=wanted.parts, progress=progress, **wanted.options)


@asynccontextmanager
async def _until_interrupted(shared: Shared, *, watch: bool) -> AsyncIterator[Callable[[], bool]]:
    """With ``watch``, let the first Ctrl-C say that files are complete as they are; a second one interrupts."""
    ended = False
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt() -> None:
        nonlocal ended
        if ended and task is not None:
            task.cancel()
        ended = True
        shared.note("completing what is there; Ctrl-C again leaves it to be gone on with")

    if watch:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield lambda: ended
    except asyncio.CancelledError:
        if not watch:
            raise
        raise click.exceptions.Exit(int(Exit.INTERRUPTED)) from None
    finally:
        if watch:
            loop.remove_signal_handler(signal.SIGINT)


def names_for(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Return each file with the name that its stream gets; the files in folders, one by one.

    Args:
        arguments: files and folders, perhaps followed by a name, or by a prefix, which ends in a slash.

    Raises:
        click.UsageError: there is no such file, or no name for it.
    """
    *given, last = arguments
    prefix = ""
    if not given:
        given = [last]
    elif last.endswith("/"):
        prefix = last
    elif _is_one_more(given, last):
        given.append(last)
    elif len(given) == 1:
        _check(given[0])
        return list(_files_in(given[0], last)) if Path(given[0]).is_dir() else [(given[0], last)]
    else:
        raise click.UsageError(f"{last!r} is no file. For a common prefix of several names, end it with '/'.")
    found: list[tuple[str, str]] = []
    for file in given:
        _check(file)
        if file == "-":
            raise click.UsageError("the standard input ('-') needs a NAME: penstock put - NAME")
        name = Path(file).resolve().name if Path(file).is_dir() else Path(file).name
        found += _files_in(file, prefix + name) if Path(file).is_dir() else [(file, prefix + name)]
    if not found:
        raise click.UsageError("there are no files in these folders.")
    return found


def _is_one_more(given: Sequence[str], last: str) -> bool:
    """Tell whether the last argument is to be uploaded like the others: a lone file may get a folder's name."""
    path = Path(last)
    if path.is_dir():
        return len(given) > 1 or Path(given[0]).is_dir()
    return last == "-" or path.exists()


def _files_in(folder: str, name: str) -> Iterator[tuple[str, str]]:
    from penstock.client.folders import files_in

    for path, own in files_in(Path(folder), name):
        yield str(path), own


def _size_of(file: str) -> int | None:
    if file == "-":
        return None
    with suppress(OSError):
        state = Path(file).stat()
        return state.st_size if stat.S_ISREG(state.st_mode) else None
    return None


def _what_is_there(name: str, *, no_clobber: bool) -> str:
    if no_clobber:
        return f"There is a stream {name!r} already: without --no-clobber it is replaced."
    return f"The stream {name!r} has another entity tag by now: 'penstock info' tells which."


def _check(file: str) -> None:
    if file != "-" and not Path(file).exists():
        raise click.UsageError(f"there is no file {file!r}.")
