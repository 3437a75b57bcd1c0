"""``penstock rm``: delete streams."""

from __future__ import annotations

import asyncio

import click

from penstock.cli.options import Shared, shared_options
from penstock.errors import StreamNotFound


@click.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-f", "--force", is_flag=True, help="Do not mind if there is no such stream.")
@shared_options
def command(shared: Shared, names: tuple[str, ...], *, force: bool) -> None:
    """Delete the streams of these names, each for good."""

    async def run() -> None:
        async with shared.client() as client:
            for name in names:
                deleted = True
                try:
                    await client.delete(name)
                except StreamNotFound:
                    if not force:
                        raise
                    deleted = False
                shared.document({"name": name, "deleted": deleted})

    asyncio.run(run())
