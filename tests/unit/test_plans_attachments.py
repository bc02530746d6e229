"""A VM's cards: the template's two lists, what is read of VMs, and the steps that plug a card into a running guest.

Invariant: facts come from replies as the API gives them, through the program's own reading of them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from plans.actions import Done, Finished, Next, Perform, Stop, find_routine
from plans.facts import ABSENT, KNOWN_AFTER_APPLY, Absent, Facts, Known, Unknown
from plans.kinds import attachment
from plans.maintenance import plugging
from plans.ops import Create, Patch, Wait
from plans.readings import NoReply, reading, view_of
from plans.wiring import Card, Template, rewired

assert attachment.KIND

POD = ({"name": "default", "pod": {}}, {"name": "default", "masquerade": {}})
NET = (
    {"name": "net1", "multus": {"networkName": "vlan224"}},
    {"name": "net1", "bridge": {}, "macAddress": "02:00:00:00:00:01", "model": "virtio", "bootOrder": 1},
)
NEW = Card("net2", "default/vlan300")
VIEW = "machine:default/web-1"
AT = "machine/default/web-1"


def template(*pairs: tuple[Any, Any], implicit: bool = False) -> Template:
    return Template("default", [n for n, _ in pairs], [i for _, i in pairs], implicit)


def test_a_card_is_added_behind_the_others() -> None:
    after = rewired(template(POD, NET), [NEW])
    assert list(after.networks) == [
        POD[0],
        NET[0],
        {"name": "net2", "multus": {"networkName": "default/vlan300"}},
    ]
    assert list(after.interfaces) == [POD[1], NET[1], {"name": "net2", "bridge": {}}]


def test_a_card_that_changes_its_network_keeps_what_else_it_says() -> None:
    after = rewired(template(POD, NET), [Card("net1", "default/vlan300")])
    assert after.interface("net1") == NET[1]
    assert after.nad("net1") == "default/vlan300"


def test_a_card_of_another_binding_becomes_a_bridge() -> None:
    sriov = (NET[0], {"name": "net1", "sriov": {}, "model": "virtio"})
    after = rewired(template(POD, sriov), [Card("net1", "default/vlan224")])
    assert after.interface("net1") == {"name": "net1", "bridge": {}, "model": "virtio"}


def test_a_card_that_was_declared_absent_comes_back() -> None:
    gone = (NET[0], {**NET[1], "state": "absent"})
    assert template(POD, gone).nad("net1") == ""
    assert rewired(template(POD, gone), [Card("net1", "default/vlan224")]).interface("net1") == NET[1]


@pytest.mark.parametrize("there", [NET, (NET[0], {**NET[1], "state": "absent"})])
def test_a_card_goes_from_a_stopped_vm_and_stays_as_absent_in_one_that_runs(there: Any) -> None:
    assert rewired(template(POD, NET), [Card("net1", "")]).network("net1") is None
    plugged = rewired(template(POD, there), [Card("net1", "")], plug=True)
    assert plugged.network("net1") == NET[0]
    assert plugged.interface("net1") == {**NET[1], "state": "absent"}


def test_absent_in_the_template_and_not_there_are_the_same() -> None:
    gone = (NET[0], {**NET[1], "state": "absent"})
    for there in (template(POD), template(POD, gone)):
        assert there.has(Card("net1", ""))
        assert rewired(there, [Card("net1", "")]) == there


def test_what_is_right_is_not_written_anew() -> None:
    there = template(POD, NET)
    for mac in ("", "02:00:00:00:00:01"):
        assert rewired(there, [Card("net1", "default/vlan224", mac)]) == there
    assert not there.has(Card("net1", "default/vlan224", "02:00:00:00:00:02"))


def test_the_pod_network_that_nobody_wrote_down_is_written_down() -> None:
    after = rewired(template(implicit=True), [NEW])
    assert [n["name"] for n in after.networks] == ["default", "net2"] == [i["name"] for i in after.interfaces]
    assert after.interfaces[0] == POD[1]
    without = rewired(template(implicit=False), [NEW])
    assert [n["name"] for n in without.networks] == ["net2"]


MACHINE: dict[str, Any] = {
    "metadata": {"name": "web-1", "namespace": "default", "uid": "u-1", "resourceVersion": "7"},
    "spec": {
        "runStrategy": "Manual",
        "template": {
            "spec": {
                "networks": [POD[0], NET[0]],
                "domain": {"devices": {"interfaces": [POD[1], NET[1]]}},
            }
        },
    },
    "status": {},
}
INSTANCE: dict[str, Any] = {
    "metadata": {"name": "web-1", "namespace": "default", "uid": "i-1"},
    "spec": copy.deepcopy(MACHINE["spec"]["template"]["spec"]),
    "status": {
        "phase": "Running",
        "nodeName": "worker-01",
        "interfaces": [{"name": "net1", "infoSource": "domain, guest-agent, multus-status"}],
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "LiveMigratable", "status": "True"}],
    },
}


def seen(machine: Mapping[str, Any] | None = MACHINE, instance: Mapping[str, Any] | None = INSTANCE) -> Facts:
    replies = [[item] if item else [] for item in (machine, instance)]
    return Facts(reading(VIEW, 0.0).facts(replies))


def test_a_vm_is_read_with_its_guest() -> None:
    facts = seen()
    told = {
        path: facts.value(f"{AT}/{path}")
        for path in ("run", "field", "nic/net1", "live/net1", "instance", "version")
    }
    assert told == {
        "run": "Manual",
        "field": "runStrategy",
        "nic/net1": "default/vlan224",
        "live/net1": "default/vlan224",
        "instance": "Running",
        "version": "7",
    }
    assert facts.value(f"{AT}/sources/net1") == ["domain", "guest-agent", "multus-status"]
    assert facts.get(f"{AT}/nic/default") == facts.get(f"{AT}/restart-required") == ABSENT


@pytest.mark.parametrize(
    ("spec", "run", "field"),
    [
        ({"running": True}, "Always", "running"),
        ({"running": False}, "Halted", "running"),
        ({"runStrategy": "Once"}, "Once", "runStrategy"),
        ({}, "Halted", "runStrategy"),
    ],
)
def test_how_a_vm_runs_is_read_from_whichever_field_says_it(
    spec: dict[str, Any], run: str, field: str
) -> None:
    facts = seen({**MACHINE, "spec": {**spec, "template": MACHINE["spec"]["template"]}})
    assert (facts.value(f"{AT}/run"), facts.value(f"{AT}/field")) == (run, field)


def test_a_guest_has_the_time_to_shut_down_that_its_template_gives() -> None:
    machine = copy.deepcopy(MACHINE)
    assert seen(machine).value(f"{AT}/grace") == 30
    machine["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 3600
    assert seen(machine).value(f"{AT}/grace") == 3600


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_guest_that_is_over_is_none(phase: str) -> None:
    assert seen(MACHINE, {**INSTANCE, "status": {"phase": phase}}).get(f"{AT}/instance") == ABSENT


def test_a_vm_that_is_not_there_is_absent_in_all_its_paths() -> None:
    assert {type(seen(None, None).get(f"{AT}{path}")) for path in ("", "/run", "/nic/net1")} == {Absent}


VIEWS = {
    "nads": ("cluster/nads", "nad/*"),
    "nad:default/a": ("nad/default/a", "nad/default/a/config", "nad/default/a/events"),
    "nad-users": ("cluster/nad-pods",),
    "machines": ("cluster/machines", "machine/*"),
    VIEW: (AT, f"{AT}/run", f"{AT}/nic/net1", f"{AT}/instance"),
    "kubevirt": ("cluster/live-update",),
    "l2advertisements": ("cluster/l2advertisements", "l2advertisement/*"),
    "l2advertisement:metallb-system/l2": ("l2advertisement/metallb-system/l2/interfaces",),
}


@pytest.mark.parametrize("view", VIEWS)
def test_what_could_not_be_asked_is_unknown_and_each_path_leads_to_its_view(view: str) -> None:
    wanted = reading(view, 0.0)
    facts = Facts(wanted.facts([NoReply("no route to host")] * len(wanted.requests)))
    for path in VIEWS[view]:
        assert facts.get(path) == Unknown("no route to host"), path
        assert view_of(path) == view


@pytest.mark.parametrize("view", VIEWS)
def test_an_answer_that_makes_no_sense_is_unknown_and_not_absent(view: str) -> None:
    wanted = reading(view, 0.0)
    facts = Facts(wanted.facts([[{"surprise": 1}]] * len(wanted.requests)))
    for path in VIEWS[view]:
        fact = facts.get(path)
        # The one object of KubeVirt may say nothing, which means its default.
        assert view == "kubevirt" or isinstance(fact, Unknown), path


def pod(name: str, annotation: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "lab", "annotations": {"k8s.v1.cni.cncf.io/networks": annotation}}
    return {"metadata": {**metadata, **more.pop("metadata", {})}, "status": {"phase": "Running"}, **more}


def test_pods_name_nads_in_three_ways_and_those_of_vms_are_left_to_their_vms() -> None:
    pods = [
        pod("a", "vlan224, default/vlan300@eth1"),
        pod("b", '[{"name": "vlan224"}, {"name": "x", "namespace": "web"}]'),
        pod("c", "[broken"),
        pod("d", "vlan224", status={"phase": "Succeeded"}),
        pod("e", "vlan224", metadata={"labels": {"kubevirt.io": "virt-launcher"}}),
        {"metadata": {"name": "f", "namespace": "lab"}},
    ]
    facts = reading("nad-users", 0.0).facts([pods])
    assert facts["cluster/nad-pods"] == Known(
        {"default/vlan300": ["lab/a"], "lab/vlan224": ["lab/a", "lab/b"], "web/x": ["lab/b"]}
    )


def with_card(item: Mapping[str, Any], at: tuple[str, ...]) -> dict[str, Any]:
    """The VM, or its VMI, with net2 in its lists."""
    changed: dict[str, Any] = copy.deepcopy(dict(item))
    spec = changed
    for step in at:
        spec = spec[step]
    spec["networks"].append({"name": "net2", "multus": {"networkName": "default/vlan300"}})
    spec["domain"]["devices"]["interfaces"].append({"name": "net2", "bridge": {}})
    return changed


WRITTEN = with_card(MACHINE, ("spec", "template", "spec"))
ARGS = {
    "vm": "default/web-1",
    "cards": [{"name": "net2", "nad": "default/vlan300", "mac": ""}],
    "original": "runStrategy=Manual",
    "grace": 3600,
}


def plug(
    facts: Facts, outcomes: Mapping[str, str] | None = None, attempts: Mapping[str, int] | None = None
) -> Next:
    return find_routine("hotplug@1").step(ARGS, facts, Done("run-1", outcomes or {}, attempts=attempts or {}))


def asked(word: str, **status: Any) -> dict[str, Any]:
    """The VMI with a condition."""
    conditions = [*INSTANCE["status"]["conditions"], {"type": word, "status": "True"}]
    return {**INSTANCE, "status": {**INSTANCE["status"], "conditions": conditions, **status}}


def only(found: Next) -> Any:
    assert isinstance(found, Perform) and len(found.ops) == 1, found
    return found.ops[0]


def test_hotplug_writes_the_template_at_the_version_that_was_read() -> None:
    op = only(plug(seen()))
    assert isinstance(op, Patch) and op.resource_version == "7"
    assert "runStrategy" not in str(op.patch) and "net2" in str(op.patch)


def test_hotplug_waits_until_both_guest_and_multus_have_the_card() -> None:
    assert isinstance(only(plug(seen(WRITTEN))), Wait)
    for source in ("multus-status", "domain"):
        status = {**INSTANCE["status"], "interfaces": [{"name": "net2", "infoSource": source}]}
        assert isinstance(plug(seen(WRITTEN, {**INSTANCE, "status": status})), Perform)
    status = {**INSTANCE["status"], "interfaces": [{"name": "net2", "infoSource": "domain, multus-status"}]}
    assert isinstance(plug(seen(WRITTEN, {**INSTANCE, "status": status})), Finished)


def test_hotplug_migrates_once_when_kubevirt_asks_for_it() -> None:
    waiting = seen(WRITTEN, asked("MigrationRequired"))
    facts = Facts({**dict(waiting.items()), "migration/*": ABSENT, "cluster/migrating/*": ABSENT})
    create = only(plug(facts))
    assert isinstance(create, Create) and create.body["spec"] == {"vmiName": "web-1"}
    assert create.ref.name == only(plug(facts)).ref.name
    under_way = facts.with_changes([("cluster/migrating/default/web-1", Known(create.ref.name))])
    name = create.ref.name
    assert only(plug(under_way, {f"migrate:{name}": "done"})).label == f"moved:{name}"
    moved = {f"migrate:{name}": "done", f"moved:{name}": "done"}
    assert only(plug(facts, moved)).label == f"settled:{name}"


def test_a_migration_for_a_card_that_failed_is_made_anew_three_times_in_one_life_and_again_in_the_next() -> (
    None
):
    waiting = seen(WRITTEN, asked("MigrationRequired"))
    facts = Facts({**dict(waiting.items()), "migration/*": ABSENT, "cluster/migrating/*": ABSENT})
    names: dict[str, str] = {}
    for _ in range(3):
        create = only(plug(facts, names, attempts=dict.fromkeys(names, 1)))
        assert isinstance(create, Create) and create.label not in names
        names[create.label] = "done"
        facts = facts.with_changes([(f"migration/default/{create.ref.name}/phase", Known("Failed"))])
    stop = plug(facts, names, attempts=dict.fromkeys(names, 1))
    assert isinstance(stop, Stop) and "failed 3 times" in stop.why
    create = only(plug(facts, names))
    assert isinstance(create, Create) and create.label not in names


def test_a_vm_that_kubevirt_migrates_by_itself_is_not_migrated_again() -> None:
    waiting = seen(WRITTEN, asked("MigrationRequired"))
    facts = Facts(
        {
            **dict(waiting.items()),
            "migration/*": ABSENT,
            "cluster/migrating/default/web-1": Known("kubevirt-x"),
        }
    )
    assert only(plug(facts)).label == "moved:kubevirt-x"


def test_three_migrations_of_kubevirts_own_that_fail_in_a_row_end_the_wait_with_their_reasons() -> None:
    names = ["kubevirt-a", "kubevirt-b", "kubevirt-c"]
    tried = {f"moved:{name}": "done" for name in names}
    waiting = dict(seen(WRITTEN, asked("MigrationRequired")).items())
    waiting |= {"migration/*": ABSENT, "cluster/migrating/default/web-1": Known("kubevirt-d")}
    for name, reason in zip(names, ("", "no room", "no room"), strict=True):
        waiting[f"migration/default/{name}"] = Known({"vmi": "web-1", "reason": reason})
        waiting[f"migration/default/{name}/phase"] = Known("Failed")
    stop = plug(Facts(waiting), tried, dict.fromkeys(tried, 1))
    assert isinstance(stop, Stop) and not stop.moved
    assert stop.why.startswith(
        "the migration of default/web-1 failed 3 times, so its cards are not plugged: no room. "
        "`oc describe vmim -n default kubevirt-c` tells more. Once it can migrate, `ovsplan apply` goes on"
    )
    # Not three in a row, and whoever resumes counts anew.
    waiting["migration/default/kubevirt-b/phase"] = Known("Succeeded")
    assert only(plug(Facts(waiting), tried, dict.fromkeys(tried, 1))).label == "moved:kubevirt-d"
    waiting["migration/default/kubevirt-b/phase"] = Known("Failed")
    assert only(plug(Facts(waiting))).label == "moved:kubevirt-d"


def test_hotplug_of_a_vm_that_cannot_migrate_stops_and_says_so() -> None:
    instance = asked("MigrationRequired")
    instance["status"]["conditions"] = [
        c for c in instance["status"]["conditions"] if c["type"] != "LiveMigratable"
    ]
    stop = plug(seen(WRITTEN, instance))
    assert isinstance(stop, Stop) and "can't be migrated" in stop.why


def test_hotplug_that_needs_a_restart_stops_and_says_so() -> None:
    machine = {**WRITTEN, "status": {"conditions": [{"type": "RestartRequired", "status": "True"}]}}
    stop = plug(seen(machine))
    assert isinstance(stop, Stop) and "RestartRequired" in stop.why


@pytest.mark.parametrize("source", ["", "multus-status", "domain, multus-status"])
def test_a_card_that_an_older_kubevirt_has_in_words_only_is_brought_by_a_restart(source: str) -> None:
    machine = {**WRITTEN, "status": {"conditions": [{"type": "RestartRequired", "status": "True"}]}}
    live = with_card(INSTANCE, ("spec",))
    live["status"]["interfaces"] += [{"name": "net2", "infoSource": source}] if source else []
    facts, wanted = seen(machine, live), Card("net2", "default/vlan300")
    assert plugging.is_in_guest("default/web-1", wanted, facts) is source.startswith("domain")
    if source.startswith("domain"):
        assert isinstance(attach(facts), Finished)
    else:
        assert only(attach(facts)).label == "stop"


def test_hotplug_does_not_wait_for_ever() -> None:
    stop = plug(seen(WRITTEN), {"plugged": "timed-out"})
    assert isinstance(stop, Stop) and "not plugged" in stop.why


def attach(
    facts: Facts, outcomes: Mapping[str, str] | None = None, original: str = "runStrategy=Manual"
) -> Next:
    return find_routine("attach@1").step({**ARGS, "original": original}, facts, Done("run-1", outcomes or {}))


def noted(machine: Mapping[str, Any], run: str, note: str = "runStrategy=Manual") -> dict[str, Any]:
    """The VM as it is between being stopped and being given back its run strategy."""
    metadata = {**machine["metadata"], "annotations": {"ovsplan.io/run-strategy": note}}
    return {**machine, "metadata": metadata, "spec": {**machine["spec"], "runStrategy": run}}


def test_a_vm_is_stopped_and_noted_in_one_patch() -> None:
    op = only(attach(seen()))
    assert op.patch == {
        "metadata": {"annotations": {"ovsplan.io/run-strategy": "runStrategy=Manual"}},
        "spec": {"runStrategy": "Halted"},
    }
    assert op.resource_version == "7"


def test_what_is_noted_is_how_the_vm_runs_now_not_when_it_was_planned() -> None:
    machine = {**MACHINE, "spec": {**MACHINE["spec"], "runStrategy": "Once"}}
    op = only(attach(seen(machine), original="runStrategy=Manual"))
    assert op.patch["metadata"]["annotations"] == {"ovsplan.io/run-strategy": "runStrategy=Once"}


def test_it_is_edited_only_when_its_guest_is_gone() -> None:
    wait = only(attach(seen(noted(MACHINE, "Halted"))))
    assert (wait.label, wait.deadline) == ("gone", 3720.0)
    assert only(attach(seen(noted(MACHINE, "Halted"), None))).label == "edit"


def test_a_guest_that_does_not_shut_down_stops_the_run_and_the_vm_is_started_again() -> None:
    facts = seen(noted(MACHINE, "Halted"))
    assert isinstance(attach(facts, {"stop": "done", "gone": "timed-out"}), Stop)
    rescue = find_routine("attach@1").rescue
    assert rescue is not None
    assert only(rescue(ARGS, facts, Done("run-1"))).patch == {"spec": {"runStrategy": "Always"}}


def test_it_has_its_run_strategy_back_only_when_it_is_up() -> None:
    live = with_card(INSTANCE, ("spec",))
    live["status"]["interfaces"].append({"name": "net2", "infoSource": "domain"})
    assert only(attach(seen(noted(WRITTEN, "Halted"), None))).label == "start"
    assert only(attach(seen(noted(WRITTEN, "Always"), None))).label == "up"
    starting = {**live, "status": {**live["status"], "phase": "Scheduling"}}
    assert only(attach(seen(noted(WRITTEN, "Always"), starting))).label == "up"
    op = only(attach(seen(noted(WRITTEN, "Always"), live)))
    assert op.patch == {
        "metadata": {"annotations": {"ovsplan.io/run-strategy": None}},
        "spec": {"runStrategy": "Manual"},
    }
    assert isinstance(attach(seen(WRITTEN, live)), Finished)


def test_a_vm_that_somebody_starts_before_it_is_edited_is_left_to_him() -> None:
    stop = attach(seen(noted(MACHINE, "Always")))
    assert isinstance(stop, Stop) and stop.moved


def test_the_field_that_a_vm_uses_is_the_one_that_is_written() -> None:
    machine = {**MACHINE, "spec": {"running": True, "template": MACHINE["spec"]["template"]}}
    assert only(attach(seen(machine), original="running=true")).patch["spec"] == {"running": False}


def test_what_could_not_be_read_is_not_acted_upon() -> None:
    unread = Facts(reading(VIEW, 0.0).facts([NoReply("no route to host")] * 2))
    for step in (attach, plug):
        stop = step(unread)
        assert isinstance(stop, Stop) and stop.unsure


def test_a_plan_shows_the_migration_that_hotplug_may_need() -> None:
    contingent = find_routine("hotplug@1").contingent
    assert contingent is not None
    (op,) = contingent(ARGS, seen())
    assert isinstance(op, Create) and KNOWN_AFTER_APPLY in op.ref.name
