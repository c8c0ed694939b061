"""What the exporter counts of itself."""

from __future__ import annotations

from microvm_exporter.activity import Activity, Delays, Tally
from microvm_exporter.model import Cause


def test_nothing_was_done_yet() -> None:
    assert Tally().now() == Activity()
    assert Activity().refreshes == {Cause.EVENT: 0, Cause.INTERVAL: 0, Cause.RESYNC: 0}


def test_record_stays_what_it_was() -> None:
    tally = Tally()
    tally.count(Cause.RESYNC)
    before = tally.now()
    tally.count(Cause.EVENT)
    tally.count(Cause.EVENT)
    tally.observe(0.5)
    assert before == Activity({Cause.EVENT: 0, Cause.INTERVAL: 0, Cause.RESYNC: 1})
    assert tally.now() == Activity(
        {Cause.EVENT: 2, Cause.INTERVAL: 0, Cause.RESYNC: 1}, Delays((0, 1), 1, 0.5)
    )


def test_delay_is_within_a_bound_that_it_equals() -> None:
    tally = Tally()
    for seconds in (0.0, 0.25, 0.250001, 1.0, 1.5):
        tally.observe(seconds)
    assert tally.now().delays == Delays(within=(2, 4), count=5, total=3.000001)
