"""What a daemon sees of this machine: another network, other names, and files that are hidden. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class View:
    """The differences; without any, a command runs as it is.

    Attributes:
      namespace: file of the network namespace, if it is not this machine's.
      host_name: the name that this host has, if it is not this machine's.
      binds: files and folders that take the place of others, by the place.
      hidden: files and folders that look empty.
    """

    namespace: Path | None = None
    host_name: str = ""
    binds: Mapping[Path, Path] = field(default_factory=dict)
    hidden: Sequence[str] = ()

    def command(self, command: Sequence[str]) -> list[str]:
        """The same command with this view. Its process keeps its number through all of the steps."""
        if self == View():
            return list(command)
        # Not `ip netns exec`: it mounts a new /sys, in which the containers would not find their cgroups.
        enter = ["nsenter", f"--net={self.namespace}"] if self.namespace else []
        own_name = ["--uts"] if self.host_name else []
        script = "\n".join([*self._script(), f"exec {shlex.join(command)}"])
        return [*enter, "unshare", "--mount", *own_name, "--propagation", "private", "sh", "-c", script]

    def _script(self) -> list[str]:
        lines = ["set -e"]
        if self.host_name:
            lines.append(f"echo {shlex.quote(self.host_name)} > /proc/sys/kernel/hostname")
        for place, source in self.binds.items():
            lines.append(shlex.join(["mount", "--bind", str(source), str(place)]))
        for path in map(shlex.quote, self.hidden):
            empty_folder = f"mount -t tmpfs -o size=64k,mode=755 none {path}"
            empty_file = f"mount --bind /dev/null {path}"
            lines.append(f"if [ -d {path} ]; then {empty_folder}; elif [ -e {path} ]; then {empty_file}; fi")
        return lines
