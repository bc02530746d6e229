"""Cordon, migrations and proof: what comes next, by what is there and what the journal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.planning import COLD, HOT, TARGET, declared, make_world, observed, planned
from support.switches import LSP, OUTER

from plans import ovs
from plans.actions import Done, Finished, Next, Perform, Routine, Stop, find_routine
from plans.desired import Evacuate
from plans.desired.models import Leaving
from plans.document import Plan
from plans.facts import ABSENT, Fact, Facts, Known, Unknown
from plans.maintenance.checkpoints import step_preflight
from plans.maintenance.evictions import AGAIN_AFTER, TRIES
from plans.maintenance.migrations import AT_ONCE, ATTEMPTS, migration_name
from plans.maintenance.proof import LOOKS
from plans.maintenance.ways import Way, way_out
from plans.ops import AnyOp, Create, Patch, Record, Wait
from plans.planner import make_plan
from plans.readings import reading
from plans.readings.cluster import VMI
from providers.ports import MergePatch, Ref

RUN = "run-1"
W = {"node": "w"}


def facts(**more: Fact) -> Facts:
    """A node `w` with three VMs of vmnet, and a node `x`."""
    vms = ["default/a", "default/b", "default/c"]
    base: dict[str, Fact] = {
        "cluster/nodes": Known(["w", "x"]),
        "cluster/networks": Known(["default/vlan224"]),
        "cluster/vms": Known(vms),
        "network/default/vlan224": Known({"name": "vlan224", "localnet": "vmnet", "vlan": 224, "mtu": 9000}),
        "node/w/unschedulable": Known(False),
        "node/w/cordoned-by": ABSENT,
        "node/w/resource-version": Known("7"),
        "node/w/vms": Known(vms),
        "node/x/vms": Known([]),
        "migration/*": ABSENT,
        "vm/*": ABSENT,
    }
    for n, vm in enumerate(vms):
        attached = [{"interface": "net", "nad": "default/vlan224", "mac": f"02:00:00:00:00:0{n}"}]
        base[f"vm/{vm}"] = Known({"uid": f"uid-{vm}", "macs": attached, "migratable": True, "memory": 1})
        base[f"vm/{vm}/node"] = Known("w")
    return Facts(base).with_changes(
        (path.replace("__", "/").replace("_", "-"), f) for path, f in more.items()
    )


def ask(name: str, world: Facts, args: Any = W, *, rescue: bool = False, **done: Any) -> Next:
    found: Routine = find_routine(name)
    step = found.rescue if rescue else found.step
    assert step is not None
    return step(args, world, Done(RUN, **done))


def ops(upcoming: Next) -> tuple[AnyOp, ...]:
    assert isinstance(upcoming, Perform), upcoming
    return upcoming.ops


def test_a_cordon_is_made_in_the_runs_name_and_guarded() -> None:
    (patch,) = ops(ask("cordon@1", facts()))
    assert isinstance(patch, Patch)
    assert patch.patch == {
        "metadata": {"annotations": {"ovsplan.io/cordoned-by": RUN}},
        "spec": {"unschedulable": True},
    }
    assert patch.resource_version == "7"


@pytest.mark.parametrize(
    ("by", "note"), [(Known(RUN), ""), (ABSENT, "somebody else"), (Known("run-0"), "somebody else")]
)
def test_a_node_that_is_cordoned_already_is_left_so(by: Fact, note: str) -> None:
    upcoming = ask("cordon@1", facts(node__w__unschedulable=Known(True), node__w__cordoned_by=by))
    assert isinstance(upcoming, Finished) and note in upcoming.note and bool(upcoming.note) == bool(note)


def test_a_run_takes_back_its_own_cordon() -> None:
    (patch,) = ops(
        ask("uncordon@1", facts(node__w__unschedulable=Known(True), node__w__cordoned_by=Known(RUN)))
    )
    assert isinstance(patch, Patch) and patch.patch["spec"] == {"unschedulable": None}


@pytest.mark.parametrize("by", [ABSENT, Known("run-0")])
def test_a_run_never_takes_back_anybody_elses_cordon(by: Fact) -> None:
    upcoming = ask("uncordon@1", facts(node__w__unschedulable=Known(True), node__w__cordoned_by=by))
    assert upcoming == Finished("stays cordoned: this run did not cordon it")


@pytest.mark.parametrize("name", ["cordon@1", "uncordon@1"])
def test_a_node_that_cannot_be_read_is_neither_cordoned_nor_freed(name: str) -> None:
    upcoming = ask(name, facts(node__w__unschedulable=Unknown("the API does not answer")))
    assert upcoming == Stop("cannot tell whether w is cordoned: the API does not answer", unsure=True)


EVACUATE = {**W, "localnets": ["vmnet"], "staying": [], "rule": ""}


def name_of(vm: str, attempt: int = 1, purpose: str = "evacuate") -> str:
    return migration_name(RUN, f"uid-{vm}", purpose, attempt)


def test_two_leave_at_once() -> None:
    creates = ops(ask("evacuate@1", facts(), EVACUATE))
    assert [op.title for op in creates] == [
        "live-migrate default/a away from w",
        "live-migrate default/b away from w",
    ]
    assert len(creates) == AT_ONCE


def test_a_migration_has_the_same_name_after_a_crash_and_another_one_per_attempt() -> None:
    (create, _) = ops(ask("evacuate@1", facts(), EVACUATE))
    assert isinstance(create, Create) and create.ref.name == name_of("default/a")
    names = {migration_name(run, uid, "evacuate", n) for run in "ab" for uid in "xy" for n in (1, 2)}
    assert len(names) == 8


def test_a_vm_of_the_same_name_in_another_namespace_is_another_vm() -> None:
    assert migration_name(RUN, "uid-default/a", "evacuate", 1) != migration_name(
        RUN, "uid-shop/a", "evacuate", 1
    )


def phase(vm: str, word: str, attempt: int = 1, purpose: str = "evacuate") -> dict[str, Fact]:
    return {f"migration/default/{name_of(vm, attempt, purpose)}/phase": Known(word)}


def test_migrations_under_way_are_waited_for_and_a_failure_ends_the_wait() -> None:
    world = facts().with_changes({**phase("default/a", "Running"), **phase("default/b", "Pending")}.items())
    (wait,) = ops(ask("evacuate@1", world, EVACUATE))
    assert isinstance(wait, Wait)
    assert [str(c) for c in wait.checks] == ["vm/default/a/node is not w", "vm/default/b/node is not w"]
    assert {c.value for c in wait.unless} == {"Failed"} and len(wait.unless) == 2


def test_a_failed_migration_is_tried_again_and_then_given_up_with_its_reason() -> None:
    one = facts(node__w__vms=Known(["default/a"]))
    again = one.with_changes(phase("default/a", "Failed").items())
    (create,) = ops(ask("evacuate@1", again, EVACUATE))
    assert isinstance(create, Create) and create.ref.name == name_of("default/a", 2)
    failures = [p for n in range(1, ATTEMPTS + 1) for p in phase("default/a", "Failed", n).items()]
    reason = (f"migration/default/{name_of('default/a', ATTEMPTS)}", Known({"vmi": "a", "reason": "no room"}))
    failed = one.with_changes([*failures, reason])
    tried = {f"migrate:default/a:evacuate:{n}": 1 for n in range(ATTEMPTS)}
    (anew,) = ops(ask("evacuate@1", failed, EVACUATE))
    assert isinstance(anew, Create) and anew.ref.name == name_of("default/a", ATTEMPTS + 1), (
        "a resumed run tries anew"
    )
    upcoming = ask("evacuate@1", failed, EVACUATE, attempts=tried)
    assert upcoming == Stop(f"VM default/a did not migrate in {ATTEMPTS} attempts: no room")


def test_a_wait_in_vain_stops_the_line() -> None:
    world = facts(node__w__vms=Known(["default/a"])).with_changes(phase("default/a", "Running").items())
    (wait,) = ops(ask("evacuate@1", world, EVACUATE))
    upcoming = ask("evacuate@1", world, EVACUATE, outcomes={wait.label: "timed-out"})
    assert isinstance(upcoming, Stop) and "in vain for default/a off w" in upcoming.why


def test_a_vm_that_came_to_the_node_since_leaves_it_too() -> None:
    world = facts(node__w__vms=Known(["default/c"]))
    assert [op.title for op in ops(ask("evacuate@1", world, EVACUATE))] == [
        "live-migrate default/c away from w"
    ]


def test_a_vm_that_stays_is_not_moved() -> None:
    staying = {**EVACUATE, "staying": ["default/a", "default/b", "default/c"]}
    assert ask("evacuate@1", facts(), staying) == Finished("no VM had to leave")


def test_a_vm_that_can_no_longer_migrate_stops_the_line_as_somebody_elses_change() -> None:
    blocked = {
        "uid": "u",
        "macs": [{"nad": "default/vlan224", "mac": ""}],
        "migratable": "DisksNotLiveMigratable",
    }
    upcoming = ask("evacuate@1", facts(vm__default__a=Known(blocked)), EVACUATE)
    assert upcoming == Stop("VM default/a cannot live-migrate: DisksNotLiveMigratable (H14)", moved=True)


@pytest.mark.parametrize("path", ["node/w/vms", "vm/default/a/node", "migration/*"])
def test_nothing_leaves_on_what_could_not_be_read(path: str) -> None:
    upcoming = ask("evacuate@1", facts().with_changes([(path, Unknown("no answer"))]), EVACUATE)
    assert isinstance(upcoming, Stop) and "no answer" in upcoming.why and not upcoming.moved


BACK = {**W, "vms": ["default/a", "default/b"]}


def test_a_vm_returns_pinned_to_its_node() -> None:
    away = facts(vm__default__a__node=Known("x"))
    (create,) = ops(ask("return@1", away, BACK))
    assert isinstance(create, Create)
    assert create.body["spec"] == {"vmiName": "a", "addedNodeSelector": {"kubernetes.io/hostname": "w"}}


def test_a_vm_that_was_shut_down_meanwhile_has_nowhere_to_return_to() -> None:
    gone = facts(vm__default__a=ABSENT, vm__default__a__node=ABSENT)
    assert ask("return@1", gone, BACK) == Finished("1 VM(s) back on w; no longer running: default/a")


def test_nobody_returns_to_a_node_that_somebody_cordoned() -> None:
    upcoming = ask("return@1", facts(node__w__unschedulable=Known(True)), BACK)
    assert isinstance(upcoming, Finished) and "cordoned by somebody else" in upcoming.note


PROVE = {**W, "bridges": {"vmnet": "br-phy"}, "remaps": {"vmnet": "w/remap/vmnet"}}
FIRST = {**W, "bridges": {"vmnet": "br-phy"}, "vms": ["default/a"]}
HEALTHY: dict[str, Fact] = {f"node/w/ovs/patch/{LSP}/health": Known("healthy")}
ENTRY = [OUTER, 224, "02:00:00:00:00:00"]


def looks(bridge: str, first: int, second: int) -> dict[str, Any]:
    """Two looks at a table that has web's MAC, `first` and `second` seconds old."""
    path = f"node/w/fdb/{bridge}/ages"
    return {f"{path}@first": [[*ENTRY, first]], path: [[*ENTRY, second]]}


