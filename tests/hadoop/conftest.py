"""One Hadoop for the tests of a worker, in a folder of its own, ended when they are; and what lies on it."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import runpy
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.command import Submission, Submit, starting, wait_until_gone
from tfos_job import storage
from tfos_job.driver.local_spark import JAVA_OPTIONS
from tfos_job.submit import yarn_client
from tfos_job.submit.environment import Shipment

ROOT = Path(__file__).resolve().parents[2]
# What scripts/hadoop.sh runs once the environment is set up, which it is where these tests run.
HADOOP = [sys.executable, str(ROOT / "scripts" / "hadoop.py")]
UP_TIMEOUT_S = 280
ANSWER_TIMEOUT_S = 60
ENDED = ("FINISHED", "FAILED", "KILLED")
"""States of an application for YARN."""

# What needs the environment in YARN's containers, in the order of the tests. The first has YARN unpack it, which takes
# one processor a minute and a half. Doctor is last, since it times an application and has another one wait as long.
ON_YARN = ("test_environment.py", "test_infer.py", "test_yarn.py", "test_doctor.py")
# What makes network namespaces with nodes in them: one after the other, since each takes all cores.
WITH_HOSTS = ("test_hosts.py", "test_wire.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {Path(__file__).with_name(name): number for number, name in enumerate(ON_YARN)}
    items.sort(key=lambda item: order.get(item.path, -1))


class Groups(LoadScopeScheduling):
    """Three groups for two workers, which have a Hadoop each; the environment is for one of them alone."""

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.partition("::")[0].rpartition("/")[2]
        return "yarn" if name in ON_YARN else "hosts" if name in WITH_HOSTS else "hdfs"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Not xdist's own groups: 3.8 marks them where pytest 9.2 does not look."""
    return Groups(config, log)


def pythons_of_this_host() -> list[str]:
    """Every Python 3 here, with its packages: what a node of a cluster need not have."""
    programs = {Path(sys.executable), Path(sys.base_prefix, "bin", "python3")}
    programs |= {path for folder in os.get_exec_path() for path in Path(folder).glob("python3*")}
    found = {Path(sys.prefix)}
    for program in {path.resolve() for path in programs if path.exists()}:
        prefix = program.parent.parent
        if prefix in (Path("/"), Path("/usr"), Path("/usr/local")):  # there is more than Python there
            found |= {program, *(prefix / "lib").glob("python3*")}
        else:
            found.add(prefix)
    return sorted(map(str, found))


def can_hide() -> bool:
    """Whether this process may have a view of the file system of its own, which takes root's rights."""
    command = ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, timeout=ANSWER_TIMEOUT_S, check=False).returncode == 0
    except OSError:
        return False


class Hadoop:
    """The daemons in a folder, and what is done to them."""

    num_hosts = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # No container sees a Python that did not travel with its job, wherever that can be arranged.
        self.hidden = pythons_of_this_host() if can_hide() else []

    def run(self, command: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*HADOOP, command, *words, str(self.folder)],
            env={**os.environ, "TFOS_JOB_HADOOP_HIDE": ":".join(self.hidden)},
            capture_output=True,
            text=True,
            timeout=UP_TIMEOUT_S,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def up(self) -> None:
        """Starts what does not run, and waits until all of it is ready."""
        self.run("up", *(("--hosts", str(self.num_hosts)) if self.num_hosts else ()))

    @property
    def conf_dir(self) -> Path:
        return self.folder / "conf"

    @property
    def state(self) -> dict[str, Any]:
        return json.loads((self.folder / "hadoop.json").read_text("utf-8"))

    @property
    def here(self) -> str:
        """Address of NameNode, ResourceManager and a driver in client mode."""
        return f"{self.state['subnet']}.1" if self.num_hosts else "127.0.0.1"

    @property
    def url(self) -> str:
        return f"hdfs://{self.here}:{self.state['ports']['namenode.rpc']}"

    def pid(self, daemon: str) -> int:
        return self.state["daemons"][daemon]["pid"]

    def kill(self, daemon: str) -> None:
        process = psutil.Process(self.pid(daemon))
        process.kill()
        assert not wait_until_gone([process], UP_TIMEOUT_S)

    def freeze(self, daemon: str) -> None:
        """Stops it, until `thaw`; its threads may answer for a moment after the signal."""
        process = psutil.Process(self.pid(daemon))
        process.suspend()
        while process.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)

    def thaw(self, daemon: str) -> None:
        psutil.Process(self.pid(daemon)).resume()

    def webhdfs(self, path: str, query: str, method: str = "PUT") -> Any:
        """What an administrator does, as the user who owns this HDFS."""
        url = f"http://{self.here}:{self.state['ports']['namenode.http']}/webhdfs/v1{path}?{query}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(url, method=method), timeout=ANSWER_TIMEOUT_S) as response:
            return json.loads(response.read() or "null")

    def rest(self, path: str) -> Any:
        """A page of the ResourceManager."""
        url = f"http://{self.here}:{self.state['ports']['resourcemanager.http']}{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=ANSWER_TIMEOUT_S) as response:
            return json.load(response)

    def application(self, application_id: str) -> dict[str, Any]:
        """What YARN says of an application."""
        return self.rest(f"/ws/v1/cluster/apps/{application_id}")["app"]

    def applications(self, query: str = "") -> list[str]:
        return [app["id"] for app in (self.rest(f"/ws/v1/cluster/apps{query}")["apps"] or {}).get("app", [])]

    def wait_for_end(self, application_id: str) -> dict[str, Any]:
        """What YARN says of an application that has ended."""
        while (app := self.application(application_id))["state"] not in ENDED:
            time.sleep(0.5)
        return app

    def end_application(self, application_id: str) -> None:
        port = self.state["ports"]["resourcemanager.http"]
        request = urllib.request.Request(
            f"http://{self.here}:{port}/ws/v1/cluster/apps/{application_id}/state?user.name={getpass.getuser()}",
            data=b'{"state": "KILLED"}',
            headers={"Content-Type": "application/json"},
            method="PUT",
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=ANSWER_TIMEOUT_S):
            pass


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Keeps other workers out: a port that is free for one Hadoop would be free for another one until it is taken."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def hadoop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hadoop]:
    """A running Hadoop; HADOOP_CONF_DIR points to it."""
    cluster = Hadoop(tmp_path_factory.mktemp("hadoop"))
    try:
        with one_at_a_time(tmp_path_factory.getbasetemp().parent / "hadoop.lock"):
            cluster.up()
        os.environ["HADOOP_CONF_DIR"] = str(cluster.conf_dir)
        os.environ["SPARK_SUBMIT_OPTS"] = JAVA_OPTIONS
        yield cluster
    finally:
        os.environ.pop("HADOOP_CONF_DIR", None)
        os.environ.pop("SPARK_SUBMIT_OPTS", None)
        cluster.run("down")
        assert not cluster.folder.exists()


