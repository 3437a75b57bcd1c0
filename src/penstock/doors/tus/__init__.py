"""tus 1.0.0: the resumable upload protocol on the URLs of the files door; see `penstock.protocols.tus`.

All extensions: creation, creation-with-upload, creation-defer-length, expiration, checksum, termination, concatenation,
concatenation-unfinished, and checksum-trailer where the server tells of trailers.
"""

from penstock.doors.tus.door import TusDoor
from penstock.doors.tus.requests import is_tus, method_of, option_fields, shows_its_upload

__all__ = ["TusDoor", "is_tus", "method_of", "option_fields", "shows_its_upload"]
