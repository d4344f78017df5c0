"""The files of spark/kubernetes: templates by the API's own schema, and what an image's entrypoint starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.command import ROOT
from tfos_job.submit import driver_pod, spark_folder

FOLDER = ROOT / "spark" / "kubernetes"
VERSIONS = ("1.30", kubernetes_validate.latest_version())
# What a fake program prints: its arguments, and what the environment says of Python.
ECHO = (
    "#!/bin/bash\n"
    'printf "%s\\n" "$@"\n'
    'printf "%s\\n" "$PYSPARK_PYTHON $PYSPARK_DRIVER_PYTHON $SPARK_HOME" >&2\n'
    "exit 65\n"
)


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["driver.yaml", "executor.yaml", "rights.yaml"])
def test_they_are_what_the_api_takes(name: str, version: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_finds_a_wrong_word() -> None:
    pod = documents("driver.yaml")[0]
    pod["spec"]["restartpolicy"] = pod["spec"].pop("restartPolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("role", ["driver", "executor"])
def test_a_pod_has_no_more_rights_than_it_needs(role: str) -> None:
    path = spark_folder.pod_template(role)
    assert path == FOLDER / f"{role}.yaml"
    spec = documents(path.name)[0]["spec"]
    assert spec["restartPolicy"] == "Never"
    assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, 185)
    (container,) = spec["containers"]
    assert "env" not in container
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # Whatever is written must be on a volume.
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert {"/tmp", "/opt/spark/work-dir", "/dev/shm"} <= set(mounted)
    assert {volume["name"] for volume in spec["volumes"]} == set(mounted.values())
    if role == "driver":
        assert container["name"] == driver_pod.DRIVER
    else:
        assert spec["automountServiceAccountToken"] is False


def layout(root: Path) -> Path:
    subprocess.run([FOLDER / "layout.sh", root, sys.executable], check=True, timeout=120)
    return root / "opt"


def test_the_dockerfile_makes_what_the_templates_and_the_submission_name() -> None:
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    assert "kubernetes/layout.sh / /opt/tfos_job/venv/bin/python" in text
    assert 'ENTRYPOINT ["/usr/bin/tini", "-g", "--", "/opt/entrypoint.sh"]' in text
    assert "USER 185:185" in text
    assert "WORKDIR /opt/spark/work-dir" in text
    assert "PYSPARK_PYTHON=/opt/tfos_job/venv/bin/python" in text


def started(opt: Path, *words: str, **environment: str) -> tuple[list[str], str]:
    """The arguments and the Python of what an image starts, in its folder; the program is a fake one."""
    done = subprocess.run(
        [opt / "entrypoint.sh", *words],
        cwd=opt / "spark" / "work-dir",
        env={"PATH": os.environ["PATH"], "SPARK_HOME": str(opt / "spark"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 65, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()[-1]


def test_an_executor_is_started_as_spark_wants_it(tmp_path: Path) -> None:
    opt = layout(tmp_path)
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(ECHO)
    java.chmod(0o755)
    spark = {
        "SPARK_JAVA_OPT_0": "-Da=b c",
        "SPARK_JAVA_OPT_1": "-XX:TieredStopAtLevel=1",
        "SPARK_EXECUTOR_MEMORY": "512m",
        "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@driver:7078",
        "SPARK_EXECUTOR_ID": "1",
        "SPARK_EXECUTOR_CORES": "4",
        "SPARK_APPLICATION_ID": "spark-1",
        "SPARK_EXECUTOR_POD_IP": "10.0.0.7",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_EXECUTOR_POD_NAME": "exec-1",
        "SPARK_CONF_DIR": "/opt/spark/conf",
    }
    words, python = started(opt, "executor", JAVA_HOME=str(java.parents[1]), **spark)
    assert words[:6] == [
        *("-Da=b c", "-XX:TieredStopAtLevel=1", "-Xms512m", "-Xmx512m", "-cp"),
        f"/opt/spark/conf:{opt}/spark/jars/*",
    ]
    assert words[6] == "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
    given = dict(zip(words[7::2], words[8::2], strict=True))
    assert given == {
        "--driver-url": spark["SPARK_DRIVER_URL"],
        "--executor-id": "1",
        "--cores": "4",
        "--app-id": "spark-1",
        "--hostname": "10.0.0.7",
        "--resourceProfileId": "0",
        "--podName": "exec-1",
    }
    assert python.split()[0] == "/opt/tfos_job/venv/bin/python"
    assert (opt / "spark" / "work-dir" / "log4j2.properties").is_file()


def test_a_driver_is_started_with_the_words_of_its_pod(tmp_path: Path) -> None:
    opt = layout(tmp_path)
    (opt / "spark" / "bin").unlink()
    (opt / "spark" / "bin").mkdir()
    program = opt / "spark" / "bin" / "spark-submit"
    program.write_text(ECHO)
    program.chmod(0o755)
    words, python = started(opt, "driver", "--class", "Runner", "a b", SPARK_DRIVER_BIND_ADDRESS="10.0.0.1")
    assert words[:2] == ["--deploy-mode", "client"]
    assert "spark.driver.bindAddress=10.0.0.1" in words
    assert words[-3:] == ["--class", "Runner", "a b"]
    assert python.split()[1] == "/opt/tfos_job/venv/bin/python"


def test_other_words_are_a_command(tmp_path: Path) -> None:
    echo = tmp_path / "echo"
    echo.write_text(ECHO)
    echo.chmod(0o755)
    assert started(layout(tmp_path / "root"), str(echo), json.dumps({}))[0] == ["{}"]
