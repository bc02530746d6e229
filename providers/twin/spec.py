"""The world file: read, checked and completed, before anything is written.

Invariant: a `WorldSpec` is whole. Defaults are filled in, every name refers to something in the file, and what is
wrong with a file is found here and names the field.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from providers.twin.kinds import DEFAULT_APIS

Path = tuple[str | int, ...]

CONTROLLERS = ("scheduler", "kubelet", "kubevirt", "ovn-controller", "vswitchd", "forwarding", "ovn-kubernetes", "nmstate-operator",
               "networkmanager", "dynamic-networks")  # fmt: skip
_OFF_UNLESS_ASKED_FOR = ("dynamic-networks",)
_TIMINGS = {
    "vswitchd": 0.003,
    "ovnController": 0.002,
    "migration": 4,
    "macAgeing": 300,
    "start": 10,
    "stop": 5,
    "reboot": 120,
    "nodeReady": 10,
    "podsReady": 20,
}
_LIMITS = {"migrationsPerCluster": 5, "outboundPerNode": 2}
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MEMORY = re.compile(r"([0-9]+)(Ki|Mi|Gi|Ti|)")
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class WorldError(ValueError):
    """A world file or folder cannot be used. `path` leads to the field at fault, when it is one."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(f"{'.'.join(str(part) for part in path)}: {message}" if path else message)
        self.message = message
        self.path = path


@dataclass(frozen=True, slots=True)
class PortSpec:
    name: str
    peer: str = ""
    bond: tuple[str, ...] = ()
    mode: str = ""
    tag: int | None = None
    internal: bool = False


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    name: str
    ports: tuple[PortSpec, ...]
    external_ids: Mapping[str, str]
    managed: bool = False


@dataclass(frozen=True, slots=True)
class NodeSpec:
    name: str
    labels: Mapping[str, str]
    memory: str
    mappings: str
    nics: Mapping[str, str]
    bridges: tuple[BridgeSpec, ...]
    cordoned: bool
    ready: bool
    reachable: bool
    ovn: str
    ovn_started: float
    nmstate: str | None = None
    cards: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    trunks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    namespace: str
    name: str
    localnet: str
    vlan: int
    mtu: int
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class VmSpec:
    """One VM. `node` is empty for one that does not run; `owned` is False for a VMI without a VirtualMachine."""

    namespace: str
    name: str
    node: str
    attached: Mapping[str, tuple[str, str]]
    memory: str
    silent: bool
    blocked: tuple[str, str] | None
    strategy: str
    owned: bool
    eviction: str
    guest_agent: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class LiveUpdates:
    """How KubeVirt takes changes of a VM's template to its guest; by default as OpenShift sets it up."""

    strategy: str = "LiveUpdate"
    methods: tuple[str, ...] = ("LiveMigrate",)


@dataclass(frozen=True, slots=True)
class WorldSpec:
    name: str
    seed: int
    start: float
    ovn: str
    controllers: Mapping[str, bool]
    timings: Mapping[str, float]
    limits: Mapping[str, int]
    networks: tuple[NetworkSpec, ...]
    nodes: tuple[NodeSpec, ...]
    vms: tuple[VmSpec, ...]
    apis: Mapping[str, bool]
    multus_isolation: bool
    probes: Mapping[str, str]
    objects: tuple[Mapping[str, Any], ...] = ()
    live_updates: LiveUpdates = LiveUpdates()


def bytes_of(memory: str) -> int:
    """A Kubernetes quantity of memory in bytes."""
    match = _MEMORY.fullmatch(memory)
    if match is None:
        raise ValueError(f"{memory!r} is not a quantity such as 2Gi")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True, slots=True)
