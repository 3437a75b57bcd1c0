"""Responses out: from generators, from files and streams, as archives."""