def proof(before: Any, *after: Any, health: str = "healthy") -> Next:
    world = facts(node__w__vms=Known(["default/a"])).with_changes(
        [(f"node/w/ovs/patch/{LSP}/health", Known(health))]
    )
    results = {f"listen:{n}": look for n, look in enumerate(after, start=1)}
    outcomes = dict.fromkeys(results, "done")
    used = {"w/remap/vmnet": {"before": before}}
    attempts = dict.fromkeys(results, 1)
    return ask("prove@1", world, PROVE, outcomes=outcomes, results=results, used=used, attempts=attempts)


TALKED = looks("br-vmdata", 4, 1)
SILENT_BEFORE = looks("br-vmdata", 4, 7)


def test_proof_begins_by_listening() -> None:
    (listen,) = ops(proof(TALKED))
    assert isinstance(listen, Record) and listen.again_after > 0


def test_a_vm_that_talks_as_before_proves_the_path() -> None:
    assert proof(TALKED, looks("br-phy", 2, 1)) == Finished("seen: default/a", proven=True)


def test_what_was_not_heard_in_an_earlier_attempt_is_listened_for_anew() -> None:
    """Whoever mended the switch and applies again is not told of the silence before."""
    world = facts(node__w__vms=Known(["default/a"])).with_changes([*HEALTHY.items()])
    outcomes = {f"listen:{n}": "done" for n in range(1, LOOKS + 1)}
    used = {"w/remap/vmnet": {"before": TALKED}}
    (listen,) = ops(ask("prove@1", world, PROVE, outcomes=outcomes, results={}, used=used))
    assert isinstance(listen, Record)


