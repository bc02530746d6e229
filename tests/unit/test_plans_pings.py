"""Pings by guest agents: who is asked what, what an answer means, and what comes of it before and after a move."""

from __future__ import annotations

from typing import Any

import pytest
from support.planning import declared
from support.switches import LSP

from plans.actions import Done, Finished, Next, Perform, Stop, find_routine
from plans.desired import Desired
from plans.facts import KNOWN_AFTER_APPLY, Fact, Facts, Known, Unknown
from plans.maintenance import pings
from plans.maintenance.pings import TRIES, argv_of, judge, of_node
from plans.ops import Exec, Patch, Wait, as_commands, fits

GATEWAY = "192.0.2.1"
DESIRED = f"""\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {{name: vmnet}}
spec: {{bridge: br-phy, networks: {{default/vlan224: {{vlan: 224, gateway: "{GATEWAY}"}}, default/vlan300: {{vlan: 300}}}}}}
"""
LINUX = {"vm": "default/a", "gateway": GATEWAY, "nad": "default/vlan224", "system": "linux"}
WINDOWS = {**LINUX, "system": "windows"}
KEY = f"default/a {GATEWAY}"
REFUSED = (
    '{"component":"virt-probe","level":"fatal","msg":"Failed executing the command","pos":"virt-probe.go:71",'
    '"reason":"rpc error: code = Unknown desc = virError(Code=1, Domain=10, Message=\'internal error: unable to '
    "execute QEMU agent command 'guest-exec': Command guest-exec has been disabled')\","
    '"timestamp":"2025-06-25T17:10:32.057548Z"}\npanic: Failed executing the command\n\ngoroutine 1 [running]:\n'
)
ANSWERED = {"rc": 0, "out": "2 packets transmitted, 2 received, 0% packet loss", "err": ""}
SILENT = {"rc": 1, "out": "2 packets transmitted, 0 received, 100% packet loss, time 1014ms\n", "err": ""}
NO_ROUTE = {"rc": 2, "out": "", "err": "ping: connect: Network is unreachable\n"}


def facts(*more: tuple[str, Fact], system: str = "linux") -> Facts:
    """Node `w` with VM `a` on two networks, of which one has a gateway."""
    attached = [
        {"interface": nad, "nad": f"default/{nad}", "mac": "02:00:00:00:00:00"}
        for nad in ("vlan224", "vlan300")
    ]
    vm = {
        "uid": "uid-a",
        "macs": attached,
        "migratable": True,
        "memory": 1,
        **({"guest_agent": system} if system else {}),
    }
    base: dict[str, Fact] = {
        "cluster/networks": Known(["default/vlan224", "default/vlan300"]),
        "network/default/vlan224": Known({"name": "vlan224", "localnet": "vmnet", "vlan": 224, "mtu": 9000}),
        "network/default/vlan300": Known({"name": "vlan300", "localnet": "vmnet", "vlan": 300, "mtu": 9000}),
        "node/w/unschedulable": Known(False),
        "node/w/vms": Known(["default/a"]),
        "node/w/launchers": Known({"default/a": "virt-launcher-a-bcdfg"}),
        f"node/w/ovs/patch/{LSP}/health": Known("healthy"),
        "vm/default/a": Known(vm),
        "vm/default/a/node": Known("w"),
    }
    return Facts({**base, **dict(more)})


def desired(text: str = DESIRED) -> Desired:
    return declared(text)


# Who is asked.


def test_a_vm_with_a_guest_agent_asks_the_gateway_of_its_network() -> None:
    asked = of_node("w", ["vmnet"], desired(), facts())
    assert asked.pings == (LINUX,) and not asked.others
    assert pings.words(asked) == f"a ping of {GATEWAY} by the guest agent of default/a"


@pytest.mark.parametrize(
    ("more", "system", "text", "why"),
    [
        ((), "", DESIRED, "no guest agent"),
        ((), "linux", DESIRED.replace(GATEWAY, "2001:db8::1"), "no IPv4 gateway declared"),
        (
            (("namespace/default/may-exec", Known(False)),),
            "linux",
            DESIRED,
            "no right to exec in pods of namespace default",
        ),
    ],
)
def test_a_vm_that_is_not_asked_is_named_with_the_reason(more: Any, system: str, text: str, why: str) -> None:
    asked = of_node("w", ["vmnet"], desired(text), facts(*more, system=system))
    assert not asked.pings and asked.others == {"default/a": why}
    assert pings.words(asked) == f"no ping from inside (default/a: {why})"


def test_nothing_is_said_where_nobody_could_expect_a_ping() -> None:
    text = DESIRED.replace(f', gateway: "{GATEWAY}"', "")
    assert not of_node("w", ["vmnet"], desired(text), facts(system="")).are_told


