"""Resumable uploads of the IETF (draft-ietf-httpbis-resumable-upload).

`uploads` is what is done with any upload; what they are for is `files`, or `bodies` of an application's own endpoints,
by `router`.
"""

from penstock.doors.resumable.files import ResumableFiles, is_upload
from penstock.doors.resumable.router import ResumableRouter
from penstock.doors.resumable.uploads import asked, creates

__all__ = ["ResumableFiles", "ResumableRouter", "asked", "creates", "is_upload"]