def test_a_vm_that_was_silent_before_is_cannot_tell_and_no_failure() -> None:
    upcoming = proof(SILENT_BEFORE, {})
    assert upcoming == Finished("seen: none; cannot tell (silent): default/a in default/vlan224", proven=None)


def two_networks(*vms: str, on_vlan300: str) -> Facts:
    """Some VMs on the node, one of them on a second network of the localnet too; the pairs of both are healthy."""
    base = facts(node__w__vms=Known(list(vms)))
    card = {"interface": "net2", "nad": "default/vlan300", "mac": "02:00:00:00:01:00"}
    known = dict(base.value(f"vm/{on_vlan300}"))
    return base.with_changes(
        [
            ("cluster/networks", Known(["default/vlan224", "default/vlan300"])),
            (
                "network/default/vlan300",
                Known({"name": "vlan300", "localnet": "vmnet", "vlan": 300, "mtu": 9000}),
            ),
            (f"vm/{on_vlan300}", Known({**known, "macs": [*known["macs"], card]})),
            *HEALTHY.items(),
            (f"node/w/ovs/patch/{LSP.replace('224', '300')}/health", Known("healthy")),
            ("node/w/fdb/br-phy", Known([ENTRY])),
        ]
    )


LISTENED = {
    "outcomes": {"listen:1": "done"},
    "results": {"listen:1": looks("br-phy", 2, 1)},
    "used": {"w/remap/vmnet": {"before": TALKED}},
    "attempts": {"listen:1": 1},
}


