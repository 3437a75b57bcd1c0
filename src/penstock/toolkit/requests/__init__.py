"""Request bodies in: raw, as records, as forms."""
