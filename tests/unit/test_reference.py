"""docs/reference.md holds every flag and every exit code, and says so where it is stale."""

from __future__ import annotations

import dataclasses
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tfos_job import errors
from tfos_job.cli import COMMANDS

PROGRAM = Path(__file__).resolve().parents[2] / "scripts" / "reference.py"


@pytest.fixture(scope="module")
def text() -> str:
    return runpy.run_path(str(PROGRAM))["render"]()


def section(text: str, title: str) -> str:
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_flag_of_a_command_is_one_row_of_its_section(text: str, name: str) -> None:
    rows = [line.split(" | ")[0] for line in section(text, name).splitlines() if line.startswith("| `")]
    fields = dataclasses.fields(COMMANDS[name].config)
    flags = [field.metadata["metavar"] if "nargs" in field.metadata else f"--{field.name}" for field in fields]
    assert sorted(rows) == sorted(f"| `{flag}`" for flag in flags)


def test_a_row_has_value_default_text_and_what_a_run_does_with_it(text: str) -> None:
    rows = section(text, "train").splitlines()
    assert any(
        row.startswith("| `--batch_size` | whole number, 1 or more | `128` | ") and row.endswith("| *recipe* |")
        for row in rows
    )
    assert any(row.startswith("| `--epoch` | whole number, 1 or more, `none` | – | ") for row in rows)
    assert any(row.startswith("| `--warmup_steps` | whole number, more than 0 or `off` | `off` | ") for row in rows)
    assert any(row.startswith("| `--allow_cpu` | `true`, `false` | `false` | ") for row in rows)
    assert any(row.startswith("| `--dataset_dir` | path | required, unless the run has it | ") for row in rows)


def test_exit_codes_say_whether_to_try_again(text: str) -> None:
    cells = [line.strip("| ").split(" | ") for line in section(text, "Exit codes").splitlines()[3:] if line]
    documented = {int(code): retry for code, _, retry in cells}
    raised = {kind.exit_code: kind.retryable for kind in errors.JobError.__subclasses__()}
    assert {code for code, retry in documented.items() if retry == "yes"} == {c for c, again in raised.items() if again}
    assert set(documented) == {*raised, errors.JobError.exit_code, 0, 2, 143}


def test_a_stale_file_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    copy = tmp_path / "scripts" / "reference.py"
    copy.parent.mkdir()
    (tmp_path / "docs").mkdir()
    copy.write_text(PROGRAM.read_text("utf-8"), "utf-8")

    def run(flag: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(copy), flag], capture_output=True, text=True)

    assert run("--check").returncode == 1
    assert run("--write").returncode == 0
    assert run("--check").returncode == 0
    made = tmp_path / "docs" / "reference.md"
    made.write_text(made.read_text("utf-8").replace("`128`", "`127`", 1), "utf-8")
    stale = run("--check")
    assert stale.returncode == 1
    assert "scripts/reference.py --write" in stale.stderr
