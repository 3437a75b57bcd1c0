"""The live door: records in by POST, and out as they come."""

from penstock.doors.live.router import live_router

__all__ = ["live_router"]
