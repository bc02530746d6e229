"""What `ovsplan init` proposes: the files say what is there, and planning them shows only what was asked for.

Invariant: the judge is the planner, on a world that is read anew; no test looks into how a proposal is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.planning import TARGET, planned, world_spec

from engine.observe import observe
from plans.desired import Desired, load_desired
from plans.document import Plan
from plans.errors import InputError, PlanError
from plans.facts import Facts
from plans.nmstate.policies import POLICY
from plans.planner import node_views
from plans.proposal import VIEWS, Proposal, Wish, propose
from plans.writing import comment, document, scalar
from providers.interpreters import Interpreter
from providers.ports import Create, Ref
from providers.twin import TwinWorld, init_world, open_world

EXAMPLES = sorted(path.parent.name for path in (Path(__file__).parents[2] / "examples").glob("*/world.yaml"))
AS_IT_IS = Wish()
MIGRATION = Wish("br-phy", "br-vmdata")
WORKER = {"node-role.kubernetes.io/worker": ""}
OTHER_PORTS = {
    "br-phy": {"ports": {"ovs-bond": {"bond": ["ens33", "ens34"], "mode": "balance-slb"}}},
    "br-vmdata": {"ports": {"bond0": {}}},
    "br-storage": {"ports": {"ens40": {}}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "world"


def world(folder: Path, over: Mapping[str, Any]) -> TwinWorld:
    init_world(world_spec(over), folder)
    return open_world(folder)


def proposed(world: TwinWorld, wish: Wish = AS_IT_IS) -> Proposal:
    hands = Interpreter(world)
    cluster = observe(hands, world.clock, VIEWS)
    views = [view for node in Facts(cluster).value("cluster/nodes", []) for view in node_views(node)]
    return propose(Facts({**cluster, **observe(hands, world.clock, views)}), TARGET, wish)


def declared(proposal: Proposal) -> Desired:
    return load_desired(list(proposal.files.items()))


def network(proposal: Proposal, name: str = "vmnet") -> Any:
    """The `spec` of a VMNetwork as it was written."""
    return yaml.safe_load(proposal.files[f"vmnetwork-{name}.yaml"])["spec"]


def text(proposal: Proposal, name: str = "vmnet") -> str:
    """A file's text with the line breaks of its comments taken out."""
    return re.sub(r"\n *#   (?=\S)", " ", proposal.files[f"vmnetwork-{name}.yaml"])


def touched(plan: Plan) -> set[str]:
    return {c.address for c in plan.cluster} | {c.address for n in plan.nodes for c in n.changes}


def shows_only(plan: Plan, asked: Collection[str]) -> list[str]:
    """What a plan shows besides the migration of the localnets `asked` for, and what it does to policies for it."""
    pattern = "|".join(
        [*(rf"node/[^/]+/mapping/{net}" for net in asked), r"node/[^/]+/bridge/br-vmdata", "policy/.*"]
    )
    return sorted(a for a in touched(plan) if not (asked and re.fullmatch(pattern, a)))