def test_a_vm_that_talks_in_one_network_alone_is_silent_in_the_other() -> None:
    upcoming = ask("prove@1", two_networks("default/a", on_vlan300="default/a"), PROVE, **LISTENED)
    note = "seen: default/a; cannot tell (silent): default/a in default/vlan300"
    assert upcoming == Finished(note, proven=True)


def test_those_that_return_later_to_a_network_that_nobody_was_heard_in_are_named() -> None:
    """Whether the node was emptied for one of them to prove it, or for all but one that stays."""
    late = "cannot tell (not back yet): default/b in default/vlan300"
    world = two_networks("default/a", on_vlan300="default/b")
    for name, args in (
        ("prove@1", {**PROVE, "vms": ["default/b"]}),
        ("prove-by-return@1", {**FIRST, "vms": ["default/a", "default/b"]}),
    ):
        assert ask(name, world, args, **LISTENED) == Finished(f"seen: default/a; {late}", proven=True)


def test_an_announcement_while_we_listened_before_the_move_is_not_talking() -> None:
    upcoming = proof(looks("br-vmdata", 15, 3), looks("br-phy", 1, 4))
    assert isinstance(upcoming, Finished) and upcoming.proven is None


def test_an_entry_that_only_an_announcement_left_is_not_talking() -> None:
    upcoming = proof(SILENT_BEFORE, looks("br-phy", 1, 4))
    assert isinstance(upcoming, Finished) and upcoming.proven is None


def test_a_vm_that_talked_before_and_is_not_heard_stops_the_line() -> None:
    silence: list[Any] = [{}]
    while isinstance(upcoming := proof(TALKED, *silence), Perform):
        silence.append({})
        assert len(silence) <= LOOKS, "it has to give up at some time"
    assert len(silence) > 1, "one silence of three seconds is no proof of darkness"
    assert upcoming == Stop(
        "default/a (02:00:00:00:00:00, VLAN 224) talked before the move and is not heard now"
    )


def test_a_sick_pair_stops_the_line_though_it_was_heard() -> None:
    upcoming = proof(TALKED, looks("br-phy", 2, 1), health="broken: port x is missing")
    assert upcoming == Stop("broken: port x is missing")


def heard(*more: tuple[str, Fact]) -> Facts:
    return facts().with_changes([*HEALTHY.items(), ("node/w/fdb/br-phy", Known([ENTRY])), *more])


def test_the_first_vm_that_returns_and_is_heard_proves_a_cold_path() -> None:
    assert ask("prove-by-return@1", heard(), FIRST) == Finished("seen: default/a", proven=True)


def test_a_vm_that_returned_and_is_not_heard_is_waited_for_and_then_stops_the_line() -> None:
    dark = heard(("node/w/fdb/br-phy", Known([])))
    (wait,) = ops(ask("prove-by-return@1", dark, FIRST))
    upcoming = ask("prove-by-return@1", dark, FIRST, outcomes={wait.label: "timed-out"})
    assert isinstance(upcoming, Stop) and upcoming.why.startswith("default/a returned and is not heard")


def test_a_path_that_failed_its_proof_is_cordoned_and_then_left() -> None:
    (first,) = ops(ask("prove-by-return@1", heard(), FIRST, rescue=True))
    assert isinstance(first, Patch) and first.label == "cordon"
    cordoned = heard(("node/w/unschedulable", Known(True)))
    (second,) = ops(ask("prove-by-return@1", cordoned, FIRST, rescue=True))
    assert second.title == "live-migrate default/a away from w"
    out = cordoned.with_changes([("vm/default/a/node", Known("x"))])
    assert ask("prove-by-return@1", out, FIRST, rescue=True) == Finished(
        "default/a moved out again; w is cordoned"
    )


