"""HTTP's and the live formats' rules without I/O: bytes and header strings in, values out."""
