"""Running the server, in one process or several."""

from __future__ import annotations

import logging
import os
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.supervisors import Multiprocess

from penstock.server.settings import Settings
from penstock.toolkit.responses import BodyAborted


def run(settings: Settings) -> None:
    """Serve until a signal ends it; SIGTERM and SIGINT let what is under way finish."""
    config = uvicorn.Config(
        "penstock.server.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=settings.access_log,
        log_config=_logging(),
        server_header=False,
        timeout_graceful_shutdown=settings.grace,
        timeout_keep_alive=60,
    )
    os.environ.update(settings.to_environment())  # from where the workers have them
    if settings.workers > 1:
        Multiprocess(config, sockets=[config.bind_socket()]).run()
    else:
        uvicorn.Server(config).run()


class AbortedBodies(logging.Filter):
    """Says in a line that a body broke off, where the server would print a traceback as for an error of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; it is logged in any case."""
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