def test_the_inventory_is_of_the_objects_and_every_node() -> None:
    (record,) = ops(ask("inventory@1", facts(), {"nodes": ["w", "x"]}))
    assert isinstance(record, Record)
    asked = [
        getattr(r, "kind", None) or f"{getattr(r, 'node', '')}: {','.join(ovs.TABLES)}"
        for r in record.requests
    ]
    assert asked == [
        "NetworkAttachmentDefinition",
        "VirtualMachine",
        "VirtualMachineInstance",
        "Node",
        "NodeNetworkConfigurationPolicy",
        "w: Open_vSwitch,Bridge,Port,Interface",
        "x: Open_vSwitch,Bridge,Port,Interface",
    ]
    done = ask("inventory@1", facts(), {"nodes": ["w", "x"]}, outcomes={"inventory": "done"})
    assert isinstance(done, Finished)


def test_a_verification_that_misses_waits_and_then_stops_with_both_values() -> None:
    args = {"checks": [["node/w/unschedulable", "eq", True, "why"]]}
    (wait,) = ops(ask("verify@1", facts(), args))
    upcoming = ask("verify@1", facts(), args, outcomes={wait.label: "timed-out"})
    assert upcoming == Stop("expected: node/w/unschedulable is yes; found: no (why)")
    assert isinstance(ask("verify@1", facts(node__w__unschedulable=Known(True)), args), Finished)


# Restarts: a VM leaves by being stopped, and started elsewhere.

RESTART = {**EVACUATE, "restarting": ["default/a"], "late": []}
ALONE = {"node__w__vms": Known(["default/a"])}


def machine(**more: Fact) -> dict[str, Fact]:
    """The VirtualMachine of `default/a`, which runs as `Manual`."""
    base: dict[str, Fact] = {
        "": Known({"uid": "u", "keeper": ""}),
        "/run": Known("Manual"),
        "/field": Known("runStrategy"),
        "/recorded": ABSENT,
        "/instance": Known("Running"),
        "/ready": Known(True),
        "/version": Known("9"),
    }
    return {f"machine/default/a{path}": fact for path, fact in {**base, **more}.items()}


def restarts(where: Fact, **done: Any) -> Any:
    def ask_with(**more: Fact) -> Next:
        changed = {f"/{name}": fact for name, fact in more.items()}
        world = facts(**ALONE, vm__default__a__node=where).with_changes(machine(**changed).items())
        if where != Known("w"):
            world = world.with_changes([("node/w/vms", Known([]))])
        return ask("evacuate@1", world, RESTART, **done)

    return ask_with


def test_a_vm_is_stopped_and_what_it_had_is_noted_on_it_in_the_same_patch() -> None:
    (patch,) = ops(restarts(Known("w"))())
    assert isinstance(patch, Patch) and patch.resource_version == "9"
    assert patch.patch == {
        "metadata": {"annotations": {"ovsplan.io/run-strategy": "runStrategy=Manual"}},
        "spec": {"runStrategy": "Halted"},
    }


NOTED: dict[str, Fact] = {"recorded": Known("runStrategy=Manual"), "run": Known("Halted")}


def test_a_stopped_vm_is_started_only_once_its_guest_is_gone() -> None:
    (wait,) = ops(restarts(Known("w"))(**NOTED))
    assert isinstance(wait, Wait) and [c.path for c in wait.checks] == ["machine/default/a/instance"]
    (start,) = ops(restarts(ABSENT)(**NOTED, instance=ABSENT))
    assert isinstance(start, Patch) and start.patch == {"spec": {"runStrategy": "Always"}}


def test_a_started_vm_is_awaited_up_before_its_strategy_is_given_back() -> None:
    started = {**NOTED, "run": Known("Always")}
    (wait,) = ops(restarts(Known("x"))(**started, ready=Known(False)))
    assert isinstance(wait, Wait) and wait.title == "default/a up on another node"
    (restore,) = ops(restarts(Known("x"))(**started))
    assert isinstance(restore, Patch) and restore.patch == {
        "metadata": {"annotations": {"ovsplan.io/run-strategy": None}},
        "spec": {"runStrategy": "Manual"},
    }


def test_a_vm_of_the_old_field_is_never_given_the_other_one() -> None:
    (patch,) = ops(restarts(Known("w"))(run=Known("Always"), field=Known("running")))
    assert isinstance(patch, Patch) and patch.patch["spec"] == {"running": False}


