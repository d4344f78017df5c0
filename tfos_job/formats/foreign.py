"""The kind of a file that was taken for a GNT file, by its first bytes: an archive, a failed download, other data."""

from __future__ import annotations

HEAD_BYTES = 512
"""As many of a file's first bytes as are looked at: a TAR archive's first header."""
_MAGIC = {
    b"PK\x03\x04": "a ZIP archive (where its name ends with .zip its members are read)",
    b"PK\x05\x06": "an empty ZIP archive",
    b"PK\x07\x08": "a part of a ZIP archive in several",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\x04\x22\x4d\x18": "an lz4 file",
    b"LZIP": "an lzip file",
    b"\x1f\x9d": "a file of `compress`",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"ALZ\x01": "an ALZip archive",
    b"MSCF": "a cabinet archive",
    b"\x89PNG\r\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF-": "a PDF document",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"PAR1": "a Parquet file",
    b"SEQ\x06": "a Hadoop sequence file",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}
_WEB_PAGE = (b"<!doctype html", b"<html")
_MAGIC_OF_TAR = slice(257, 262)
_CHECKSUM = slice(148, 156)  # of a TAR header: in octal, of all its bytes with blanks for these


def kind_of(head: bytes) -> str | None:
    """The kind of file that begins with these bytes, in words, if it is a well-known one.

    Args:
      head: `HEAD_BYTES`, or all where the file has fewer.
    """
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head.lstrip().lower().startswith(_WEB_PAGE):
        return "a web page"
    return "a TAR archive" if _is_tar(head) else None


def _is_tar(head: bytes) -> bool:
    """By the magic number, or by the checksum, which is older."""
    if len(head) < HEAD_BYTES or head[_MAGIC_OF_TAR] == b"ustar":
        return len(head) == HEAD_BYTES
    header, blanks = bytearray(head[:HEAD_BYTES]), b" " * (_CHECKSUM.stop - _CHECKSUM.start)
    try:
        expected = int(bytes(header[_CHECKSUM]).strip(b" \0"), 8)
    except ValueError:
        return False
    header[_CHECKSUM] = blanks
    return sum(header) == expected