@pytest.fixture(scope="session")
def ship_dir(hadoop: Hadoop) -> str:
    """Where `submit` keeps its archives unless told otherwise: uploaded, and unpacked by YARN, once for all tests."""
    return f"{hadoop.url}/user/{getpass.getuser()}/.tfos_job"


@pytest.fixture
def hdfs_dir(hadoop: Hadoop, request: pytest.FixtureRequest) -> str:
    """An empty folder on HDFS for one test."""
    url = f"{hadoop.url}/tests/{request.node.name}"
    storage.make_dirs(url)
    return url


@pytest.fixture(scope="session")
def dataset_on_hdfs(hadoop: Hadoop, small_dataset: Path) -> str:
    """The small dataset; who changes it uploads one of his own."""
    return upload(small_dataset, f"{hadoop.url}/small/dataset")


def upload(folder: Path, url: str) -> str:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = f"{url}/{path.relative_to(folder)}"
            storage.make_dirs(target.rpartition("/")[0])
            storage.write_bytes(target, path.read_bytes())
    return url


@pytest.fixture(scope="session")
def from_wheel(tmp_path_factory: pytest.TempPathFactory) -> type[Submission]:
    """Submissions by the `tfos-job` of a wheel, which is installed alone into an environment of its own."""
    wheel = runpy.run_path(str(ROOT / "scripts" / "wheel.py"))
    folder = tmp_path_factory.mktemp("wheel")
    _, built = wheel["build"](folder / "dist", folder / "work")
    tfos_job = wheel["install"](built, folder / "environment") / "tfos-job"

    class FromWheel(Submission):
        program = (str(tfos_job), "submit")

    return FromWheel


@pytest.fixture
def submit(hadoop: Hadoop) -> Iterator[Submit]:
    """Starts submissions, and ends those that a failed test leaves."""
    with starting(Submission) as start:
        yield start


def client_mode(
    settings: dict[str, str], shipment: Shipment | None = None, *, here: str = "127.0.0.1"
) -> dict[str, str]:
    """The environment of a `tfos-job COMMAND --master yarn`, whose driver is here.

    Args:
      settings: Spark's.
      shipment: what travels to the executors.
      here: address of the driver.
    """
    quick = dict.fromkeys(("spark.yarn.am.extraJavaOptions", "spark.executor.extraJavaOptions"), JAVA_OPTIONS)
    settings = {"spark.driver.host": here, "spark.ui.enabled": "false", **quick, **settings}
    environment = {"PYSPARK_PYTHON": sys.executable}
    if shipment is not None:
        settings |= {
            # As spark.archives it would be unpacked once more by the driver, and by each executor.
            "spark.yarn.dist.archives": shipment.python_archive,
            "spark.yarn.archive": shipment.spark_archive,
            "spark.submit.pyFiles": shipment.package,
        }
        # Without SPARK_HOME, pyspark's script would look for Spark with this Python, which is not there yet.
        environment = {"PYSPARK_PYTHON": "./environment/bin/python", "SPARK_HOME": str(yarn_client.spark_home())}
    words = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
    return environment | {"PYSPARK_SUBMIT_ARGS": shlex.join([*words, "pyspark-shell"])}
