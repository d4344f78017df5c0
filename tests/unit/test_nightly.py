"""The script of docs/operations.md, "Every night", with a program that ends as it is told in the place of submit.sh."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = """#!/usr/bin/env bash
echo "$1 ${*: -1}" >> calls
codes=$(grep "^$1 " ends) || exit 0
read -r -a codes <<< "$codes"
sed -i "s/^$1 [0-9]*/$1/" ends
exit "${codes[1]:-0}"
"""


def nightly() -> str:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (script,) = re.findall(r"^```bash\n(#!.*?nightly\.sh.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(script)


@pytest.mark.parametrize(
    ("ends", "called", "code"),
    [
        ("", ["convert", "convert", "train", "evaluate", "report"], 0),
        ("train 71 75", ["convert", "convert", "train", "train", "train", "evaluate", "report"], 0),
        ("train 69 69 69", ["convert", "convert", "train", "train", "train", "report"], 69),
        ("convert 65", ["convert", "report"], 65),
        ("convert 65\nreport 66", ["convert", "report"], 65),
        ("train 76", ["convert", "convert", "train", "report"], 76),
        ("report 77", ["convert", "convert", "train", "evaluate", "report"], 77),
    ],
)
def test_a_night_ends_as_its_worst_command_and_always_has_a_page(
    tmp_path: Path, ends: str, called: list[str], code: int
) -> None:
    (tmp_path / "scripts").mkdir()
    submit = tmp_path / "scripts" / "submit.sh"
    submit.write_text(STUB)
    submit.chmod(0o755)
    (tmp_path / "ends").write_text(f"{ends}\n")
    script = nightly().replace("cd /opt/tfos_job", f"cd {tmp_path}").replace("sleep 60", ":")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [name for name, _ in calls] == called, done.stderr
    assert done.returncode == code
    assert re.fullmatch(r"hdfs:///user/me/hwdb/pages/\d{4}-\d\d-\d\d\.html", calls[-1][1])
