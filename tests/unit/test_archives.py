"""ZIP archives of GNT files: each member as a stream, whatever the archive is like."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.unit.test_gnt_shard import examples, task
from tfos_job import storage
from tfos_job.conversion import digests, gnt_shard, sources
from tfos_job.conversion.shard_plan import Piece, SourceFile
from tfos_job.conversion.source_changes import Comparison
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.formats import archives, gnt
from tfos_job.formats.archives import DamagedMemberError, Member
from tfos_job.formats.manifest_parts import Source, SourceRange
from tfos_job.verification.source_proof import RangeTask, verify_ranges

NOISE = np.random.default_rng(0).bytes(300_000)  # which deflate cannot make smaller
PLAIN = bytes(5_000_000)  # a thousandth when deflated


def glyphs(text: str, side: int = 40) -> bytes:
    stream = io.BytesIO()
    for index, character in enumerate(text):
        gnt.write(stream, gnt.encode_tag(character), np.full((side, side + index), index, np.uint8))
    return stream.getvalue()


def pack(path: Path, method: int = zipfile.ZIP_DEFLATED, **contents: bytes) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def contents_of(path: str, member: Member, size: int) -> bytes:
    found = []
    with archives.open_source(path, member) as stream:
        while data := stream.read(size):
            assert len(data) <= size
            found.append(data)
    return b"".join(found)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_member_is_read_in_pieces_and_proved_at_its_end(tmp_path: Path, method: int, size: int) -> None:
    expected = {"a": NOISE, "b": PLAIN, "c": b"", "d": glyphs("啊阿")}
    pack(tmp_path / "x.zip", method, **expected)
    members = archives.read_directory(str(tmp_path / "x.zip"))
    assert {member.name: contents_of(str(tmp_path / "x.zip"), member, size) for member in members} == expected
    assert [member.is_deflated for member in members] == [method == zipfile.ZIP_DEFLATED] * 4


def test_it_is_read_from_where_it_lies(tmp_path: Path) -> None:
    pack(tmp_path / "x.zip", a=NOISE, b=glyphs("啊"))
    memory = fsspec.filesystem("memory")
    memory.pipe("/archives/x.zip", (tmp_path / "x.zip").read_bytes())
    try:
        for path in ("memory://archives/x.zip", f"file://{tmp_path}/x.zip"):
            first, second = archives.read_directory(path)
            assert (contents_of(path, first, 999), contents_of(path, second, 999)) == (NOISE, glyphs("啊"))
    finally:
        memory.rm("/archives", recursive=True)


def test_zip64_and_names_that_are_no_paths_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # as if each were larger than 4 GB
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("./a//1.gnt", "/b/2.gnt", "../3.gnt"):
            with archive.open(name, "w", force_zip64=True) as stream:
                stream.write(NOISE)
        archive.mkdir("empty")
    members = archives.read_directory(str(tmp_path / "x.zip"))
    assert [member.name for member in members] == ["a/1.gnt", "b/2.gnt", "../3.gnt"]
    assert {contents_of(str(tmp_path / "x.zip"), member, 1 << 20) for member in members} == {NOISE}
    found = sources.find(str(tmp_path))
    assert [(source.name, source.archive) for source in found.sources] == [
        ("x.zip/a/1.gnt", "x.zip"),
        ("x.zip/b/2.gnt", "x.zip"),
    ]
    assert found.left_out == ("x.zip/../3.gnt",)


def cut_off(data: bytes) -> bytes:
    return data[:-100]


def no_zip(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("spoil", "fact"),
    [
        (cut_off, "its end, where the directory is, is missing"),
        (no_zip, "it is a TAR archive"),
        (lambda data: b"", "it is empty"),
        (lambda data: data.replace(b"PK\x01\x02", b"PK\x01\x03"), "Bad magic number"),
        (lambda data: data[:-10] + b"\xff" * 8 + data[-2:], "not a whole ZIP archive: "),
    ],
)
def test_a_damaged_archive_is_refused_with_the_reason(
    tmp_path: Path, spoil: Callable[[bytes], bytes], fact: str
) -> None:
    path = tmp_path / "x.zip"
    pack(path, a=glyphs("啊"))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(BadDataError, match=fact) as raised:
        archives.read_directory(str(path))
    assert raised.value.place == str(path)


def test_whatever_bits_of_an_archive_have_changed_no_member_passes_for_another(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    expected = {"1.gnt": glyphs("啊", 9), "2.gnt": glyphs("阿埃", 7)}
    pack(path, **expected)
    data, draw = path.read_bytes(), np.random.default_rng(1)
    num_whole = 0
    for _ in range(int(os.environ.get("FUZZ_CASES", "1")) * 300):
        spoiled = bytearray(data)
        for at in draw.integers(0, len(data), draw.integers(1, 4)):
            spoiled[at] = draw.integers(256)
        path.write_bytes(spoiled[: draw.integers(1, len(data) * 3)])
        try:
            for member in archives.read_directory(str(path)):
                if not member.fault:
                    assert contents_of(str(path), member, 99) in expected.values()
                    num_whole += 1
        except BadDataError:
            pass
    assert num_whole > 0


def test_what_cannot_be_unpacked_is_named_where_it_would_be_converted(tmp_path: Path) -> None:
    pack(tmp_path / "x.zip", zipfile.ZIP_LZMA, **{"1.gnt": glyphs("啊")})
    with pytest.raises(BadDataError, match=r"x\.zip: its member 1\.gnt is packed by method 14 \(lzma\)"):
        sources.find(str(tmp_path))
    pack(tmp_path / "x.zip", **{"1.gnt": glyphs("啊")})
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of an encrypted one, in the directory
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(BadDataError, match=r"its member 1\.gnt is encrypted\. Unpack it"):
        sources.find(str(tmp_path))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.gnt", glyphs("啊"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("1.gnt", glyphs("啊"))
    with pytest.raises(BadDataError, match=r"its member 1\.gnt is there twice"):
        sources.find(str(tmp_path))


def test_an_archive_within_an_archive_is_not_read_and_told(tmp_path: Path) -> None:
    pack(tmp_path / "inner.zip", **{"1.gnt": glyphs("啊")})
    pack(tmp_path / "outer.zip", **{"HWDB1.1tst_gnt.zip": (tmp_path / "inner.zip").read_bytes()})
    (tmp_path / "inner.zip").unlink()
    with pytest.raises(MissingInputError, match=r"unpack outer\.zip: there are archives in it"):
        sources.find(str(tmp_path))


def spoilt(path: Path, at: int) -> SourceFile:
    """The first of an archive's members, after a bit of its packed bytes, counted from their end, has changed."""
    (file, *_) = sources.find(str(path.parent)).sources
    assert file.member is not None
    data = bytearray(path.read_bytes())
    header = archives._LOCAL_HEADER.unpack_from(data, file.member.header_offset)
    end = file.member.header_offset + archives._LOCAL_HEADER.size + sum(header[1:]) + file.member.packed_bytes
    data[end + at] ^= 0x10
    path.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("method", "at", "fact"),
    [
        (zipfile.ZIP_STORED, -1, "expected CRC-32 .*, found"),  # of a bitmap: no reader of GNT could tell
        (zipfile.ZIP_STORED, -1600 - 10, "expected CRC-32 .*, found"),  # of a header, which would be blamed
        (zipfile.ZIP_DEFLATED, -20, "expected CRC-32|packed data are damaged|bytes, found"),
    ],
)
def test_a_damaged_member_is_told_and_set_aside_as_a_whole(tmp_path: Path, method: int, at: int, fact: str) -> None:
    pack(tmp_path / "x.zip", method, **{"1.gnt": glyphs("啊"), "2.gnt": glyphs("阿埃")})
    good = sources.find(str(tmp_path)).sources[1]
    bad = spoilt(tmp_path / "x.zip", at)
    pieces = [Piece(file, 0, file.size_bytes) for file in (bad, good)]
    with pytest.raises(DamagedMemberError, match=rf"x\.zip/1\.gnt: damaged in its archive: .*({fact})") as raised:
        gnt_shard.convert_group(task(tmp_path, *pieces))
    assert type(pickle.loads(pickle.dumps(raised.value))) is DamagedMemberError
    with pytest.raises(DamagedMemberError):
        gnt_shard.scan_tags(task(tmp_path, *pieces))
    assert gnt_shard.scan_tags(task(tmp_path, *pieces, quarantine=True)) == ("埃", "阿")
    result = gnt_shard.convert_group(task(tmp_path, *pieces, quarantine=True))
    assert [example["source/file"] for example in examples(result.written_file)] == [b"x.zip/2.gnt"] * 2
    first, second = result.pieces
    assert [(found.start, found.end) for found in first.bad_ranges] == [(0, bad.size_bytes)]
    assert first.bad_ranges[0].reason.startswith("damaged in its archive")
    assert (first.num_records, first.range.sha256, second.num_records, second.bad_ranges) == (0, "", 2, ())
    assert sum(path.name.startswith("part") for path in tmp_path.iterdir()) == 1

    def faults(name: str, sha256: str) -> list[str]:
        (file,) = (file for file in sources.find(str(tmp_path)).sources if file.name == name)
        part = SourceRange(start=0, end=file.size_bytes, sha256=sha256)
        found = verify_ranges(
            (RangeTask(path=file.path, name=name, size_bytes=file.size_bytes, range=part, member=file.member),)
        )
        return [finding.fact for finding in found.told]

    assert faults(bad.name, first.range.sha256) == []
    assert faults(good.name, second.range.sha256) == []
    assert "damaged in its archive" in faults(bad.name, "0" * 64)[0]
    assert "found a sound one" in faults(good.name, "")[0]
    assert "expected SHA-256 0000" in faults(good.name, "0" * 64)[0]
    converted = Source(
        name=bad.name,
        size_bytes=bad.size_bytes,
        mtime_s=0.0,
        num_records=0,
        filtered={},
        quarantined_bytes=bad.size_bytes,
        generation=0,
        ranges=(first.range,),
    )
    assert not digests.has_same_bytes(Comparison(bad, converted))