# Worlds that are there


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_declared_as_it_is(name: str, folder: Path) -> None:
    spec = yaml.safe_load((Path(__file__).parents[2] / "examples" / name / "world.yaml").read_text())["spec"]
    init_world(spec, folder)
    with open_world(folder) as made:
        if name == "new-cluster":
            with pytest.raises(InputError, match="On a new cluster: --localnet NAME --bridge BRIDGE"):
                proposed(made)
            return
        proposal = proposed(made)
        plan = planned(made, declared(proposal))
    assert touched(plan) == set() and not plan.is_partial
    assert proposal.left_out == ()


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "new-cluster"])
def test_an_example_is_migrated_as_its_own_files_would(name: str, folder: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / name
    init_world(yaml.safe_load((example / "world.yaml").read_text())["spec"], folder)
    own = next(path for path in sorted(example.glob("*/vmnet.yaml")) if path.parent.name != "cold")
    with open_world(folder) as made:
        proposal = proposed(made, MIGRATION)
        plan = planned(made, declared(proposal))
        wanted = planned(made, load_desired([(str(own), own.read_text())]))
    nodes = {address for address in touched(wanted) if address.startswith("node/")}
    assert nodes and {address for address in touched(plan) if address.startswith("node/")} == nodes
    assert shows_only(plan, ["vmnet"]) == []
    assert not plan.blocking() and not plan.is_partial


def test_a_new_cluster_is_begun(folder: Path) -> None:
    init_world(
        yaml.safe_load((Path(__file__).parents[2] / "examples/new-cluster/world.yaml").read_text())["spec"],
        folder,
    )
    with open_world(folder) as made:
        proposal = proposed(made, Wish("br-phy", localnets=("vmnet",)))
        plan = planned(made, declared(proposal))
    assert {a for a in touched(plan) if a.startswith("node/")} == {
        f"node/worker-0{n}/mapping/vmnet" for n in (1, 2, 3)
    }
    assert network(proposal)["nodes"] == WORKER
    assert "No node maps it yet" in text(proposal)


# Random worlds


def bridges(draw: st.DrawFn, homes: Collection[str], nmstate: bool) -> dict[str, Any]:
    """br-ex, br-phy, and whatever else is mapped, each made by somebody."""
    found: dict[str, Any] = {"br-vmdata": None, "br-storage": None}
    for name in {
        *(["br-phy"] if draw(st.integers(0, 4)) else []),
        *(h for h in homes if draw(st.integers(0, 6))),
    }:
        made = {"madeBy": "networkmanager"} if nmstate and draw(st.booleans()) else {}
        found[name] = {**OTHER_PORTS[name], **made}
    return found


@st.composite
def nodes(draw: st.DrawFn, nmstate: bool) -> dict[str, Any]:
    """A few nodes: labelled or not, mapped alike or not, some of which can't be read."""
    made = {}
    for number in range(1, draw(st.integers(2, 4)) + 1):
        pairs = draw(
            st.dictionaries(
                st.sampled_from(["vmnet", "storage"]),
                st.sampled_from(["br-phy", "br-vmdata", "br-storage"]),
                max_size=2,
            )
        )
        label = draw(
            st.sampled_from([{}, {"rack": "one"}, {"rack": "two"}, {"balance-slb-migrated": "true"}])
        )
        made[f"worker-0{number}"] = {
            "labels": {**({} if draw(st.integers(0, 4)) == 0 else WORKER), **label},
            "mappings": ",".join(["physnet:br-ex", *(f"{net}:{home}" for net, home in pairs.items())]),
            "bridges": bridges(draw, set(pairs.values()), nmstate),
            "reachable": draw(st.integers(0, 5)) > 0,
        }
    return made


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    has_nmstate = draw(st.booleans())
    found = draw(nodes(has_nmstate))
    policies = draw(
        st.lists(st.tuples(st.sampled_from(["vmnet", "storage"]), st.sampled_from(["br-phy", "br-vmdata"]), st.booleans()), max_size=2)
    )  # fmt: skip
    objects = [
        policy(
            f"policy-{i}",
            {"rack": "one"} if narrow else WORKER,
            maps={net: home},
            absent="br-storage" if narrow else "",
        )
        for i, (net, home, narrow) in enumerate(policies)
    ]
    vms = {
        f"default/vm-{i}": {
            "node": node,
            "networks": {"net": {"nad": "default/vlan224", "mac": f"02:00:00:00:e0:1{i}"}},
        }
        for i, node in enumerate(found)
        if "vmnet:" in found[node]["mappings"] and draw(st.booleans())
    }
    nmstate: dict[str, Any] = {"nmstate": "2.2.62", "later": objects} if has_nmstate else {}
    return {
        "nodes": found,
        "vms": {"default/web-1": None, "default/web-2": None, **vms},
        **nmstate,
    }


def policy(
    name: str, selector: Mapping[str, str], *, maps: Mapping[str, str], absent: str = "", **spec: Any
) -> Any:
    state: dict[str, Any] = {
        "ovn": {
            "bridge-mappings": [{"localnet": n, "bridge": b, "state": "present"} for n, b in maps.items()]
        }
    }
    if absent:
        state["interfaces"] = [{"name": absent, "type": "ovs-bridge", "state": "absent"}]
    return {
        "apiVersion": "nmstate.io/v1",
        "kind": "NodeNetworkConfigurationPolicy",
        "metadata": {"name": name},
        "spec": {"nodeSelector": dict(selector), "desiredState": state, **spec},
    }


@settings(max_examples=60, deadline=None, database=None)
@given(worlds(), st.sampled_from([AS_IT_IS, MIGRATION, Wish("br-phy"), Wish("br-phy", localnets=("vmnet",))]))
def test_whatever_is_there_only_what_was_asked_for_is_planned(over: dict[str, Any], wish: Wish) -> None:
    mapped = {
        net
        for node in over["nodes"].values()
        for net in ("vmnet", "storage")
        if f"{net}:" in node["mappings"]
    }
    later = over.get("later", ())
    with TemporaryDirectory() as folder, world(Path(folder, "world"), without(over, "later")) as made:
        for item in later:  # made now, and no time passes: what they do to nodes is not what is asked here
            made.edit().cluster.write(Create(Ref(*POLICY, item["metadata"]["name"]), item))
        try:
            proposal = proposed(made, wish)
        except (InputError, PlanError) as error:
            assert re.search("could be read|which localnet|no node has|nothing to declare", str(error))
            return
        plan = planned(made, declared(proposal))
    told = {name.removeprefix("vmnetwork-").removesuffix(".yaml") for name in proposal.files} - {"rollout"}
    assert told and told <= mapped | {"vmnet"}  # a NAD names vmnet
    assert shows_only(plan, told if wish.bridge else ()) == []
    assert all("could not be read" in "".join(proposal.files.values()) for n in plan.nodes if n.unreadable)


def without(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


# What is told of what differs


def on(bridge: str, **labels: str) -> dict[str, Any]:
    return {"labels": {**WORKER, **labels}, "mappings": f"physnet:br-ex,vmnet:{bridge},storage:br-storage"}


def test_the_majority_is_declared_where_a_label_tells_it_apart(folder: Path) -> None:
    found = {
        "worker-01": on("br-phy", rack="new"),
        "worker-02": on("br-vmdata", rack="old"),
        "worker-03": on("br-vmdata", rack="old"),
    }
    with world(folder, {"nodes": found, "vms": None}) as made:
        proposal = proposed(made)
    assert (network(proposal)["bridge"], network(proposal)["nodes"]) == ("br-vmdata", {"rack": "old"})
    assert "# guessed: not selected, as they are on another bridge: worker-01 (br-phy)" in text(proposal)
    assert "It is on br-phy on worker-01; on br-vmdata on worker-02, worker-03." in text(proposal)


def test_without_such_a_label_one_node_is_declared_and_the_others_are_named(folder: Path) -> None:
    found = {"worker-01": on("br-phy"), "worker-02": on("br-vmdata"), "worker-03": on("br-vmdata")}
    with world(folder, {"nodes": found, "vms": None}) as made:
        proposal = proposed(made)
        plan = planned(made, declared(proposal))
    assert network(proposal)["nodes"] == {"kubernetes.io/hostname": "worker-02"}
    assert "# guessed: no label tells all of them from the others. Not selected: worker-03." in text(proposal)
    assert touched(plan) == set()


def test_the_bridge_that_was_asked_for_is_for_all_of_them(folder: Path) -> None:
    found = {"worker-01": on("br-phy"), "worker-02": on("br-vmdata"), "worker-03": on("br-vmdata")}
    with world(folder, {"nodes": found, "vms": None}) as made:
        proposal = proposed(made, Wish("br-phy"))
        plan = planned(made, declared(proposal))
    assert network(proposal)["nodes"] == WORKER
    assert touched(plan) == {"node/worker-02/mapping/vmnet", "node/worker-03/mapping/vmnet"}


def test_the_canary_that_is_told_is_a_node_that_changes(folder: Path) -> None:
    with world(
        folder, {"nodes": {"worker-01": on("br-phy"), "worker-02": on("br-vmdata")}, "vms": None}
    ) as made:
        proposal = proposed(made, Wish("br-phy"))
    assert "# order: {canary: worker-02, then: fewest-vms}" in proposal.files["rollout.yaml"]


def test_a_worker_without_the_localnet_is_left_alone(folder: Path) -> None:
    found = {
        "worker-01": on("br-vmdata", vms="yes"),
        "worker-02": on("br-vmdata", vms="yes"),
        "worker-03": {"labels": WORKER, "mappings": "physnet:br-ex"},
    }
    with world(folder, {"nodes": found, "vms": None}) as made:
        proposal = proposed(made, MIGRATION)
        plan = planned(made, declared(proposal))
    assert network(proposal)["nodes"] == {"vms": "yes"}
    assert "not selected, as they do not map it: worker-03" in text(proposal)
    assert not any("worker-03" in address for address in touched(plan))


def test_a_node_that_cannot_be_read_is_told_with_the_reason(folder: Path) -> None:
    with world(folder, {"nodes": {"worker-03": {"reachable": False}}}) as made:
        proposal = proposed(made)
        plan = planned(made, declared(proposal))
    assert "# guessed: could not be read, and is taken to be as the others: worker-03: " in text(proposal)
    assert touched(plan) == set()


def test_a_mapping_that_makes_no_sense_is_told(folder: Path) -> None:
    with world(
        folder, {"nodes": {"worker-02": {"mappings": "physnet:br-ex,vmnet"}}, "vms": {"default/web-2": None}}
    ) as made:
        proposal = proposed(made)
    assert "worker-02: entry 'vmnet' of ovn-bridge-mappings is not <localnet>:<bridge>" in text(proposal)


def test_when_no_node_can_be_read_each_is_named(folder: Path) -> None:
    with world(folder, {"nodeDefaults": {"reachable": False}}) as made, pytest.raises(PlanError) as caught:
        proposed(made)
    assert "worker-01, worker-02" in str(caught.value)


def test_a_localnet_on_the_nodes_own_bridge_is_left_out(folder: Path) -> None:
    pairs = "physnet:br-ex,vmnet:br-vmdata,extra:br-ex"
    with world(folder, {"nodeDefaults": {"mappings": pairs}}) as made:
        proposal = proposed(made)
        moved = proposed(made, Wish("br-phy", localnets=("extra",)))
    assert sorted(proposal.files) == ["rollout.yaml", "vmnetwork-vmnet.yaml"]
    assert any("localnet extra: 'br-ex' carries the node's own traffic" in said for said in proposal.left_out)
    assert network(moved, "extra")["bridge"] == "br-phy"


def test_a_localnet_on_a_bridge_that_is_not_there_is_left_out_until_it_is_moved(folder: Path) -> None:
    with world(folder, {"nodeDefaults": {"bridges": {"br-vmdata": None}}}) as made:
        proposal = proposed(made)
        moved = proposed(made, Wish("br-phy", localnets=("vmnet",)))
    assert sorted(proposal.files) == ["rollout.yaml", "vmnetwork-storage.yaml"]
    assert proposal.left_out == (
        "localnet vmnet: worker-01, worker-02 have no bridge br-vmdata, to which it is mapped. --bridge BRIDGE moves it",
    )
    assert network(moved)["bridge"] == "br-phy"


def test_a_localnet_that_only_nads_name_is_told(folder: Path) -> None:
    with world(folder, {"networks": {"default/lost": {"localnet": "lost", "vlan": 7, "mtu": 1500}}}) as made:
        proposal = proposed(made)
    assert proposal.left_out == (
        "localnet lost: NADs name it, and no node maps it. To map it: --localnet lost --bridge BRIDGE",
    )


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(replaces="br-vmdata"), "--replace needs --bridge"),
        (Wish("br-phy", "br-phy"), "cannot replace itself"),
        (Wish("br-phi"), "no node has a bridge 'br-phi'; did you mean br-phy?"),
        (Wish("br-phy", "br-vmdta"), "--replace: no node has a bridge 'br-vmdta'; did you mean br-vmdata?"),
        (Wish("br-ex"), "--bridge: 'br-ex' carries the node's own traffic"),
        (Wish("br-phy", "br-int"), "--replace: 'br-int' belongs to OVN-Kubernetes"),
        (
            Wish("br-phy"),
            "which localnet? There are storage (br-storage), vmnet (br-vmdata). Say it with --localnet",
        ),
        (Wish(localnets=("vmnt",)), "no node maps a localnet 'vmnt'; did you mean vmnet?"),
        (Wish(localnets=("physnet",)), "'physnet' belongs to OVN-Kubernetes"),
    ],
)
def test_a_wish_that_fits_nothing_is_refused(wish: Wish, words: str, folder: Path) -> None:
    with world(folder, {}) as made, pytest.raises(InputError) as caught:
        proposed(made, wish)
    assert words in str(caught.value)


