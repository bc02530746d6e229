"""Several commands as one script: real shells run it, and each command's words, outputs and end arrive as they were."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.node import bundle
from providers.node.bundle import run_all, script, unpacked
from providers.node.remote import LONGEST
from providers.ports import Command, Finished, InDoubt, PortError, Unreachable
from tests.transport.waiting import await_true, is_dead

TOKEN = "0123456789abcdef0123456789abcdef"
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
BYTES = st.binary(max_size=200)
SPEAK = "import os; os.write(1, bytes.fromhex({!r})); os.write(2, bytes.fromhex({!r})); os._exit({})"


def carried_out(
    commands: Sequence[Command], shell: str = "sh", environment: Sequence[str] = ()
) -> list[Finished | PortError]:
    """What comes of the commands on this machine."""
    done = subprocess.run(
        [shell, "-c", script(commands, environment, TOKEN)], capture_output=True, timeout=30, check=True
    )
    told = Finished(
        done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    return unpacked(commands, TOKEN, told)


def command(*argv: str, timeout: float = 20) -> Command:
    return Command(argv, timeout)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=4), min_size=1, max_size=4), st.sampled_from(SHELLS))
def test_words_reach_each_program_as_they_stand(words: list[list[str]], shell: str) -> None:
    ends = carried_out([command("printf", "%s\\0", *each) for each in words], shell)
    # printf with nothing to print prints its format once.
    assert ends == [Finished(0, "".join(f"{word}\0" for word in each or [""]), "") for each in words]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(BYTES, BYTES, st.integers(0, 255)), min_size=1, max_size=3))
def test_outputs_of_any_bytes_and_every_code_come_back_apart(said: list[tuple[bytes, bytes, int]]) -> None:
    ends = carried_out(
        [command(sys.executable, "-S", "-c", SPEAK.format(o.hex(), e.hex(), rc)) for o, e, rc in said]
    )
    assert ends == [Finished(rc, o.decode(errors="replace"), e.decode(errors="replace")) for o, e, rc in said]


@pytest.mark.parametrize("shell", SHELLS)
def test_one_that_is_out_of_time_or_missing_hides_none_of_the_others(shell: str, tmp_path: Path) -> None:
    child = tmp_path / "child.pid"
    ends = carried_out(
        [
            command("sh", "-c", f"sleep 60 & echo $! > {child}; wait", timeout=1),
            command("no-such-program"),
            command("/etc/passwd"),
            command("sh", "-c", "exit 124"),
            command("echo", "last"),
        ],
        shell,
    )
    assert isinstance(ends[0], InDoubt) and str(ends[0]) == "sh did not end within 1 s and was ended"
    codes = [end.rc if isinstance(end, Finished) else end for end in ends[1:]]
    assert codes == [127, 126, 124, 0]
    assert ends[4] == Finished(0, "last\n", "")
    pid = child.read_text().strip()
    await_true(lambda: is_dead(pid), "its child is dead too")


@pytest.mark.parametrize("shell", SHELLS)
def test_one_that_will_not_end_is_killed_and_the_next_is_run(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "KILL_AFTER", 0.3)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(30)"
    ends = carried_out(
        [command(sys.executable, "-S", "-c", stubborn, timeout=0.5), command("echo", "x")], shell
    )
    assert isinstance(ends[0], InDoubt)
    assert ends[1] == Finished(0, "x\n", "")


def test_a_command_that_goes_on_after_it_was_asked_to_end_is_in_doubt_whatever_its_code() -> None:
    slow = "trap 'sleep 0.2; exit 0' TERM; while :; do sleep 0.05; done"
    first, second = carried_out([command("sh", "-c", slow, timeout=0.3), command("true")])
    assert isinstance(first, InDoubt)
    assert second == Finished(0, "", "")


def test_commands_find_the_environment_and_the_end_of_their_input() -> None:
    ends = carried_out([command("printenv", "A"), command("cat")], environment=["env", "A=b 'c'"])
    assert ends == [Finished(0, "b 'c'\n", ""), Finished(0, "", "")]


def test_what_ended_before_the_shell_was_ended_is_kept_and_the_rest_is_in_doubt() -> None:
    commands = [
        command("echo", "a"),
        command("sh"),
        command("echo", "b"),
    ]
    told = Finished(137, f"a\n\n{TOKEN} 0\n\n{TOKEN} over 0\n", f"\n{TOKEN} over\nKilled\n")
    first, *others = unpacked(commands, TOKEN, told)
    assert first == Finished(0, "a\n", "")
    assert [(type(other), str(other)) for other in others] == [
        (InDoubt, "sh: the shell that was to run it ended: Killed"),
        (InDoubt, "echo: the shell that was to run it ended: Killed"),
    ]


def test_nothing_at_all_said_leaves_every_command_in_doubt() -> None:
    ends = unpacked([command("a"), command("b")], TOKEN, Finished(2, "", ""))
    assert [str(end) for end in ends] == [
        f"{name}: the shell that was to run it ended: exit code 2" for name in "ab"
    ]


class Journeys:
    """Counts how commands went: `together` or `alone`."""

    def __init__(self, error: PortError | None = None) -> None:
        self.error = error
        self.together = self.alone = 0

    def run(self, words: Sequence[str], seconds: float) -> Finished:
        self.together += 1
        if self.error is not None:
            raise self.error
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=True)
        return Finished(done.returncode, done.stdout, done.stderr)

    def one(self, each: Command) -> Finished:
        self.alone += 1
        raise Unreachable("alone")

    def ask(self, *commands: Command) -> list[Finished | PortError]:
        return run_all(commands, (), self.run, self.one)


def test_two_commands_are_one_journey_and_one_needs_no_script() -> None:
    journeys = Journeys()
    assert journeys.ask(command("echo", "a"), command("echo", "b")) == [
        Finished(0, "a\n", ""),
        Finished(0, "b\n", ""),
    ]
    assert (journeys.together, journeys.alone) == (1, 0)
    journeys.ask(command("echo", "a"))
    assert (journeys.together, journeys.alone) == (1, 1)
    assert journeys.ask() == []


def test_what_is_too_long_for_one_journey_goes_alone_and_fails_alone() -> None:
    journeys = Journeys()
    ends = journeys.ask(command("echo", "x" * LONGEST), command("echo"))
    assert [str(end) for end in ends] == ["alone", "alone"]
    assert (journeys.together, journeys.alone) == (0, 2)


def test_a_journey_that_failed_says_so_for_every_command() -> None:
    error = Unreachable("no route")
    assert Journeys(error).ask(command("a"), command("b")) == [error, error]
