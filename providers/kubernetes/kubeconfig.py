"""Kubeconfig files, as far as errors in them are to be told in one sentence.

Invariant: a context that `checked` lets pass names a cluster with a server, and a user, that the files define.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

VARIABLE = "KUBECONFIG"
DEFAULT = "~/.kube/config"


class ConnectError(Exception):
    """The cluster that a context names could not be reached, or told; the message is fit for a person."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a context says: where the API server is, and as whom it is asked. `paths` are joined as in KUBECONFIG."""

    context: str
    paths: str
    server: str
    user: str
    plugin: str = ""
    """The command that gives the user's credentials, if one does."""


def checked(context: str, kubeconfig: str | None) -> Place:
    """The place that a context names. Without `kubeconfig`, KUBECONFIG's files or the usual one. Raises ConnectError."""
    paths = _paths(kubeconfig)
    documents = {path: _read(path) for path in paths}
    shown = " and ".join(paths)
    contexts = dict(_entries(documents, "contexts", "context"))
    if context not in contexts:
        raise ConnectError(f"{shown}: no context {context!r}.{_choices(context, list(contexts))}")
    cluster = _named(
        contexts[context], "cluster", context, shown, dict(_entries(documents, "clusters", "cluster"))
    )
    user = _named(contexts[context], "user", context, shown, dict(_entries(documents, "users", "user")))
    name = str(contexts[context]["cluster"])
    if not isinstance(cluster.get("server"), str):
        raise ConnectError(
            f"{shown}: the cluster {name!r} has no server. Give it one: `server: https://HOST:6443`."
        )
    if "://" not in cluster["server"]:
        raise ConnectError(
            f"{shown}: the cluster {name!r} has the server {cluster['server']!r}, which is no URL. "
            f"Write it with its scheme: `server: https://{cluster['server']}`."
        )
    plugin = user.get("exec")
    command = str(plugin.get("command") or "") if isinstance(plugin, Mapping) else ""
    return Place(
        context,
        os.pathsep.join(paths),
        cluster["server"].rstrip("/"),
        str(contexts[context]["user"]),
        command,
    )


def _paths(kubeconfig: str | None) -> list[str]:
    """The files that are there. As with kubectl, one that was named must be; of several in KUBECONFIG, one."""
    if kubeconfig:
        named, source = [kubeconfig], ""
    elif os.environ.get(VARIABLE):
        named, source = [path for path in os.environ[VARIABLE].split(os.pathsep) if path], f" ({VARIABLE})"
    else:
        named, source = [DEFAULT], ""
    expanded = [os.path.expanduser(path) for path in named]
    found = [path for path in expanded if Path(path).exists()]
    if not found:
        raise ConnectError(
            f"no kubeconfig: {' and '.join(expanded)}{source} does not exist. Give --kubeconfig FILE, or set {VARIABLE}."
        )
    return found


def _read(path: str) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConnectError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConnectError(f"{path}: is not a kubeconfig: it is not text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise ConnectError(f"{where}: is not YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(document, Mapping):
        raise ConnectError(
            f"{path}: is not a kubeconfig: expected a mapping with clusters, contexts and users"
        )
    return document


def _entries(
    documents: Mapping[str, Mapping[str, Any]], group: str, key: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The (name, entry) of each cluster, context or user. Of one name in several files, the first counts: last here."""
    for path, document in reversed(list(documents.items())):
        entries = document.get(group) or []
        if not isinstance(entries, list):
            raise ConnectError(f"{path}: {group}: expected a list")
        for entry in reversed(entries):
            if not isinstance(entry, Mapping) or "name" not in entry:
                raise ConnectError(f"{path}: {group}: expected each to have a name")
            body = entry.get(key)
            yield str(entry["name"]), body if isinstance(body, Mapping) else {}


def _named(
    context: Mapping[str, Any], key: str, name: str, shown: str, known: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    wanted = context.get(key)
    if not wanted:
        raise ConnectError(
            f"{shown}: the context {name!r} names no {key}. Give it one of: {', '.join(known) or 'none is there'}."
        )
    if str(wanted) not in known:
        raise ConnectError(
            f"{shown}: the context {name!r} names the {key} {wanted!r}, which is not there.{_choices(str(wanted), list(known))}"
        )
    return known[str(wanted)]


def _choices(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"{meant} There {'is' if len(known) == 1 else 'are'}: {', '.join(sorted(known))}."
        if known
        else " There is none."
    )