# Policies

MANAGED = {
    "nmstate": "2.2.62",
    "nodeDefaults": {
        "bridges": {"br-phy": {"madeBy": "networkmanager"}, "br-vmdata": {"madeBy": "networkmanager"}}
    },
}
MIGRATED = {
    "nmstate": "2.2.62",
    "nodeDefaults": {
        "mappings": "physnet:br-ex,vmnet:br-phy,storage:br-storage",
        "bridges": {"br-phy": {"madeBy": "networkmanager"}, "br-vmdata": None},
    },
}
SITES = policy("site", WORKER, maps={"vmnet": "br-phy"}, absent="br-vmdata", maxUnavailable=1)


def test_a_policy_that_holds_the_localnet_is_kept(folder: Path) -> None:
    with world(folder, {**MIGRATED, "objects": [SITES]}) as made:
        proposal = proposed(made)
        plan = planned(made, declared(proposal))
    assert network(proposal)["delivery"] == {"policy": "site"}
    assert network(proposal)["replaces"] == {"bridge": "br-vmdata"}
    assert touched(plan) == set()


def test_a_site_that_leads_nodes_by_a_label_is_declared_so(folder: Path) -> None:
    site = policy("site", {"moved": "true"}, maps={"vmnet": "br-phy"}, absent="br-vmdata")
    labels = {"nodeDefaults": {**MIGRATED["nodeDefaults"], "labels": {**WORKER, "moved": "true"}}}
    with world(folder, {**MIGRATED, **labels, "objects": [site]}) as made:
        proposal = proposed(made)
        plan = planned(made, declared(proposal))
    assert network(proposal)["delivery"] == {"policy": "site", "strategy": "labelled", "label": "moved"}
    assert touched(plan) == set()