def test_a_vm_that_is_up_elsewhere_as_it_was_is_done() -> None:
    upcoming = restarts(Known("x"), outcomes={"stop:default/a": "done"})()
    assert upcoming == Finished("restarted elsewhere: default/a")


def test_a_vm_that_somebody_started_again_on_the_node_stops_the_line() -> None:
    upcoming = restarts(Known("w"))(recorded=Known("runStrategy=Manual"), run=Known("Always"))
    assert isinstance(upcoming, Stop) and upcoming.moved and "started on w by somebody else" in upcoming.why


def test_a_vmi_without_a_virtual_machine_is_not_touched() -> None:
    world = facts(**ALONE).with_changes([("machine/default/a", ABSENT), ("machine/default/a/*", ABSENT)])
    upcoming = ask("evacuate@1", world, RESTART)
    assert isinstance(upcoming, Stop) and "nobody would start it again (H14)" in upcoming.why


def test_after_a_failure_a_stopped_vm_is_started_wherever_it_may_run() -> None:
    stopped: dict[str, Fact] = {f"/{name}": fact for name, fact in {**NOTED, "instance": ABSENT}.items()}
    world = facts(**ALONE, vm__default__a__node=ABSENT).with_changes(machine(**stopped).items())
    (start,) = ops(ask("evacuate@1", world, RESTART, rescue=True))
    assert isinstance(start, Patch) and start.patch["spec"] == {"runStrategy": "Always"}


def test_a_restarted_vm_that_cannot_come_back_stays_and_is_told() -> None:
    blocked = {"uid": "u", "macs": [], "migratable": "DisksNotLiveMigratable", "memory": 1}
    world = facts(vm__default__a=Known(blocked), vm__default__a__node=Known("x"))
    upcoming = ask("return@1", world, {**BACK, "restarted": ["default/a"]})
    assert upcoming == Finished("1 VM(s) back on w; default/a cannot live-migrate and stays on x")


# Where they go.


def test_as_many_leave_at_once_as_the_plan_says() -> None:
    assert len(ops(ask("evacuate@1", facts(), {**EVACUATE, "at_once": 3}))) == 3


@pytest.mark.parametrize(
    ("state", "why"), [("node/x/unschedulable", "x is cordoned"), ("node/x/ready", "x is not Ready")]
)
def test_nowhere_to_go_is_said_at_once_in_one_sentence(state: str, why: str) -> None:
    world = facts().with_changes([(state, Known(state.endswith("unschedulable")))])
    upcoming = ask("evacuate@1", world, EVACUATE)
    assert upcoming == Stop(f"default/a has nowhere to go: no other node takes VMs now ({why})")


def read(view: str, *replies: Any) -> Facts:
    return Facts(dict(reading(view, 0.0).facts(replies)))


@pytest.mark.parametrize(
    ("migrations", "expected"),
    [
        ({}, {"node": 2, "cluster": 5, "network": ""}),
        ({"parallelOutboundMigrationsPerNode": 4}, {"node": 4, "cluster": 5, "network": ""}),
        ({"network": "fast"}, {"node": 2, "cluster": 5, "network": "cnv/fast"}),
    ],
)
def test_the_limits_are_kubevirts_own(migrations: Any, expected: Any) -> None:
    kubevirt = {
        "metadata": {"name": "kv", "namespace": "cnv"},
        "spec": {"configuration": {"migrations": migrations}},
    }
    assert read("migration-limits", [kubevirt]).value("cluster/migration-limits") == expected


def test_a_pool_that_is_being_updated_is_seen_and_no_pools_are_none() -> None:
    def pool(name: str, status: str) -> Any:
        return {
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Updating", "status": status}]},
        }

    seen = read("rollouts", [pool("master", "False"), pool("worker", "True")], None)
    assert seen.value("cluster/rollouts") == ["MachineConfigPool worker"]
    assert read("rollouts", None, None).value("cluster/rollouts") == []


def pod(name: str, owner: str = "ReplicaSet", **more: Any) -> Any:
    owners = [{"kind": owner, "name": "o", "controller": True}] if owner else []
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "ownerReferences": owners}
    return {
        "metadata": {**metadata, **more.get("metadata", {})},
        "spec": {"nodeName": "w", **more.get("spec", {})},
        "status": {"phase": more.get("phase", "Running")},
    }