def test_the_command_is_the_guests_own_and_goes_no_further_than_its_own_network() -> None:
    head = ["virt-probe", "--domainName", "default_a", "--timeoutSeconds", "5", "--command", "ping", "--"]
    assert [*argv_of(LINUX)] == [*head, "-c", "2", "-W", "1", "-t", "1", GATEWAY]
    assert [*argv_of(WINDOWS)] == [*head, "-n", "2", "-w", "1000", "-i", "1", GATEWAY]


# What an answer means.


@pytest.mark.parametrize(
    ("ping", "answer", "verdict", "why"),
    [
        (LINUX, ANSWERED, "answered", ""),
        (LINUX, SILENT, "silent", ""),
        (LINUX, {**SILENT, "out": "2 Pakete übertragen, 0 empfangen, 100% Paketverlust"}, "silent", ""),
        (LINUX, NO_ROUTE, "unknown", "rc 2: ping: connect: Network is unreachable"),
        (LINUX, {"rc": 1, "out": "", "err": "ping: invalid argument: '-t'"}, "unknown", "rc 1: ping: invalid argument: '-t'"),
        (LINUX, {"rc": 2, "out": "", "err": REFUSED}, "unknown", "Command guest-exec has been disabled"),
        (LINUX, {"rc": 127, "out": "", "err": "exec: virt-probe: not found"}, "unknown", "rc 127: exec: virt-probe: not found"),
        (LINUX, {"why": "forbidden"}, "unknown", "forbidden"),
        (LINUX, None, "unknown", "it was not asked"),
        (WINDOWS, {"rc": 0, "out": "Reply from 192.0.2.1: bytes=32 time<1ms TTL=64", "err": ""}, "answered", ""),
        (WINDOWS, {"rc": 0, "out": "Reply from 192.0.2.9: Destination host unreachable.", "err": ""}, "silent", ""),
        (WINDOWS, {"rc": 1, "out": "Request timed out.", "err": ""}, "silent", ""),
        (WINDOWS, {"rc": 2, "out": "", "err": REFUSED}, "unknown", "Command guest-exec has been disabled"),
    ],
)  # fmt: skip
def test_only_a_ping_that_ran_says_anything(ping: Any, answer: Any, verdict: str, why: str) -> None:
    assert judge(ping, answer) == (verdict, why)


# Before.

ARGS = {"node": "w", "pings": [LINUX]}


def step(
    name: str, world: Facts, args: Any = ARGS, *, rescue: bool = False, run: str = "run-1", **done: Any
) -> Next:
    found = find_routine(name)
    asked = found.rescue if rescue else found.step
    assert asked is not None
    return asked(args, world, Done(run, **done))


def ops(upcoming: Next) -> tuple[Any, ...]:
    assert isinstance(upcoming, Perform), upcoming
    return upcoming.ops


def test_all_vms_of_a_node_are_asked_at_once_in_the_pods_that_they_run_in() -> None:
    (op,) = ops(step("ping@1", facts()))
    assert isinstance(op, Exec)
    (run,) = op.runs
    assert (run.key, run.namespace, run.pod, run.container) == (
        KEY,
        "default",
        "virt-launcher-a-bcdfg",
        "compute",
    )
    (shown,) = ops(step("ping@1", Facts({}), run=KNOWN_AFTER_APPLY))
    assert fits(op, [shown]), "what is done is what the plan showed, in a pod that only the run knows"
    (command,) = as_commands(op)
    assert command.startswith("oc exec -n default $(oc get pod") and command.endswith(
        " ".join(argv_of(LINUX))
    )


def test_a_ping_of_another_vm_is_none_that_the_plan_showed() -> None:
    (shown,) = ops(step("ping@1", Facts({}), run=KNOWN_AFTER_APPLY))
    world = facts(("node/w/launchers", Known({"default/b": "virt-launcher-b-bcdfg"})))
    (other,) = ops(step("ping@1", world, {"node": "w", "pings": [{**LINUX, "vm": "default/b"}]}))
    assert not fits(other, [shown])


@pytest.mark.parametrize("launchers", [Unknown("pods is forbidden"), Known({})])
def test_what_cannot_be_asked_is_no_reason_to_stop(launchers: Fact) -> None:
    upcoming = step("ping@1", facts(("node/w/launchers", launchers)))
    assert isinstance(upcoming, Finished) and upcoming.note.startswith("cannot tell by a ping:")


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (ANSWERED, f"the gateway answers default/a ({GATEWAY})"),
        (SILENT, f"a gateway that does not answer before the move proves nothing: default/a ({GATEWAY})"),
        (
            {"rc": 2, "out": "", "err": REFUSED},
            f"cannot tell by a ping of default/a ({GATEWAY}): Command guest-exec has been disabled",
        ),
    ],
)
def test_what_was_found_before_is_noted(answer: Any, note: str) -> None:
    upcoming = step("ping@1", facts(), outcomes={"ping": "done"}, results={"ping": {KEY: answer}})
    assert upcoming == Finished(note)


# After.


