"""Owners and lifetimes of the tokens in Hadoop's file of delegation tokens (HADOOP_TOKEN_FILE_LOCATION).

Passwords and secret keys are skipped; this module neither returns, logs nor keeps them. The format is that of
`org.apache.hadoop.security.Credentials`; both of its forms begin with `HDTS` and a version::

    0   Writable: n, n × (alias, identifier, password, kind, service), secrets; numbers are `WritableUtils` vints
    1   protobuf: a length, then CredentialsProto of `Security.proto`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tfos_job.errors import SettingsError

MAGIC = b"HDTS"
_MAX_FILE_BYTES = 16 << 20  # a token takes some hundred bytes
_WRITABLE, _PROTOBUF = 0, 1
# Kinds whose identifier is Hadoop's AbstractDelegationTokenIdentifier. Other kinds (YARN's) are not parsed.
_DATED_KINDS = ("HDFS_DELEGATION_TOKEN", "WEBHDFS delegation", "SWEBHDFS delegation", "kms-dt", "HIVE_DELEGATION_TOKEN")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token. Owner, renewer and Unix times are present only if its kind has them.

    Attributes:
      max_date_s: end of its lifetime, which no renewal extends.
    """

    kind: str
    service: str
    owner: str = ""
    renewer: str = ""
    issued_s: float | None = None
    max_date_s: float | None = None


def read_file(path: str) -> tuple[Token, ...]:
    """Reads the tokens of a local file.

    Raises:
      SettingsError: it cannot be read, or is no file of tokens.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as e:
        raise SettingsError(
            f"the file of delegation tokens cannot be read: {e.strerror or e}",
            place=path,
            next_step="Check HADOOP_TOKEN_FILE_LOCATION",
        ) from e
    return parse(data, place=path)


def parse(data: bytes, place: str = "") -> tuple[Token, ...]:
    """Parses the tokens in the bytes of such a file, in their order.

    Raises:
      SettingsError: the bytes are no file of tokens, or are truncated.
    """
    try:
        return tuple(_parse(data))
    except (ValueError, IndexError) as e:  # UnicodeDecodeError is a ValueError
        raise SettingsError(
            f"not a file of Hadoop's delegation tokens: {e}",
            place=place,
            next_step="Let `hdfs fetchdt` or spark-submit write it, or unset HADOOP_TOKEN_FILE_LOCATION",
        ) from e


def _parse(data: bytes) -> Iterator[Token]:
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError(f"larger than {_MAX_FILE_BYTES >> 20} MiB")
    cursor = _ByteCursor(data)
    magic = cursor.take(len(MAGIC))
    if magic != MAGIC:
        raise ValueError(f"it begins with {magic!r} instead of {MAGIC!r}")
    version = cursor.byte()
    if version == _WRITABLE:
        return _parse_writable(cursor)
    if version == _PROTOBUF:
        return _parse_protobuf(cursor)
    raise ValueError(f"version {version}, where 0 and 1 are known")


def _parse_writable(cursor: _ByteCursor) -> Iterator[Token]:
    for _ in range(cursor.count()):
        cursor.block()  # the alias
        identifier = cursor.block()
        cursor.block()  # the password
        yield _token(cursor.text(), cursor.text(), identifier)
    for _ in range(cursor.count()):
        cursor.block()
        cursor.block()
    cursor.expect_end()


def _parse_protobuf(cursor: _ByteCursor) -> Iterator[Token]:
    credentials = _ByteCursor(cursor.take(cursor.varint()))
    cursor.expect_end()
    for number, entry in credentials.fields():
        if number != 1:  # the secrets
            continue
        entry_fields = dict(_ByteCursor(entry).fields())
        fields = dict(_ByteCursor(entry_fields.get(2, b"")).fields())
        yield _token(fields.get(3, b"").decode(), fields.get(4, b"").decode(), fields.get(1, b""))


def _token(kind: str, service: str, identifier: bytes) -> Token:
    if kind not in _DATED_KINDS:
        return Token(kind=kind, service=service)
    cursor = _ByteCursor(identifier)
    version = cursor.byte()
    if version != 0:
        raise ValueError(f"identifier of a {kind} has version {version}, where 0 is known")
    owner, renewer, _real_user = cursor.text(), cursor.text(), cursor.text()
    issued_ms, max_date_ms = cursor.vint(), cursor.vint()
    return Token(
        kind=kind,
        service=service,
        owner=owner,
        renewer=renewer,
        issued_s=issued_ms / 1000,
        max_date_s=max_date_ms / 1000,
    )


class _ByteCursor:
    """A position in bytes, from front to back. A read beyond the end raises ValueError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, num_bytes: int) -> bytes:
        if num_bytes < 0 or num_bytes > len(self._data) - self._at:
            left = len(self._data) - self._at
            raise ValueError(f"{num_bytes} bytes expected at byte {self._at}, where {left} are left")
        self._at += num_bytes
        return self._data[self._at - num_bytes : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def expect_end(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes too many")

    # --- WritableUtils -----------------------------------------------------------------------------------------------

    def vint(self) -> int:
        """`WritableUtils.readVLong`: one byte from -112 on; a lower one has sign and number of further bytes."""
        first = self.byte()
        first = first - 256 if first > 127 else first
        if first >= -112:
            return first
        negative = first < -120
        value = int.from_bytes(self.take(-120 - first if negative else -112 - first), "big")
        return ~value if negative else value

    def count(self) -> int:
        count = self.vint()
        if not 0 <= count <= len(self._data):
            raise ValueError(f"{count} entries before byte {self._at}")
        return count

    def block(self) -> bytes:
        return self.take(self.vint())

    def text(self) -> str:
        return self.block().decode()

    # --- protobuf ----------------------------------------------------------------------------------------------------

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError(f"no number ends before byte {self._at}")

    def fields(self) -> Iterator[tuple[int, bytes]]:
        """Yields number and content of each field of bytes; skips other fields."""
        while self._at < len(self._data):
            number, wire_type = divmod(self.varint(), 8)
            if wire_type == _BYTES:
                yield number, self.take(self.varint())
            elif wire_type == _VARINT:
                self.varint()
            elif wire_type in (_FIXED64, _FIXED32):
                self.take(8 if wire_type == _FIXED64 else 4)
            else:
                raise ValueError(f"unknown wire type {wire_type} before byte {self._at}")
