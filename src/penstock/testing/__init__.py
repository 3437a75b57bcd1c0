"""For the tests of those who write a store of their own, or a service on one. It needs pytest and Hypothesis."""

from __future__ import annotations

import pytest

# Before they are imported: their assertions are to explain themselves like those of a test module.
pytest.register_assert_rewrite("penstock.testing.laws", "penstock.testing.state_machine")

from penstock.testing.driver import Driver  # noqa: E402 - see above
from penstock.testing.faults import FaultyStore, ManualClock  # noqa: E402
from penstock.testing.harness import StoreHarness  # noqa: E402
from penstock.testing.state_machine import store_machine  # noqa: E402
from penstock.testing.store_contract import StoreContract  # noqa: E402

__all__ = ["Driver", "FaultyStore", "ManualClock", "StoreContract", "StoreHarness", "store_machine"]
