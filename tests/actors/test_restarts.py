"""The restart budget, decided without running anything; and the defaults, pinned."""

from dataclasses import astuple

from infrasight.actors import RestartPolicy
from infrasight.actors.restarts import RestartBudget


def test_defaults() -> None:
    assert astuple(RestartPolicy()) == (5, 60.0, 0.1, 5.0)


def test_backoff_doubles_up_to_its_maximum_then_the_budget_is_spent() -> None:
    budget = RestartBudget(RestartPolicy(budget=4, within_s=60, backoff_s=1, backoff_max_s=3))
    assert [budget.spend(0.0) for _ in range(5)] == [1, 2, 3, 3, None]


def test_crashes_older_than_the_window_are_forgiven() -> None:
    budget = RestartBudget(RestartPolicy(budget=2, within_s=60, backoff_s=1, backoff_max_s=9))
    assert [budget.spend(now) for now in (0.0, 59.0, 60.0, 61.0, 119.0)] == [1, 2, 2, None, 2]


def test_a_budget_of_nothing_forgives_nothing() -> None:
    assert RestartBudget(RestartPolicy(budget=0)).spend(0.0) is None
