"""Writes that the API server judges at plan time: which, with what in the place of what is not known, and what it means."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases.test_cases import CASES, load
from crash.lives import Ended, Job, is_mutating, job_of
from crash.others import NETWORK, ROLLOUT, small_world
from support.edits import apply_edit
from support.planning import HOT, TARGET, declared, make_world, observed, planned

from cli.wiring import Failures
from engine.dryrun import AT_ONCE, rehearse
from plans.actions import Action
from plans.document import Plan
from plans.errors import OvsplanError
from plans.facts import KNOWN_AFTER_APPLY
from plans.ops import AnyOp, Apply, Create, Delete, Edit, ObjectRef, Patch, Wait
from plans.planner import make_plan
from plans.rehearsal import MOST, Answer, Trial, findings, trials
from providers.interpreters import Doubtful, Interpreter, Lost, NotDone
from providers.ports import Forbidden, NotFound, PortError, Refused, Unreachable

NODE = ObjectRef("v1", "Node", "worker-01")


def patch(ref: ObjectRef = NODE, **spec: object) -> Patch:
    return Patch(label="p", title=f"patch {ref.name}", ref=ref, patch={"spec": spec})


def action(*ops: AnyOp) -> Action:
    return Action(id="n/a", routine="a@1", title="a", node="worker-01", ops=ops)


def tried(*ops: AnyOp) -> list[AnyOp]:
    return [trial.op for trial in trials([action(*ops)])]


def test_only_the_first_write_of_an_object_is_tried() -> None:
    other = ObjectRef("v1", "Node", "worker-02")
    assert tried(patch(a=1), patch(other), patch(a=2)) == [patch(a=1), patch(other)]
    assert [t.op for t in trials([action(patch(a=1)), action(patch(a=2))])] == [patch(a=1)]


def test_the_same_write_is_tried_once() -> None:
    later = ObjectRef("v1", "Pod", KNOWN_AFTER_APPLY, "default")
    made = [Create(label=f"c{n}", title=f"{n}", ref=later, body={"spec": {"a": n // 2}}) for n in range(4)]
    assert len(tried(*made)) == 2


def test_what_is_not_known_yet_gets_a_name_that_is_valid() -> None:
    ref = ObjectRef("v1", "Pod", f"{KNOWN_AFTER_APPLY} return 7f", "default")
    body = {
        "metadata": {"name": ref.name, "labels": {"run": KNOWN_AFTER_APPLY}},
        "spec": {"a": [KNOWN_AFTER_APPLY, 1]},
    }
    (made,) = tried(Create(label="c", title="c", ref=ref, body=body))
    assert isinstance(made, Create)
    assert made.ref.name == made.body["metadata"]["name"] == "known-after-apply"
    assert made.body["metadata"]["labels"] == {"run": "known-after-apply"}
    assert made.body["spec"] == {"a": ["known-after-apply", 1]}


def test_guards_that_only_the_run_can_know_are_left_out() -> None:
    policy = ObjectRef("nmstate.io/v1", "NodeNetworkConfigurationPolicy", "p")
    operations = ({"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": 2})
    (edit,) = tried(
        Edit(label="e", title="e", ref=policy, operations=operations, resource_version=KNOWN_AFTER_APPLY)
    )
    assert isinstance(edit, Edit)
    assert (edit.operations, edit.resource_version) == ((operations[1],), None)
    (gone,) = tried(Delete(label="d", title="d", ref=policy, uid=KNOWN_AFTER_APPLY))
    assert isinstance(gone, Delete) and gone.uid is None
    (kept,) = tried(Delete(label="d", title="d", ref=policy, uid="7"))
    assert isinstance(kept, Delete) and kept.uid == "7"


def test_evictions_and_what_is_made_in_a_namespace_of_the_plans_own_are_not_tried() -> None:
    pod = ObjectRef("v1", "Pod", "p", "mine")
    evict = Create(label="e", title="e", ref=pod, body={}, subresource="eviction")
    space = Apply(label="s", title="s", ref=ObjectRef("v1", "Namespace", "mine"), body={})
    assert tried(evict) == []
    assert tried(space, Create(label="c", title="c", ref=pod, body={})) == [space]


def test_no_more_are_tried_than_the_bound() -> None:
    many = [patch(ObjectRef("v1", "Node", f"n{n}")) for n in range(2 * MOST)]
    assert len(tried(*many)) == MOST
    other = patch(ObjectRef("v1", "Namespace", "after-them"))
    assert tried(*many, other)[MOST:] == [other]


class Hands:
    """Has every write judged the same way."""

    def __init__(self, raised: Exception | None, cause: PortError | None = None) -> None:
        self.raised, self.cause = raised, cause
        self.judged: list[AnyOp] = []

    def rehearse(self, op: AnyOp) -> None:
        self.judged.append(op)
        if self.raised is not None:
            raise self.raised from self.cause


def plan_of(*ops: AnyOp) -> Plan:
    return Plan(2, TARGET, "", (), (), (action(*ops),))


@pytest.mark.parametrize(
    ("raised", "cause", "word"),
    [
        (NotDone("no"), Refused("no"), "refused"),
        (NotDone("no"), NotFound("no"), "refused"),
        (NotDone("no"), Forbidden("no"), "forbidden"),
        (NotDone("no"), Unreachable("no"), "unasked"),
        (Doubtful("no"), None, "unasked"),
    ],
)
def test_what_an_answer_is_taken_for(raised: Exception, cause: PortError | None, word: str) -> None:
    (answer,) = rehearse(Hands(raised, cause), Failures(), plan_of(patch()))
    assert (answer.word, answer.why) == (word, "no")


@pytest.mark.parametrize("raised", [None, Lost("somebody is at it")])
def test_a_write_that_would_do_or_that_is_read_again_says_nothing(raised: Exception | None) -> None:
    assert rehearse(Hands(raised), Failures(), plan_of(patch())) == []


def test_answers_stand_in_the_plans_order_however_many_are_asked_at_once() -> None:
    refs = [ObjectRef("v1", "Node", f"n{n:03}") for n in range(3 * AT_ONCE)]
    hands = Hands(NotDone("no"), Refused("no"))
    answers = rehearse(hands, Failures(), plan_of(*map(patch, refs)))
    assert [answer.trial.op.ref for answer in answers] == refs


def test_a_refusal_blocks_but_for_what_something_is_awaited_before() -> None:
    (now,) = findings([Answer(Trial("worker-01", patch()), "refused", "spec.x is unknown")])
    assert (now.id, now.level, now.node) == ("H63", "block", "worker-01")
    assert "patch worker-01: spec.x is unknown" in now.message
    (later,) = findings([Answer(Trial("worker-01", patch(), "the end of it"), "refused", "busy")])
    assert later.level == "warn" and "waits for the end of it" in later.message
    wait = Wait(label="w", title="the end of it", checks=(), deadline=1.0)
    assert [t.after for t in trials([action(patch(a=1), wait, patch(ObjectRef("v1", "Node", "b")))])] == [
        "",
        "the end of it",
    ]


def test_what_may_not_be_tried_is_one_warning_for_each_kind() -> None:
    refs = [ObjectRef("v1", "Node", f"n{n}") for n in range(3)]
    (told,) = findings([Answer(Trial("", patch(ref)), "forbidden", "may not") for ref in refs])
    assert told.level == "warn" and "3 writes of Node" in told.message
    assert told.objects == ("Node n0", "Node n1", "Node n2")


def test_a_refusal_is_a_hazard_of_the_plan_and_can_be_accepted(tmp_path: Path) -> None:
    with make_world(tmp_path / "world") as world:
        desired = declared(HOT)
        facts = observed(world, desired)
        refused = findings([Answer(Trial("worker-01", patch()), "refused", "spec.x is unknown")])
        blocked = make_plan(desired, facts, TARGET, refused=refused)
        assert [f.id for f in blocked.blocking()] == ["H63"]
        accepted = make_plan(desired, facts, TARGET, refused=refused, accepted=["H63"])
        assert accepted.blocking() == [] and accepted.actions[1].ops == planned(world, desired).actions[1].ops


READS = ("get", "list", "watch")


@pytest.mark.parametrize("kind", sorted({name.partition("/")[0] for name in CASES} - {"bridge", "mapping"}))
def test_the_server_has_nothing_against_what_the_cases_plan(kind: str, tmp_path: Path) -> None:
    said = {}
    for number, name in enumerate(name for name in CASES if name.startswith(f"{kind}/")):
        case = load(name)
        with make_world(tmp_path / str(number), case.get("world")) as world:
            for edit in case.get("edits", ()):
                apply_edit(world, edit)
            try:
                plan = planned(
                    world,
                    declared(case["desired"]),
                    accepted=case.get("accept", ()),
                    only=case.get("only", ()),
                )
            except OvsplanError:
                continue
            answers = rehearse(Interpreter(world), Failures(), plan)
            asked = [call for call in world.log() if call.port == "cluster" and call.verb not in READS]
            assert all(call.text.endswith("(dry run)") for call in asked)
        if answers:
            said[name] = [f"{answer.trial.op.title}: {answer.why}" for answer in answers]
    assert said == {}


@pytest.fixture
def cold(tmp_path: Path) -> Job:
    return job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK, "rollout.yaml": ROLLOUT})


def said(ended: Ended) -> str:
    return " ".join(ended.out.split())


def test_planning_tries_the_writes_and_stores_nothing(cold: Job) -> None:
    assert cold.run("plan").code == 0
    tried = [call for call in cold.log() if call.text.endswith("(dry run)")]
    assert {call.text.split()[0] for call in tried} == {"Node", "VirtualMachineInstanceMigration"}
    assert all(call.outcome == "ok" for call in tried)
    assert not any(is_mutating(call) for call in cold.log())


def test_a_refusal_is_told_together_with_the_hazards_that_block_before_it(tmp_path: Path) -> None:
    network = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {name: vmnet}
spec:
  bridge: br-vmdata
  networks: {shop/vlan300: {vlan: 300}}
  attachments: {default/talker-1: {second: shop/vlan300}}
"""
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": network})
    ended = job.run("plan")
    assert ended.code == 7, ended.text
    assert "H28 BLOCKS" in ended.out
    assert "H63 BLOCKS: the API server refuses a planned write" in said(ended)
    assert "--accept-hazard H28 --accept-hazard H63" in said(ended)


def test_a_write_that_could_not_be_tried_is_a_note(cold: Job) -> None:
    cold.fault("cluster - patch Node worker-02 *(dry run)", 1, "fail")
    ended = cold.run("plan")
    assert ended.code == 0, ended.text
    assert "H63 note: the API server could not be asked about a write of Node" in said(ended)
