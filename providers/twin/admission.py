"""Who else has a say in a write: the operators' webhooks and admission policies, and disruption budgets.

Invariant: nothing is written here; what a webhook does to an object is handed back as a write of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from providers.ports import Body, Busy, Listing, MergePatch, Ref, Refused
from providers.twin.kinds import Kind
from providers.twin.networks import KUBEVIRT

FINAL = ("Succeeded", "Failed")
VMI = "VirtualMachineInstance"
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_POLICY = "ValidatingAdmissionPolicy 'nncp-validation-policy' with binding 'nncp-validation-policy-binding' denied request: "
_MIGRATION = 'admission webhook "migration-create-validator.kubevirt.io" denied the request: '
_VM = 'admission webhook "virtualmachine-validator.kubevirt.io" denied the request: '
_EVICTION = 'admission webhook "virt-launcher-eviction-interceptor.kubevirt.io" denied the request: '
_BUDGET = "Cannot evict pod as it would violate the pod's disruption budget."


class Objects(Protocol):
    """What admission may look at."""

    def get(self, ref: Ref) -> Body | None: ...

    def list(self, api: str, kind: str, *, namespace: str | None = None) -> Listing: ...


def admit(
    objects: Objects, kind: Kind, ref: Ref, new: Mapping[str, Any], old: Mapping[str, Any] | None
) -> None:
    """A create (`old` is None) or a change of an object itself, not of its status. Raises Refused."""
    match kind.name:
        case "NodeNetworkConfigurationPolicy":
            _policy(kind, ref.name, new, old)
        case "VirtualMachine":
            _machine(new)
        case "VirtualMachineInstanceMigration" if old is None:
            _migration(objects, ref, new)


def _policy(kind: Kind, name: str, new: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    said = f'{kind.resource} "{name}" is forbidden: {_POLICY}'
    spec, before = new.get("spec") or {}, (old or {}).get("spec") or {}
    if old is None and (len(name) > 63 or not _LABEL_VALUE.fullmatch(name)):
        why = f'invalid policy name: "{name}": must be a valid label value of at most 63 characters'
        raise Refused(f"{said}{why}")
    if old is not None and spec != before and not _finished(old):
        raise Refused(f"{said}policy {name} is still in progress")
    if before.get("capture") is not None and spec.get("capture") != before["capture"]:
        raise Refused(f"{said}invalid policy operation: capture field cannot be modified")
    if not all(len(v) <= 63 and _LABEL_VALUE.fullmatch(v) for v in (spec.get("nodeSelector") or {}).values()):
        raise Refused(f"{said}invalid node selector: values must be valid label values")


def _finished(policy: Mapping[str, Any]) -> bool:
    conditions = (policy.get("status") or {}).get("conditions", ())
    available = [c.get("reason", "") for c in conditions if c["type"] == "Available"]
    return any(reason and reason != "ConfigurationProgressing" for reason in available)


def _machine(new: Mapping[str, Any]) -> None:
    spec = new["spec"]
    if ("running" in spec) == ("runStrategy" in spec):
        why = "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please use RunStrategy instead"
        missing = "One of Running or RunStrategy must be specified"
        raise Refused(f"{_VM}spec.running: {why if 'running' in spec else missing}")
    inside = spec["template"].get("spec") or {}
    networks = [entry["name"] for entry in inside.get("networks", ())]
    interfaces = [
        entry["name"] for entry in inside.get("domain", {}).get("devices", {}).get("interfaces", ())
    ]
    at = "spec.template.spec.domain.devices.interfaces"
    for number, name in enumerate(interfaces):
        if name not in networks:
            raise Refused(f"{_VM}{at}[{number}].name '{name}' not found.")
        if name in interfaces[:number]:
            raise Refused(
                f"{_VM}{at}[{number}].name: only one interface can be connected to one specific network"
            )
    for number, name in enumerate(networks):
        if interfaces and name not in interfaces:
            raise Refused(f"{_VM}spec.template.spec.networks[{number}].name '{name}' not found.")


def _migration(objects: Objects, ref: Ref, body: Mapping[str, Any]) -> None:
    name = (body.get("spec") or {}).get("vmiName")
    if not name:
        raise Refused(_MIGRATION + "vmiName is missing")
    vmi = objects.get(Ref(KUBEVIRT, VMI, name, ref.namespace))
    if vmi is None:
        raise Refused(_MIGRATION + f'the VMI "{ref.namespace}/{name}" does not exist')
    status = vmi.get("status") or {}
    if status.get("phase") in FINAL:
        raise Refused(_MIGRATION + "Cannot migrate VMI in finalized state.")
    for condition in status.get("conditions", ()):
        if condition["type"] == "LiveMigratable" and condition["status"] == "False":
            why = f"{condition['reason']}, Message: {condition.get('message', '')}"
            raise Refused(_MIGRATION + f"Cannot migrate VMI, Reason: {why}")
    for other in objects.list(ref.api, ref.kind, namespace=ref.namespace).items:
        if other["spec"]["vmiName"] == name and other.get("status", {}).get("phase") not in FINAL:
            raise Refused(
                _MIGRATION
                + f"in-flight migration detected. Active migration job ({other['metadata']['uid']}) is "
                f"currently already in progress for VMI {name}."
            )


def vmi_of(objects: Objects, pod: Body) -> Body | None:
    """The VMI whose guest a pod holds, if it is a virt-launcher."""
    labels = pod["metadata"].get("labels", {})
    if labels.get("kubevirt.io") != "virt-launcher":
        return None
    name = labels.get("vm.kubevirt.io/name", "")
    vmi = objects.get(Ref(KUBEVIRT, VMI, name, pod["metadata"]["namespace"]))
    owner = labels.get("kubevirt.io/created-by")
    return vmi if vmi is not None and vmi["metadata"]["uid"] == owner else None


def eviction_mark(objects: Objects, pod: Body, dry_run: bool) -> tuple[MergePatch | None, Busy | None]:
    """KubeVirt's answer to the eviction of a pod: what it writes on the VMI, and what it tells the caller.

    Both None: KubeVirt has nothing against it.
    """
    vmi = vmi_of(objects, pod)
    node = pod["spec"].get("nodeName")
    if vmi is None or vmi.get("status", {}).get("nodeName") != node:
        return None, None
    key = f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}"
    strategy = vmi["spec"].get("evictionStrategy") or _cluster_strategy(objects)
    migratable = not any(
        c["type"] == "LiveMigratable" and c["status"] == "False" for c in vmi["status"].get("conditions", ())
    )
    if strategy == "LiveMigrate" and not migratable:
        why = f'VMI "{key}" is configured with an eviction strategy but is not live-migratable'
        return None, Busy(_EVICTION + why)
    if strategy not in ("LiveMigrate", "LiveMigrateIfPossible", "External") or not (
        migratable or strategy == "External"
    ):
        return None, None
    refused = Busy(f'{_EVICTION}Eviction triggered evacuation of VMI "{key}"')
    if dry_run or vmi["status"].get("evacuationNodeName") == node:
        return None, refused
    ref = Ref(KUBEVIRT, VMI, vmi["metadata"]["name"], vmi["metadata"]["namespace"])
    return MergePatch(ref, {"status": {"evacuationNodeName": node}}), refused


def _cluster_strategy(objects: Objects) -> str:
    for installed in objects.list(KUBEVIRT, "KubeVirt").items:
        return str((installed.get("spec") or {}).get("configuration", {}).get("evictionStrategy", "None"))
    return "None"


def budget_of(objects: Objects, pod: Body) -> Body | None:
    """The disruption budget of a pod, which allows one disruption more. None: there is none. Raises Busy, Refused."""
    labels = pod["metadata"].get("labels", {})
    found = [
        budget
        for budget in objects.list(
            "policy/v1", "PodDisruptionBudget", namespace=pod["metadata"]["namespace"]
        ).items
        if _selects(budget["spec"].get("selector"), labels)
    ]
    if not found or pod.get("status", {}).get("phase") in (*FINAL, "Pending"):
        return None
    if len(found) > 1:
        raise Refused(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    (budget,) = found
    name, status = budget["metadata"]["name"], budget.get("status") or {}
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 1):
        why = f"The disruption budget {name} is still being processed by the server."
        raise Busy(f"{_BUDGET} {why}", retry_after=10.0)
    if status.get("disruptionsAllowed", 0) < 1:
        needs, has = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        raise Busy(
            f"{_BUDGET} The disruption budget {name} needs {needs} healthy pods and has {has} currently"
        )
    return budget


def _selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(rule, labels) for rule in selector.get("matchExpressions") or ())


def _meets(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(rule["key"]), rule.get("values") or ()
    match rule["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
    return value is None