def test_a_policy_that_says_more_than_a_vmnetwork_is_left_to_its_owner(folder: Path) -> None:
    with world(folder, {**MIGRATED, "objects": [policy("site", WORKER, maps={"vmnet": "br-phy"})]}) as made:
        proposal = proposed(made)
        plan = planned(made, declared(proposal))
    assert network(proposal)["delivery"] == {"by": "ovsdb"}
    assert "# guessed: NetworkManager made br-phy, and the policy site maps it. Without this line" in text(
        proposal
    )
    assert touched(plan) == set()


def test_the_policies_in_the_way_are_replaced_and_their_keeper_is_named(folder: Path) -> None:
    old = policy("old", WORKER, maps={"vmnet": "br-vmdata"})
    other = policy("other", {"rack": "nine"}, maps={"vmnet": "br-vmdata"})
    old["metadata"]["labels"] = {"argocd.argoproj.io/instance": "network"}
    with world(folder, {**MANAGED, "objects": [old, other]}) as made:
        proposal = proposed(made, MIGRATION)
    assert network(proposal)["replaces"] == {"bridge": "br-vmdata", "policies": ["old"]}
    assert "policy old says otherwise: localnet vmnet: br-phy against br-vmdata. argocd (" in text(proposal)
    assert "it has to be removed there first (H50)" in text(proposal)


