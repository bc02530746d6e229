"""The plan document: one spelling, one digest, and nothing but what was reviewed is read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.planning import COLD, HOT, TARGET, declared, make_world, observed

from engine.observe import observe_for_plan
from plans.document import FORMAT, Plan, canonical, lines, pieces, read, sealed, write
from plans.errors import InputError
from plans.facts import Facts
from plans.ops import AnyOp
from plans.planner import make_plan
from providers.interpreters import Interpreter

VMS = {
    "db/oracle-1": {
        "node": "worker-01",
        "networks": {"net": {"nad": "default/vlan224", "mac": "02:00:00:00:e0:0e"}},
    }
}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    with make_world(tmp_path_factory.mktemp("twin") / "world", {"vms": VMS}) as world:
        return observed(world, declared(HOT))


@pytest.fixture(scope="module")
def plan(facts: Facts) -> Plan:
    return make_plan(declared(COLD), facts, TARGET)


def test_a_plan_comes_back_from_its_file_whole(plan: Plan) -> None:
    back = read(write(plan), "plan.json")
    assert write(back) == write(plan)
    assert [a.id for a in back.actions] == [a.id for a in plan.actions]
    assert [[type(op) for op in a.ops] for a in back.actions] == [
        [type(op) for op in a.ops] for a in plan.actions
    ]


def test_the_file_is_one_line_of_json_with_sorted_keys(plan: Plan) -> None:
    text = write(plan)
    assert text.count("\n") == 1
    assert (
        text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    )


def test_nothing_of_the_planners_bookkeeping_is_in_the_file(plan: Plan) -> None:
    ops = [op for action in json.loads(write(plan))["actions"] for op in action["ops"]]
    assert ops and all("changes" not in op for op in ops)


def _edited(plan: Plan, edit: Callable[[Any], object]) -> str:
    raw = json.loads(write(plan))
    edit(raw)
    return json.dumps(raw)


def _delay(raw: Any) -> None:
    raw["actions"][1]["deadline"] = 1.0


def _other_target(raw: Any) -> None:
    raw["target"]["identity"] = "another"


def _one_less(raw: Any) -> None:
    raw["actions"].pop()


def _no_digest(raw: Any) -> None:
    del raw["digest"]


@pytest.mark.parametrize("edit", [_delay, _other_target, _one_less, _no_digest])
def test_a_plan_that_was_edited_by_hand_is_refused(plan: Plan, edit: Callable[[Any], object]) -> None:
    with pytest.raises(InputError, match=r"^plan.json was changed after it was made: .* plan again\.$"):
        read(_edited(plan, edit), "plan.json")


def test_a_plan_that_was_only_reformatted_is_the_same_plan(plan: Plan) -> None:
    assert read(json.dumps(json.loads(write(plan)), indent=4), "plan.json").digest == plan.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "plan.json is not a plan file: it is not JSON"),
        ("[]", "plan.json is not a plan file: it has no plan in it"),
        ('{"kind": "World"}', "plan.json is not a plan file: it has no plan in it"),
        (
            f'{{"format": {FORMAT + 1}, "actions": []}}',
            f"plan.json has plan format {FORMAT + 1}; this version of ovsplan reads format {FORMAT}",
        ),
        (f'{{"format": {FORMAT}, "actions": 7}}', "plan.json is damaged: "),
    ],
)
def test_what_is_no_plan_of_this_version_is_refused_with_a_way_out(text: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        read(text, "plan.json")
    assert str(refused.value).startswith(message)
    assert "lan again" in str(refused.value) or "ovsplan plan --out" in str(refused.value)


def test_an_op_of_an_unknown_sort_is_damage(plan: Plan) -> None:
    def forge(raw: Any) -> None:
        raw["actions"][0]["ops"][0]["op"] = "reboot"

    with pytest.raises(InputError, match=r"is damaged: actions\.0\.ops\.0"):
        read(_edited(plan, forge), "plan.json")


class Backwards:
    """Hands that get every answer with its rows, sets, maps and keys the other way round."""

    def __init__(self, hands: Interpreter) -> None:
        self._hands = hands

    def await_news(self, requests: Any, seconds: float) -> bool:
        return False

    def ask(self, requests: Any) -> Any:
        replies = self._hands.ask(requests)
        return [reply[::-1] if isinstance(reply, list) else _backwards(reply) for reply in replies]

    def perform(self, op: AnyOp) -> tuple[str, Any]:
        raise AssertionError(f"planning performs nothing, and yet: {op}")


def _backwards(value: Any) -> Any:
    match value:
        case dict():
            return {key: _backwards(value[key]) for key in reversed(value)}
        case [("map" | "set") as tag, [*members]]:
            return [tag, members[::-1]]
        case [{}, *_]:
            return [_backwards(row) for row in reversed(value)]
    return value


def test_the_order_in_which_the_world_answers_does_not_show(tmp_path: Path, plan: Plan) -> None:
    with make_world(tmp_path / "world", {"vms": VMS}) as world:
        facts = observe_for_plan(Backwards(Interpreter(world)), world.clock, declared(COLD))
    turned = Facts(dict(reversed(dict(facts.items()).items())))
    assert write(make_plan(declared(COLD), turned, TARGET)) == write(plan)


def test_the_order_of_the_documents_does_not_show(facts: Facts, plan: Plan) -> None:
    network, rollout = COLD.split("---\n")
    assert write(make_plan(declared(rollout, network), facts, TARGET)) == write(plan)


def test_the_order_of_accepted_hazards_and_nodes_does_not_show(facts: Facts) -> None:
    plans = {
        write(make_plan(declared(COLD), facts, TARGET, accepted=accepted, only=only))
        for accepted in (["H14", "H18"], ["H18", "H14"])
        for only in (["worker-01", "worker-02"], ["worker-02", "worker-01"])
    }
    assert len(plans) == 1


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from plans.document import write
from support.planning import COLD, declared, make_world, planned
with make_world(Path(sys.argv[1])) as world:
    print(write(planned(world, declared(COLD))), end="")
"""


def test_another_process_with_another_hash_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])

    def plan_with(seed: str) -> bytes:
        program = [sys.executable, "-c", PROGRAM.format(tests=tests), str(tmp_path / seed / "base")]
        (tmp_path / seed).mkdir()
        env = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(program, env=env, capture_output=True, check=True, timeout=60).stdout

    first = plan_with("1")
    assert first == plan_with("4711")
    assert b"worker-02/remap/vmnet" in first


def test_the_digest_is_of_everything_but_itself(plan: Plan) -> None:
    assert read(write(replace(plan)), "plan.json").digest == plan.digest
    other = replace(plan, desired_digest="0" * 64)
    with pytest.raises(InputError, match="was changed after it was made"):
        read(write(other), "plan.json")


def test_canonical_json_has_one_spelling() -> None:
    assert canonical({"b": (1, 2), "a": "ö"}) == '{"a":"ö","b":[1,2]}'
    assert canonical({1: ("x",)}) == '{"1":["x"]}'


def test_a_large_plan_is_hashed_and_written_without_its_text_being_held_whole(plan: Plan) -> None:
    wide = replace(plan, actions=plan.actions * 40)
    assert "".join(pieces(wide)) == canonical(wide) == write(wide).rstrip("\n")
    tracemalloc.start()
    try:
        sealed(wide)
        written = sum(map(len, lines(wide)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < written / 4
