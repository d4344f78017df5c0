"""ZIP archives, as CASIA publishes its GNT files in them: what is in one, and each member as a stream.

A member is read front to back, a piece at a time, from wherever the archive lies; its size and its CRC-32, which the
archive's directory has, are proved at its end. Members are stored or deflated; others are named, and not read.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.formats import foreign

SUFFIX = ".zip"
_PACKED_BYTES = 1 << 18
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # a signature, what the directory has as well, lengths of name and extra
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 1  # of the flag bits


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
      name: its path in the archive.
      size_bytes: of its contents.
      crc32: of its contents.
      packed_bytes: what they take in the archive.
      header_offset: byte of the archive where its own header begins, which is followed by them.
      is_deflated: else they are stored as they are.
      fault: why it cannot be read, in words; empty if it can.
    """

    name: str
    size_bytes: int
    crc32: int
    packed_bytes: int
    header_offset: int
    is_deflated: bool
    fault: str = ""


class DamagedMemberError(BadDataError):
    """A member whose bytes are not those that were packed: nothing that was read of it can be trusted."""


def read_directory(path: str) -> list[Member]:
    """The members of an archive, without its folders, in its own order.

    Raises:
      BadDataError: not a whole ZIP archive.
      JobError: what storage raises.
    """
    with storage.open_read(path) as stream:
        head = stream.read(foreign.HEAD_BYTES)
        try:
            bounded = _Bounded(stream)
            with zipfile.ZipFile(cast(BinaryIO, bounded)) as archive:
                infos = archive.infolist()
            for info in infos:
                bounded.require(info.header_offset)
        # zipfile trusts the numbers in an archive and raises anything if they are damaged.
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, OSError, struct.error) as error:
            raise BadDataError(
                f"not a whole ZIP archive: {_reason(error, head)}",
                place=path,
                next_step="Get it again (`unzip -t` checks it), or move it away",
            ) from error
    return [_member(info) for info in infos if not info.filename.endswith("/")]


class _Bounded:
    """A stream whose seeks outside the file raise OSError: zipfile seeks before a file's beginning and expects that."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size_bytes = stream.seek(0, os.SEEK_END)
        self.read = stream.read
        self.tell = stream.tell

    def require(self, offset: int) -> int:
        """Raises OSError where the stream has no such byte."""
        if not 0 <= offset <= self._size_bytes:
            raise OSError(errno.EINVAL, f"byte {offset} of its {self._size_bytes} bytes")
        return offset

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._stream.tell(), os.SEEK_END: self._size_bytes}[whence]
        return self._stream.seek(self.require(begin + offset))


def _reason(error: Exception, head: bytes) -> str:
    if not isinstance(error, zipfile.BadZipFile) or "not a zip file" not in str(error):
        return str(error)
    if head.startswith(_LOCAL_SIGNATURE):
        return "its end, where the directory is, is missing"
    return f"it is {foreign.kind_of(head) or ('something else' if head else 'empty')}"


def _member(info: zipfile.ZipInfo) -> Member:
    fault = ""
    if info.flag_bits & _ENCRYPTED:
        fault = "encrypted"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = zipfile.compressor_names.get(info.compress_type, "unknown")  # type: ignore[attr-defined]
        fault = f"packed by method {info.compress_type} ({method}), not deflated"
    return Member(
        name="/".join(part for part in info.filename.split("/") if part not in ("", ".")),
        size_bytes=info.file_size,
        crc32=info.CRC,
        packed_bytes=info.compress_size,
        header_offset=info.header_offset,
        is_deflated=info.compress_type == zipfile.ZIP_DEFLATED,
        fault=fault,
    )


@contextlib.contextmanager
def open_source(path: str, member: Member | None) -> Iterator[BinaryIO]:
    """A file, or a member of the archive that it is, which is read from its beginning and cannot be sought in.

    Raises:
      DamagedMemberError: at the end of a member, or before, where its bytes are not those that were packed. Also where
        the block raises a BadDataError for a member of which that is so.
    """
    with storage.open_read(path) as stream:
        if member is None:
            yield stream
            return
        contents = _Contents(stream, path, member)
        try:
            yield cast(BinaryIO, contents)
        except BadDataError as error:
            if not isinstance(error, DamagedMemberError):
                contents.read_to_end()
            raise


class _Contents(io.RawIOBase):
    """The bytes that were packed into a member."""

    def __init__(self, stream: BinaryIO, path: str, member: Member) -> None:
        self._stream = stream
        self._place = f"{path}/{member.name}"
        self._member = member
        self._packed_left = member.packed_bytes
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._size_bytes = 0
        self._crc32 = 0
        self._at_end = False
        stream.seek(member.header_offset)
        header = stream.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_SIGNATURE):
            raise self._damaged(f"no member begins at byte {member.header_offset} of the archive")
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        stream.read(name_bytes + extra_bytes)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, which must be more than 0; none at the end, where all is proved."""
        if self._at_end:
            return b""
        try:
            data = self._inflate(size) if self._member.is_deflated else self._take(size)
        except zlib.error as error:
            raise self._damaged(f"its packed data are damaged behind byte {self._size_bytes}") from error
        self._size_bytes += len(data)
        self._crc32 = zlib.crc32(data, self._crc32)
        if not data or self._size_bytes > self._member.size_bytes:
            self._prove()
            self._at_end = True
        return data

    def read_to_end(self) -> None:
        while self.read(storage.BUFFER_BYTES):
            pass

    def _inflate(self, size: int) -> bytes:
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._take(_PACKED_BYTES)
            data = self._inflater.decompress(packed, size)
            if data or not packed:
                return data
        return b""

    def _take(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._packed_left))
        self._packed_left -= len(data)
        return data

    def _prove(self) -> None:
        member = self._member
        if self._size_bytes != member.size_bytes:
            more = " or more" if self._size_bytes > member.size_bytes else ""
            raise self._damaged(f"expected {member.size_bytes} bytes, found {self._size_bytes}{more}")
        if self._crc32 != member.crc32:
            raise self._damaged(f"expected CRC-32 {member.crc32:08x}, found {self._crc32:08x}")

    def _damaged(self, fact: str) -> DamagedMemberError:
        return DamagedMemberError(
            f"damaged in its archive: {fact}",
            place=self._place,
            next_step="Get the archive again (`unzip -t` checks it), or set it aside with --on_bad_record quarantine",
        )