def test_bad_bytes_of_a_sound_member_are_named_with_archive_and_member(tmp_path: Path) -> None:
    pack(tmp_path / "x.zip", **{"1.gnt": glyphs("啊") + bytes(20)})
    (file,) = sources.find(str(tmp_path)).sources
    piece = Piece(file, 0, file.size_bytes)
    with pytest.raises(BadDataError, match=r"x\.zip/1\.gnt, byte 1610: impossible size"):
        gnt_shard.convert_group(task(tmp_path, piece))
    (found,) = gnt_shard.convert_group(task(tmp_path, piece, quarantine=True)).pieces
    assert [(bad.source, bad.start, bad.end) for bad in found.bad_ranges] == [("x.zip/1.gnt", 1610, 1630)]


def test_what_is_in_an_archive_and_beside_it_is_not_converted_twice(tmp_path: Path) -> None:
    pack(tmp_path / "x.zip", **{"gnt/1.gnt": glyphs("啊"), "gnt/2.gnt": glyphs("阿")})
    (tmp_path / "2.gnt").write_bytes(glyphs("埃"))  # of the same name and size, and another file
    assert len(sources.find(str(tmp_path)).sources) == 3
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "1.gnt").write_bytes(glyphs("啊"))
    with pytest.raises(SettingsError, match=r"twice: x\.zip/gnt/1\.gnt is unpacked/1\.gnt once more"):
        sources.find(str(tmp_path))
    whole = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(whole.replace(b"PK\x03\x04", b"PK\x03\x05", 1))  # damaged
    assert len(sources.find(str(tmp_path)).sources) == 4
    (tmp_path / "x.zip").write_bytes(whole)
    (tmp_path / "unpacked" / "1.gnt").unlink()
    storage.write_bytes(str(tmp_path / "x (1).zip"), (tmp_path / "x.zip").read_bytes())
    with pytest.raises(SettingsError, match=r"twice: x\.zip/gnt/1\.gnt is x \(1\)\.zip/gnt/1\.gnt once more"):
        sources.find(str(tmp_path))


def test_an_archive_takes_no_more_memory_than_a_few_pieces(tmp_path: Path) -> None:
    class Counting:
        largest = 0

        def __init__(self, stream: io.BytesIO) -> None:
            self._stream = stream

        def seek(self, offset: int) -> int:
            return self._stream.seek(offset)

        def read(self, size: int) -> bytes:
            Counting.largest = max(Counting.largest, size)
            return self._stream.read(size)

    pack(tmp_path / "x.zip", a=PLAIN * 10)
    (member,) = archives.read_directory(str(tmp_path / "x.zip"))
    stream = Counting(io.BytesIO((tmp_path / "x.zip").read_bytes()))
    contents = archives._Contents(stream, "x.zip", member)  # type: ignore[arg-type]
    size = crc32 = 0
    while data := contents.read(1 << 20):
        assert len(data) <= 1 << 20
        size, crc32 = size + len(data), zlib.crc32(data, crc32)
    assert (size, crc32) == (50_000_000, member.crc32)
    assert Counting.largest <= 1 << 18
