"""The screens of a run, whole: what is counted is counted right, each line is there, and each node has its own name."""

from __future__ import annotations

import json
from pathlib import Path

from crash.lives import Job, job_of, kill_when, live
from crash.others import NETWORK, ROLLOUT, small_world

NAD = "  networks: {default/vlan300: {vlan: 300, mtu: 9000}}\n"


def two_nodes(folder: Path, **files: str) -> Job:
    texts = {"network.yaml": NETWORK, "rollout.yaml": ROLLOUT} | files
    return job_of(folder / "job", small_world(), {name: text for name, text in texts.items() if text})


def plain(job: Job, text: str) -> str:
    """A screen without what differs from run to run."""
    for run in job.runs():
        text = text.replace(run, "RUN")
    return text.replace(str(job.folder), "FOLDER")


PROGRESS = """\
Run RUN: 20 action(s) to do.
[ 1/20] inventory: record networks, mappings, VMs with networks, a NAD backup and each node's database
        done: kept in the state database; `ovsplan show RUN --inventory` prints it
[ 2/20] worker-01/preflight: 7 checks before the node is touched
[ 3/20] worker-01/cordon: take it out of scheduling, in this run's name
[ 4/20] worker-01/evacuate: live-migrate away: default/silent-1, default/talker-1
        waiting for: default/silent-1, default/talker-1 off worker-01
        done: 2 VM(s) left: default/silent-1, default/talker-1
"""

STOPPED = """\
[14/20] worker-02/remap/vmnet: move localnet vmnet from br-vmdata to br-phy (cold)
        failed after 0.0s: ovsdb worker-02: connection refused (injected)

Recap
  worker-01  done         9/9 actions   proven
  worker-02  failed       3/9 actions   not proven
             stopped at worker-02/remap/vmnet: ovsdb worker-02: connection refused (injected)

Manual undo on worker-02, in this order (only if you want to go back instead of resuming):
  # undo worker-02/cordon
  oc adm uncordon worker-02
  oc annotate node worker-02 ovsplan.io/cordoned-by-
  # VMs that were taken off worker-02: once it is uncordoned, back to it
  virtctl migrate -n default silent-2 --addedNodeSelector kubernetes.io/hostname=worker-02
  virtctl migrate -n default talker-2 --addedNodeSelector kubernetes.io/hostname=worker-02
"""

NEXT = """
Next: `ovsplan status --twin world` says how it stands; `ovsplan apply --twin world` resumes run RUN.
"""

CHECKLISTS = """
worker-01  done  proven
   1  Create inventory             done
   2  Backup NADs                  done
   3  Cordon node                  done
   4  Migrate VMs (optional)       done  2 VM(s) left: default/silent-1, default/talker-1
   5  Run balance-slb migration    not in this plan
   6  Reboot                       not in this plan
   7  Remove br-vmdata             done  br-vmdata is gone
   8  Add bridge-mapping           done  vmnet is mapped to br-phy; nothing rides on it yet
   9  Validate                     done  4 checks hold
  10  Uncordon                     done
  11  Test VMs                     done  seen: default/silent-1; 2 VM(s) back on worker-01
  12  Repeat for next node         done

worker-02  failed  not proven
   1  Create inventory             done
   2  Backup NADs                  done
   3  Cordon node                  done
   4  Migrate VMs (optional)       done  2 VM(s) left: default/silent-2, default/talker-2
   5  Run balance-slb migration    not in this plan
   6  Reboot                       not in this plan
   7  Remove br-vmdata             waiting
   8  Add bridge-mapping           failed  worker-02/remap/vmnet: ovsdb worker-02: connection refused (injected)
   9  Validate                     waiting
  10  Uncordon                     waiting
  11  Test VMs                     waiting
  12  Repeat for next node         waiting

the cluster
      inventory done  kept in the state database; `ovsplan show RUN --inventory` prints it
      look-back waiting
"""

FAILED_ROW = """\
RUN  failed  13/20 actions
  2026-01-15 01:00:00 UTC, by root
  0 to add, 2 to change, 2 to destroy, on worker-01, worker-02
  worker-02/remap/vmnet: ovsdb worker-02: connection refused (injected)
"""

RESUMED = """
Resuming run RUN: its approved plan, unchanged (Plan: 0 to add, 2 to change, 2 to destroy.).
Run RUN goes on: 7 action(s) left.
[14/20] worker-02/remap/vmnet: move localnet vmnet from br-vmdata to br-phy (cold) (attempt 2)
        done: vmnet is mapped to br-phy; nothing rides on it yet
[15/20] worker-02/remove/br-vmdata: remove bridge br-vmdata
"""


