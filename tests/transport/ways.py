"""The ways to one node, as what a contract test needs of each."""

from __future__ import annotations

from dataclasses import dataclass

from providers.ports import Answer, Nodes, NodeShell, Ovsdb, Question

WAYS = ("local", "ssh", "ssh-sudo", "pod")


@dataclass(frozen=True)
class Way:
    """A node, called `node` in `nodes`, whose run directory is the `server` fixture's."""

    name: str
    nodes: Nodes
    node: str

    @property
    def shell(self) -> NodeShell:
        return self.nodes.shell(self.node)

    @property
    def ovsdb(self) -> Ovsdb:
        return self.nodes.ovsdb(self.node)

    def ask(self, *questions: Question) -> list[Answer]:
        return self.nodes.ask(self.node, questions)
