"""What holds for every test: clean environment, no process left behind; and what several folders' tests stand on."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pyspark.sql import SparkSession

from tests.campaigns.accuracy import unpacked
from tests.command import Command, StartCommand, is_alive, starting
from tfos_job.config import ConvertConfig, SynthConfig
from tfos_job.driver.local_spark import JAVA_OPTIONS
from tfos_job.jobs.convert import convert
from tfos_job.local_jobs.synth import synthesize

pytest_plugins = ["tests.account"]

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA_DIR = ROOT.parent / "shared" / "data"
REAL_ARCHIVES = ("cmnist.tar.xz", "casia-small.tar.xz")

# Settings of the machine that would change what Spark, Hadoop or TensorFlow do in a test. PATH, HOME, TMPDIR and
# JAVA_HOME stay.
FOREIGN_PREFIXES = ("SPARK_", "PYSPARK_", "HADOOP_", "YARN_", "TF_", "TFOS_JOB_")
KEPT_NAMES = ("TFOS_JOB_CACHE",)  # where the Hadoop tests find their jars
FOREIGN_NAMES = ("CUDA_VISIBLE_DEVICES", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH")

# Every process that a test starts inherits this variable, so that one which outlives its parent is found as well.
RUN_VARIABLE = "TFOS_JOB_TEST_RUN"
PROCESS_GRACE_S = 15.0


def pytest_configure() -> None:
    for name in list(os.environ):
        if name in FOREIGN_NAMES or (name.startswith(FOREIGN_PREFIXES) and name not in KEPT_NAMES):
            del os.environ[name]
    os.environ[RUN_VARIABLE] = uuid.uuid4().hex


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """Every test starts from the environment that `pytest_configure` cleaned, whatever the one before it set."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in REAL_ARCHIVES if not (REAL_DATA_DIR / name).is_file()]
    if missing:
        skip = pytest.mark.skip(reason=f"real handwriting is not there: {', '.join(missing)} in ../shared/data")
        for item in items:
            if item.get_closest_marker("real"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def real_data() -> Iterator[Path]:
    """A folder with `cmnist/*.gnt` and `casia-small/{train,test}/*.gnt`; for tests marked `real`."""
    with unpacked(REAL_DATA_DIR) as folder:
        yield folder


SPARK_SETTINGS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": JAVA_OPTIONS,
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """Two slots and two attempts of a task, for all tests that need no more of Spark than that it is a real one."""
    builder = SparkSession.builder.master("local[2,2]").appName("tests")
    for key, value in SPARK_SETTINGS.items():
        builder = builder.config(key, value)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYSPARK_PYTHON", sys.executable)
        session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="session")
def small_dataset(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits `train` (8 writers, as many shards) and `test` (2 others) of 10 classes; their GNT files are in ../gnt.

    Made once for all; who changes it takes a copy.
    """
    folder = tmp_path_factory.mktemp("small")
    dataset_dir = str(folder / "dataset")
    for split, num_writers, first in (("train", 8, 1), ("test", 2, 9)):
        gnt_dir = str(folder / "gnt" / split)
        synthesize(SynthConfig(gnt_dir=gnt_dir, charset_size=10, num_writers=num_writers, first_writer=first))
        charset_size = 10 if split == "train" else None
        convert(
            spark,
            ConvertConfig(
                gnt_dir=gnt_dir, dataset_dir=dataset_dir, dataset_split_name=split, charset_size=charset_size
            ),
        )
    return folder / "dataset"


@pytest.fixture
def start() -> Iterator[StartCommand]:
    """Starts commands, and ends those that a failed test leaves."""
    with starting(Command) as start_command:
        yield start_command


@pytest.fixture(scope="session", autouse=True)
def no_process_left_behind() -> Iterator[None]:
    """Fails the run, at its end, where a process that a test started is still there; names them, then ends them."""
    yield
    _end_spark_gateway()
    _end_resource_tracker()
    deadline = time.monotonic() + PROCESS_GRACE_S
    while (left := processes_of_this_run()) and time.monotonic() < deadline:
        time.sleep(0.2)
    described = [_describe(process) for process in left]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    if described:
        pytest.fail("processes left behind by the tests:\n  " + "\n  ".join(described), pytrace=False)


def processes_of_this_run() -> list[psutil.Process]:
    """Children of this process, and any process that carries this run's marker, but for this one and the dead."""
    run_id = os.environ[RUN_VARIABLE]
    found = {process.pid: process for process in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(RUN_VARIABLE) == run_id:
                found[process.pid] = process
    return [process for process in found.values() if is_alive(process)]


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} (parent {process.ppid()}): {' '.join(process.cmdline())[:500]}"
    except psutil.Error:
        return f"{process.pid}: gone meanwhile"


def _end_spark_gateway() -> None:
    """A SparkContext in the test process keeps its JVM until the process ends; end it, to see what else is left."""
    if "pyspark.core.context" not in sys.modules and "pyspark.context" not in sys.modules:
        return
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:
        SparkContext._active_spark_context.stop()
    gateway = SparkContext._gateway
    if gateway is None:
        return
    jvm = getattr(gateway, "proc", None)
    gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None
    if jvm is not None:
        jvm.stdin.close()
        with contextlib.suppress(Exception):
            jvm.wait(timeout=10)


def _end_resource_tracker() -> None:
    """multiprocessing's helper of spawned processes ends with its parent; it is not a process of the tests."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    stop = getattr(getattr(module, "_resource_tracker", None), "_stop", None)
    if stop is not None:
        with contextlib.suppress(Exception):
            stop()
