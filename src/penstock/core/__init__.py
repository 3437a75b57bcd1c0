"""Streams, without HTTP and without a storage engine: the ports, the rules, and the service that joins them."""
