"""Reading VirtualMachines: what each template says of its network cards, how it runs, and what its guest has.

Facts: `cluster/machines` (Absent when KubeVirt is not served); for each VM `machine/<ns>/<name>` (its uid, who keeps it),
`/run` (its run strategy in effect) and `/field` (which of the two fields says so), `/grace` (seconds that its guest has to shut down), `/recorded` (what ovsplan noted when it
stopped it), `/template` (its `networks` and `interfaces`, and whether KubeVirt adds one that is `implicit`), `/nic/<interface>` → NAD of each multus card that the template
has, `/restart-required`; of its VMI `/instance` (its phase; Absent when there is none that runs), `/ready`,
`/live/<interface>` → NAD, `/sources/<interface>` (who reports the card), `/migration-required`, `/migratable`; read
alone, or in the view `machines-now`, also `/version`. `cluster/live-update`: whether KubeVirt applies changes of a template to a running guest;
`cluster/own-migrations`: whether it migrates by itself a guest that has to migrate for them.
The one invariant: a card that is declared `absent` in the template is no card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plans.facts import ABSENT, Fact, Json, Known
from plans.ops import ListRequest
from plans.readings.cluster import VM, VMI, VMI_KEEP
from plans.readings.nmstate import owner

RUN_STRATEGY = "ovsplan.io/run-strategy"
"""The annotation that says how a VM ran before ovsplan stopped it (H16): `runStrategy=Manual`, `running=true`."""

KUBEVIRT = ("kubevirt.io/v1", "KubeVirt")
DEFAULT_GRACE = 30
"""Seconds that a guest has to shut down where its template says nothing."""

_OVER = ("Succeeded", "Failed")

KEEP = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "metadata.annotations",
    "metadata.ownerReferences",
    "metadata.resourceVersion",
    "spec.running",
    "spec.runStrategy",
    "spec.template.spec.networks",
    "spec.template.spec.domain.devices",
    "spec.template.spec.terminationGracePeriodSeconds",
    "status.conditions",
)
REQUESTS = (ListRequest(*VM, keep=KEEP, optional=True), ListRequest(*VMI, keep=VMI_KEEP, optional=True))
KUBEVIRT_REQUEST = ListRequest(
    *KUBEVIRT,
    keep=(
        "metadata.name",
        "metadata.namespace",
        "spec.configuration.vmRolloutStrategy",
        "spec.workloadUpdateStrategy.workloadUpdateMethods",
    ),
    optional=True,
)


def requests_of(key: str) -> tuple[ListRequest, ...]:
    """One VirtualMachine and its VMI."""
    namespace, _, name = key.partition("/")
    return tuple(
        ListRequest(r.api, r.kind, keep=r.keep, namespace=namespace, fields=(("metadata.name", name),))
        for r in REQUESTS
    )


def parse_machines(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """Every VirtualMachine of the cluster, each with its VMI."""
    machines, instances = replies
    facts: dict[str, Fact] = {"machine/*": ABSENT}
    if machines is None:
        return {**facts, "cluster/machines": ABSENT}
    running = {_key(item): item for item in instances or ()}
    for item in machines:
        facts.update(_facts_of(_key(item), item, running.get(_key(item))))
    facts["cluster/machines"] = Known(sorted(_key(item) for item in machines))
    return facts


def parse_with_versions(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """The same, each with its version: for writing them, not for planning."""
    versions = {
        f"machine/{_key(item)}/version": Known(item["metadata"].get("resourceVersion"))
        for item in replies[0] or ()
    }
    return {**parse_machines(replies), **versions}


def parse_one_machine(key: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """One VirtualMachine with its VMI, and its version."""
    at = f"machine/{key}"
    facts: dict[str, Fact] = {at: ABSENT, f"{at}/*": ABSENT}
    instance = next(iter(replies[1]), None)
    for item in replies[0]:
        facts.update(_facts_of(key, item, instance))
        facts[f"{at}/version"] = Known(item["metadata"].get("resourceVersion"))
    return facts


def parse_kubevirt(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """What the KubeVirt object says of changes to running guests; it is a live update when it says nothing."""
    for item in replies[0] or ():
        spec = item.get("spec", {})
        strategy = spec.get("configuration", {}).get("vmRolloutStrategy")
        methods = (spec.get("workloadUpdateStrategy") or {}).get("workloadUpdateMethods") or ()
        return {
            "cluster/live-update": Known(strategy in (None, "", "LiveUpdate")),
            "cluster/own-migrations": Known("LiveMigrate" in methods),
        }
    return {"cluster/live-update": Known(False), "cluster/own-migrations": Known(False)}


def strategy_of(spec: Mapping[str, Any]) -> str:
    """The run strategy in effect, by whichever of the two fields says it."""
    if spec.get("runStrategy"):
        return str(spec["runStrategy"])
    return "Always" if spec.get("running") else "Halted"


def nad_of(network: Mapping[str, Any], namespace: str) -> str:
    """The NAD of a template's network, as `namespace/name`; empty when it is no multus network."""
    name = str((network.get("multus") or {}).get("networkName") or "")
    return name if "/" in name or not name else f"{namespace}/{name}"


