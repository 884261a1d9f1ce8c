"""What is learnt of how long computing takes."""

from __future__ import annotations

from math import inf

import pytest

from dropserve_server.costs import Costs


def test_nothing_is_known_of_what_was_never_computed() -> None:
    costs = Costs()
    assert (costs.seconds(1), costs.unit, costs.within(1.0)) == (inf, 0.0, 0)


def test_estimates_are_those_of_the_same_size_and_err_on_the_long_side_for_others() -> None:
    costs = Costs()
    costs.record(16, 0.016)
    costs.record(1024, 0.1024)
    assert costs.seconds(16) == pytest.approx(0.016)
    assert costs.seconds(1024) == pytest.approx(0.1024)
    assert costs.seconds(64) == pytest.approx(0.064)  # as if a row cost what it costs of 16
    assert costs.seconds(1) == pytest.approx(0.016)  # as long as the smallest batch known
    assert costs.seconds(4096) == pytest.approx(0.4096)


def test_an_estimate_on_the_short_side_takes_nothing_for_slower_than_it_was_seen_to_be() -> None:
    costs = Costs()
    assert costs.at_least(16) == 0
    costs.record(16, 0.016)
    assert costs.at_least(16) == pytest.approx(0.016)
    assert costs.at_least(4) == pytest.approx(0.004)  # as if it had a part of the batch
    assert costs.at_least(100_000) == pytest.approx(0.032)  # as long as the largest that may be meant
    costs.record(1024, 0.1024)
    assert costs.at_least(64) == pytest.approx(0.0064)


def test_how_much_fits_is_the_most_that_takes_no_longer() -> None:
    costs = Costs()
    costs.record(16, 0.016)
    assert costs.within(0.032) == 32
    costs.record(1024, 0.1024)
    assert costs.within(0.2048) == pytest.approx(2048, abs=1)
    assert costs.within(0.032) == 32  # 320 rows at the large batch's price are not enough to get it
    assert costs.within(0.001) == 1


def test_what_work_adds_to_a_queue_is_not_made_up_of_what_was_small() -> None:
    costs = Costs()
    assert costs.share(1000) == 0
    costs.record(8, 0.008)  # nearly all of it for being called at all
    assert costs.share(8) == pytest.approx(0.008)
    assert costs.share(1_000_000) <= 0.016
    costs.record(1000, 0.1)
    assert costs.share(1000) == pytest.approx(0.1)
    assert costs.share(8) < 0.001  # as a part of batches as they are lately
    unit = costs.unit
    costs.record_whole(1_000_000, 60.0)
    assert costs.unit == unit
    assert costs.share(1_000_000) == pytest.approx(60)
    assert costs.seconds(1_000_000) == pytest.approx(60)


def test_slow_spells_are_taken_for_what_they_are() -> None:
    costs = Costs()
    for _ in range(10):
        costs.record(8, 0.001)
    costs.record(8, 0.1)
    assert costs.seconds(8) < 0.012
    for _ in range(5):
        costs.record(8, 0.001)
    assert costs.seconds(8) == pytest.approx(0.001, rel=0.5)


def test_a_model_that_became_slower_is_noticed() -> None:
    costs = Costs()
    for _ in range(100):
        costs.record(8, 0.001)
    for _ in range(50):
        costs.record(8, 0.01)
    assert costs.seconds(8) > 0.009
    assert costs.unit * 8 > 0.008


def test_a_unit_costs_what_it_cost_in_recent_batches() -> None:
    costs = Costs()
    for _ in range(200):
        costs.record(1, 0.001)
    for _ in range(200):
        costs.record(100, 0.01)
    assert costs.unit == pytest.approx(0.0001, rel=0.02)


def test_work_is_cut_by_what_it_keeps_a_processor_busy_and_waited_for_as_long_as_it_takes() -> None:
    costs = Costs()
    costs.record(16, 0.064, 0.016)  # three quarters of the time others had the processor
    assert costs.seconds(16) == pytest.approx(0.016)
    assert costs.within(0.032) == 32
    assert costs.at_least(16) == costs.share(16) == pytest.approx(0.064)
    costs.record_whole(1024, 4.0, 1.0)
    assert costs.seconds(1024) == pytest.approx(1.0)
    assert costs.at_least(1024) == pytest.approx(4.0)