class _Field:
    """A value of the file and the way to it."""

    value: Any
    path: Path

    def fail(self, message: str) -> WorldError:
        return WorldError(message, self.path)

    def mapping(self, allowed: Sequence[str] | None = None) -> dict[str, _Field]:
        value = {} if self.value is None else self.value
        if not isinstance(value, Mapping):
            raise self.fail(f"expected a mapping, found {value!r}")
        for key in value:
            if not isinstance(key, str):
                raise WorldError(f"expected a name, found {key!r}", (*self.path, str(key)))
            if allowed is not None and key not in allowed:
                raise WorldError(f"unknown field; known: {', '.join(allowed)}", (*self.path, key))
        return {key: _Field(item, (*self.path, key)) for key, item in value.items()}

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.fail(f"expected text, found {self.value!r}")
        return self.value

    def integer(self, least: int = 0, most: int = 2**31) -> int:
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.fail(f"expected a whole number from {least} to {most}, found {self.value!r}")
        return self.value

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or self.value < 0:
            raise self.fail(f"expected a number of seconds, found {self.value!r}")
        return float(self.value)

    def switch(self) -> bool:
        if self.value in (True, "on", "true"):
            return True
        if self.value in (False, "off", "false"):
            return False
        raise self.fail(f"expected on or off, found {self.value!r}")

    def memory(self) -> str:
        try:
            bytes_of(self.text())
        except ValueError as error:
            raise self.fail(str(error)) from None
        return self.text()

    def strings(self) -> dict[str, str]:
        return {key: item.text() for key, item in self.mapping().items()}

    def instant(self) -> float:
        value = self.value
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value.replace("Z", "+00:00"))
            except ValueError:
                raise self.fail(
                    f"expected an instant such as 2026-01-15T01:00:00Z, found {value!r}"
                ) from None
        if not isinstance(value, datetime):
            raise self.fail(f"expected an instant such as 2026-01-15T01:00:00Z, found {value!r}")
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()

    def ovn(self) -> str:
        if not re.fullmatch(r"(23|25)\.03\.[0-9]+", self.text()):
            raise self.fail(f"only OVN 23.03.* and 25.03.* are known to the twin, found {self.value!r}")
        return self.text()

    def nmstate(self) -> str | None:
        """The version of nmstate, or None where there is none."""
        if self.value is None:
            return None
        if not re.fullmatch(r"2\.2\.[0-9]+", self.text()):
            raise self.fail(f"only nmstate 2.2.* is known to the twin, found {self.value!r}")
        return self.text()

    def object_key(self) -> tuple[str, str]:
        """The last part of the path, which must be namespace/name."""
        namespace, slash, name = str(self.path[-1]).partition("/")
        if not slash or not all(_OBJECT.fullmatch(part) for part in (namespace, name)):
            raise self.fail(f"expected namespace/name, found {self.path[-1]!r}")
        return namespace, name


_TOP = ("seed", "start", "ovn", "ovnStarted", "controllers", "timings", "limits", "networks", "nodeDefaults", "nodes",
        "vms", "apis", "multusIsolation", "probes", "nmstate", "objects", "kubevirt")  # fmt: skip
_NODE = (
    "labels",
    "memory",
    "mappings",
    "nics",
    "bridges",
    "cordoned",
    "ready",
    "reachable",
    "ovn",
    "ovnStarted",
    "nmstate",
)
_MISSING: dict[str, Any] = {
    "seed": 1,
    "start": "2026-01-15T01:00:00Z",
    "ovn": "23.03.1",
    "ovnStarted": 3600,
    "memory": "64Gi",
    "mappings": "",
    "cordoned": False,
    "ready": True,
    "reachable": True,
    "multusIsolation": False,
}


def _or_default(fields: Mapping[str, _Field], name: str, at: _Field) -> _Field:
    return fields.get(name) or _Field(_MISSING.get(name), (*at.path, name))


