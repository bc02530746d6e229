"""The builds of Open vSwitch, OVN, NetworkManager and nmstate that a lab's programs come from.

Invariant: OVN 23.03 is the system's own; everything else is what `scripts/build-nmlab` made, in its cache, and nothing
of that is installed.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .netns import LabError

_SCRIPT = Path(__file__).parents[2] / "scripts/build-nmlab"
_SYSTEM = Path("/usr/share")
_BUILD_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Kit:
    """Where programs are found. `schemas` has `openvswitch/` and `ovn/`; `manager` is NetworkManager's own prefix."""

    path: str
    schemas: Path
    manager: Path | None = None

    @property
    def is_system(self) -> bool:
        """Whether the system's own PATH does."""
        return self.path == os.environ["PATH"]

    @property
    def environment(self) -> tuple[str, ...]:
        """What `env` needs so that the kit's programs are found first."""
        return (f"PATH={self.path}",)


def kit_of(ovn: str, *, managed: bool = False) -> Kit:
    """The programs for an OVN version, with NetworkManager and nmstatectl if `managed`. Raises LabError."""
    newer = not ovn.startswith("23.03")
    if not newer and not managed:
        return Kit(os.environ["PATH"], _SYSTEM)
    folder = built()
    folders = [folder / "ovn-25.03/bin"] if newer else []
    folders += [folder / "bin", folder / "nm/bin"] if managed else []
    schemas = folder / "ovn-25.03/root/usr/share" if newer else _SYSTEM
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    return Kit(path, schemas, folder / "nm" if managed else None)


@cache
def built() -> Path:
    """The folder of `scripts/build-nmlab`; builds it, or waits for who does. Raises LabError with its last words."""
    done = subprocess.run([str(_SCRIPT)], capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
    if done.returncode:
        raise LabError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{_SCRIPT} failed")
    return Path(done.stdout.strip())
