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
    networks = ", ".join(network.name for network in desired.networks)
    rollout = f", Rollout {desired.rollout.metadata.name}" if desired.rollout else ""
    click.echo(f"Valid: VMNetwork {networks}{rollout}.")
