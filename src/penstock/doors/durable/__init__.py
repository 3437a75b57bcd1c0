"""The Durable Streams protocol (PROTOCOL.md 1.0): streams created, appended to, read and forked over plain HTTP."""

from penstock.doors.durable.router import durable_router

__all__ = ["durable_router"]
