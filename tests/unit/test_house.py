"""What holds for the repository as a whole, and would otherwise be remembered by nobody."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.metadata
import inspect
import json
import os
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import tfos_job
from tfos_job import cli
from tfos_job.commands import parser
from tfos_job.commands.registry import SUBMIT
from tfos_job.config import TrainConfig, to_dict
from tfos_job.driver import run_account
from tfos_job.formats import manifest, manifest_parts
from tfos_job.local_jobs import synth
from tfos_job.run import attempts, checkpoint_files, checkpoints, exports, kept_predictions, promotion_entry
from tfos_job.statistics import pixel_statistics
from tfos_job.submit import main as submit
from tfos_job.submit import run_record
from tfos_job.submit.distributions import normalised

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def package_modules() -> set[str]:
    paths = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "tfos_job").rglob("*.py"))
    return {".".join(path.parts) for path in paths if path.name != "__init__"}


def test_no_file_of_spark_hides_a_module() -> None:
    # spark-submit puts the file's folder first on sys.path: spark/tensorflow.py would be `import tensorflow`.
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions()) | {"tfos_job"}
    taken |= {name.rpartition(".")[2] for name in package_modules()}
    assert taken.isdisjoint(path.stem for path in (ROOT / "spark").glob("*.py"))


def test_the_metadata_name_every_file_of_the_package() -> None:
    """That they are packed, too, is what scripts/wheel.sh proves."""
    tool = PYPROJECT["tool"]["setuptools"]
    packed = {
        path
        for package, patterns in tool["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace("tfos_job.spark", "spark").replace(".", "/")).glob(pattern)
    }
    files = [path for top in ("tfos_job", "spark") for path in (ROOT / top).rglob("*") if path.is_file()]
    assert packed == {path for path in files if path.suffix not in (".py", ".pyc")}


def test_the_version_is_a_literal_that_packaging_reads_without_an_import() -> None:
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "tfos_job.__version__"}
    assert f'\n__version__ = "{tfos_job.__version__}"\n' in (ROOT / "tfos_job" / "__init__.py").read_text("utf-8")


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_exact_versions_are_allowed_ones_of_every_requirement(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    pins: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)  # a name: no option, no path
            (version,) = pin.specifier
            assert (version.operator, pin.url) == ("==", None)
            if pin.marker is None or pin.marker.evaluate(environment):
                assert pins.setdefault(normalised(pin.name), version.version) == version.version
    project, build = PYPROJECT["project"], PYPROJECT["build-system"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    for text in [*project["dependencies"], *extras, *build["requires"]]:
        requirement = Requirement(text)
        assert pins[normalised(requirement.name)] in requirement.specifier, f"{text}: run scripts/constraints.sh"
        assert {bound.operator for bound in requirement.specifier} & {">=", "==", "~="}, f"{text}: no oldest version"


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


TOPS = ("tfos_job", "spark", "scripts", "tests", "benchmarks")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])


def documented_commands() -> list[Any]:
    """The command lines of the documents, each with the file that it stands in."""
    found = []
    for path in [*DOCUMENTS, ROOT / "scripts" / "quickstart.sh"]:
        text = path.read_text("utf-8").replace("\\\n", " ")
        for line in re.findall(
            r"^(?:[\d* ]+cd \S+ && |run | +)?((?:tfos-job|scripts/submit\.sh) \w.*)$", text, re.MULTILINE
        ):
            found.append(pytest.param(line, id=f"{path.name}: {line}"))
    return found


def documented_files() -> dict[str, str]:
    """The YAML files of the documents, by the name in their first line; and a run's record."""
    texts = [path.read_text("utf-8") for path in DOCUMENTS]
    blocks = [
        block for text in texts for block in re.findall(r"^```yaml\n(# .*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    record = json.dumps(to_dict(TrainConfig(dataset_dir="casia", train_dir="casia-hanzi")))
    return {block.split()[1]: block for block in blocks} | {"casia-hanzi/config.json": record}


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_are_accepted(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "--config" in line:
        monkeypatch.chdir(tmp_path)
        for name, text in documented_files().items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, "utf-8")
    program, *words = shlex.split(re.sub(r"\$\(.*?\)+|\$\w+", "1", line), comments=True)
    words = words[: next((at for at, word in enumerate(words) if word in (">>", ">", "--", "&&", "||")), len(words))]
    if program != "tfos-job" or words[0] == SUBMIT:
        words = words[words[0] == SUBMIT :]
        options, words = submit.make_parser().parse_known_args(words)
        words = [options.command, *words]
    parser.parse(cli.COMMANDS, words)


def anchors(path: Path) -> set[str]:
    """What a link may name after `#`: a document's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_the_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text("utf-8")):
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_modules_in_the_documents_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    there = [f"/{file.relative_to(ROOT)}" for top in TOPS for file in (ROOT / top).rglob("*.*")]
    there.append("/setup.py")
    files = re.findall(r"(?<![\w/.…*])[\w-]+(?:/[\w-]+)*\.py(?!\w)|\bscripts/\w+\.sh", text)
    names = set(re.findall(r"\btfos_job(?:\.[a-z_]+)+", text)) - {f"tfos_job.{name}" for name in tfos_job.__all__}
    modules = {name.replace(".", "/") for name in names}
    missing = {file for file in files if not any(name.endswith(f"/{file}") for name in there)}
    for name in modules:  # of a module, or of what is in one
        if not any(file.startswith((f"/{name}.py", f"/{name}/", f"/{name.rpartition('/')[0]}.py")) for file in there):
            missing.add(name)
    assert not missing


def test_architecture_has_every_module_of_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    listed: dict[str, set[str]] = {}
    room = ""
    for row in re.findall(r"^\| \d? ?\| (.*?) ?\| (.*?) ?\| ", text, re.MULTILINE):
        room = row[0].strip("`/") or room
        listed.setdefault(room, set()).update(re.findall(r"\w+", row[1].replace(" with ", ", ")))
    modules: dict[str, set[str]] = {}
    for name in package_modules():
        _, room, *module = name.split(".")
        modules.setdefault(room if module else f"{room}.py", set()).update(module)
    del modules["__main__.py"]
    assert listed == modules


def test_every_death_has_a_test() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = re.search(r"^\| who dies .*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None
    cells = [row.rpartition(" | ")[2] for row in table[1].splitlines()]
    for cell in cells:
        tests = cell.replace("as the first row", cells[0])
        files = [file if "/" in file else f"unit/{file}" for file in re.findall(r"`([\w/]+\.py)`", tests)]
        assert files
        content = "".join((ROOT / "tests" / file).read_text("utf-8") for file in files)
        assert [name for name in re.findall(r"`(\w+)`", tests) if f"\ndef test_{name}(" not in content] == []


def test_formats_has_every_version_and_field() -> None:
    text = (ROOT / "docs" / "formats.md").read_text("utf-8")
    versions = {
        "SPLIT/manifest.json": manifest.FORMAT_VERSION,
        "statistics-*.npz": pixel_statistics.FORMAT_VERSION,
        "synth.json": synth.FORMAT_VERSION,
        "checkpoint.json": checkpoint_files.FORMAT_VERSION,
        "export.json": exports.FORMAT_VERSION,
        "promotion.json": promotion_entry.FORMAT_VERSION,
        "evaluation/*.npz": kept_predictions.FORMAT_VERSION,
        "attempts/NNN.json": attempts.FORMAT_VERSION,
        "report.json": run_account.FORMAT_VERSION,
        "submission.json": run_record.FORMAT_VERSION,
    }
    for file, version in versions.items():
        assert f"| `{file}` | `format_version` {version} |" in text
    minor = tfos_job.__version__.rpartition(".")[0]
    numbers = (manifest.FORMAT_VERSION, checkpoint_files.FORMAT_VERSION, pixel_statistics.FORMAT_VERSION)
    numbers += (exports.FORMAT_VERSION,)
    (row,) = re.findall(rf"^\| {re.escape(minor)} \| (.*) \|$", text, re.MULTILINE)
    assert [int(re.match(r"\d+", cell)[0]) for cell in row.split(" | ")] == list(numbers)  # type: ignore[index]
    assert f"(adopted shards) {manifest.ADOPTED_FORMAT_VERSION}," in row
    parts = (
        manifest_parts.Source,
        manifest_parts.SourceRange,
        manifest_parts.Shard,
        manifest_parts.ImageFolder,
        manifest_parts.Revision,
        manifest_parts.Adoption,
        run_record.Record,
        run_record.Asked,
    )
    fields = {field.name for part in parts for field in dataclasses.fields(part)} | set(checkpoints.META_KEYS)
    fields |= {*promotion_entry.PromotionEntry.__struct_fields__, *kept_predictions.Header.__struct_fields__}
    assert not {field for field in fields if f"`{field}`" not in text}


def texts() -> list[str]:
    """What the package and the scripts may say: their strings, those in several pieces as one."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "tfos_job").rglob("*.py")]
    strings = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [text for text in strings if isinstance(text, str)] + [
        p.read_text("utf-8") for p in ROOT.glob("scripts/*.sh")
    ]


def test_troubleshooting_has_the_words_of_the_errors() -> None:
    rows = re.findall(r"^\| (.*?) \| ", (ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    quoted = [part for row in rows for quote in re.findall(r"`([^`]+)`", row) for part in quote.split("…")]
    said = texts()
    assert len(quoted) > 50
    unsaid = [part for part in quoted if not any(part.strip(" :,(") in text for text in said)]
    assert not unsaid


def test_python_within_scripts_uses_names_that_exist() -> None:
    """mypy does not see it. Names of the package are imported one by one there, so that this sees all of them."""
    sources = [
        source
        for script in (ROOT / "scripts").glob("*.sh")
        for source in re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON\n", script.read_text("utf-8"), re.DOTALL)
    ]
    imports = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if (node.module or "").startswith("tfos_job")]
    assert ours
    for node in ours:
        module = importlib.import_module(str(node.module))
        for alias in node.names:
            assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
            assert not inspect.ismodule(getattr(module, alias.name)), f"{node.module}.{alias.name} is a module"


@pytest.mark.parametrize("path", [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"], ids=lambda p: p.name)
def test_scripts_are_strict_and_executable(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert "\nset -euo pipefail\n" in path.read_text("utf-8")
