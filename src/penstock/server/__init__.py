"""The server that can be run as it is: ``penstock serve``."""
