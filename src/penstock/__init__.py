"""Streaming data and large requests for FastAPI."""
