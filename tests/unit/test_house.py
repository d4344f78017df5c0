"""What holds for the repository as a whole, and would otherwise be remembered by nobody."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools

import tfos_job
from tfos_job import config, errors

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")

# The flags that belong to every command, beside those of its configuration.
COMMON_FLAGS = {"master", "verbose", "debug", "help"}
CONFIGS = {
    "synth": config.SynthConfig,
    "convert": config.ConvertConfig,
    "verify": config.VerifyConfig,
    "inspect": config.InspectConfig,
    "train": config.TrainConfig,
    "evaluate": config.EvaluateConfig,
    "predict": config.PredictConfig,
    "report": config.ReportConfig,
    "tensorboard": config.TensorboardConfig,
    "doctor": config.DoctorConfig,
}


def package_modules() -> set[str]:
    paths = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "tfos_job").rglob("*.py"))
    return {".".join(path.parts) for path in paths if path.name != "__init__"}


def test_no_file_of_spark_hides_a_module() -> None:
    # spark-submit puts the file's folder first on sys.path: spark/tensorflow.py would be `import tensorflow`.
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions()) | {"tfos_job"}
    taken |= {name.rpartition(".")[2] for name in package_modules()}
    assert taken.isdisjoint(path.stem for path in (ROOT / "spark").glob("*.py"))


def test_setup_has_the_version_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", arguments.update)
    runpy.run_path(str(ROOT / "setup.py"))
    assert arguments["version"] == tfos_job.__version__
    assert arguments["name"] == "tfos_job"


PROGRAMS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tests" / "campaigns").glob("*.py")])


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_benchmark_and_campaign_starts(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are no part of the tests, so nothing else would say that one has lost what it imports.

    In this process, where TensorFlow and Spark are imported once for all of them.
    """
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.setattr(sys, "path", [str(path.parent), *(entry for entry in sys.path if entry not in ("", str(ROOT)))])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


def subclasses(kind: type[errors.JobError]) -> set[type[errors.JobError]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__() if child.__module__ == errors.__name__))


def test_readme_documents_the_exit_codes() -> None:
    rows = re.findall(r"^\| *([\d, ]+?) *\|.*?\| *([^|]*?) *\|$", README, re.MULTILINE)
    documented = {int(code): retry for codes, retry in rows for code in codes.split(",")}
    raised = {kind.exit_code: kind for kind in subclasses(errors.JobError)}
    # 0, argparse's own, and SIGTERM's beside SIGINT's are no class of their own.
    assert set(documented) == set(raised) | {0, 2, 143}
    for code, kind in raised.items():
        if kind is not errors.InterruptedJobError:
            assert (documented[code] == "yes") == kind.retryable, f"{code} {kind.__name__}"


@pytest.mark.parametrize("path", ["README.md", "scripts/quickstart.sh"])
def test_documented_commands_use_flags_that_exist(path: str) -> None:
    text = (ROOT / path).read_text("utf-8").replace("\\\n", " ")
    commands = re.findall(r"^\s*(?:run )?tfos-job (\w+)(.*)$", text, re.MULTILINE)
    assert commands
    for name, rest in commands:
        fields = {field.name for field in dataclasses.fields(CONFIGS[name])}
        assert set(re.findall(r"--(\w+)", rest)) <= fields | COMMON_FLAGS, name


def test_readme_lists_every_flag() -> None:
    flags = set(re.findall(r"--(\w+)", README))
    for name, kind in CONFIGS.items():
        missing = {field.name for field in dataclasses.fields(kind) if "nargs" not in field.metadata} - flags
        assert not missing, name


@pytest.mark.parametrize("path", [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"], ids=lambda p: p.name)
def test_scripts_are_strict_and_executable(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert "\nset -euo pipefail\n" in path.read_text("utf-8")
