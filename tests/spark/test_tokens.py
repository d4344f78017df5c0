"""Hadoop's own classes write the token files that `doctor/tokens.py` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tfos_job.doctor import tokens
from tfos_job.doctor.tokens import Token

DATA = Path(__file__).resolve().parents[1] / "data"
ISSUED_MS, MAX_DATE_MS = 1_795_000_000_123, 1_795_604_800_456


def write(
    spark: SparkSession, path: Path, format_name: str, *, owner: str = "陈", max_date_ms: int = MAX_DATE_MS
) -> None:
    """A token of HDFS, one of YARN and a secret, as the files of tests/data hold them."""
    jvm: Any = spark.sparkContext._jvm
    hadoop = jvm.org.apache.hadoop
    text = hadoop.io.Text
    identifier = hadoop.hdfs.security.token.delegation.DelegationTokenIdentifier(
        text(owner), text("yarn"), text("proxy")
    )
    identifier.setIssueDate(ISSUED_MS)
    identifier.setMaxDate(max_date_ms)
    identifier.setSequenceNumber(300)
    identifier.setMasterKeyId(-2)
    credentials = hadoop.security.Credentials()
    hdfs = hadoop.security.token.Token(
        identifier.getBytes(), b"secret-password", text("HDFS_DELEGATION_TOKEN"), text("ha-hdfs:nameservice1")
    )
    yarn = hadoop.security.token.Token(b"\x00\xff", b"p" * 200, text("YARN_AM_RM_TOKEN"), text(""))
    credentials.addToken(text("hdfs"), hdfs)
    credentials.addToken(text("rm"), yarn)
    credentials.addSecretKey(text("spark.auth"), b"secret-key")
    kind = jvm.java.lang.Class.forName("org.apache.hadoop.security.Credentials$SerializedFormat")
    serialized = next(value for value in kind.getEnumConstants() if value.name() == format_name)
    # Java's umask has nothing to say to a stream.
    stream = jvm.java.io.DataOutputStream(jvm.java.io.FileOutputStream(str(path)))
    credentials.writeTokenStorageToStream(stream, serialized)
    stream.close()


@pytest.mark.parametrize("format_name", ["WRITABLE", "PROTOBUF"])
def test_hadoop_writes_the_golden_bytes(spark: SparkSession, tmp_path: Path, format_name: str) -> None:
    path = tmp_path / "tokens"
    write(spark, path, format_name)
    golden = DATA / f"golden-{format_name.lower()}.tokens"
    assert path.read_bytes() == golden.read_bytes()


@pytest.mark.parametrize("format_name", ["WRITABLE", "PROTOBUF"])
@pytest.mark.parametrize("max_date_ms", [0, 1, 127, 128, 255, 256, 2**31, 2**63 - 1, -1, -112, -113, -(2**63)])
def test_numbers_of_every_length(spark: SparkSession, tmp_path: Path, format_name: str, max_date_ms: int) -> None:
    path = tmp_path / "tokens"
    write(spark, path, format_name, owner="o" * 200, max_date_ms=max_date_ms)
    (hdfs,) = [token for token in tokens.read_file(str(path)) if token.kind == "HDFS_DELEGATION_TOKEN"]
    assert hdfs == Token(
        kind="HDFS_DELEGATION_TOKEN",
        service="ha-hdfs:nameservice1",
        owner="o" * 200,
        renewer="yarn",
        issued_s=ISSUED_MS / 1000,
        max_date_s=max_date_ms / 1000,
    )