def read_spec(document: Mapping[str, Any], name: str) -> WorldSpec:
    """Check a world file: the whole document, or its `spec` alone (the name is then `name`)."""
    if not isinstance(document, Mapping):
        raise WorldError(f"expected a mapping, found {document!r}")
    whole = "spec" in document or "kind" in document
    if whole:
        name = _read_head(document)
    top = _Field(document.get("spec") if whole else document, ("spec",) if whole else ())
    fields = top.mapping(_TOP)
    networks = _read_networks(_or_default(fields, "networks", top))
    nodes = _read_nodes(fields, top)
    apis = _read_apis(_or_default(fields, "apis", top), "nmstate" in fields)
    vms = _or_default(fields, "vms", top)
    if vms.value and not apis["kubevirt"]:
        raise vms.fail("a world without KubeVirt (apis.kubevirt: absent) has no VMs")
    return WorldSpec(
        name,
        _or_default(fields, "seed", top).integer(),
        _or_default(fields, "start", top).instant(),
        _or_default(fields, "ovn", top).ovn(),
        _read_controllers(_or_default(fields, "controllers", top)),
        _read_timings(_or_default(fields, "timings", top)),
        _read_limits(_or_default(fields, "limits", top)),
        networks,
        nodes,
        _read_vms(vms, networks, nodes),
        apis,
        _or_default(fields, "multusIsolation", top).switch(),
        _read_probes(_or_default(fields, "probes", top)),
        _read_objects(_or_default(fields, "objects", top)),
        _read_live_updates(_or_default(fields, "kubevirt", top)),
    )


def _read_objects(field: _Field) -> tuple[Mapping[str, Any], ...]:
    """Kubernetes objects that are there from the beginning, whole, as anybody would create them."""
    items = [] if field.value is None else field.value
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise field.fail(f"expected a list of objects, found {items!r}")
    for index, item in enumerate(items):
        at = _Field(item, (*field.path, index))
        parts = at.mapping()
        for name in ("apiVersion", "kind", "metadata"):
            if name not in parts:
                raise at.fail(f"an object has apiVersion, kind and metadata; {name} is missing")
        if "name" not in parts["metadata"].mapping():
            raise parts["metadata"].fail("missing: name")
    return tuple(items)


def _read_head(document: Mapping[str, Any]) -> str:
    fields = _Field(document, ()).mapping(("apiVersion", "kind", "metadata", "spec"))
    for name, want in (("apiVersion", "ovsplan.io/v1alpha1"), ("kind", "World")):
        found = fields.get(name) or _Field(None, (name,))
        if found.value != want:
            raise found.fail(f"expected {want}, found {found.value!r}")
    if fields.get("spec") is None:
        raise WorldError("missing", ("spec",))
    metadata = (fields.get("metadata") or _Field(None, ("metadata",))).mapping(
        ("name", "labels", "annotations")
    )
    if "name" not in metadata:
        raise WorldError("missing", ("metadata", "name"))
    return metadata["name"].text()


def _read_controllers(field: _Field) -> dict[str, bool]:
    given = {name: item.switch() for name, item in field.mapping(CONTROLLERS).items()}
    return {name: given.get(name, name not in _OFF_UNLESS_ASKED_FOR) for name in CONTROLLERS}


def _read_apis(field: _Field, nmstate: bool) -> dict[str, bool]:
    given = {}
    for name, item in field.mapping(tuple(DEFAULT_APIS)).items():
        if item.value not in ("present", "absent"):
            raise item.fail(f"expected present or absent, found {item.value!r}")
        given[name] = item.value == "present"
    return {**DEFAULT_APIS, "nmstate": nmstate, **given}


def _read_live_updates(field: _Field) -> LiveUpdates:
    given = field.mapping(("vmRolloutStrategy", "workloadUpdateMethods"))
    strategy = given["vmRolloutStrategy"].text() if "vmRolloutStrategy" in given else LiveUpdates().strategy
    if strategy not in ("LiveUpdate", "Stage"):
        raise given["vmRolloutStrategy"].fail(f"expected LiveUpdate or Stage, found {strategy!r}")
    if "workloadUpdateMethods" not in given:
        return LiveUpdates(strategy)
    methods = given["workloadUpdateMethods"].value
    if not isinstance(methods, list) or not set(methods) <= {"LiveMigrate", "Evict"}:
        raise given["workloadUpdateMethods"].fail(
            f"expected a list of LiveMigrate and Evict, found {methods!r}"
        )
    return LiveUpdates(strategy, tuple(methods))


