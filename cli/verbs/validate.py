"""`ovsplan validate`: the files alone, every error at once."""

from __future__ import annotations

import click

from cli.wiring import read_desired


@click.command("validate")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
def command(paths: tuple[str, ...]) -> None:
    """Check desired-state files or folders (the current folder when none is given), and reach no cluster.

    Reports every error at once: file, line, column, what was found and what was expected. Exit 0 when there is none,
    else 1.
    """
    desired = read_desired(paths)
    things: list[tuple[str, str]] = [(network.kind, network.name) for network in desired.networks]
    things += [(policy.kind, policy.name) for policy in desired.policies]
    things += [(manifest.kind, manifest.name) for manifest in desired.manifests]
    named: dict[str, list[str]] = {}
    for kind, name in things:
        named.setdefault(kind, []).append(name)
    if desired.rollout:
        named[desired.rollout.kind] = [desired.rollout.metadata.name]
    listed = ", ".join(f"{kind} {', '.join(names)}" for kind, names in named.items())
    click.echo(f"Valid: {listed}.")
