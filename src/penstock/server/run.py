"""Running the server, in one process or several."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.supervisors import Multiprocess

from penstock.doors.tails.tail import PATIENCE
from penstock.protocols.framings.messages import MAX_MESSAGE
from penstock.server.settings import Settings
from penstock.toolkit.responses.streamed_body import BodyAborted

if TYPE_CHECKING:
    from fastapi import FastAPI

SWITCH_INTERVAL: Final = 0.00005
"""Seconds after which a thread that waits for the interpreter's lock is given it. A commit needs the lock some ten
times, and with Python's 5 ms a busy event loop lets it wait so long for each: with this, a fan-out to 1,000 readers
took three times as many appends."""


def run(settings: Settings) -> None:
    """Serve until a signal ends it; SIGTERM and SIGINT let what is under way finish, and that is a success."""
    for number in (signal.SIGTERM, signal.SIGINT):  # which uvicorn raises again once it has stopped
        signal.signal(number, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        "penstock.server.run:application",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http="penstock.server.quick:QuickProtocol",
        loop="uvloop",
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE,
        ws_ping_timeout=2 * PATIENCE,  # who takes nothing is told so before; a ping waits behind what was sent
        ws_per_message_deflate=False,  # the same bytes for all readers, and no buffers for each
        lifespan="on",
        access_log=settings.access_log,
        proxy_headers=False,  # see `penstock.server.forwarded`
        log_config=_logging(),
        server_header=False,
        date_header=False,  # see `penstock.server.date`
        timeout_graceful_shutdown=settings.grace,
        timeout_keep_alive=60,
    )
    os.environ.update(settings.to_environment())  # from where the workers have them
    if settings.workers > 1:
        Multiprocess(config, sockets=[config.bind_socket()]).run()
    else:
        uvicorn.Server(config).run()


def application() -> FastAPI:
    """Return the application for a process of the server. A worker goes when its parent does, even a killed one."""
    from penstock.server.app import create_app  # the parent of workers can do without FastAPI

    sys.setswitchinterval(SWITCH_INTERVAL)

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_after, args=(parent.join,), name="penstock-parent", daemon=True).start()
    return create_app()


def _leave_after(wait: Callable[[], object]) -> None:
    wait()
    os.kill(os.getpid(), signal.SIGTERM)


class AbortedBodies(logging.Filter):
    """Says in a line that a body broke off, where the server would print a traceback as for an error of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; all are logged but those of accepted WebSockets, which belong into an access log."""
        if record.msg.startswith('%s - "WebSocket'):
            return False
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, BodyAborted):
            record.msg, record.args = "%s", (str(error),)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def _logging() -> dict[str, Any]:
    """Return the server's logging, with penstock's own messages in the same place."""
    config: dict[str, Any] = {**LOGGING_CONFIG}
    config["filters"] = {"aborted": {"()": AbortedBodies}}
    config["loggers"] = {
        **config["loggers"],
        "uvicorn.error": {"level": "INFO", "filters": ["aborted"]},
        "penstock": {"handlers": ["default"], "level": "INFO", "propagate": False},
    }
    return config