@pytest.mark.parametrize(
    ("found", "way"),
    [
        (pod("a"), "evict"),
        (pod("a", "DaemonSet"), "skip"),
        (pod("a", metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}), "skip"),
        (pod("a", "", phase="Succeeded"), "skip"),
        (pod("a", "VirtualMachineInstance", metadata={"labels": {"kubevirt.io": "virt-launcher"}}), "skip"),
        (pod("a", metadata={"labels": {"kubevirt.io": "hotplug-disk"}}), "skip"),
        (pod("a", ""), "block"),
        (pod("a", spec={"volumes": [{"emptyDir": {}}]}), "block"),
    ],
)
def test_a_pod_is_evicted_when_a_drain_without_force_would(found: Any, way: str) -> None:
    ((only,),) = [read("pods:w", [found]).value("node/w/pods")]
    assert only["way"] == way and bool(only["why"]) == (way != "evict")


def test_a_pod_that_only_force_would_move_stops_the_line_by_its_name() -> None:
    upcoming = ask("evict@1", read("pods:w", [pod("alone", "")]))
    assert isinstance(upcoming, Stop) and "shop/alone (nobody would make it again)" in upcoming.why


def test_an_eviction_is_of_that_very_pod_and_asked_again_when_it_was_put_off() -> None:
    world = read("pods:w", [pod("a")])
    (first,) = ops(ask("evict@1", world))
    assert isinstance(first, Create) and first.subresource == "eviction"
    assert first.body["deleteOptions"] == {"preconditions": {"uid": "uid-a"}}
    (pause,) = ops(ask("evict@1", world, outcomes={first.label: "busy"}, attempts={first.label: 1}))
    assert isinstance(pause, Wait) and pause.deadline == AGAIN_AFTER
    put_off = {first.label: "busy", pause.label: "timed-out"}
    (again,) = ops(ask("evict@1", world, outcomes=put_off, attempts={first.label: 1}))
    assert again == first
    results = {first.label: {"why": "the budget web says no"}}
    upcoming = ask("evict@1", world, outcomes=put_off, attempts={first.label: TRIES}, results=results)
    assert isinstance(upcoming, Stop) and upcoming.why.endswith("the budget web says no")


@pytest.mark.parametrize(
    ("how", "more", "why"),
    [
        ("live-migrate", {}, ""),
        (
            "live-migrate",
            {"cluster/migrating/default/a": Known("kubevirt-evacuation-x")},
            "kubevirt-evacuation-x migrates it now, whose end is awaited first",
        ),
        ("restart", {}, "the rollout says so, though it can live-migrate; it returns by live migration"),
        (
            "restart",
            {"vm/default/a": Known({"migratable": "HostDevice"})},
            "the rollout says so; it cannot live-migrate: HostDevice; it stays where it starts",
        ),
    ],
)
def test_the_plan_says_why_a_vm_leaves_as_it_does(how: Leaving, more: dict[str, Fact], why: str) -> None:
    world = facts(cluster__migrating__default__a=ABSENT).with_changes(more.items())
    assert way_out("default/a", world, Evacuate(vms={"default/a": how})) == Way("default/a", how, why)


# What is dangerous about it.


def planned_with(tmp_path: Path, write: MergePatch, spec: Any = None) -> Plan:
    with make_world(tmp_path / "world", spec) as world:
        world.edit().cluster.write(write)
        return planned(world, declared(COLD))


def test_a_vm_that_fits_no_other_node_blocks_with_the_label(tmp_path: Path) -> None:
    vmi = Ref(VMI[0], VMI[1], "web-1", "default")
    plan = planned_with(tmp_path, MergePatch(vmi, {"spec": {"nodeSelector": {"disk": "ssd"}}}))
    (found,) = [f for f in plan.findings if f.id == "H14"]
    assert found.blocks and found.node == "worker-01"
    assert found.message == (
        "default/web-1 on worker-01 cannot run on any other node: its nodeSelector asks for disk=ssd"
    )


