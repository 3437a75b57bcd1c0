"""Streaming inside a handler: request bodies in, responses out. The doors are built on it too."""