def test_a_run_that_failed_is_told_alike_by_apply_status_and_history_and_resumed(tmp_path: Path) -> None:
    job = two_nodes(tmp_path)
    job.fault("ovsdb worker-02 transact *mutate*", 1, "fail")
    failed = plain(job, job.apply().out)
    assert PROGRESS in failed
    assert STOPPED in failed
    assert failed.endswith(NEXT)
    assert CHECKLISTS in plain(job, job.run("status").out)
    who = job.latest().who
    history = live(job.folder, "history")
    assert FAILED_ROW.replace("root", who) in plain(job, history.wait().out)

    resumed = plain(job, job.apply().out)
    assert RESUMED in resumed
    assert "\nApply complete. 0 added, 2 changed, 2 destroyed.\n" in resumed
    (row,) = json.loads(live(job.folder, "history", "--json").wait().out)["runs"]
    assert row["actions"] == {"all": 20, "done": 20}
    assert (row["status"], row["message"], row["nodes"]) == ("done", "", ["worker-01", "worker-02"])
    assert row["began"] == "2026-01-15 01:00:00 UTC" < row["ended"] < "2026-01-15 02:00:00 UTC"
    assert (row["who"], row["source"]) == (who, [str(job.folder)])


def test_history_has_the_newest_run_first_and_says_why_one_was_given_up(tmp_path: Path) -> None:
    job = two_nodes(tmp_path, **{"network.yaml": NETWORK + NAD, "rollout.yaml": ""})
    assert job.apply("--node", "worker-01").code == 3
    assert job.apply(boundary=kill_when("step-done", 2)).code < 0
    assert job.run("abandon", job.latest().id, "--reason", "another night").code == 0
    newest, oldest = job.runs()
    told = live(job.folder, "history").wait().out.splitlines()
    assert told[0] == "Target: SIMULATED twin world 'world' (./world)"
    assert told[2] == f"{newest}  abandoned  2/10 actions"
    assert told[4:8] == [
        "  1 to add, 1 to change, 1 to destroy, on worker-02",
        "  another night",
        "",
        f"{oldest}  partial  9/9 actions",
    ]
    assert told[8].startswith("  2026-01-15 01:00:00 UTC to 2026-01-15 01:00:06 UTC, by ")
    assert told[9] == "  0 to add, 1 to change, 1 to destroy, on worker-01"


def test_what_was_left_out_of_a_run_is_named(tmp_path: Path) -> None:
    job = two_nodes(tmp_path, **{"network.yaml": NETWORK + NAD, "rollout.yaml": ""})
    one = job.apply("--node", "worker-01")
    assert (one.code, one.err) == (
        3,
        "Not all that is declared was done: network/default/vlan300 was blocked, see `ovsplan plan`.\n",
    )
    assert "Next: mend what is blocked: `ovsplan plan " in job.run("status").out


def test_all_that_was_left_out_of_a_run_is_named(tmp_path: Path) -> None:
    job = two_nodes(tmp_path, **{"network.yaml": NETWORK + NAD, "rollout.yaml": ""})
    with job.world() as world:
        world.set_reachable("worker-02", False)
    ended = job.apply()
    assert ended.code == 3
    assert "done: worker-02, network/default/vlan300 were blocked, see" in ended.err


def test_the_undo_of_a_node_goes_backwards(tmp_path: Path) -> None:
    job = two_nodes(tmp_path, **{"rollout.yaml": ""})
    assert job.apply(boundary=kill_when("step-done", 5)).code < 0
    undo = job.run("status").out.partition("Manual undo on worker-01")[2]
    assert [line for line in undo.splitlines() if line.startswith("  # undo ")] == [
        "  # undo worker-01/remap/vmnet",
        "  # undo worker-01/cordon",
    ]


def test_the_next_command_names_a_state_database_as_a_shell_takes_it(tmp_path: Path) -> None:
    job = two_nodes(tmp_path, **{"rollout.yaml": ""})
    job.fault("ovsdb worker-01 transact *mutate*", 1, "fail")
    ended = job.apply("--state", "my state.db")
    assert ended.code == 3
    assert "`ovsplan apply --twin world --state 'my state.db'` resumes run" in ended.out
