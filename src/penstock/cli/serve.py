"""``penstock serve``: run the server."""

from __future__ import annotations

import click

from penstock.server.settings import Settings, SettingsError


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.  [default: 8080]")
@click.option("--data", type=click.Path(file_okay=False), help="Folder of the streams.  [default: ./data]")
@click.option("--workers", type=click.IntRange(1, 256), help="How many processes serve.  [default: 1]")
@click.option(
    "--durability",
    type=click.Choice(["fsync", "os"]),
    help="What an acknowledged byte survives: fsync, a power cut; os, a crash of the process.  [default: fsync]",
)
@click.option("--max-size", type=click.IntRange(0), help="Most bytes of an upload; 0 for no limit.  [default: 0]")
@click.option(
    "--upload-expiry",
    type=click.IntRange(0),
    metavar="SECONDS",
    help="Remove uploads that made no progress for so long; 0 for never.  [default: 604800]",
)
@click.option(
    "--cors", metavar="ORIGINS", help="Origins whose scripts may use /files, with commas between; '*' for all."
)
@click.option(
    "--webhook-url",
    metavar="URL",
    help="Ask this URL about uploads, and tell it of complete ones; PENSTOCK_WEBHOOK_SECRET signs.",
)
@click.option(
    "--max-append-size",
    type=click.IntRange(0),
    help="Most bytes of one request of a resumable upload; 0 for no limit.  [default: 0]",
)
@click.option("--grace", type=click.IntRange(0), help="Seconds for what is under way at the end.  [default: 30]")
@click.option("--long-poll", type=click.IntRange(1), help="Seconds that a long-poll waits.  [default: 20]")
@click.option("--local-webhooks/--no-local-webhooks", default=None, help="Let subscriptions tell this machine.")
@click.option("--access-log/--no-access-log", default=None, help="Log every request.")
@click.option(
    "--forwarded-allow-ips",
    metavar="ADDRESSES",
    help="Proxies whose X-Forwarded-... fields count: addresses and networks, or '*'.  [default: 127.0.0.1,::1]",
)
@click.option("--root-path", metavar="PATH", help="Path of the server as seen from outside, which a proxy takes away.")
def command(**given: object) -> None:
    """Run the server.

    Every option can be given by a variable too, such as PENSTOCK_PORT. An option wins over its variable.
    """
    from dataclasses import replace

    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        settings = replace(Settings.from_environment(), **chosen)  # type: ignore[arg-type]  # click made them what they must be
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    try:
        from penstock.server.run import run
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"The server needs more packages: pip install 'penstock[server]' ({error})."
        ) from error
    run(settings)