def _read_probes(field: _Field) -> dict[str, str]:
    given = field.mapping(("gateway", "dns"))
    for item in given.values():
        if item.value not in ("up", "down"):
            raise item.fail(f"expected up or down, found {item.value!r}")
    return {name: item.text() for name, item in given.items()}


def _read_timings(field: _Field) -> dict[str, float]:
    given = {name: item.number() for name, item in field.mapping(tuple(_TIMINGS)).items()}
    return {**_TIMINGS, **given}


def _read_limits(field: _Field) -> dict[str, int]:
    given = {name: item.integer(1) for name, item in field.mapping(tuple(_LIMITS)).items()}
    return {**_LIMITS, **given}


def _read_networks(field: _Field) -> tuple[NetworkSpec, ...]:
    found = []
    seen: dict[str, tuple[str, int]] = {}
    for item in field.mapping().values():
        namespace, name = item.object_key()
        fields = item.mapping(("localnet", "vlan", "mtu", "gateway"))
        if "localnet" not in fields:
            raise item.fail("localnet: missing")
        vlan = fields["vlan"].integer(0, 4094) if "vlan" in fields else 0
        mtu = fields["mtu"].integer(68, 65535) if "mtu" in fields else 1500
        localnet = fields["localnet"].text()
        if not localnet or set(localnet) & set(":, "):
            raise fields["localnet"].fail(f"a localnet holds no colon, comma or space: {localnet!r}")
        if seen.setdefault(name, (localnet, vlan)) != (localnet, vlan):
            raise item.fail(f"network {name} is described twice, and differently")
        gateway = fields["gateway"].text() if "gateway" in fields else ""
        found.append(NetworkSpec(namespace, name, localnet, vlan, mtu, gateway))
    return tuple(found)


def _read_nodes(fields: Mapping[str, _Field], top: _Field) -> tuple[NodeSpec, ...]:
    defaults = (fields.get("nodeDefaults") or _Field(None, (*top.path, "nodeDefaults"))).mapping(_NODE)
    nodes = _or_default(fields, "nodes", top)
    for name in ("ovn", "ovnStarted", "nmstate"):
        if name in fields:
            defaults.setdefault(name, fields[name])
    found = []
    for name, item in nodes.mapping().items():
        if not _OBJECT.fullmatch(name):
            raise item.fail("not a node name")
        found.append(_read_node(name, item, defaults))
    if not found:
        raise nodes.fail("a world needs at least one node")
    return tuple(found)


def _read_node(name: str, item: _Field, defaults: Mapping[str, _Field]) -> NodeSpec:
    own = item.mapping(_NODE)
    fields = {**defaults, **own}

    def both(field: str) -> dict[str, str]:
        return {
            key: value
            for level in (defaults, own)
            if field in level
            for key, value in level[field].strings().items()
        }

    def one(field: str) -> _Field:
        return _or_default(fields, field, item)

    nmstate = one("nmstate").nmstate()
    levels = (level["nics"].mapping() for level in (defaults, own) if "nics" in level)
    nics, cards, trunks = _read_nics({nic: given for level in levels for nic, given in level.items()})
    return NodeSpec(
        name,
        {**both("labels"), "kubernetes.io/hostname": name},
        one("memory").memory(),
        one("mappings").text(),
        nics,
        _read_bridges(one("bridges"), nmstate is not None),
        one("cordoned").switch(),
        one("ready").switch(),
        one("reachable").switch(),
        one("ovn").ovn(),
        one("ovnStarted").number(),
        nmstate,
        cards,
        trunks,
    )


_Nics = tuple[dict[str, str], dict[str, dict[str, int]], dict[str, tuple[int, ...]]]


