"""What the benchmarks' page is made of: judged numbers, and a page that keeps what a person wrote."""

from __future__ import annotations

import json
import re
from collections import defaultdict

import pytest

from bench import site
from bench.__main__ import BENCHMARKS
from bench.page import PAGE, written
from bench.planning import plan_seconds
from bench.policies import Lost
from bench.results import Bar, Result, as_text, spread
from tests.support.planning import COLD, HOT

RESULT = Result(
    "a title", ("what", "ms"), (("a|b", "1"), ("c", "22")), (Bar("ratio", 1.234, 1.2),), ("a remark",)
)
BODY = "above\n<!-- measured: start -->\nold\n<!-- end: start -->\nbelow\n"


def test_a_missed_bar_says_so() -> None:
    assert str(Bar("ratio", 1.2, 1.2)) == "ratio: 1.20 (bar: at most 1.2) met"
    assert str(Bar("ratio", 1.21, 1.2)).endswith("MISSED")
    assert "ratio: 1.23 (bar: at most 1.2) MISSED" in as_text(RESULT)


def test_a_spread_is_median_and_extremes() -> None:
    assert spread([3.0, 1.0, 50.0]) == "3.0 (1.0-50.0)"


def test_writing_replaces_the_part_of_one_benchmark_alone() -> None:
    page = written(BODY, "start", RESULT)
    assert page.startswith("above\n<!-- measured: start -->\n**a title**")
    assert page.endswith("<!-- end: start -->\nbelow\n")
    assert "old" not in page
    assert "| a\\|b | 1 |" in page
    assert "- a remark" in page
    assert re.search(r"Measured on \d+ cores, .*Python 3\.\d+\.\d+; .*; \d{4}-\d\d-\d\d\.", page)
    assert written(page, "start", RESULT) == page


def test_writing_without_a_place_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match="has no part <!-- measured: outage -->"):
        written(BODY, "outage", RESULT)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_page_has_numbers_of_every_benchmark(name: str) -> None:
    page = PAGE.read_text()
    _, _, rest = page.partition(f"<!-- measured: {name} -->")
    part, ended, _ = rest.partition(f"<!-- end: {name} -->")
    assert ended
    assert "(bar: at most" in part
    assert "Measured on" in part


@pytest.mark.parametrize("rollout", [HOT, COLD])
def test_the_generated_cluster_can_be_planned_whole(rollout: str) -> None:
    assert plan_seconds(3, rollout) > 0


def test_the_made_up_site_has_objects_as_long_as_real_ones_and_no_two_alike() -> None:
    found = defaultdict(list)
    for each in site.all_objects(nodes=3, vms_per_node=2):
        found[each["kind"]].append(each)
    least = {"Node": 3000, "VirtualMachineInstance": 2500, "NodeNetworkState": 20_000}
    assert all(len(json.dumps(each)) > size for kind, size in least.items() for each in found[kind])
    assert {kind: len(found[kind]) for kind in least} == {
        "Node": 3,
        "VirtualMachineInstance": 6,
        "NodeNetworkState": 3,
    }
    macs = [each["status"]["interfaces"][1]["mac"] for each in found["VirtualMachineInstance"]]
    assert len(set(macs)) == 6


def test_nothing_lost_is_not_divided_by() -> None:
    lost = Lost()
    for way, ms in (("ovsplan", 12.0), ("script", 0.0), ("script", 8.0), ("script", 8.0)):
        lost.add(way, "25.03", ms)
    assert lost.ratio("ovsplan", "script", "25.03") == 1.5
    lost.add("none", "25.03", 0.0)
    assert lost.ratio("ovsplan", "none", "25.03") == 12.0
