"""What keeps Spark's JVM from starting, in the words that OpenJDK 17 and Spark 4.3 really have for it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pyspark
import pytest
from pyspark import SparkContext

from tests.unit.waits import wait_until
from tfos_job.driver import jvm
from tfos_job.driver.jvm import check
from tfos_job.driver.spark_defaults import blamed, kept_defaults, read_defaults
from tfos_job.driver.start_errors import Host, explain_jvm
from tfos_job.errors import SettingsError
from tfos_job.host import jvm_output

BAD_OPTION = """\
Picked up _JAVA_OPTIONS: -Xbogus
Unrecognized option: -Xbogus
Error: Could not create the Java Virtual Machine.
Error: A fatal exception has occurred. Program will exit.
/opt/pyspark/bin/spark-class: line 97: CMD: bad array subscript
"""
BAD_HEAP = """\
Picked up JAVA_TOOL_OPTIONS: -Xms900g
Error occurred during initialization of VM
Initial heap size set to a larger value than the maximum heap size
/opt/pyspark/bin/spark-class: line 97: CMD: bad array subscript
"""
FEW_FILES = """\
WARNING: Using incubator modules: jdk.incubator.vector
Error: A JNI error has occurred, please check your installation and try again
Exception in thread "main" java.lang.InternalError: Error loading java.security file
\tat java.base/java.security.Security.initialize(Security.java:106)
"""
NO_NAME = """\
WARNING: Using incubator modules: jdk.incubator.vector
Exception in thread "main" java.lang.IllegalArgumentException: basedir must be absolute: ?/.ivy2.5.2/local
\tat org.apache.ivy.util.Checks.checkAbsolute(Checks.java:48)
"""
NO_ADDRESS = """\
Exception in thread "main" java.lang.ExceptionInInitializerError
\tat org.apache.spark.util.Utils$.localHostName(Utils.scala:1057)
Caused by: java.net.UnknownHostException: edge7: edge7: Name or service not known
\tat java.base/java.net.InetAddress.getLocalHost(InetAddress.java:1671)
\t... 10 more
Caused by: java.net.UnknownHostException: edge7: Name or service not known
\t... 17 more
"""
NO_CONF = """\
26/11/29 08:30:17 WARN Utils: Set SPARK_LOCAL_IP if you need to bind to another address
Exception in thread "main" org.apache.spark.SparkException: When running with master 'yarn' either HADOOP_CONF_DIR or \
YARN_CONF_DIR must be set in the environment.
\tat org.apache.spark.deploy.SparkSubmitArguments.error(SparkSubmitArguments.scala:651)
"""
OLD_JAVA = """\
Error: A JNI error has occurred, please check your installation and try again
Exception in thread "main" java.lang.UnsupportedClassVersionError: org/apache/spark/launcher/Main has been compiled by \
a more recent version of the Java Runtime (class file version 61.0), this version only recognizes up to 52.0
"""


@pytest.mark.parametrize(
    ("said", "environ", "words"),
    [
        (
            BAD_OPTION,
            {"_JAVA_OPTIONS": "-Xbogus"},
            "_JAVA_OPTIONS=-Xbogus: Spark's JVM does not start: Unrecognized op",
        ),
        (
            BAD_HEAP,
            {"JAVA_TOOL_OPTIONS": "-Xms900g"},
            "JAVA_TOOL_OPTIONS=-Xms900g: Spark's JVM does not start: Initial ",
        ),
        (NO_ADDRESS, {}, "edge7: Name or service not known. Give this host's name an address"),
        (NO_CONF, {"PYSPARK_SUBMIT_ARGS": "--master yarn pyspark-shell"}, "PYSPARK_SUBMIT_ARGS=--master yarn"),
        (OLD_JAVA, {"JAVA_HOME": "/usr/lib/jvm/java-8"}, "JAVA_HOME=/usr/lib/jvm/java-8: Spark's JVM does not start"),
    ],
)
def test_its_own_words_and_the_setting_to_change(said: str, environ: dict[str, str], words: str) -> None:
    error = explain_jvm(said, Host(open_files=65536, user=None, environ=environ))
    assert error.exit_code == 78
    assert words in str(error)
    assert "\n" not in str(error)


def test_what_the_host_does_not_give() -> None:
    few = explain_jvm(FEW_FILES, Host(open_files=256, user=None, environ={}))
    assert few.exit_code == 78
    assert str(few).startswith(
        "ulimit -n: Spark's JVM does not start: Error loading java.security file; only 256 files"
    )
    nameless = explain_jvm(NO_NAME, Host(open_files=65536, user=12345, environ={}))
    assert nameless.exit_code == 78
    assert "the user with the number 12345 has no name" in str(nameless)


def test_what_nobody_has_seen_before_and_what_does_not_happen_again_can_be_tried_again() -> None:
    host = Host(open_files=65536, user=None, environ={})
    assert explain_jvm("something new\n", host).exit_code == explain_jvm("", host).exit_code == 69
    assert "something new" in str(explain_jvm("something new\n", host))


def test_another_spark_and_options_that_are_none_are_refused_before_a_jvm_is_started(tmp_path: Path) -> None:
    good = {"PATH": os.environ["PATH"], "JAVA_HOME": os.environ.get("JAVA_HOME", "")}
    check(good | {"SPARK_HOME": str(Path(pyspark.__file__).parent), "PYSPARK_SUBMIT_ARGS": "--verbose pyspark-shell"})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "spark-submit").touch()
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "spark-core_2.12-3.5.1.jar").touch()
    for name, value, words in (
        ("JAVA_HOME", "/nonexistent", "there is no Java"),
        ("SPARK_HOME", "/nonexistent", "Spark is not there"),
        ("SPARK_HOME", str(tmp_path), "Spark 3.5.1 there"),
        ("PYSPARK_SUBMIT_ARGS", "--conf spark.foo=1", "no list of spark-submit's flags"),
        ("PYSPARK_SUBMIT_ARGS", "--version pyspark-shell", "no list of spark-submit's flags"),  # pyspark would wait
    ):
        with pytest.raises(SettingsError, match=words) as caught:
            check(good | {name: value})
        assert caught.value.place.startswith(name)


def test_a_local_run_goes_without_the_clusters_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "spark-defaults.conf"
    file.write_text("# the cluster's\nspark.eventLog.enabled=true\nspark.local.dir  /scratch \nspark.task.cpus: 4\n")
    assert set(read_defaults(file)) == {"spark.eventLog.enabled", "spark.local.dir", "spark.task.cpus"}
    assert kept_defaults({"SPARK_CONF_DIR": str(tmp_path)}) == {"spark.local.dir": "/scratch"}
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    with jvm._without_defaults():
        folder = Path(os.environ["SPARK_CONF_DIR"])
        assert folder.is_dir()
        assert not {"spark-defaults.conf", "spark-env.sh"} & {path.name for path in folder.iterdir()}
    assert os.environ["SPARK_CONF_DIR"] == str(tmp_path)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("File file:/spark-logs does not exist", "spark.eventLog.dir"),
        ("UnknownHostException: nn7", "spark.yarn.stagingDir"),
        ("ClassNotFoundException: com.acme.Listener", "spark.extraListeners"),
        ("something else", ""),
    ],
)
def test_the_setting_that_javas_words_are_about(words: str, key: str) -> None:
    settings = {
        "spark.eventLog.dir": "file:///spark-logs",
        "spark.yarn.stagingDir": "hdfs://nn7:8020/staging",
        "spark.extraListeners": "com.acme.Listener",
        "spark.task.cpus": "1",
    }
    assert blamed(words, settings) == key


def test_who_stops_waiting_for_a_jvm_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A Spark whose JVM says nothing: one that is stopped, or reads its jars from a disk that is slow.
    (tmp_path / "bin").mkdir()
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / f"spark-core_2.13-{pyspark.__version__}.jar").touch()
    submit = tmp_path / "bin" / "spark-submit"
    submit.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/new && mv {tmp_path}/new {tmp_path}/pid\nexec sleep 3600\n")
    submit.chmod(0o755)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setattr(SparkContext, "_gateway", None)

    def interrupt() -> None:
        wait_until((tmp_path / "pid").exists)
        os.kill(os.getpid(), signal.SIGUSR1)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, stop)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            jvm.start({}, local=True)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_launchers_own_warning_is_left_out_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    lines = [
        "Picked up JAVA_TOOL_OPTIONS: -Xmx1g",
        FEW_FILES.splitlines()[0],
        "WARNING: something else",
        "",
        "half a line",
    ]
    words = "\n".join(lines)
    jvm_output.silence(on=True)  # as a command that has failed in this process leaves it
    with subprocess.Popen(["printf", "%s", words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        jvm_output.pass_on(process.stdout).join()
    # Read once: between its read and its truncation, capfd loses what is written.
    assert capfd.readouterr().err.splitlines() == [lines[0], *lines[2:]]