def _read_nics(given: Mapping[str, _Field]) -> _Nics:
    """The link of each card, what is said of its MTU, and the VLANs that its switch port carries, where not all.

    `up`, or `{link: up, mtu: 1500, most: 9000, vlans: [100, 224]}`.
    """
    links: dict[str, str] = {}
    trunks: dict[str, tuple[int, ...]] = {}
    cards: dict[str, dict[str, int]] = {}
    for nic, field_of in given.items():
        _check_interface_name(nic, field_of.path)
        link = field_of.value
        if isinstance(link, Mapping):
            fields = field_of.mapping(("link", "mtu", "most", "vlans"))
            cards[nic] = {name: fields[name].integer(68, 65535) for name in ("mtu", "most") if name in fields}
            link = fields["link"].text() if "link" in fields else "up"
            if "vlans" in fields:
                trunks[nic] = _read_vlans(fields["vlans"])
        if link not in ("up", "down"):
            raise WorldError(f"expected up or down, found {link!r}", field_of.path)
        links[nic] = link
    return links, cards, trunks


def _read_vlans(field: _Field) -> tuple[int, ...]:
    if not isinstance(field.value, list | tuple):
        raise field.fail(f"expected a list of VLANs, found {field.value!r}")
    return tuple(_Field(vlan, (*field.path, n)).integer(0, 4094) for n, vlan in enumerate(field.value))


def _check_interface_name(name: str, path: Path) -> None:
    if not name or len(name.encode()) > 15 or set(name) & set("/ \t"):
        raise WorldError(f"not an interface name (at most 15 bytes): {name!r}", path)


def _read_bridges(field: _Field, networkmanager: bool) -> tuple[BridgeSpec, ...]:
    found = []
    taken: dict[str, str] = {"br-int": "br-int"}
    for name, item in field.mapping().items():
        _check_interface_name(name, item.path)
        fields = item.mapping(("ports", "externalIds", "madeBy"))
        ports = fields["ports"].mapping() if "ports" in fields else {}
        bridge = BridgeSpec(
            name,
            tuple(_read_port(port, entry) for port, entry in ports.items()),
            fields["externalIds"].strings() if "externalIds" in fields else {},
            "madeBy" in fields and _read_maker(fields["madeBy"], networkmanager),
        )
        members = [member for port in bridge.ports for member in port.bond]
        for one in (name, *ports, *members):
            # NetworkManager makes an internal port of the bridge's name only when it is told to.
            if one in taken and not (bridge.managed and one == name):
                raise item.fail(f"{one} is already on bridge {taken[one]}")
            taken[one] = name
        found.append(bridge)
    return tuple(found)


def _read_maker(field: _Field, networkmanager: bool) -> bool:
    if field.text() not in ("networkmanager", "ovs-vsctl"):
        raise field.fail(f"expected networkmanager or ovs-vsctl, found {field.value!r}")
    if field.value == "networkmanager" and not networkmanager:
        raise field.fail("a node without nmstate has no NetworkManager that makes bridges: give it `nmstate`")
    return field.text() == "networkmanager"


def _read_port(name: str, item: _Field) -> PortSpec:
    fields = item.mapping(("peer", "bond", "mode", "tag", "internal"))
    bond: tuple[str, ...] = ()
    if "bond" in fields:
        members = fields["bond"].value
        if not isinstance(members, list) or not members or not all(isinstance(m, str) for m in members):
            raise fields["bond"].fail("expected a list of interface names")
        bond = tuple(members)
    if "peer" not in fields and not bond:
        _check_interface_name(name, item.path)
    mode = fields["mode"].text() if "mode" in fields else ""
    if mode not in ("", "balance-slb", "active-backup", "balance-tcp"):
        raise fields["mode"].fail(f"not a bond mode: {mode!r}")
    return PortSpec(
        name,
        fields["peer"].text() if "peer" in fields else "",
        bond,
        mode,
        fields["tag"].integer(0, 4095) if "tag" in fields else None,
        fields["internal"].switch() if "internal" in fields else False,
    )


def derived_mac(seed: int, *names: str) -> str:
    """A locally administered address that only depends on its arguments."""
    digest = hashlib.sha256("/".join((str(seed), *names)).encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (2, *digest[:5]))


