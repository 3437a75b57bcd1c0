"""``penstock get``: download a stream."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from penstock.cli.describe import as_json
from penstock.cli.options import Shared, shared_options
from penstock.cli.progress import progress_bar


@click.command("get")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where to; '-' is the standard output (default: a file in this folder, named like the stream).",
)
@click.option("-f", "--follow", is_flag=True, help="Read on as the stream grows, until it is closed.")
@click.option("--resume/--no-resume", default=True, help="Go on with a partial file FILE.part (default).")
@click.option("--verify/--no-verify", default=True, help="Compare checksums with the server (default).")
@shared_options
def command(shared: Shared, name: str, output: str | None, *, follow: bool, resume: bool, verify: bool) -> None:
    """Download the stream NAME.

    The file appears when it is complete; until then there is FILE.part, and running the command again goes on where
    that ends. The file's path is written to the standard output.
    """
    from penstock.client.paths import file_name_for

    to_output = output == "-"
    if to_output and shared.json:
        raise click.UsageError("--json and '-o -' would both write to the standard output.")

    async def run() -> None:
        destination = sys.stdout.buffer if to_output else Path(output or file_name_for(name))
        async with shared.client() as client:
            with progress_bar(name, show=not shared.quiet and not (to_output and sys.stdout.isatty())) as progress:
                result = await client.get(
                    name, destination, follow=follow, resume=resume, verify=verify, progress=progress
                )
        if result.stream.state == "open":
            shared.note(f"{name!r} is still open: these are its first {result.size} bytes. --follow waits for the rest")
        if not to_output:
            shared.say(str(result.path or output))
        shared.document(
            {
                **as_json(result.stream),
                "path": None if result.path is None else str(result.path),
                "size": result.size,
                "resumed_at": result.resumed_at,
                "sha256": result.digest.hex(),
                "verified": result.verified,
            }
        )

    asyncio.run(run())
