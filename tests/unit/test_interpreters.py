"""The interpreters: plain requests to ports, and what each failure of a port means for what may be done next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from plans.ops import (
    Apply,
    CommandRequest,
    Create,
    Delete,
    Edit,
    Exec,
    InContainer,
    ListRequest,
    ObjectRef,
    Patch,
    Record,
    Run,
    SelectRequest,
    Transact,
)
from plans.readings import NoReply
from providers import ports
from providers.interpreters import Doubtful, Interpreter, Lost, NotDone

NODE = ObjectRef("v1", "Node", "worker-01")
POLICY = ObjectRef("nmstate.io/v1", "NodeNetworkConfigurationPolicy", "vmnet")
GUARD_FAILED = {"error": "timed out", "details": '"where" clause test failed'}


@dataclass
class FakeWorld(ports.Nodes):
    """A world whose every answer is given in advance: a value, or an error to raise. `asked` keeps the requests."""

    answers: list[Any]
    asked: list[Any] = field(default_factory=list)

    def _answer(self, *request: Any) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def cluster(self) -> FakeWorld:
        return self

    def ovsdb(self, node: str) -> FakeWorld:
        return self

    def shell(self, node: str) -> FakeWorld:
        return self

    def list(self, api: str, kind: str, **selection: Any) -> ports.Listing:
        asked = {name: value for name, value in selection.items() if value}
        return cast(ports.Listing, self._answer("list", api, kind, *([asked] if asked else [])))

    def write(self, request: ports.Write, *, dry_run: bool = False) -> ports.Body:
        return cast(ports.Body, self._answer("rehearse" if dry_run else "write", request))

    def transact(self, database: str, operations: Sequence[Any], *, timeout: float) -> Any:
        return self._answer("transact", database, list(operations))

    def run(self, argv: Sequence[str], *, timeout: float) -> ports.Finished:
        return cast(ports.Finished, self._answer("run", tuple(argv)))


def hands(*answers: Any) -> tuple[Interpreter, FakeWorld]:
    world = FakeWorld(list(answers))
    return Interpreter(cast(ports.World, world)), world


def transact(settle: bool = False, tolerate: str = "") -> Transact:
    operations = ({"op": "wait"}, {"op": "select", "table": "Open_vSwitch"})
    return Transact(
        label="move", title="map vmnet", node="n", operations=operations, settle=settle, tolerate=tolerate
    )


def patch() -> Patch:
    return Patch(label="cordon", title="cordon", ref=NODE, patch={"spec": {}}, resource_version="7")


def create() -> Create:
    ref = ObjectRef("kubevirt.io/v1", "VirtualMachineInstanceMigration", "m-1", "db")
    return Create(label="go", title="go", ref=ref, body={"spec": {"vmiName": "a"}})


def apply() -> Apply:
    return Apply(
        label="policy", title="apply", ref=POLICY, body={"spec": {}}, again_if="is still in progress"
    )


def edit() -> Edit:
    return Edit(label="edit", title="edit", ref=POLICY, operations=({"op": "remove", "path": "/spec/x"},))


def delete() -> Delete:
    return Delete(label="drop", title="drop", ref=POLICY, uid="u-1")


def run() -> Run:
    return Run(label="announce", title="announce", node="n", argv=("ovs-ofctl", "packet-out", "br-phy", "x"))


OPS: list[Callable[[], Any]] = [transact, patch, create, apply, edit, run]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (ports.Unreachable("no route to host"), NotDone),
        (ports.Refused("denied by a webhook"), NotDone),
        (ports.NotFound("no such node"), NotDone),
        (ports.Conflict("resourceVersion 7 is old"), Lost),
        (ports.InDoubt("no answer"), Doubtful),
    ],
)
def test_a_failure_of_a_port_says_what_may_be_done_next(
    op: Callable[[], Any], error: Exception, meaning: type[Exception]
) -> None:
    interpreter, _ = hands(error)
    with pytest.raises(meaning, match=str(error)):
        interpreter.perform(op())


@pytest.mark.parametrize("op", [patch, create, apply, edit, delete])
def test_a_kind_that_is_not_served_is_not_written(op: Callable[[], Any]) -> None:
    interpreter, _ = hands(ports.NotServed("the API server serves no nmstate.io/v1"))
    with pytest.raises(NotDone, match="serves no nmstate"):
        interpreter.perform(op())


def test_an_object_is_applied_under_our_own_name() -> None:
    interpreter, world = hands({"metadata": {"generation": 3}})
    assert interpreter.perform(apply()) == ("done", {"generation": 3})
    ((_, request),) = world.asked
    assert request == ports.Apply(
        ports.Ref(POLICY.api, POLICY.kind, "vmnet"), {"spec": {}}, manager="ovsplan", force=False
    )


def test_a_refusal_that_is_a_lost_race_is_decided_anew() -> None:
    interpreter, _ = hands(ports.Refused("policy vmnet is still in progress"))
    with pytest.raises(Lost, match="still in progress"):
        interpreter.perform(apply())


def test_a_field_of_somebody_else_is_no_race() -> None:
    interpreter, _ = hands(ports.Owned('conflict with "argocd": .spec.maxUnavailable'))
    with pytest.raises(NotDone, match="argocd"):
        interpreter.perform(apply())


def test_what_is_gone_already_counts_as_deleted() -> None:
    interpreter, _ = hands(ports.NotFound("vmnet not found"))
    assert interpreter.perform(delete()) == ("first", None)


def test_a_list_of_an_optional_kind_is_null_where_nobody_serves_it() -> None:
    interpreter, _ = hands(ports.NotServed("no nmstate.io/v1"), ports.NotServed("no nmstate.io/v1"))
    assert interpreter.ask([ListRequest(POLICY.api, POLICY.kind, optional=True)]) == [None]
    assert interpreter.ask([ListRequest(POLICY.api, POLICY.kind)]) == [
        NoReply(
            "the cluster serves no NodeNetworkConfigurationPolicy (nmstate.io/v1): the Kubernetes NMState Operator brings it, "
            "and is not installed, or too old"
        )
    ]


def test_a_create_that_finds_its_object_there_was_first_done_by_us() -> None:
    interpreter, world = hands(ports.AlreadyExists("m-1 exists"))
    assert interpreter.perform(create()) == ("first", None)
    ((_, request),) = world.asked
    assert request.body == {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceMigration",
        "spec": {"vmiName": "a"},
    }
    assert request.ref == ports.Ref("kubevirt.io/v1", "VirtualMachineInstanceMigration", "m-1", "db")


def test_a_patch_is_guarded_by_the_version_that_was_read() -> None:
    interpreter, world = hands({})
    assert interpreter.perform(patch()) == ("done", None)
    assert world.asked == [
        ("write", ports.MergePatch(ports.Ref("v1", "Node", "worker-01"), {"spec": {}}, "7"))
    ]


def test_a_guard_that_did_not_hold_is_a_lost_race_and_nothing_was_done() -> None:
    interpreter, _ = hands([GUARD_FAILED, None])
    with pytest.raises(Lost, match=r"map vmnet: a guard did not hold \(timed out: .*\); nothing was changed"):
        interpreter.perform(transact())


def test_a_guard_that_may_fail_means_that_somebody_was_first() -> None:
    interpreter, _ = hands([GUARD_FAILED, None])
    assert interpreter.perform(transact(settle=True, tolerate="timed out")) == ("first", None)


def test_only_the_error_that_is_tolerated_is() -> None:
    interpreter, _ = hands([{}, {"error": "constraint violation", "details": "two rows"}])
    with pytest.raises(NotDone, match=r"^map vmnet: constraint violation: two rows$"):
        interpreter.perform(transact(tolerate="timed out"))


def test_the_error_that_comes_after_the_results_counts() -> None:
    """RFC 7047 §4.1.3: a transaction that fails at commit has its error in one element more."""
    interpreter, _ = hands([{}, {}, {"error": "referential integrity violation", "details": "x"}])
    with pytest.raises(NotDone, match="referential integrity violation"):
        interpreter.perform(transact())


def test_a_transaction_is_done_when_vswitchd_has_carried_it_out() -> None:
    root = {"rows": [{"_uuid": ["uuid", "r"]}]}
    interpreter, world = hands([{}, {"rows": [{"next_cfg": 8}]}], [root], [{}])
    assert interpreter.perform(transact(settle=True)) == ("done", None)
    *_, (_, _, (wait,)) = world.asked
    assert wait["op"] == "wait" and wait["timeout"] == 10_000
    assert wait["where"] == [["cur_cfg", ">=", 8]] and wait["rows"] == root["rows"]


def test_a_vswitchd_that_does_not_answer_leaves_doubt() -> None:
    root = {"rows": [{"_uuid": ["uuid", "r"]}]}
    interpreter, _ = hands([{}, {"rows": [{"next_cfg": 8}]}], [root], [GUARD_FAILED])
    with pytest.raises(
        Doubtful, match=r"vswitchd has not carried out configuration 8 within 10 s: is it running\?"
    ):
        interpreter.perform(transact(settle=True))


def test_a_node_lost_after_the_transaction_leaves_doubt() -> None:
    interpreter, _ = hands([{}, {"rows": [{"next_cfg": 8}]}], ports.Unreachable("connection refused"))
    with pytest.raises(Doubtful):
        interpreter.perform(transact(settle=True))


def test_a_command_that_fails_says_with_what() -> None:
    interpreter, _ = hands(ports.Finished(1, "", "ovs-ofctl: br-phy is not a bridge\n"))
    with pytest.raises(
        NotDone, match=r"^`ovs-ofctl packet-out` failed with 1: ovs-ofctl: br-phy is not a bridge$"
    ):
        interpreter.perform(run())


def test_a_command_goes_to_its_program_as_it_stands() -> None:
    interpreter, world = hands(ports.Finished(0, "", ""))
    assert interpreter.perform(run()) == ("done", None)
    assert world.asked == [("run", ("ovs-ofctl", "packet-out", "br-phy", "x"))]


def test_what_takes_time_or_keeps_records_is_not_the_interpreters_to_perform() -> None:
    interpreter, world = hands()
    with pytest.raises(TypeError, match="record is not performed by an interpreter"):
        interpreter.perform(Record(label="r", title="r"))
    assert world.asked == []


ASK: list[Any] = [ListRequest("v1", "Node"), SelectRequest("n", ("Bridge",)), CommandRequest("n", ("x", "y"))]


@pytest.mark.parametrize("request_", ASK)
@pytest.mark.parametrize("error", [ports.Unreachable("no route to host"), ports.InDoubt("no answer")])
def test_what_could_not_be_asked_is_no_reply_with_the_reason(request_: Any, error: Exception) -> None:
    interpreter, _ = hands(error)
    assert interpreter.ask([request_]) == [NoReply(str(error))]


def test_tables_are_selected_in_one_transaction() -> None:
    interpreter, world = hands([{"rows": [1]}, {"rows": [2]}])
    assert interpreter.ask([SelectRequest("n", ("Bridge", "Port"))]) == [{"Bridge": [1], "Port": [2]}]
    assert len(world.asked) == 1


def test_a_select_that_fails_is_no_reply() -> None:
    interpreter, _ = hands([{"error": "unknown table", "details": "no Bridge"}])
    assert interpreter.ask([SelectRequest("n", ("Bridge",))]) == [NoReply("unknown table: no Bridge")]


def test_a_command_that_fails_is_no_reply() -> None:
    interpreter, _ = hands(ports.Finished(127, "", "not found\n"))
    assert interpreter.ask([CommandRequest("n", ("fdb", "show"))]) == [
        NoReply("`fdb show` failed with 127: not found")
    ]


@dataclass
class Visited(FakeWorld):
    """A world that keeps in `visits` how much went to which node at one go."""

    visits: list[tuple[str, int]] = field(default_factory=list)

    def ask(self, node: str, questions: Sequence[ports.Question]) -> list[ports.Answer]:
        self.visits.append((node, len(questions)))
        return super().ask(node, questions)


def test_what_is_asked_of_one_node_goes_there_together() -> None:
    rows = [{"rows": [1]}]
    world = Visited([rows, ports.Unreachable("no ovn-controller"), rows, ports.Listing((), "9")])
    requests: list[Any] = [
        *(SelectRequest("b", ("Bridge",)), CommandRequest("b", ("x",)), SelectRequest("b", ("Port",))),
        ListRequest("v1", "Node"),
    ]
    replies = Interpreter(cast(ports.World, world)).ask([*requests, requests[1]])
    assert world.visits == [("b", 3)]
    assert replies == [
        *({"Bridge": [1]}, NoReply("no ovn-controller"), {"Port": [1]}, []),
        NoReply("no ovn-controller"),
    ]


@pytest.mark.parametrize(("rc", "reply"), [(1, "0 received"), (2, NoReply("`ping gw` failed with 2: "))])
def test_a_command_may_answer_with_another_exit_code_than_zero(rc: int, reply: Any) -> None:
    interpreter, _ = hands(ports.Finished(rc, "0 received", ""))
    assert interpreter.ask([CommandRequest("n", ("ping", "gw"), fine=(0, 1))]) == [reply]


def test_objects_are_listed_as_they_are() -> None:
    interpreter, world = hands(ports.Listing(({"a": 1},), "9"))
    assert interpreter.ask([ListRequest("v1", "Node")]) == [[{"a": 1}]]
    assert world.asked == [("list", "v1", "Node")]


def test_a_list_says_what_it_wants_and_what_it_keeps() -> None:
    interpreter, world = hands(ports.Listing((), "9"))
    request = ListRequest("v1", "Pod", keep=("metadata",), fields=(("spec.nodeName", "worker-01"),))
    interpreter.ask([request])
    assert world.asked == [
        ("list", "v1", "Pod", {"keep": ("metadata",), "fields": {"spec.nodeName": "worker-01"}})
    ]


def test_a_rehearsed_write_is_the_one_that_would_be_made_and_is_not_made() -> None:
    op = Patch(
        label="a", title="a", ref=ObjectRef("v1", "Node", "n"), patch={"spec": {}}, resource_version="7"
    )
    interpreter, world = hands({"metadata": {}})
    interpreter.rehearse(op)
    assert world.asked == [("rehearse", ports.MergePatch(ports.Ref("v1", "Node", "n"), {"spec": {}}, "7"))]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ports.Forbidden("no"), NotDone),
        (ports.Refused("no"), NotDone),
        (ports.Conflict("old"), Lost),
        (ports.InDoubt("?"), Doubtful),
    ],
)
def test_a_rehearsal_fails_as_the_write_would(error: Exception, raised: type[Exception]) -> None:
    op = Patch(label="a", title="a", ref=ObjectRef("v1", "Node", "n"), patch={})
    with pytest.raises(raised):
        hands(error)[0].rehearse(op)


class Watching:
    """A cluster that lists at version 9, and tells of one change after that."""

    def __init__(self) -> None:
        self.watched: list[Any] = []

    def list(self, *_: Any, **__: Any) -> ports.Listing:
        return ports.Listing((), "9")

    def watch(self, api: str, kind: str, **how: Any) -> Iterator[ports.Event]:
        self.watched.append((kind, how["since"], how["timeout"], how["fields"]))
        yield ports.Event("MODIFIED", {})


def watching(lanes: int) -> tuple[Interpreter, Watching]:
    world = type("World", (), {"cluster": Watching()})()
    return Interpreter(cast(ports.World, world), lanes), world.cluster


def test_news_of_one_object_is_watched_from_where_it_was_listed() -> None:
    interpreter, cluster = watching(lanes=16)
    request = ListRequest("v1", "Pod", fields=(("metadata.name", "a"),))
    assert not interpreter.await_news([request], 2.0), "nothing was listed yet"
    interpreter.ask([request])
    assert interpreter.await_news([request], 2.0)
    assert cluster.watched == [("Pod", "9", 2.0, {"metadata.name": "a"})]


@pytest.mark.parametrize(
    ("lanes", "others"), [(1, []), (16, [CommandRequest("n", ("x",))])], ids=["a twin", "not only objects"]
)
def test_where_a_watch_cannot_tell_the_caller_looks_again_by_itself(lanes: int, others: list[Any]) -> None:
    interpreter, cluster = watching(lanes)
    request = ListRequest("v1", "Pod")
    interpreter.ask([request])
    assert not interpreter.await_news([request, *others], 2.0)
    assert cluster.watched == []


class Executing:
    """A cluster in which one pod runs commands, one is gone, and one lets nobody in."""

    def exec(self, pod: ports.Ref, container: str, argv: Any, *, timeout: float) -> ports.Finished:
        match pod.name:
            case "gone":
                raise ports.NotFound('pods "gone" not found')
            case "closed":
                raise ports.Forbidden("no")
        return ports.Finished(1, f"{container} {' '.join(argv)}", "e" * 9999)


class Ticking:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        self.at += 1.0
        return self.at


def executed(deadline: float, *pods: str) -> Any:
    world = type("World", (), {"cluster": Executing(), "clock": Ticking()})()
    runs = tuple(InContainer(name, "default", name, "compute", ("x", "y")) for name in pods)
    outcome, result = Interpreter(cast(ports.World, world)).perform(
        Exec(label="l", title="t", runs=runs, deadline=deadline)
    )
    assert outcome == "done"
    return result


def test_commands_in_containers_are_each_answered_for_and_none_fails_the_others() -> None:
    result = executed(60.0, "there", "gone", "closed")
    assert result["there"] == {"rc": 1, "out": "compute x y", "err": "e" * 2000}
    assert (result["gone"], result["closed"]) == ({"why": 'pods "gone" not found'}, {"why": "no"})


def test_commands_in_containers_have_one_deadline_for_all() -> None:
    assert executed(2.0, "there", "late")["late"] == {"why": "not asked within 2 s"}