def _read_vms(
    field: _Field, networks: Sequence[NetworkSpec], nodes: Sequence[NodeSpec]
) -> tuple[VmSpec, ...]:
    known = {f"{network.namespace}/{network.name}" for network in networks}
    names = {node.name for node in nodes}
    return tuple(_read_vm(item, known, names) for item in field.mapping().values())


_VM = (
    "node",
    "networks",
    "memory",
    "silent",
    "migratable",
    "runStrategy",
    "vm",
    "evictionStrategy",
    "guestAgent",
)
_STRATEGIES = ("Always", "Halted", "Manual", "Once", "RerunOnFailure")
_EVICTIONS = ("LiveMigrate", "LiveMigrateIfPossible", "External", "None")


def _read_vm(item: _Field, networks: set[str], nodes: set[str]) -> VmSpec:
    namespace, name = item.object_key()
    fields = item.mapping(_VM)
    strategy = fields["runStrategy"].text() if "runStrategy" in fields else "Always"
    if strategy not in _STRATEGIES:
        raise fields["runStrategy"].fail(f"expected one of {', '.join(_STRATEGIES)}, found {strategy!r}")
    node = fields.get("node") or _Field(None, (*item.path, "node"))
    if node.value not in nodes and not (node.value is None and strategy == "Halted"):
        raise node.fail(f"no such node: {node.value!r}")
    attached = fields["networks"].mapping() if "networks" in fields else {}
    return VmSpec(
        namespace,
        name,
        "" if strategy == "Halted" else node.text(),
        {key: _read_attachment(entry, networks) for key, entry in attached.items()},
        fields["memory"].memory() if "memory" in fields else "2Gi",
        fields["silent"].switch() if "silent" in fields else False,
        _read_migratable(fields.get("migratable") or _Field(True, (*item.path, "migratable"))),
        strategy,
        fields["vm"].switch() if "vm" in fields else True,
        _read_eviction(fields.get("evictionStrategy")),
        _read_guest_agent(fields.get("guestAgent")),
    )


def _read_eviction(item: _Field | None) -> str:
    if item is None:
        return ""
    if item.text() not in _EVICTIONS:
        raise item.fail(f"expected one of {', '.join(_EVICTIONS)}, found {item.value!r}")
    return item.text()


def _read_guest_agent(item: _Field | None) -> dict[str, Any] | None:
    """The guest agent: `on`, or what it does: `{exec: off}` refuses commands, `{ping: off}` has no such program."""
    if item is None:
        return None
    if not isinstance(item.value, Mapping):
        return {"exec": True, "ping": True, "os": "linux"} if item.switch() else None
    fields = item.mapping(("exec", "ping", "os"))
    system = fields.get("os") or _Field("linux", (*item.path, "os"))
    if system.value not in ("linux", "windows"):
        raise system.fail(f"expected linux or windows, found {system.value!r}")
    switches = {name: fields[name].switch() if name in fields else True for name in ("exec", "ping")}
    return {**switches, "os": system.text()}


def _read_attachment(item: _Field, networks: set[str]) -> tuple[str, str]:
    fields = item.mapping(("nad", "mac"))
    nad = fields.get("nad") or _Field(None, (*item.path, "nad"))
    if nad.value not in networks:
        raise nad.fail(f"no such network: {nad.value!r}")
    mac = fields["mac"].text().lower() if "mac" in fields else ""
    if mac and not _MAC.fullmatch(mac):
        raise fields["mac"].fail(f"not a MAC address: {mac!r}")
    return nad.text(), mac


def _read_migratable(item: _Field) -> tuple[str, str] | None:
    if isinstance(item.value, str):
        reason, colon, message = item.value.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z]+", reason):
            raise item.fail(f"expected true, false, or 'Reason: message', found {item.value!r}")
        return reason, message.strip()
    return None if item.switch() else ("NotMigratable", "VMI is not migratable")
