"""Spark's own client against a stand-in for the API server, and the layout of an image on local Spark.

No cluster is here, and no pod runs: what is proved is what Spark sends and says, and that the programs of the layout
work with the words that a driver's pod is started with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.command import ROOT, tally
from tests.pod_server import RUNNING, PodServer, serving, terminated
from tfos_job.outcome import OUTCOME_DIR_VARIABLE

pytestmark = pytest.mark.cluster

FAILED = {"phase": "Failed", "containerStatuses": [terminated(1, name="proxy"), terminated(137, "OOMKilled")]}


def submit(server: PodServer, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    tally["starts"] += 1
    return subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "tfos_job",
                "submit",
                "convert",
                "--master",
                f"k8s://http://127.0.0.1:{server.port}",
            ),
            *("--image", "registry/tfos:1", "--namespace", "ml", "--hdfs_dir", (tmp_path / "jobs").as_uri()),
            *("--gnt_dir", tmp_path.as_uri(), "--dataset_dir", (tmp_path / "data").as_uri(), *words),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KUBECONFIG": os.devnull},
    )


def write_outcome(tmp_path: Path, pod: dict[str, Any]) -> None:
    """Does the driver's part: its account, where the pod's environment says."""
    environment = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    folder = environment[OUTCOME_DIR_VARIABLE].removeprefix("file://")
    error = {"fact": "damaged", "place": "shard 3", "next_step": "Repair it"}
    told = {"exit_code": 65, "error": error, "attempt": 1, "host": "pod", "log_url": "", "results": [{"num_bad": 1}]}
    Path(folder, f"{environment['SPARK_APPLICATION_ID']}.json").write_text(json.dumps(told))


def test_the_pod_that_spark_makes_and_its_end(tmp_path: Path) -> None:
    with serving(states=[RUNNING, FAILED], on_pod=lambda pod: write_outcome(tmp_path, pod)) as server:
        done = submit(server, tmp_path)
    assert done.returncode == 65, done.stderr
    assert "shard 3: damaged. Repair it" in done.stderr
    assert json.loads(done.stdout) == {"num_bad": 1}
    pod = dict(server.pod)
    pod.pop("status")
    pod["metadata"].pop("resourceVersion")
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "driver"
    assert "local:///opt/tfos_job/spark/convert_job.py" in container["args"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/tmp", "/dev/shm", "/opt/spark/work-dir", "/opt/spark/conf"} <= mounted


def test_a_pod_that_is_refused_or_deleted(tmp_path: Path) -> None:
    refusal = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound"}
    with serving(refusal={**refusal, "message": 'namespaces "ml" not found'}) as server:
        refused = submit(server, tmp_path)
    assert refused.returncode == 78, refused.stderr
    assert 'namespaces "ml" not found' in refused.stderr
    with serving(states=[RUNNING, None]) as server:
        deleted = submit(server, tmp_path)
    assert deleted.returncode == 71, deleted.stderr
    assert "the driver's pod was deleted while it was at work" in deleted.stderr


def test_the_layout_of_an_image_runs_a_job(small_dataset: str, tmp_path: Path) -> None:
    subprocess.run([ROOT / "spark" / "kubernetes" / "layout.sh", tmp_path, sys.executable], check=True)
    opt = tmp_path / "opt"
    tally["starts"] += 1
    settings = tmp_path / "spark.properties"
    settings.write_text(
        "spark.master=local[2]\nspark.driver.host=127.0.0.1\n"
        "spark.driver.extraJavaOptions=-Dlog4j2.configurationFile=log4j2.properties\n"
    )
    done = subprocess.run(
        [
            *(opt / "entrypoint.sh", "driver", "--properties-file", settings),
            *("--class", "org.apache.spark.deploy.PythonRunner", f"local://{opt}/tfos_job/spark/verify_job.py"),
            *("--dataset_dir", small_dataset),
        ],
        cwd=opt / "spark" / "work-dir",
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "SPARK_HOME": str(opt / "spark"),
            "SPARK_DRIVER_BIND_ADDRESS": "127.0.0.1",
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_APPLICATION_ID": "spark-1",
            OUTCOME_DIR_VARIABLE: str(tmp_path),
        },
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "spark-1.json").read_text())
    assert (told["exit_code"], told["attempt"], told["application"]) == (0, 1, "spark-1")
    assert told["results"], told
