"""Commands in containers: what a virt-launcher's `virt-probe` says of its guest, and a ping out of it.

Invariant: a ping is answered exactly when the guest's own path is whole, the VLAN is carried there, and the gateway of
that VLAN is the address that was asked for; what was sent is learned on its way, answered or not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from providers.ports import Body, Finished, NotFound, Ref, Refused, Unreachable
from providers.twin import forwarding
from providers.twin.kubelet import VM_NAME
from providers.twin.launchers import LAUNCHER
from providers.twin.networks import KUBEVIRT, running_on
from providers.twin.stage import Stage

PROBE = "virt-probe"
COMPUTE = "compute"
_MISSING = 127
_PANIC = 2
"""How Go ends a program that panics, which is how virt-probe reports all but the guest's own exit code."""

_FLAGS = {"--domainName": True, "--timeoutSeconds": True, "--command": True, "--guestAgentPing": False}


def node_of(stage: Stage, pod: Ref, container: str) -> str:
    """The node on which a command would run. Raises as `ports.Cluster.exec` does."""
    found = stage.cluster.get(pod)
    if found is None:
        raise NotFound(f'pods "{pod.name}" not found')
    node, phase = found["spec"].get("nodeName"), found.get("status", {}).get("phase")
    if container not in [entry["name"] for entry in found["spec"]["containers"]]:
        raise Refused(f"container {container} is not valid for pod {pod.name}")
    if not node:
        raise Refused(f"pod {pod.name} does not have a host assigned")
    if phase != "Running":
        raise Unreachable(f'pod {pod.namespace}/{pod.name}: container not found ("{container}")')
    return str(node)


def run(stage: Stage, pod: Ref, container: str, argv: Sequence[str]) -> Finished:
    """Run one command in a container of a running pod. Raises as `ports.Cluster.exec` does."""
    node = node_of(stage, pod, container)
    found = stage.cluster.get(pod) or {}
    program = argv[0].rpartition("/")[2] if argv else ""
    labels = found["metadata"].get("labels", {})
    if program != PROBE or container != COMPUTE or labels.get("kubevirt.io") != LAUNCHER["kubevirt.io"]:
        return Finished(_MISSING, "", f'exec: "{program}": executable file not found in $PATH\n')
    return _probe(stage, node, f"{pod.namespace}/{labels.get(VM_NAME, '')}", list(argv[1:]))


def _probe(stage: Stage, node: str, vm: str, args: list[str]) -> Finished:
    flags: dict[str, str] = {}
    while args and args[0] != "--":
        flag = args.pop(0)
        if flag not in _FLAGS or (_FLAGS[flag] and not args):
            return Finished(_PANIC, "", f"unknown flag: {flag}\n")
        flags[flag] = args.pop(0) if _FLAGS[flag] else ""
    asked, domain = flags.get("--domainName", ""), vm.replace("/", "_", 1)
    vmi = _vmi(stage, vm)
    if asked != domain or vmi is None or running_on(vmi) != node:
        return _failed(42, f"Domain not found: no domain with matching name '{asked}'")
    guest_agent = stage.guest_agent(vm)
    if guest_agent is None:
        return _failed(86, "Guest agent is not responding: QEMU guest agent is not connected")
    if "--guestAgentPing" in flags:
        return Finished(0, "", "")
    return _in_guest(stage, node, vmi, guest_agent, flags.get("--command", ""), args[1:])


def _vmi(stage: Stage, vm: str) -> Body | None:
    namespace, _, name = vm.partition("/")
    return stage.cluster.get(Ref(KUBEVIRT, "VirtualMachineInstance", name, namespace))


def _failed(code: int, message: str) -> Finished:
    """virt-probe logs why, and panics."""
    reason = f"rpc error: code = Unknown desc = virError(Code={code}, Domain=10, Message='{message}')"
    line = {"component": PROBE, "level": "fatal", "msg": "Failed executing the command", "reason": reason}
    return Finished(
        _PANIC, "", f"{json.dumps(line)}\npanic: Failed executing the command\n\ngoroutine 1 [running]:\n"
    )


def _in_guest(
    stage: Stage, node: str, vmi: Body, guest_agent: Mapping[str, Any], command: str, args: Sequence[str]
) -> Finished:
    head = "internal error: unable to execute QEMU agent command 'guest-exec': "
    if not guest_agent["exec"]:
        return _failed(1, f"{head}Command guest-exec has been disabled: the command is not allowed")
    if command != "ping" or not guest_agent["ping"]:
        why = f"Failed to execute child process “{command}” (No such file or directory)"
        return _failed(1, f"{head}Guest agent command failed, error was '{why}'")
    answered = forwarding.ping(stage, node, vmi, args[-1]) if args else False
    count = args[1] if len(args) > 1 else "0"
    said = _windows if guest_agent["os"] == "windows" else _linux
    return Finished(0 if answered else 1, said(args[-1] if args else "", int(count), answered), "")


def _linux(address: str, count: int, answered: bool) -> str:
    lines = [
        f"64 bytes from {address}: icmp_seq={n} ttl=64 time=0.4 ms" for n in range(1, count + 1) if answered
    ]
    heard, lost = (count, 0) if answered else (0, 100)
    totals = f"{count} packets transmitted, {heard} received, {lost}% packet loss, time 1001ms"
    return "\n".join([f"PING {address} ({address}) 56(84) bytes of data.", *lines, "", f"--- {address} ping statistics ---", totals, "", ""])  # fmt: skip


def _windows(address: str, count: int, answered: bool) -> str:
    line = f"Reply from {address}: bytes=32 time<1ms TTL=64" if answered else "Request timed out."
    heard, lost = (count, 0) if answered else (0, count)
    loss = 0 if answered else 100
    totals = f"    Packets: Sent = {count}, Received = {heard}, Lost = {lost} ({loss}% loss),"
    return "\r\n".join([f"Pinging {address} with 32 bytes of data:", *[line] * count, f"Ping statistics for {address}:", totals, ""])  # fmt: skip
