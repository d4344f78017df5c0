"""What a job gets of the shell's environment: functions, and what libraries make of the result."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest

from tfos_job.host import process_environment
from tfos_job.host.process_environment import (
    VariableChange,
    applied,
    apply,
    settle,
    settle_local_spark,
    settle_submission,
)


def settled(**found: str) -> dict[str, str]:
    environ = dict(found)
    apply(environ, settle(environ))
    assert settle(environ) == []  # whoever is started from it changes nothing more
    return environ


@pytest.mark.parametrize(
    ("found", "after"),
    [
        ({"KERAS_BACKEND": "torch"}, {"KERAS_BACKEND": "tensorflow"}),
        ({"TF_CONFIG": '{"cluster": {}}', "TF_USE_LEGACY_KERAS": "1", "KERAS_NNX_ENABLED": "1"}, {}),
        ({"PYTHONINSPECT": "1", "MPLBACKEND": "TkAgg"}, {"MPLBACKEND": "agg"}),
        ({"http_proxy": "http://p:1"}, {"http_proxy": "http://p:1", "grpc_proxy": ""}),
        ({"https_proxy": "http://p:1"}, {"https_proxy": "http://p:1", "grpc_proxy": ""}),
        ({"grpc_proxy": "http://p:1", "no_proxy": "h"}, {"grpc_proxy": "", "no_proxy": "h"}),
        ({"GRPC_POLL_STRATEGY": "epollex"}, {}),
        ({"PYTHONWARNINGS": "error"}, {}),
        (
            {"PYTHONWARNINGS": "ignore::UserWarning,error::DeprecationWarning"},
            {"PYTHONWARNINGS": "ignore::UserWarning"},
        ),
    ],
    ids=lambda value: ",".join(value) or "nothing",
)
def test_what_breaks_a_job_is_left_out_or_overruled(found: dict[str, str], after: dict[str, str]) -> None:
    assert settled(**found) == after
    for change in settle(found):
        assert change.name in str(change)
        assert change.reason in str(change)


def test_what_users_set_on_purpose_stays() -> None:
    meant = {
        "CUDA_VISIBLE_DEVICES": "3",
        "GRPC_POLL_STRATEGY": "epoll1,poll",
        "HTTPS_PROXY": "http://p:1",  # gRPC reads small letters alone
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": "/data/keras",
        "LD_LIBRARY_PATH": "/usr/local/cuda/lib64",
        "OMP_NUM_THREADS": "4",
        "PYTHONPATH": "/home/u/networks",
        "PYTHONWARNINGS": "ignore",
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
        "TZ": "Asia/Shanghai",
        "http_proxy": "",
    }
    assert settle(meant) == []


@pytest.mark.parametrize(
    ("keras", "names"),
    [
        ({}, []),
        ({"backend": "tensorflow", "floatx": "float32", "epsilon": 1e-07, "image_data_format": "channels_last"}, []),
        ({"backend": "jax"}, ["KERAS_BACKEND"]),
        ({"image_data_format": "channels_first"}, ["KERAS_HOME"]),
        ({"backend": "torch", "floatx": "float16"}, ["KERAS_BACKEND", "KERAS_HOME"]),
        ({"epsilon": 1}, ["KERAS_HOME"]),  # Keras would not be imported
    ],
)
def test_a_configuration_file_of_keras(keras: dict[str, object], names: list[str]) -> None:
    assert [change.name for change in settle({}, keras=keras)] == names
    assert settle({"KERAS_BACKEND": "tensorflow"}, keras={"backend": "jax"}) == []


def test_a_locale_without_chinese_is_not_given_to_java() -> None:
    assert settle({"LC_ALL": "C"}, encoding="ANSI_X3.4-1968") == [
        VariableChange("LC_ALL", "C", "C.UTF-8", "Java could not open 汉字.gnt")
    ]
    assert settle({"LC_ALL": "C.UTF-8"}, encoding="ANSI_X3.4-1968") == []
    assert settle({"LANG": "zh_CN.GBK"}, encoding="GBK") == []


def test_sparks_workers_on_this_host_are_like_their_driver() -> None:
    environ = {"PYSPARK_PYTHON": "/usr/bin/python3", "SPARK_HOME": "/opt/spark-3.3", "HADOOP_CONF_DIR": "/etc/hadoop"}
    apply(environ, settle_local_spark(environ, python="/venv/bin/python", path="/a:/b"))
    assert environ == {
        "HADOOP_CONF_DIR": "/etc/hadoop",
        "PYSPARK_PYTHON": "/venv/bin/python",
        "PYSPARK_DRIVER_PYTHON": "/venv/bin/python",
        "PYTHONPATH": "/a:/b",
        "PYTHONSAFEPATH": "1",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    assert settle_local_spark(environ, python="/venv/bin/python", path="/a:/b") == []


def test_a_submission_brings_its_own_spark_and_python() -> None:
    kept = {"SPARK_HOME": "/opt/spark", "HADOOP_CONF_DIR": "/etc/hadoop", "JAVA_HOME": "/jdk"}
    environ = kept | {"SPARK_CONF_DIR": "/etc/spark", "PYSPARK_PYTHON": "python2", "PYTHONPATH": "/opt/spark/python"}
    apply(environ, settle_submission(environ))
    assert environ == kept


def test_this_process_as_its_user_has_set_it_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".keras").mkdir()
    file = tmp_path / ".keras" / "keras.json"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert process_environment.needed() == []
    file.write_text("no JSON, which Keras passes over")
    assert process_environment.needed() == []
    file.write_text(json.dumps({"image_data_format": "channels_first"}))
    (change,) = process_environment.needed()
    assert (
        str(change)
        == "KERAS_HOME is '/dev/null' for the job: Keras's keras.json has image_data_format 'channels_first'"
    )
    assert process_environment.settled()["KERAS_HOME"] == os.devnull
    assert "KERAS_HOME" not in os.environ
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    with warnings.catch_warnings(record=True):
        assert [change.name for change in process_environment.settle_process()] == ["KERAS_HOME", "PYTHONWARNINGS"]
        warnings.warn("no error", stacklevel=1)
    assert os.environ["KERAS_HOME"] == os.devnull
    assert process_environment.needed() == []


def test_changes_can_be_made_for_a_time() -> None:
    environ = {"PYSPARK_PYTHON": "/usr/bin/python3", "HOME": "/home/me"}
    before = dict(environ)
    with applied(environ, settle_local_spark(environ, python="/venv/bin/python", path="/a")):
        assert environ["PYSPARK_PYTHON"] == "/venv/bin/python"
        assert environ["PYTHONPATH"] == "/a"
    assert environ == before
