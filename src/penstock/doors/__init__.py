"""The HTTP protocols by which streams are reached: thin translations to and from the service."""
