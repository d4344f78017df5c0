"""What spark-submit logs, as Spark 4.3 on Hadoop 3.5 really does, and what is read from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfos_job import hadoop_conf
from tfos_job.errors import SettingsError
from tfos_job.submit.watch import Watched

FAILED = """\
WARNING: Using incubator modules: jdk.incubator.vector
INFO Client: Application ID is assigned: application_1795610618978_0001
INFO YarnClientImpl: Submitted application application_1795610618978_0001
INFO Client: Application report for application_1795610618978_0001 (state: ACCEPTED)
INFO Client:\x20
\t client token: N/A
\t diagnostics: AM container is launched, waiting for AM container to Register with RM
\t ApplicationMaster host: N/A
\t ApplicationMaster RPC port: -1
\t queue: root.gpu
\t start time: 1795610657317
\t final status: UNDEFINED
\t tracking URL: http://rm:8088/proxy/application_1795610618978_0001/
\t user: root
INFO Client: Application report for application_1795610618978_0001 (state: FAILED)
INFO Client:\x20
\t client token: N/A
\t diagnostics: Application application_1795610618978_0001 failed 1 times due to AM Container with  exitCode: -104
Failing this attempt.Diagnostics: Current usage: 1.2 GB of 1 GB physical memory used; Killing container.
For more detailed output, check the application tracking page.
\t ApplicationMaster host: N/A
\t ApplicationMaster RPC port: -1
\t queue: root.gpu
\t start time: 1795610657317
\t final status: FAILED
\t tracking URL: http://rm:8088/proxy/application_1795610618978_0001/
\t user: root
ERROR Client: Application diagnostics message: Application failed
Exception in thread "main" org.apache.spark.SparkException: Application application_1795610618978_0001 finished
\tat org.apache.spark.deploy.yarn.Client.run(Client.scala:1404)
"""


def watched(text: str) -> Watched:
    result = Watched()
    for second, line in enumerate(text.splitlines(keepends=True)):
        result.hear(line, float(second))
    return result


def test_an_application_from_its_submission_to_its_end() -> None:
    seen = watched(FAILED)
    assert seen.application == "application_1795610618978_0001"
    assert seen.state == "FAILED"
    assert seen.details["tracking URL"] == "http://rm:8088/proxy/application_1795610618978_0001/"
    assert seen.times["submitted"] < seen.times["accepted"] < seen.times["failed"]
    end = seen.end("train")
    assert end.final_status == "FAILED"
    assert "exitCode: -104" in end.diagnostics
    assert "1.2 GB of 1 GB physical memory used" in end.diagnostics
    assert "ApplicationMaster" not in end.diagnostics
    assert "SparkException" not in end.diagnostics


def test_what_was_refused_before_there_was_an_application() -> None:
    seen = watched('Exception in thread "main" java.lang.IllegalArgumentException: no\n\tat a.b(C.scala:1)\n')
    end = seen.end("train")
    assert (end.application, end.final_status) == ("", "")
    assert end.diagnostics == 'Exception in thread "main" java.lang.IllegalArgumentException: no'


def write_core_site(folder: Path, text: str) -> Path:
    (folder / "core-site.xml").write_text(text)
    return folder


def test_the_default_file_system(tmp_path: Path) -> None:
    name = "<configuration><property><name>fs.defaultFS</name><value>{}</value></property></configuration>"
    assert hadoop_conf.default_fs(write_core_site(tmp_path, name.format("hdfs://nn:8020/"))) == "hdfs://nn:8020"
    with pytest.raises(SettingsError, match="neither hdfs:// nor viewfs://"):
        hadoop_conf.default_fs(write_core_site(tmp_path, name.format("file:///")))
    with pytest.raises(SettingsError, match="cannot be understood"):
        hadoop_conf.default_fs(write_core_site(tmp_path, "<configuration>"))


def test_no_hadoop_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    with pytest.raises(SettingsError, match="HADOOP_CONF_DIR") as caught:
        hadoop_conf.conf_dir()
    assert caught.value.exit_code == 78
    monkeypatch.setenv("YARN_CONF_DIR", str(tmp_path))
    assert hadoop_conf.conf_dir() == tmp_path
