"""``penstock ls``: list streams."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from penstock.cli.describe import as_json, local_time, size
from penstock.cli.options import Shared, shared_options

if TYPE_CHECKING:
    from penstock.client import RemoteStream


@click.command("ls")
@click.argument("prefix", default="")
@click.option("-l", "--long", is_flag=True, help="Show size, time, state and type, as on a terminal.")
@shared_options
def command(shared: Shared, prefix: str, *, long: bool) -> None:
    """List the streams whose names begin with PREFIX.

    Written to a pipe, one name a line.
    """
    details = long or sys.stdout.isatty()

    async def run() -> None:
        async with shared.client() as client:
            async for stream in client.list(prefix):
                shared.document(as_json(stream))
                if not shared.json:
                    click.echo(_line(stream) if details else stream.name)

    asyncio.run(run())


def _line(stream: RemoteStream) -> str:
    # Plain columns rather than a table: a listing of any length is shown as it arrives.
    colour = {"open": "green", "failed": "red"}.get(stream.state)
    state = click.style(f"{stream.state:<6}", fg=colour)
    kind = stream.content_type.partition(";")[0]
    return f"{size(stream.tail):>10}  {local_time(stream.modified_at):<19}  {state}  {kind:<24}  {stream.name}"