def test_a_policy_that_says_so_already_is_adopted(folder: Path) -> None:
    done = policy("done", {"moved": "true"}, maps={"vmnet": "br-phy"}, absent="br-vmdata")
    with world(folder, {**MANAGED, "objects": [done]}) as made:
        proposal = proposed(made, MIGRATION)
    assert network(proposal)["delivery"] == {"policy": "done"}
    assert "{policy: done, strategy: labelled, label: moved}" in text(proposal)
    labelled = text(proposal).replace("{policy: done}", "{policy: done, strategy: labelled, label: moved}")
    assert load_desired([("a.yaml", labelled)]).networks[0].spec.delivery is not None


def test_a_policy_that_removes_what_another_localnet_is_on_is_not_said_again(folder: Path) -> None:
    """Its files would contradict each other: one bridge both taken away and ridden on."""
    site = policy("site", {"rack": "one"}, maps={"vmnet": "br-phy"}, absent="br-storage", maxUnavailable=1)
    found = {
        "worker-01": {
            "labels": {**WORKER, "rack": "one"},
            "mappings": "physnet:br-ex,vmnet:br-phy",
            "bridges": {"br-phy": {**OTHER_PORTS["br-phy"], "madeBy": "networkmanager"}},
        },
        "worker-02": {"labels": WORKER, "mappings": "physnet:br-ex,storage:br-storage"},
    }
    with world(folder, {**MIGRATED, "nodes": found, "vms": {"default/web-2": None}}) as made:
        made.edit().cluster.write(Create(Ref(*POLICY, "site"), site))
        proposal = proposed(made)
        plan = planned(made, declared(proposal))
    assert network(proposal)["delivery"] == {"by": "ovsdb"} and "replaces" not in network(proposal)
    assert touched(plan) == set()


