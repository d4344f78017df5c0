from __future__ import annotations

from pathlib import Path

import pytest

from tfos_job.doctor import tokens
from tfos_job.doctor.tokens import Token
from tfos_job.errors import SettingsError

DATA = Path(__file__).resolve().parents[1] / "data"
# tests/spark/test_tokens.py proves that Hadoop writes these bytes.
GOLDEN = [(DATA / f"golden-{name}.tokens").read_bytes() for name in ("writable", "protobuf")]
HDFS = Token(
    kind="HDFS_DELEGATION_TOKEN",
    service="ha-hdfs:nameservice1",
    owner="陈",
    renewer="yarn",
    issued_s=1_795_000_000.123,
    max_date_s=1_795_604_800.456,
)


@pytest.mark.parametrize("data", GOLDEN, ids=["writable", "protobuf"])
def test_both_formats_say_the_same_and_no_secret(data: bytes) -> None:
    found = tokens.parse(data)
    assert sorted(found, key=lambda token: token.kind) == [HDFS, Token(kind="YARN_AM_RM_TOKEN", service="")]
    assert "secret" not in repr(found)


@pytest.mark.parametrize("data", GOLDEN, ids=["writable", "protobuf"])
def test_a_file_cut_anywhere_is_refused(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(SettingsError, match="not a file of Hadoop's delegation tokens") as caught:
            tokens.parse(data[:length], place="/tokens")
        assert caught.value.place == "/tokens"
        assert "secret" not in str(caught.value)
    with pytest.raises(SettingsError, match="1 bytes too many"):
        tokens.parse(data + b"\0")


@pytest.mark.parametrize("data", GOLDEN, ids=["writable", "protobuf"])
def test_any_byte_changed_is_refused_or_read_but_never_a_crash(data: bytes) -> None:
    for at in range(len(data)):
        for value in (0x00, 0x7F, 0x80, 0xFF):
            try:
                tokens.parse(data[:at] + bytes([value]) + data[at + 1 :])
            except SettingsError:
                pass


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"", "4 bytes expected at byte 0, where 0 are left"),
        (b"PK\x03\x04", r"begins with b'PK\\x03\\x04' instead of b'HDTS'"),
        (b"HDTS\x02", "version 2, where 0 and 1 are known"),
        (b"HDTS\x00\x8c\x7f\xff\xff\xff", "2147483647 entries"),
        (b"HDTS\x00\xff", "-1 entries"),
        (b"HDTS\x00\x01\x01a\x8c\x7f\xff\xff\xff", "2147483647 bytes expected"),
        (b"HDTS\x01" + b"\xff" * 11, "no number ends"),
        (b"HDTS\x01\x01\x0b", "unknown wire type 3"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, fact: str) -> None:
    with pytest.raises(SettingsError, match=fact):
        tokens.parse(data)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        tokens.read_file(str(tmp_path / "none"))
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(SettingsError, match="larger than 16 MiB"):
        tokens.read_file(str(large))
