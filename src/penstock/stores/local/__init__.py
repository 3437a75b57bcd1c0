"""The embedded store: one folder of plain files, and a SQLite catalog of what they are.

Large bytes go to files, one a stream, written and read by offset. Small appends ride in the catalog, in the same
transaction as the head that they move, and are folded into the stream's file once there are many. Several processes of
one machine share the folder: SQLite and advisory file locks keep them apart.

Layout of the folder::

    catalog.sqlite3          heads, metadata, producers, small appends
    commit.lock              held by the process that commits
    reserve                  room for deletions on a full disk
    instances/<id>           a lock file for each running store; a free one belongs to a process that ended
    blobs/<2 hex>/<id>       the bytes of one incarnation
"""

from penstock.stores.local.store import Durability, LocalStore

__all__ = ["Durability", "LocalStore"]