def test_the_policy_of_a_single_node_is_not_adopted(folder: Path) -> None:
    left = policy(
        "ovsplan-vmnet-worker-01", {"kubernetes.io/hostname": "worker-01"}, maps={"vmnet": "br-phy"}
    )
    with world(folder, {**MANAGED, "objects": [left]}) as made:
        proposal = proposed(made, MIGRATION)
    assert "delivery" not in network(proposal)


def test_what_contradicts_and_is_not_to_be_replaced_is_told(folder: Path) -> None:
    old = policy("old", WORKER, maps={"vmnet": "br-vmdata"})
    with world(folder, MIGRATED) as made:
        made.edit().cluster.write(Create(Ref(*POLICY, "old"), old))
        proposal = proposed(made)
        plan = planned(made, declared(proposal))
    assert "# policy old matches worker-01 and says otherwise than VMNetwork vmnet" in text(proposal)
    assert {finding.id for finding in plan.blocking()} == {"H04"} and touched(plan) == set()


def test_policies_that_cannot_be_read_are_told(folder: Path) -> None:
    with world(folder, MIGRATED) as made:
        made.add_fault("cluster - list NodeNetworkConfigurationPolicy", nth=1, effect="fail")
        proposal = proposed(made)
    assert "# guessed: policies could not be read, so none is named: " in text(proposal)


# Networks


def nad(name: str, config: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": {"config": config},
    }


def config(name: str, /, **fields: Any) -> str:
    whole = {"cniVersion": "0.4.0", "name": name, "type": "ovn-k8s-cni-overlay", "topology": "localnet",
             "netAttachDefName": f"default/{name}", "physicalNetworkName": "vmnet", **fields}  # fmt: skip
    return json.dumps(whole)