def test_a_node_affinity_is_held_against_the_other_nodes(tmp_path: Path) -> None:
    def term(operator: str) -> Any:
        rule = {"key": "kubernetes.io/hostname", "operator": operator, "values": ["worker-01"]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
        return {
            "spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}
        }

    vmi = Ref(VMI[0], VMI[1], "web-1", "default")
    kept = planned_with(tmp_path / "in", MergePatch(vmi, term("In")))
    assert [f.id for f in kept.findings] == ["H14"]
    free = planned_with(tmp_path / "not-in", MergePatch(vmi, term("NotIn")))
    assert not free.findings


def test_migrations_over_the_network_that_moves_block(tmp_path: Path) -> None:
    network = {"spec": {"configuration": {"migrations": {"network": "vlan224"}}}}
    with make_world(tmp_path / "world") as world:
        (kubevirt,) = world.cluster.list("kubevirt.io/v1", "KubeVirt").items
    name, space = kubevirt["metadata"]["name"], kubevirt["metadata"]["namespace"]
    network["spec"]["configuration"]["migrations"]["network"] = "default/vlan224"
    plan = planned_with(
        tmp_path / "moved", MergePatch(Ref("kubevirt.io/v1", "KubeVirt", name, space), network)
    )
    (found,) = [f for f in plan.findings if f.id == "H12"]
    assert found.blocks and "over default/vlan224, which is on localnet vmnet" in found.message


def test_room_on_a_node_that_leaves_vms_in_the_dark_is_not_counted(tmp_path: Path) -> None:
    spec = {"nodes": {"worker-02": {"mappings": "physnet:br-ex"}}}
    with make_world(tmp_path / "world", spec) as world:
        plan = planned(world, declared(COLD), only=["worker-01"])
    (found,) = [f for f in plan.findings if f.id == "H14"]
    assert "worker-02 not counted: it has no mapping for vmnet" in found.message


def test_machines_that_are_being_updated_block_and_are_looked_for_before_each_node(tmp_path: Path) -> None:
    with make_world(tmp_path / "world") as world:
        desired = declared(COLD)
        seen = observed(world, desired).with_changes(
            [("cluster/rollouts", Known(["MachineConfigPool worker"]))]
        )
    plan = make_plan(desired, seen, TARGET)
    (found,) = [f for f in plan.findings if f.id == "H18"]
    assert found.blocks and found.message.startswith("MachineConfigPool worker is being updated")
    preflights = [action for action in plan.actions if action.routine == "preflight@1"]
    assert len(preflights) == 2
    for action in preflights:
        assert [c.value for c in action.expect if c.path == "cluster/rollouts"] == [[]]


def test_machines_that_are_being_updated_hold_up_a_hot_node_too(tmp_path: Path) -> None:
    with make_world(tmp_path / "world") as world:
        plan = planned(world, declared(HOT))
    preflights = [action for action in plan.actions if action.routine == "preflight@1"]
    assert len(preflights) == 2
    for action in preflights:
        paths = {check.path for check in action.expect}
        assert {"cluster/rollouts", "cluster/not-ready"} <= paths and "cluster/cordoned" not in paths


def test_a_node_whose_lease_looks_stale_is_a_warning_until_kubernetes_calls_it_lost(tmp_path: Path) -> None:
    with make_world(tmp_path / "world") as world:
        world.set_kubelet("worker-02", False)
        world.tick(39)
        plan = planned(world, declared(HOT))
        assert [f.message for f in plan.findings if f.id == "H18"] == []
        world.controllers_off("kubelet")  # nobody says in its place that it is lost
        world.tick(11)
        plan = planned(world, declared(HOT))
    with make_world(tmp_path / "lost") as world:
        world.set_kubelet("worker-02", False)
        world.tick(50)
        lost = planned(world, declared(HOT))
    (found,) = [f for f in plan.findings if f.id == "H18"]
    assert not found.blocks and found.message == (
        "worker-02 says that it is Ready; its Lease is 50 s older than those of others: "
        "its kubelet is silent, or its clock is behind"
    )
    (found,) = [f for f in lost.findings if f.id == "H18"]
    assert found.blocks
    assert found.message == "worker-02 is not Ready: no other node is taken out of service meanwhile"


def test_a_clock_that_is_behind_blocks_nothing_and_is_said(tmp_path: Path) -> None:
    """A healthy node: its kubelet renews its Lease, with an instant that is a minute old."""
    with make_world(tmp_path / "world") as world:
        seen = observed(world, declared(HOT)).with_changes(
            [("cluster/kubelets", Known({"worker-01": "late"}))]
        )
    plan = make_plan(declared(HOT), seen, TARGET)
    assert [(f.blocks, f.node) for f in plan.findings if f.id == "H18"] == [(False, "worker-01")]
    assert step_preflight({}, seen, Done("run")) == Finished("worker-01: late")


def test_what_the_leases_could_not_tell_is_said_by_the_preflight() -> None:
    facts = Facts({"cluster/kubelets": Unknown("forbidden")})
    assert step_preflight({}, facts, Done("run")) == Finished(
        "cannot tell by their Leases whether the kubelets are alive: forbidden"
    )