def _key(item: Mapping[str, Any]) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _facts_of(key: str, item: Mapping[str, Any], instance: Mapping[str, Any] | None) -> dict[str, Fact]:
    at, metadata, spec = f"machine/{key}", item["metadata"], item.get("spec", {})
    template = (spec.get("template") or {}).get("spec") or {}
    devices = (template.get("domain") or {}).get("devices") or {}
    networks, interfaces = list(template.get("networks") or ()), list(devices.get("interfaces") or ())
    recorded = (metadata.get("annotations") or {}).get(RUN_STRATEGY)
    facts: dict[str, Fact] = {
        f"{at}/*": ABSENT,
        at: Known({"uid": metadata.get("uid", ""), "keeper": owner(metadata)}),
        f"{at}/template": Known({
            "networks": networks,
            "interfaces": interfaces,
            "implicit": not interfaces and devices.get("autoattachPodInterface") is not False,
        }),
        f"{at}/run": Known(strategy_of(spec)),
        f"{at}/field": Known("running" if "running" in spec and not spec.get("runStrategy") else "runStrategy"),
        f"{at}/grace": Known(template.get("terminationGracePeriodSeconds") or DEFAULT_GRACE),
        f"{at}/recorded": Known(recorded) if recorded else ABSENT,
    }  # fmt: skip
    facts.update(cards(at, "nic", networks, interfaces, metadata["namespace"]))
    if _is_true(item, "RestartRequired"):
        facts[f"{at}/restart-required"] = Known(True)
    return {**facts, **_running(at, instance, metadata["namespace"])}


def cards(
    at: str, word: str, networks: Sequence[Json], interfaces: Sequence[Json], namespace: str
) -> dict[str, Fact]:
    """`<at>/<word>/<interface>` → NAD of each multus card."""
    states = {i["name"]: i.get("state", "") for i in interfaces}
    found = {n["name"]: nad_of(n, namespace) for n in networks if nad_of(n, namespace)}
    return {f"{at}/{word}/{name}": Known(nad) for name, nad in found.items() if states.get(name) != "absent"}


def _running(at: str, instance: Mapping[str, Any] | None, namespace: str) -> dict[str, Fact]:
    """What is known of the guest; nothing when there is no VMI, or it is over."""
    status = (instance or {}).get("status", {})
    if instance is None or status.get("phase") in _OVER:
        return {}
    spec = instance.get("spec", {})
    interfaces = (spec.get("domain") or {}).get("devices", {}).get("interfaces") or ()
    facts: dict[str, Fact] = {
        f"{at}/instance": Known(status.get("phase") or "Pending"),
        f"{at}/ready": Known(_is_true(instance, "Ready")),
        f"{at}/migratable": Known(_is_true(instance, "LiveMigratable")),
    }
    live = cards(at, "live", spec.get("networks") or (), interfaces, namespace)
    reported = {i.get("name"): i.get("infoSource", "") for i in status.get("interfaces") or ()}
    for name, source in reported.items():
        facts[f"{at}/sources/{name}"] = Known(sorted(s.strip() for s in source.split(",") if s.strip()))
    if _has(instance, "MigrationRequired"):
        facts[f"{at}/migration-required"] = Known(_is_true(instance, "MigrationRequired"))
    return {**facts, **live}


def _has(item: Mapping[str, Any], condition: str) -> bool:
    return any(c.get("type") == condition for c in item.get("status", {}).get("conditions") or ())


def _is_true(item: Mapping[str, Any], condition: str) -> bool:
    conditions = item.get("status", {}).get("conditions") or ()
    return any(c.get("type") == condition and c.get("status") == "True" for c in conditions)