def test_nads_are_declared_as_they_are(folder: Path) -> None:
    more = [
        nad("plain", config("plain")),
        nad(
            "named",
            config(
                "named", name="shared-300", vlanID=300, subnets="192.0.2.0/24", excludeSubnets="192.0.2.0/28"
            ),
        ),
    ]
    with world(folder, {"objects": more}) as made:
        proposal = proposed(made)
        plan = planned(made, declared(proposal))
    assert network(proposal)["networks"] == {
        "default/named": {
            "name": "shared-300",
            "vlan": 300,
            "subnets": ["192.0.2.0/24"],
            "excludeSubnets": ["192.0.2.0/28"],
        },
        "default/plain": {},
        "default/vlan224": {"vlan": 224, "mtu": 9000},
    }
    assert touched(plan) == set() and not plan.is_partial


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (nad("tiny", config("tiny", mtu=100)), "default/tiny, left as it is: it is not what a VMNetwork can say: 100 is below 576"),
        (nad("wrong", config("wrong", netAttachDefName="default/else")), "default/wrong, left as it is: netAttachDefName: "),
        (nad("twin", config("twin", name="vlan224")), "default/vlan224, left as it is: it cannot be declared beside default/twin"),
        (nad("kept", config("kept"), labels={"argocd.argoproj.io/instance": "net"}), "default/kept, left as it is: argocd ("),
        (nad("broken", "{"), "default/broken: spec.config is not JSON; it may be on this localnet too"),
    ],
)  # fmt: skip
def test_a_nad_that_cannot_be_declared_is_told(item: dict[str, Any], words: str, folder: Path) -> None:
    with world(folder, {"objects": [item], "vms": None}) as made:
        proposal = proposed(made)
        plan = planned(made, declared(proposal))
    assert f"# {words}" in text(proposal)
    assert touched(plan) == set()


# What is told for people


def in_force(text: str) -> str:
    """A text with what its comments declare taken out of them; their sentences begin no field."""
    declared = re.sub(
        r"^  # (?=(order|evacuate|attachments):| +[a-z]+(/[a-z0-9-]+)?:)", "  ", text, flags=re.M
    )
    return declared.replace("spec: {}", "spec:")


def test_the_other_ways_are_written_out_and_load(folder: Path) -> None:
    stuck = {"default/web-1": {"migratable": "DisksNotLiveMigratable: PVC web-1 is not shared"}}
    with world(folder, {"vms": stuck}) as made:
        proposal = proposed(made)
    assert "spec: {}" in proposal.files["rollout.yaml"]
    desired = load_desired(
        [(name, in_force(proposal.files[name])) for name in ("vmnetwork-vmnet.yaml", "rollout.yaml")]
    )
    assert desired.rollout is not None and desired.rollout.spec.evacuate is not None
    assert desired.rollout.spec.evacuate.vms == {"default/web-1": "stay"}
    assert set(desired.networks[0].attachments) == {"default/web-1", "default/web-2"}
    assert "default/web-1 cannot migrate: DisksNotLiveMigratable" in proposal.files["rollout.yaml"]


TRAPS = [
    "on",
    "yes",
    "null",
    "~",
    "0x10",
    "010",
    "1_000",
    "12:30",
    "1e3",
    ".5",
    "true",
    "a: b",
    "a #b",
    "- a",
    "",
    "é",
    "=",
    "<<",
    "2026-01-01",
]


@given(st.one_of(st.sampled_from(TRAPS), st.text(max_size=30)))
def test_every_text_is_read_as_it_was_written(value: str) -> None:
    assert yaml.safe_load(f"[{scalar(value)}]") == [value]
    assert yaml.safe_load(f"{{{scalar(value)}: 1}}") == {value: 1}


@given(st.text(max_size=300))
def test_no_comment_changes_what_a_document_says(sentence: str) -> None:
    whole = document((sentence,), "Rollout", "tonight", ())
    assert yaml.safe_load(whole)["metadata"] == {"name": "tonight"}
    assert all(line.startswith("  #") for line in comment((sentence,), "  "))
