"""The Python that travels with a job, on a YARN whose containers see no other."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tfos_job import storage
from tfos_job.submit import distributions, environment, packing

pytestmark = pytest.mark.hadoop

SUBMIT_TIMEOUT_S = 280

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


def submit(
    hadoop: Any, tmp_path: Path, shipment: environment.Shipment, folder: str, modules: list[str], output: str
) -> list:
    """What driver and executor say of themselves."""
    program = tmp_path / "probe_job.py"
    program.write_text(PROGRAM.format(modules=modules, hidden=hadoop.hidden, output=output))
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parent
    settings = {
        "spark.yarn.archive": shipment.spark_archive,
        "spark.yarn.maxAppAttempts": "1",
        "spark.executor.instances": "1",
        "spark.driver.memoryOverhead": "1g",
        "spark.executor.memoryOverhead": "1g",
    }
    for where in ("spark.yarn.appMasterEnv.", "spark.executorEnv."):
        settings |= {f"{where}PYSPARK_PYTHON": f"./{folder}/bin/python", f"{where}PYTHONNOUSERSITE": "1"}
    command = [str(home / "bin" / "spark-submit"), "--master", "yarn", "--deploy-mode", "cluster"]
    command += [argument for key, value in settings.items() for argument in ("--conf", f"{key}={value}")]
    command += ["--archives", shipment.python_archive, "--py-files", shipment.package, str(program)]
    # Spark hands its own PYTHONPATH on to the containers.
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYSPARK_PYTHON")}
    environ = {**kept, "SPARK_HOME": str(home), "HADOOP_CONF_DIR": str(hadoop.conf_dir)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SUBMIT_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    parts = [entry.path for entry in storage.find(output, "") if entry.name.startswith("part-")]
    return [json.loads(line) for part in parts for line in storage.read_bytes(part).decode().splitlines()]


def check(found: list, folder: str) -> None:
    assert len(found) == 2
    for process in found:
        assert process["executable"].endswith(f"/{folder}/bin/python")
        assert "/container_" in process["executable"]
        assert "/container_" in process["package"]
        assert process["seen"] == []


@pytest.fixture
def hidden(hadoop) -> None:
    if not hadoop.hidden:
        pytest.skip("containers see this host's Pythons: a mount namespace needs root and CAP_SYS_ADMIN")


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("hidden")
def test_driver_and_executor_run_on_the_python_that_travelled(
    hadoop, ship_dir: str, hdfs_dir: str, tmp_path: Path
) -> None:
    shipment = environment.prepare(ship_dir)
    before = storage.list_dir(ship_dir)
    modules = [
        "tensorflow",
        "keras",
        "numpy",
        "PIL",
        "matplotlib.pyplot",
        "tensorboard",
        "google_crc32c",
        "hdfs_native",
    ]
    modules += [
        "tensorflowonspark.TFNode",
        "tensorflowonspark.TFCluster",
        "pkg_resources",
        "ssl",
        "sqlite3",
        "ctypes",
        "lzma",
        "bz2",
    ]
    found = submit(hadoop, tmp_path, shipment, environment.FOLDER, modules, f"{hdfs_dir}/out")
    check(found, environment.FOLDER)
    again = environment.prepare(ship_dir)
    assert storage.list_dir(ship_dir) == before  # times included: nothing was uploaded again
    assert again.pack_s < 10
    assert (again.python_archive, again.package) == (shipment.python_archive, shipment.package)
    assert environment.plan(ship_dir).python_archive == shipment.python_archive


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("hidden")
def test_a_zip_serves_as_the_seed_job_ships_its_python(hadoop, ship_dir: str, hdfs_dir: str, tmp_path: Path) -> None:
    available = distributions.installed()
    packing.write_zip(tmp_path / "Python.zip", packing.members({"numpy": available["numpy"]}))
    ready = environment.prepare(ship_dir, python=False)
    url = environment.publish(tmp_path / "Python.zip", hdfs_dir)
    shipment = environment.Shipment(f"{url}#Python", ready.spark_archive, ready.package)
    check(submit(hadoop, tmp_path, shipment, "Python", ["numpy"], f"{hdfs_dir}/out"), "Python")
