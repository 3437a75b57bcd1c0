"""``penstock put``: upload files."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.describe import as_json
from penstock.cli.options import Shared, shared_options
from penstock.cli.progress import progress_bar
from penstock.errors import PreconditionFailed

if TYPE_CHECKING:
    from penstock.client import Client


@click.command("put")
@click.argument("files", nargs=-1, required=True, metavar="FILE... [NAME]")
@click.option("-t", "--type", "content_type", metavar="TYPE", help="The content type (default: guessed from the name).")
@click.option("-n", "--no-clobber", is_flag=True, help="Fail if there is such a stream already.")
@click.option("--if-match", metavar="ETAG", help="Replace only what has this entity tag.")
@click.option("--ttl", type=click.IntRange(min=1), metavar="SECONDS", help="Expire after this time without a change.")
@click.option("--verify/--no-verify", default=True, help="Compare checksums with the server (default).")
@shared_options
def command(
    shared: Shared,
    files: tuple[str, ...],
    content_type: str | None,
    if_match: str | None,
    ttl: int | None,
    *,
    no_clobber: bool,
    verify: bool,
) -> None:
    """Upload each FILE; the URLs are written to the standard output.

    A last argument that is no existing file is the stream's NAME, or, ending in '/', what the names begin with;
    otherwise each stream is named like its file. '-' reads the standard input, and needs a NAME.
    """
    uploads = names_for(files)

    async def run() -> None:
        async with shared.client() as client:
            for file, name in uploads:
                await one(client, file, name)

    async def one(client: Client, file: str, name: str) -> None:
        with progress_bar(name, show=not shared.quiet) as progress:
            try:
                stream = await client.put(
                    sys.stdin.buffer if file == "-" else Path(file),
                    name,
                    content_type=content_type,
                    if_none_match=no_clobber,
                    if_match=if_match,
                    ttl=ttl,
                    verify=verify,
                    progress=progress,
                )
            except PreconditionFailed as error:
                error.args = (_what_is_there(name, no_clobber=no_clobber),)
                raise
        shared.say(stream.url or name)
        shared.document(as_json(stream))

    asyncio.run(run())


def names_for(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Return each file with the name that its stream gets.

    Args:
        arguments: files, perhaps followed by a name, or by a prefix, which ends in a slash.

    Raises:
        click.UsageError: there is no such file, or no name for it.
    """
    *files, last = arguments
    prefix = ""
    if not files:
        files = [last]
    elif last.endswith("/"):
        prefix = last
    elif last == "-" or Path(last).is_file() or (Path(last).exists() and not Path(last).is_dir()):
        files.append(last)
    elif len(files) == 1:
        _check(files[0])
        return [(files[0], last)]
    else:
        raise click.UsageError(f"{last!r} is no file. For a common prefix of several names, end it with '/'.")
    for file in files:
        _check(file)
        if file == "-":
            raise click.UsageError("the standard input ('-') needs a NAME: penstock put - NAME")
    return [(file, prefix + Path(file).name) for file in files]


def _what_is_there(name: str, *, no_clobber: bool) -> str:
    if no_clobber:
        return f"There is a stream {name!r} already: without --no-clobber it is replaced."
    return f"The stream {name!r} has another entity tag by now: 'penstock info' tells which."


def _check(file: str) -> None:
    if file == "-":
        return
    path = Path(file)
    if not path.exists():
        raise click.UsageError(f"there is no file {file!r}.")
    if path.is_dir():
        raise click.UsageError(f"{file!r} is a folder: name its files, as in {file.rstrip('/')}/*")
