from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from tfos_job import storage
from tfos_job.errors import AccessError, MissingInputError, SettingsError, StorageError


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_written_file_appears_whole_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with storage.open_write(str(target)) as stream:
        stream.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


def test_exception_while_writing_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    writing = storage.open_write(str(tmp_path / "a.bin"))
    writing.__enter__().write(b"half of it")
    assert writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is not True
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_json_is_readable_by_people_and_comes_back(tmp_path: Path) -> None:
    path = str(tmp_path / "a.json")
    storage.write_json(path, {"b": 1.5, "a": "啊"})
    assert storage.read_bytes(path).decode() == '{\n "a": "啊",\n "b": 1.5\n}\n'
    assert storage.read_json(path) == {"b": 1.5, "a": "啊"}


def test_file_urls_and_plain_paths_are_the_same_place(tmp_path: Path) -> None:
    folder = tmp_path / "with blank"
    storage.make_dirs(f"file://{folder}")
    storage.write_bytes(str(folder / "a"), b"x")
    url = f"file:{folder}"
    assert [entry.path for entry in storage.list_dir(url)] == [f"{url}/a"]
    assert storage.read_bytes(f"{url}/a") == b"x"
    assert storage.local_path(url) == str(folder)
    assert storage.local_path("hdfs://host:8020/a") is None
    assert storage.absolute("hdfs://host:8020/a") == "hdfs://host:8020/a"
    assert storage.absolute("a") == os.path.abspath("a")


def test_a_name_that_a_url_would_escape_is_found_again_through_a_url(tmp_path: Path) -> None:
    (tmp_path / "50% a#b?c.gnt").write_bytes(b"x")
    (entry,) = storage.list_dir(f"file://{tmp_path}")
    assert entry.name == "50% a#b?c.gnt"
    assert storage.read_bytes(entry.path) == b"x"


def test_find_is_sorted_and_skips_what_is_unfinished_or_hidden(tmp_path: Path) -> None:
    for name in ("b/2.gnt", "a.gnt", "b/1.gnt", "b/1.txt", "_building/x.gnt", ".git/y.gnt", "_z.gnt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    found = storage.find(str(tmp_path), ".gnt")
    assert [entry.path.removeprefix(f"{tmp_path}/") for entry in found] == ["a.gnt", "b/1.gnt", "b/2.gnt"]
    assert {entry.size_bytes for entry in found} == {2}


def test_exclusive_creation_has_one_winner_and_its_content(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    assert storage.create_exclusive(path, b"first")
    assert not storage.create_exclusive(path, b"second")
    assert storage.read_bytes(path) == b"first"
    assert names(tmp_path) == ["lock"]


def test_a_folder_is_published_by_one_rename_and_never_over_another(tmp_path: Path) -> None:
    (tmp_path / "building").mkdir()
    (tmp_path / "building" / "part").write_bytes(b"x")
    (tmp_path / "gen").mkdir()
    with pytest.raises(StorageError, match="already there"):
        storage.publish_dir(str(tmp_path / "building"), str(tmp_path / "gen"))
    assert names(tmp_path / "gen") == []
    storage.publish_dir(str(tmp_path / "building"), str(tmp_path / "gen-1"))
    assert names(tmp_path / "gen-1") == ["part"]
    storage.remove(str(tmp_path / "gen-1"))
    storage.remove(str(tmp_path / "gen-1"))
    storage.discard_dir(str(tmp_path / "gen"))
    storage.discard_dir(str(tmp_path / "gen"))
    assert names(tmp_path) == []


def test_each_failure_has_its_class_and_names_the_path(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(MissingInputError, match=missing):
        storage.open_read(missing)
    with pytest.raises(MissingInputError, match="a folder, not a file"):
        storage.open_read(str(tmp_path))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingInputError, match="a file, not a folder"):
        storage.list_dir(str(tmp_path / "file"))
    with pytest.raises(SettingsError, match="s3://"):
        storage.open_read("s3://bucket/a")


def test_a_full_disk_is_a_storage_error_at_the_write_or_at_the_end_of_it() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        stream = io.BufferedWriter(storage._Guarded(full, "/data/a"), 4)
        with pytest.raises(StorageError, match="/data/a: cannot write it: No space left on device"):
            stream.write(b"more than the buffer holds")
        stream.detach()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_forbidden_folder_is_an_access_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(AccessError, match="Permission denied"):
        storage.write_bytes(str(tmp_path / "a"), b"")


STACK = r"\n\tat org.apache.hadoop.hdfs.server.namenode.X.y(X.java:1)\n\tat z"


# The words of hdfs-native 0.14 on a live HDFS; tests/hadoop makes most of them happen.
@pytest.mark.parametrize(
    ("error", "passes", "refused"),
    [
        (OSError("RPC listener disconnected"), True, False),
        (OSError("Connection refused (os error 111)"), True, False),
        (TimeoutError("no answer for 120 s"), True, False),
        (RuntimeError('DataTransferError("Block writer is closed")'), True, False),
        (
            RuntimeError(f'RPCError("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "x{STACK}")'),
            True,
            False,
        ),
        (RuntimeError(f'RPCError("java.io.IOException", "File /a could only be written to 0{STACK}")'), True, False),
        (RuntimeError(f'RPCError("java.io.IOException", "must both be directories{STACK}")'), False, False),
        (RuntimeError('InvalidArgument("No NameNode hosts found")'), False, False),
        (
            RuntimeError(f'RPCError("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "x{STACK}")'),
            False,
            True,
        ),
        (RuntimeError(f'RPCError("org.apache.hadoop.security.AccessControlException", "x{STACK}")'), False, True),
        (RuntimeError('SASLError("no ticket")'), False, True),
        (FileNotFoundError("File does not exist: /a"), False, False),
        (FileExistsError("/a"), False, False),
    ],
)
def test_what_passes_on_hdfs_and_what_is_refused(error: OSError | RuntimeError, passes: bool, refused: bool) -> None:
    assert storage._is_passing(error) == passes
    assert storage._is_refusal(error) == refused
    assert "\n" not in storage._reason(error)
    assert "\\n" not in storage._reason(error)


def test_a_path_in_a_url_is_not_decoded() -> None:
    assert storage._hdfs_path("hdfs://host:8020/a%20b/c#d?e") == "/a%20b/c#d?e"
    assert storage._hdfs_path("hdfs:///a") == "/a"
    assert storage._hdfs_path("viewfs://name") == "/"
