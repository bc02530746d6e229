"""The entry point: finds the verb, runs it, and turns every expected error into one clear message and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches

import click

VERBS = {
    "init": "Write the desired state that says what a cluster has, to begin with.",
    "validate": "Check desired-state files; report every error at once.",
    "plan": "Show what would be done, and change nothing.",
    "apply": "Do it, one node at a time; resumes an unfinished run.",
    "show": "Show a plan file, or a run.",
    "status": "Show how the run stands, node by node, and what to do next.",
    "history": "List past runs: when, by whom, what, and how they ended.",
    "stop": "Ask a running apply to stop after the op in flight.",
    "mark": "Say that an action is done, or not done, by your own word.",
    "abandon": "Give up an unfinished run for good.",
    "force-unlock": "Take the lock from an apply that is dead.",
    "twin": "Make, look at and disturb a simulated cluster.",
    "demo": "Plan, apply, fail, resume and prove, on a simulated cluster.",
}


class Verbs(click.Group):
    """A group that imports a verb only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"cli.verbs.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = get_close_matches(args[0], VERBS, 1)
            hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(VERBS)}."
            raise click.UsageError(f"There is no command '{args[0]}'. {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["--help"], "max_content_width": 100})
@click.version_option(package_name="ovsplan", message="ovsplan %(version)s")
def ovsplan() -> None:
    """Plan and apply the network under virtual machines on OpenShift, one node at a time."""


def terraform_spelling(args: Sequence[str]) -> str | None:
    """The complaint about an option written Terraform's way (`-out`), with the right one named."""
    for arg in args:
        if arg == "--":
            return None
        name = arg.partition("=")[0]
        if len(name) > 2 and name[0] == "-" and name[1] != "-" and name[1].isalpha():
            return f"No such option: {name}. Options have two dashes here: -{name}."
    return None


def main(args: Sequence[str] | None = None) -> None:
    """Run a command line and exit with its code."""
    sys.exit(run(list(sys.argv[1:] if args is None else args)))


def run(args: list[str]) -> int:
    """Run a command line; returns its exit code. Prints errors to stderr, without a traceback."""
    color = False if os.environ.get("NO_COLOR") else True if os.environ.get("FORCE_COLOR") else None
    try:
        if complaint := terraform_spelling(args):
            raise click.UsageError(complaint)
        result = ovsplan.main(args, prog_name="ovsplan", standalone_mode=False, color=color)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"\nTry '{context.command_path} --help'." if context is not None else ""
        _complain(error.format_message() + hint)
        return 1
    except click.Abort:
        _complain("interrupted; nothing was changed")
        return 130
    except OSError as error:
        from cli import output

        if not output.is_lost(error):
            raise
        output.silence()
        _complain(f"cannot write the output: {error.strerror}.")
        return 3 if args[:1] == ["apply"] else 1
    except SystemExit:
        # click's way out when the reader (`| head`) has gone: a screen may end there, and a run only stops.
        return 3 if args[:1] == ["apply"] else 0
    except (
        Exception
    ) as error:  # the edge of the program: expected errors get their code, defects their traceback
        from cli.exits import code_for

        code = code_for(error)
        if code is None:
            raise
        _complain(str(error))
        return code


def _complain(text: str) -> None:
    with suppress(OSError):  # nobody is there to be told
        for i, line in enumerate(text.splitlines() or [""]):
            click.echo(("Error: " if i == 0 else "       ") + line, err=True)


if __name__ == "__main__":
    main()
