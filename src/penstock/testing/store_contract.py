"""The contract of a store as a test suite: subclass it, say how to make your store, and pytest does the rest."""

from __future__ import annotations

from penstock.testing.laws.commits import CommitLaws
from penstock.testing.laws.forks import ForkLaws
from penstock.testing.laws.interruption import InterruptionLaws
from penstock.testing.laws.listing import ListingLaws
from penstock.testing.laws.persistence import PersistenceLaws
from penstock.testing.laws.reading import ReadingLaws
from penstock.testing.laws.replacement import ReplacementLaws
from penstock.testing.laws.retention import RetentionLaws
from penstock.testing.laws.uploads import UploadLaws
from penstock.testing.laws.values import ValueLaws


class StoreContract(
    CommitLaws,
    ReadingLaws,
    ListingLaws,
    ValueLaws,
    ReplacementLaws,
    UploadLaws,
    ForkLaws,
    RetentionLaws,
    InterruptionLaws,
    PersistenceLaws,
):
    """A test for every sentence of the contract in `penstock.core.ports`.

    ::

        class TestMyStore(StoreContract):
            persistent = True  # it has everything again when it is opened anew

            def make(self, path):
                return MyStore(path)

    `StoreHarness` lists what else a subclass may say of its store. Laws that it cannot be held to are left out.
    """
