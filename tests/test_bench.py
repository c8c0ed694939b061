"""The verdict of the benchmarks, on made-up figures; they themselves take too long for a test."""

from __future__ import annotations

from host.bench_report import Figure, Result, report, report_growth, seconds, whole


def result(title: str, *figures: Figure) -> Result:
    return Result(title, figures)


def test_target_that_is_missed_is_told() -> None:
    table = """\
| ten VMs |     measured |   target |         |
| ------- | -----------: | -------: | ------- |
| a look  |       1.50 s | ≤ 2.00 s | reached |
| a start |       2.50 s | ≤ 2.00 s | missed  |
| looks   |           12 |     ≥ 10 | reached |
| VMs     |           10 |          |         |
| a stop  | not measured |          | missed  |
"""
    found = result(
        "ten VMs",
        Figure("a look", 1.5, seconds, 2.0),
        Figure("a start", 2.5, seconds, 2.0),
        Figure("looks", 12, whole, 10, at_least=True),
        Figure("VMs", 10, whole),
        Figure.lost("a stop"),
    )
    assert report(found) == table
    assert not found.reached


def test_growth_is_that_of_the_size_at_most() -> None:
    small = result("ten", Figure("a", 1.0, seconds), Figure("b", 0.0, whole))
    large = result("fifty", Figure("a", 5.0, seconds), Figure("b", 3.0, whole))
    table, reached = report_growth(small, large, 5)
    assert reached
    assert (
        table
        == """\
| figure |    ten |  fifty | growth | ≤ 5     |
| ------ | -----: | -----: | -----: | ------- |
| a      | 1.00 s | 5.00 s |    5.0 | reached |
| b      |      0 |      3 |        |         |
"""
    )
    assert not report_growth(small, large, 4.9)[1]


def test_what_was_not_measured_on_one_size_is_missed() -> None:
    whole_switch = (Figure("switch", 1.0, seconds), Figure("switch, looks a second", 1.0, whole))
    small, large = result("ten", *whole_switch), result("fifty", Figure.lost("a switch"))
    table, reached = report_growth(small, large, 5)
    assert not reached
    assert "| a switch |     | not measured |        | missed |" in table
    assert not report_growth(large, large, 5)[1]
    assert not large.reached
