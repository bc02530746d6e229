"""What nmstate and NetworkManager do to a node, asked of the real programs and of the twin in the same cases.

Invariant: what is expected stands in one table (`nmstate_cases`) with what was measured; neither side has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from .nmstate_cases import CASES, NEWER, OLDER, Case, Outcome
from .nmstate_real import measure
from .nmstate_twin import imagine

pytestmark = pytest.mark.lab

Outcomes = Mapping[str, Outcome | Exception]


@pytest.fixture(scope="module")
def measured(needs_nmstate: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """All cases at once, on a lab for each OVN: most of the time is spent waiting for nmstate to give up."""
    folder = tmp_path_factory.mktemp("nm")
    with ThreadPoolExecutor(2) as pool:
        labs = [pool.submit(measure, ovn, folder / ovn) for ovn in (NEWER, OLDER)]
        yield {name: outcome for lab in labs for name, outcome in lab.result().items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_real_node_does_what_was_measured(case: Case, measured: Outcomes) -> None:
    outcome = measured[case.name]
    if isinstance(outcome, Exception):
        raise outcome
    if outcome not in case.unless:
        assert case.normalised(outcome) == case.normalised(case.outcome), case.measured


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_twin_does_what_was_measured(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    outcome = imagine(case, tmp_path_factory.mktemp("twin"))
    assert case.normalised(outcome) == case.normalised(case.outcome), case.measured
