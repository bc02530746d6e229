"""Which kinds the API server serves, asked once for each apiVersion.

Invariant: that a kind is not served is never remembered: its operator may have been installed since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from providers.kubernetes.calls import Call, Resource, root
from providers.ports import NotServed

Ask = Callable[[Call], Mapping[str, Any]]


class Discovery:
    """The kinds of one API server. May be used by many threads at once."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: dict[tuple[str, str], Resource] = {}
        self._lock = Lock()

    def resource(self, api: str, kind: str) -> Resource:
        """How a kind is served. Raises NotServed."""
        with self._lock:
            if (api, kind) not in self._known:
                self._known.update(self._served(api, kind))
            if (api, kind) not in self._known:
                raise NotServed(f"the cluster serves {api}, but no {kind} in it")
            return self._known[api, kind]

    def forget(self, api: str) -> None:
        """Ask anew for this apiVersion: a kind of it was not where it had been."""
        with self._lock:
            self._known = {key: known for key, known in self._known.items() if key[0] != api}

    def _served(self, api: str, kind: str) -> dict[tuple[str, str], Resource]:
        try:
            entries = self._ask(Call(f"discover {api}", "GET", root(api)))["resources"]
        except NotServed as error:
            raise NotServed(f"the cluster serves no {kind} ({api})") from error
        return {(api, one["kind"]): _resource(api, one, entries) for one in entries if "/" not in one["name"]}


def _resource(api: str, entry: Mapping[str, Any], entries: list[Mapping[str, Any]]) -> Resource:
    below = f"{entry['name']}/"
    subresources = {
        one["name"].removeprefix(below): _other(one) for one in entries if one["name"].startswith(below)
    }
    return Resource(api, entry["name"], entry["namespaced"], "get" in entry["verbs"], subresources)


def _other(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """The (apiVersion, kind) that a subresource takes, when it says one: an Eviction of policy/v1."""
    if "version" not in entry:
        return None
    api = f"{entry['group']}/{entry['version']}" if entry.get("group") else str(entry["version"])
    return api, str(entry["kind"])
