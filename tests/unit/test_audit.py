"""scripts/audit.py finds the versions of constraints.txt that an advisory names, and no others."""

from __future__ import annotations

import datetime
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scripts" / "audit.py"
AUDIT = runpy.run_path(str(PROGRAM))

RANGE = """\
id: PYSEC-1
aliases: [CVE-1]
details: Two ranges,
  over two lines.
affected:
- package: {ecosystem: PyPI, name: Some.Package}
  ranges:
  - type: GIT
    events: [{introduced: "0"}]
  - type: ECOSYSTEM
    events: [{fixed: 1.10.0}, {introduced: "1.2"}, {introduced: 2.0rc1}, {fixed: 2.0.1}]
"""
LAST = """\
id: PYSEC-2
details: No release mends it.
affected:
- package: {ecosystem: npm, name: some-package}
  versions: ["9"]
- package: {ecosystem: PyPI, name: some-package}
  versions: ["3.0", "old and odd"]
  ranges:
  - type: ECOSYSTEM
    events: [{introduced: "2.5"}, {last_affected: 2.9.1}]
"""
WITHDRAWN = """\
id: PYSEC-3
withdrawn: 2024-01-01T00:00:00Z
affected:
- package: {ecosystem: PyPI, name: some-package}
  ranges:
  - type: ECOSYSTEM
    events: [{introduced: "0"}]
"""


@pytest.fixture
def advisories(tmp_path: Path) -> Path:
    folder = tmp_path / "database" / "vulns" / "some-package"
    folder.mkdir(parents=True)
    for number, text in enumerate((RANGE, LAST, WITHDRAWN), start=1):
        (folder / f"PYSEC-{number}.yaml").write_text(text)
    return tmp_path / "database"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.1", []),
        ("1.2", ["PYSEC-1"]),
        ("1.9.9", ["PYSEC-1"]),
        ("1.10.0", []),
        ("2.0rc1", ["PYSEC-1"]),
        ("2.0.1", []),
        ("2.5", ["PYSEC-2"]),
        ("2.9.1", ["PYSEC-2"]),
        ("2.9.1.post1", []),
        ("3.0.0", ["PYSEC-2"]),  # 3.0 by another spelling
        ("9", []),  # of another ecosystem's package of that name
    ],
)
def test_ranges_and_lists_of_versions(advisories: Path, version: str, expected: list[str]) -> None:
    wanted = AUDIT["pins"](f"# made\nOther==1\nsome_package=={version} ; python_version < '3.12'\n")
    assert [one.id for one in AUDIT["audit"](wanted, advisories)] == expected


def run(*flags: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PROGRAM, *map(str, flags)], capture_output=True, text=True, check=False)


def test_what_is_found_is_a_table_and_an_exit_code_unless_it_is_accepted(advisories: Path, tmp_path: Path) -> None:
    constraints, accepted = tmp_path / "constraints.txt", tmp_path / "accepted.txt"
    constraints.write_text("some-package==1.5\nsome-package==2.7 ; python_version >= '3.12'\n")
    accepted.write_text("# none\n")
    flags = ("--advisories", advisories, "--constraints", constraints, "--ignored", accepted)
    found = run(*flags)
    assert found.returncode == 1
    assert [line.split() for line in found.stdout.splitlines()[1:]] == [
        ["some-package", "1.5", "PYSEC-1", "1.10.0,", "2.0.1", "Two", "ranges,", "over", "two", "lines."],
        ["some-package", "2.7", "PYSEC-2", "-", "No", "release", "mends", "it."],
    ]
    accepted.write_text("CVE-1 2999-01-01 we do not call it\nPYSEC-2 2999-01-01 nor that\n")
    assert (run(*flags).returncode, run(*flags).stdout) == (0, "")
    assert run("--print-ignored", "--ignored", accepted).stdout == "CVE-1\nPYSEC-2\n"
    accepted.write_text("CVE-1 2999-01-01 we do not call it\nPYSEC-2 2020-01-01 nor that\n")
    assert run(*flags).stdout.count("PYSEC") == 1


def test_what_cannot_be_compared_is_no_good_news(advisories: Path, tmp_path: Path) -> None:
    good = tmp_path / "constraints.txt"
    good.write_text("some-package==1.5\n")
    for flags, words in (
        (("--advisories", tmp_path), "no checkout of pypa/advisory-database"),
        (("--advisories", advisories, "--constraints", tmp_path / "none"), "none"),
    ):
        found = run("--constraints", good, *flags)
        assert (found.returncode, words in found.stderr) == (2, True)
    (advisories / "vulns" / "some-package" / "PYSEC-4.yaml").write_text(RANGE.replace("1.10.0", "yesterday"))
    found = run("--constraints", good, "--advisories", advisories)
    assert found.returncode == 2
    assert "PYSEC-4.yaml: a range cannot be compared" in found.stderr


def test_a_line_without_a_version_a_date_or_a_reason_is_refused() -> None:
    error: Any = AUDIT["AuditError"]
    for line in ("some-package", "some-package>=1", "some-package==1,<2", "-r other.txt"):
        with pytest.raises(error, match="is not NAME==VERSION"):
            AUDIT["pins"](line)
    for line in ("PYSEC-1", "PYSEC-1 2999-01-01", "PYSEC-1 soon it is no matter"):
        with pytest.raises(error, match="is not ID YYYY-MM-DD REASON"):
            AUDIT["ignored"](line, datetime.date(2026, 1, 1))


def test_what_an_install_gets_can_be_compared() -> None:
    """The files of this repository."""
    pins = AUDIT["pins"]((ROOT / "constraints.txt").read_text("utf-8"))
    assert {"tensorflow", "pyspark", "pillow"} <= {pin.name for pin in pins}
    AUDIT["ignored"]((ROOT / "scripts" / "audit-ignored.txt").read_text("utf-8"), datetime.date(2026, 1, 1))
