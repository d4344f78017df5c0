"""An attacker against running trainings, on every port that their processes have open; prints the table of outcomes.

    python tests/campaigns/attacker.py                         a training on local Spark
    python tests/campaigns/attacker.py --hosts                 and one on three hosts of YARN; as root
    python tests/campaigns/attacker.py --hosts --write         the table goes into docs/security.md as well

What is done is in tests/attacker.py. The trainings must end with 0, at their last step; no attack may make a file, no
secret may be found, no stranger may have a graph run. Exit code 1 where that is not so, 69 where there can be no hosts.
The table says nothing that differs from run to run.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # to be run as a program as well

from tests import attack_table  # noqa: E402
from tests.attacked import NAMES_OF_SOURCES, Found, LocalTraining  # noqa: E402
from tests.fault_places import convert_data  # noqa: E402
from tests.hadoop.conftest import upload  # noqa: E402
from tests.hadoop.hosted import HostedHadoop, obstacle  # noqa: E402
from tests.hadoop.hosted_attack import HostedAttack  # noqa: E402
from tfos_job.driver.local_spark import JAVA_OPTIONS  # noqa: E402

DOCUMENT = ROOT / "docs" / "security.md"


def local(dataset: Path, folder: Path) -> tuple[Found, str]:
    """What came of a training here, and what is not as it should be."""
    folder.mkdir()
    training = LocalTraining(dataset, folder)
    try:
        found = training.run()
    finally:
        training.close()
    return found, fault(found, training.marker, NAMES_OF_SOURCES)


def hosted(dataset: Path, folder: Path) -> tuple[Found, dict[str, str], str]:
    """The same on hosts; with the sources by their addresses."""
    folder.mkdir()
    hadoop = HostedHadoop(folder / "hadoop")
    try:
        hadoop.up()
        os.environ["HADOOP_CONF_DIR"] = str(hadoop.conf_dir)
        os.environ["SPARK_SUBMIT_OPTS"] = JAVA_OPTIONS
        data = upload(dataset, f"{hadoop.url}/attacker/dataset")
        training = HostedAttack(hadoop, data, f"{hadoop.url}/attacker/run", folder)
        try:
            found = training.run()
        finally:
            training.command.end()
        sources = (
            NAMES_OF_SOURCES
            | {hadoop.here: attack_table.ELSEWHERE}
            | dict.fromkeys(hadoop.hosts, attack_table.OWN_HOST)
        )
        return found, sources, fault(found, training.marker, sources)
    finally:
        hadoop.run("down")


def fault(found: Found, marker: Path, sources: dict[str, str]) -> str:
    """What is not as it should be, in words."""
    if found.exit_code:
        return f"the training has ended with {found.exit_code}: {found.said[-3000:]}"
    if marker.exists():
        return f"an attack has made {marker}"
    if found.leaks:
        return f"secrets are told: {found.leaks}"
    believed = [
        each for each in found.intrusions if sources[each[0]] == attack_table.ELSEWHERE and each[2] == "written"
    ]
    return f"TensorFlow has served strangers: {believed}" if believed else ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="trainings that are attacked on every port that their processes have")
    parser.add_argument("--hosts", action="store_true", help="also on three hosts of YARN, which takes root")
    parser.add_argument("--write", action="store_true", help=f"the table also into {DOCUMENT.relative_to(ROOT)}")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the hosts are removed
    if args.hosts and (missing := obstacle()):
        print(f"no hosts of their own on this machine: {missing}", file=sys.stderr)
        return 69
    with tempfile.TemporaryDirectory(prefix="tfos_job-attacker-") as name:
        folder = Path(name)
        dataset = convert_data(folder)
        found, wrong = local(dataset, folder / "local")
        outcomes, sources, faults = found.outcomes, dict(NAMES_OF_SOURCES), [wrong]
        if args.hosts:
            found, on_hosts, wrong = hosted(dataset, folder / "hosted")
            outcomes, sources, faults = outcomes + found.outcomes, sources | on_hosts, [*faults, wrong]
    made = attack_table.table(outcomes, sources)
    print(made)
    if args.write:
        attack_table.write(DOCUMENT, made)
    for each in filter(None, faults):
        print(each, file=sys.stderr)
    return 1 if any(faults) else 0


if __name__ == "__main__":
    sys.exit(main())
