"""The Python that travels with a job, on a YARN whose containers see no other."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hadoop.conftest import Hadoop
from tfos_job import storage
from tfos_job.submit import distributions, environment, packing, yarn_client

pytestmark = pytest.mark.hadoop

MODULES = [
    *("tensorflow", "keras", "numpy", "PIL", "matplotlib.pyplot", "tensorboard", "google_crc32c", "hdfs_native"),
    *("tensorflowonspark.TFNode", "tensorflowonspark.TFCluster", "pkg_resources"),
    *("ssl", "sqlite3", "ctypes", "lzma", "bz2"),
]

# Runs as the driver, and `probe` in an executor as well. Spark itself brings the result to HDFS.
PROGRAM = """
import json
import os
from pyspark import SparkContext

MODULES = {modules}
HIDDEN = {hidden}

def probe(_):
    import importlib, sys
    import tfos_job
    for name in MODULES:
        importlib.import_module(name)
    seen = [path for path in HIDDEN if (os.listdir(path) if os.path.isdir(path) else os.access(path, os.X_OK))]
    yield json.dumps({{"executable": sys.executable, "package": tfos_job.__file__, "seen": seen}})

with SparkContext() as context:
    found = [*probe(0), *context.parallelize([0], 1).mapPartitions(probe).collect()]
    context.parallelize(found, 1).saveAsTextFile({output!r})
"""


@dataclass(frozen=True)
class Probe:
    """An application that runs `PROGRAM` in the Python of an archive.

    Attributes:
      folder: the archive's name in the containers.
      output: where what driver and executor say of themselves will lie.
    """

    process: subprocess.Popen[str]
    folder: str
    output: str

    def check(self) -> None:
        _, stderr = self.process.communicate()
        assert self.process.returncode == 0, stderr[-3000:]
        parts = [entry.path for entry in storage.find(self.output, "") if entry.name.startswith("part-")]
        found = [json.loads(line) for part in parts for line in storage.read_bytes(part).decode().splitlines()]
        assert len(found) == 2
        for process in found:
            assert process["executable"].endswith(f"/{self.folder}/bin/python")
            assert "/container_" in process["executable"]
            assert "/container_" in process["package"]
            assert process["seen"] == []


def start_probe(
    hadoop: Hadoop, program: Path, shipment: environment.Shipment, folder: str, modules: list[str], output: str
) -> Probe:
    program.write_text(PROGRAM.format(modules=modules, hidden=hadoop.hidden, output=output))
    settings = {
        "spark.yarn.archive": shipment.spark_archive,
        "spark.yarn.maxAppAttempts": "1",
        "spark.executor.instances": "1",
        "spark.driver.memoryOverhead": "1g",
        "spark.executor.memoryOverhead": "1g",
    }
    for where in ("spark.yarn.appMasterEnv.", "spark.executorEnv."):
        settings |= {f"{where}PYSPARK_PYTHON": f"./{folder}/bin/python", f"{where}PYTHONNOUSERSITE": "1"}
    home = yarn_client.spark_home()
    command = [str(home / "bin" / "spark-submit"), "--master", "yarn", "--deploy-mode", "cluster"]
    command += [argument for key, value in settings.items() for argument in ("--conf", f"{key}={value}")]
    command += ["--archives", shipment.python_archive, "--py-files", shipment.package, str(program)]
    # Spark hands its own PYTHONPATH on to the containers.
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYSPARK_PYTHON")}
    environ = {**kept, "SPARK_HOME": str(home), "HADOOP_CONF_DIR": str(hadoop.conf_dir)}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return Probe(process, folder, output)


@pytest.fixture(scope="module")
def probes(hadoop: Hadoop, ship_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Probe, Probe]]:
    """Two applications side by side: one in the environment that `submit` ships, one in a zip with numpy."""
    if not hadoop.hidden:
        pytest.skip("containers see this host's Pythons: a mount namespace needs root and CAP_SYS_ADMIN")
    folder, url = tmp_path_factory.mktemp("probes"), f"{hadoop.url}/environment"
    shipment = environment.prepare(ship_dir)
    own = start_probe(hadoop, folder / "own.py", shipment, environment.FOLDER, MODULES, f"{url}/own")
    with own.process:
        packing.write_zip(folder / "Python.zip", packing.members({"numpy": distributions.installed()["numpy"]}))
        archive = environment.publish(folder / "Python.zip", url)
        seeds_shipment = environment.Shipment(f"{archive}#Python", shipment.spark_archive, shipment.package)
        seeds = start_probe(hadoop, folder / "seeds.py", seeds_shipment, "Python", ["numpy"], f"{url}/seeds")
        with seeds.process:
            yield own, seeds


def test_driver_and_executor_run_on_the_python_that_travelled(probes: tuple[Probe, Probe]) -> None:
    probes[0].check()


def test_a_zip_serves_as_the_seed_job_ships_its_python(probes: tuple[Probe, Probe]) -> None:
    probes[1].check()


def test_what_is_there_is_neither_packed_nor_uploaded_again(ship_dir: str) -> None:
    shipment = environment.prepare(ship_dir)
    before, said = storage.list_dir(ship_dir), []
    again = environment.prepare(ship_dir, log=said.append)
    assert said == []
    assert storage.list_dir(ship_dir) == before  # times included
    assert (again.python_archive, again.package) == (shipment.python_archive, shipment.package)
    assert environment.plan(ship_dir).python_archive == shipment.python_archive
