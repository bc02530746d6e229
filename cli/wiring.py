"""What several verbs share: options, opening the target and the store, reading desired state, signals."""

from __future__ import annotations

import functools
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.files import read_yaml_files
from cli.target import VARIABLE, TargetInfo, open_target
from cli.targetfile import read_target
from plans.desired import Desired, load_desired
from plans.document import Plan, Target, lines
from plans.errors import InputError, Interrupted
from providers.interpreters import Doubtful, Interpreter, Lost, NotDone
from providers.ports import World

if TYPE_CHECKING:
    from engine.execute import Signals

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_STATE = ".ovsplan/state.db"
LANES = 16
"""How many requests a real cluster gets at once."""


@dataclass(frozen=True, slots=True)
class Failures:
    """The interpreter's failures, for the engine, which doesn't import providers."""

    lost: type[Exception] = Lost
    not_done: type[Exception] = NotDone
    doubtful: type[Exception] = Doubtful


@dataclass(frozen=True, slots=True)
class Where:
    """The target, as the command line names it."""

    twin: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    target: str | None = None

    @property
    def is_given(self) -> bool:
        """Whether a target is named, here or in OVSPLAN_TARGET."""
        given = (self.twin, self.target, self.context, self.kubeconfig)
        return any(value is not None for value in given) or bool(os.environ.get(VARIABLE))

    @property
    def cluster(self) -> str:
        """The cluster that is asked over a network, as a sentence calls it; empty when there is none, or none can be told."""
        if self.context:
            return f"the cluster of context {self.context}"
        file = self.target or (os.environ.get(VARIABLE) if not self._named() else None)
        try:
            is_far = bool(file) and read_target(file or "")[0].cluster.twin is None
        except InputError:
            return ""  # said when the target is opened
        return f"the cluster of target {file}" if is_far else ""

    @property
    def options(self) -> str:
        """The options that name it again."""
        return " ".join(f"{option} {shlex.quote(value)}" for option, value in self._named().items())

    def _named(self) -> dict[str, str]:
        given = {
            "--twin": self.twin,
            "--target": self.target,
            "--context": self.context,
            "--kubeconfig": self.kubeconfig,
        }
        return {option: value for option, value in given.items() if value}


@dataclass(frozen=True, slots=True)
class Opened:
    """A target that was opened, and the options that name it on a command line."""

    info: TargetInfo
    world: World
    hands: Interpreter
    options: str

    @property
    def target(self) -> Target:
        """The target, for the plan document."""
        return Target(self.info.identity, self.info.title)


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--context, --kubeconfig, --twin and --target, which `command` gets as `where`."""

    @functools.wraps(command)
    def gathered(
        *args: Any,
        twin: str | None,
        context: str | None,
        kubeconfig: str | None,
        target: str | None,
        **others: Any,
    ) -> Any:
        return command(*args, where=Where(twin, context, kubeconfig, target), **others)

    for decorator in (
        click.option(
            "--target", metavar="FILE", help="A target file (also OVSPLAN_TARGET): how the world is reached."
        ),
        click.option("--twin", metavar="DIR", help="A simulated cluster, made by `ovsplan twin init`."),
        click.option("--kubeconfig", metavar="FILE", help="The file of --context; else as kubectl finds it."),
        click.option(
            "--context",
            metavar="NAME",
            help="The cluster of a context of your kubeconfig, nodes by its pods.",
        ),
    ):
        gathered = decorator(gathered)
    return gathered


def state_option(command: F) -> F:
    """--state."""
    return click.option(
        "--state",
        metavar="FILE",
        default=DEFAULT_STATE,
        show_default=True,
        help="The state database: the journal of runs.",
    )(command)


def open_world(where: Where, *, said: bool = False) -> Opened:
    """Open the target that the options name, else OVSPLAN_TARGET. `said`: `say_begun` was called already."""
    if not said:
        say_begun(where, "Asking")
    info, world = open_target(
        twin=where.twin, context=where.context, target=where.target, kubeconfig=where.kubeconfig
    )
    lanes = LANES if info.kind == "cluster" else 1
    return Opened(info, world, Interpreter(world, lanes), where.options)


def say_begun(where: Where, doing: str) -> None:
    """The first sign of life, before anything takes a while. Not on standard output, and not where all is near."""
    if cluster := where.cluster:
        click.echo(f"{doing} {cluster} ...", err=True)


def say_target(title: str) -> None:
    """The first line of every screen that speaks of a world."""
    click.secho(f"Target: {title}", bold=True)
    click.echo()


def say_document(plan: Plan) -> None:
    """The plan document alone, on standard output."""
    for line in lines(plan):
        click.echo(line, nl=False)


def read_desired(paths: Sequence[str]) -> Desired:
    """The desired state in files or folders; the current folder when none is named."""
    return load_desired(read_yaml_files(paths))


def source_of(paths: Sequence[str]) -> str:
    """The paths as a run remembers them."""
    return "\n".join(str(Path(path).resolve()) for path in (paths or ["."]))


@contextmanager
def two_stage_signals(signals: Signals) -> Iterator[None]:
    """Ctrl-C or SIGTERM once: stop after the op in flight. Twice: stop now; the journal makes that safe."""

    def handle(signum: int, _frame: FrameType | None) -> None:
        if signals.signum is not None:
            raise Interrupted(
                "two interrupts: stopped at once. What was in flight is in doubt, and `ovsplan apply` looks first",
                signum,
            )
        signals.signum = signum
        name = "Interrupt" if signum == signal.SIGINT else signal.Signals(signum).name
        with suppress(OSError):  # a terminal that is lost
            click.echo(
                f"\n{name} received: stopping after the op in flight. Again to stop at once.", err=True
            )

    before = {
        number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
