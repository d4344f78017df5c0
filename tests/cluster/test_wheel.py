"""The package as others get it: scripts/wheel.py builds it, installs it alone and runs its commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tfos_job
from tests.command import ROOT, tally

pytestmark = pytest.mark.cluster


def test_every_command_works_from_the_wheel(tmp_path: Path) -> None:
    tally["starts"] += 1
    program = [sys.executable, str(ROOT / "scripts" / "wheel.py"), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = [f"tfos_job-{tfos_job.__version__}{end}" for end in (".tar.gz", "-py3-none-any.whl")]
    assert done.stdout.splitlines() == [str(tmp_path / name) for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