def after(
    first: Any, *tries: Any, world: Facts | None = None, name: str = "ping-returned@1", args: Any = ARGS
) -> Next:
    results = {f"ping:{n}": {KEY: answer} for n, answer in enumerate(tries, start=1)}
    done = {
        "outcomes": dict.fromkeys(results, "done"),
        "results": results,
        "attempts": dict.fromkeys(results, 1),
    }
    return step(name, world or facts(), args, used={"w/pings": {"ping": {KEY: first}}}, **done)


def test_a_gateway_that_answers_as_before_proves_the_path() -> None:
    (op,) = ops(after(ANSWERED))
    assert isinstance(op, Exec) and op.label == "ping:1"
    assert after(ANSWERED, ANSWERED) == Finished(f"the gateway answers default/a ({GATEWAY})", proven=True)


def test_a_gateway_that_answered_and_does_not_now_is_asked_again_and_then_stops_the_line() -> None:
    tries: list[Any] = [SILENT]
    while isinstance(upcoming := after(ANSWERED, *tries), Perform):
        pause, op = upcoming.ops
        assert isinstance(pause, Wait) and pause.at_least > 0 and isinstance(op, Exec)
        tries.append(SILENT)
    assert len(tries) == TRIES
    assert (
        isinstance(upcoming, Stop)
        and f"answered the ping of default/a ({GATEWAY}) before the move" in upcoming.why
    )
    assert isinstance(after(ANSWERED, SILENT, ANSWERED), Finished)


def test_a_gateway_that_never_answered_proves_nothing_and_is_asked_once() -> None:
    upcoming = after(SILENT, SILENT)
    assert isinstance(upcoming, Finished) and upcoming.proven is None and "proves nothing" in upcoming.note


def test_a_gateway_that_answers_only_now_proves_the_path_of_a_vm_that_was_dark() -> None:
    assert after(SILENT, ANSWERED) == Finished(f"the gateway answers default/a ({GATEWAY})", proven=True)


def test_who_could_not_be_asked_before_is_not_asked_after() -> None:
    upcoming = after({"rc": 2, "out": "", "err": REFUSED})
    assert isinstance(upcoming, Finished) and upcoming.proven is None
    assert "it could not be asked before the move" in upcoming.note


def test_a_guest_agent_that_went_away_is_cannot_tell_and_no_failure() -> None:
    gone = {"why": "container not found"}
    upcoming = after(ANSWERED, *[gone] * TRIES)
    assert (
        isinstance(upcoming, Finished) and upcoming.proven is None and "container not found" in upcoming.note
    )


def test_what_was_asked_in_an_earlier_attempt_is_asked_anew() -> None:
    results = {f"ping:{n}": {KEY: SILENT} for n in range(1, TRIES + 1)}
    used = {"w/pings": {"ping": {KEY: ANSWERED}}}
    outcomes = dict.fromkeys(results, "done")
    (op,) = ops(step("ping-returned@1", facts(), used=used, results=results, outcomes=outcomes))
    assert isinstance(op, Exec)


def test_nobody_is_asked_who_is_elsewhere_by_then() -> None:
    upcoming = after(ANSWERED, world=facts(("node/w/vms", Known([]))))
    assert isinstance(upcoming, Finished) and "nothing to ask" in upcoming.note


def test_a_node_whose_returned_vms_lost_their_gateway_is_cordoned_and_uncordoned_once_they_have_it_again() -> (
    None
):
    (cordon,) = ops(step("ping-returned@1", facts(), rescue=True))
    assert isinstance(cordon, Patch) and cordon.label == "cordon"
    held = facts(("node/w/unschedulable", Known(True)), ("node/w/cordoned-by", Known("run-1")))
    assert step("ping-returned@1", held, rescue=True) == Finished("w is cordoned")
    (uncordon,) = ops(after(ANSWERED, ANSWERED, world=held))
    assert isinstance(uncordon, Patch) and uncordon.label == "uncordon"


# In the proofs of a hot and of a cold move.


def test_the_proof_of_a_hot_move_asks_after_it_has_listened() -> None:
    args = {**ARGS, "bridges": {"vmnet": "br-phy"}, "remaps": {"vmnet": "w/remap/vmnet"}}
    world = facts((f"node/w/ovs/patch/{LSP.replace('224', '300')}/health", Known("healthy")))
    heard = {"attempts": {"listen:1": 1}, "outcomes": {"listen:1": "done"}, "results": {"listen:1": {}}}
    used = {"w/pings": {"ping": {KEY: ANSWERED}}, "w/remap/vmnet": {"before": {}}}
    (op,) = ops(step("prove@1", world, args, used=used, **heard))
    assert isinstance(op, Exec)
    lost: dict[str, Any] = {f"ping:{n}": {KEY: SILENT} for n in range(1, TRIES + 1)}
    done = {
        "attempts": {"listen:1": 1, **dict.fromkeys(lost, 1)},
        "outcomes": dict.fromkeys(["listen:1", *lost], "done"),
        "results": {"listen:1": {}, **lost},
    }
    upcoming = step("prove@1", world, args, used=used, **done)
    assert isinstance(upcoming, Stop) and "before the move and does not now" in upcoming.why
