from __future__ import annotations

import errno
import io
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.unit.waits import PATIENCE_S
from tfos_job import storage
from tfos_job.errors import AccessError, MissingInputError, SettingsError, StorageError
from tfos_job.storage import error_mapping, hdfs, hdfs_client, reading, retry, streams


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


def test_json_without_bottom_or_end_is_no_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of somebody else: neither the stack nor the memory ends with it."""
    path = tmp_path / "value.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        storage.read_json(str(path))
    monkeypatch.setattr(reading, "MOST_JSON_BYTES", 10)
    path.write_text("1234567890")
    assert storage.read_json(str(path)) == 1234567890
    path.write_text("12345678901")
    with pytest.raises(ValueError, match="more than 10 bytes"):
        storage.read_json(str(path))


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


# As with Hadoop, whose Path takes one slash for the default file system and refuses a relative path after a scheme.
@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("hdfs:/user/me/ds", "hdfs:///user/me/ds"),
        ("viewfs:/a", "viewfs:///a"),
        ("HDFS://host/a", "hdfs://host/a"),
        ("hdfs://host", "hdfs://host"),
        ("file:/a b", "file:///a b"),
        ("file:///a:b", "file:///a:b"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("nosuch://bucket/a", "nosuch://bucket/a"),
    ],
)
def test_urls_in_hadoops_forms(path: str, canonical: str) -> None:
    assert storage.absolute(path) == canonical


@pytest.mark.parametrize("path", ["run:1/a", "a/hdfs:/b", "./hdfs:/b", "50%:x", "2026-11-29T08:00:00", "é:/x"])
def test_plain_paths_with_colons_are_plain_paths(path: str) -> None:
    assert storage.local_path(path) == path
    assert storage.absolute(path) == os.path.abspath(path)


@pytest.mark.parametrize(
    "path", ["hdfs:a", "hdfs:", "viewfs:a/b", "file:a", "file:", "file://host/a", "file://", "s3:/bucket/a", "S3:a"]
)
def test_what_is_neither_a_url_nor_a_plain_path_is_refused(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (storage.absolute, storage.local_path, storage.exists, storage.make_dirs, storage.read_bytes):
        with pytest.raises(SettingsError, match=f"^{path}: .*Give ") as caught:
            use(path)
        assert caught.value.exit_code == 78
    assert names(tmp_path) == []


def test_one_slash_is_the_default_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", hadoop_conf(tmp_path, fs__defaultFS="file:///"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"fs\.defaultFS with hdfs://"):
        storage.make_dirs("hdfs:/data")
    assert not (tmp_path / "hdfs:").exists()


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


def test_find_lists_hidden_names_where_it_is_asked_to(tmp_path: Path) -> None:
    for name in ("_a/.b/_1.png", ".2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    found = storage.find(str(tmp_path), ".png", with_hidden=True)
    assert [entry.path.removeprefix(f"{tmp_path}/") for entry in found] == [".2.png", "_a/.b/_1.png"]


def test_links_that_lead_nowhere_or_back_are_files(tmp_path: Path) -> None:
    for folder in ("root/a", "root/b", "else"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").write_bytes(b"12")
    links = {
        "a/nowhere": "none",
        "a/itself": "itself",
        "a/up": "..",
        "a/here": ".",
        "a/other": "../b",
        "b/other": "../a",
    }
    for name, target in {**links, "b/else": "../../else", "b/file": "1.png"}.items():
        (tmp_path / "root" / name).symlink_to(target)
    (tmp_path / "else" / "back").symlink_to("../root/b")
    found = [entry.path.removeprefix(f"{tmp_path}/root/") for entry in storage.find(str(tmp_path / "root"), "")]
    assert {"a/1.png", "a/nowhere", "a/itself", "a/up", "a/here", "b/file", "b/else/1.png", "b/else/back"} <= set(found)
    assert {"a/other/1.png", "a/other/other", "b/other/1.png", "b/other/other"} <= set(found)  # each other's, once
    assert max(name.count("/") for name in found) == 3


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
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match=f"{path}: cannot make the folder: a file is there"):
            storage.make_dirs(str(path))
    with pytest.raises(StorageError, match="n: cannot make it: File name too long"):
        storage.make_dirs(str(tmp_path / ("n" * 300)))


def test_a_listing_says_what_is_neither_file_nor_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "same").symlink_to("file")
    (tmp_path / "folder").mkdir()
    special = {entry.name: entry.special for entry in storage.list_dir(str(tmp_path))}
    ordinary = dict.fromkeys(("file", "folder", "same"), "")
    assert special == {**ordinary, "fifo": "a FIFO", "zero": "a device", "gone": storage.BROKEN_LINK}


def test_a_full_disk_is_a_storage_error_at_the_write_or_at_the_end_of_it() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        stream = io.BufferedWriter(streams.Guarded(full, "/data/a"), 4)
        with pytest.raises(StorageError, match=r"/data/a: cannot write it: No space left on device\. Free"):
            stream.write(b"more than the buffer holds")
        stream.detach()


JAVA_ERROR = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 1 times
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:1)
Caused by: java.io.IOException: No space left on device
\tat java.base/sun.nio.ch.FileDispatcherImpl.write0(Native Method)"""


@pytest.mark.parametrize(
    ("error", "exit_code", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/a"), 74, "/tmp/a: No space left on device. Free"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 77, "Disk quota exceeded. Free"),
        (RuntimeError(JAVA_ERROR), 74, "Caused by: java.io.IOException: No space left on device. Free"),
        (RuntimeError("OSError: [Errno 122] Disk quota exceeded: '/tmp/b'"), 77, "OSError: [Errno 122] Disk quota"),
    ],
)
def test_a_full_disk_is_known_in_what_other_libraries_raise(error: Exception, exit_code: int, text: str) -> None:
    found = storage.full_disk(error)
    assert found is not None
    assert found.exit_code == exit_code
    assert str(found).startswith(text)
    assert "SPARK_LOCAL_DIRS" in str(found)
    assert storage.full_disk(OSError(errno.EIO, "Input/output error")) is None


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match=f"{path}: cannot make the folder: a file is there"):
            storage.make_dirs(str(path))


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
    assert error_mapping.is_passing(error) == passes
    assert error_mapping.is_refusal(error) == refused
    assert "\n" not in error_mapping.reason(error)
    assert "\\n" not in error_mapping.reason(error)


def test_a_path_in_a_url_is_not_decoded() -> None:
    assert hdfs_client.hdfs_path("hdfs://host:8020/a%20b/c#d?e") == "/a%20b/c#d?e"
    assert hdfs_client.hdfs_path("hdfs:///a") == "/a"
    assert hdfs_client.hdfs_path("viewfs://name") == "/"


# --- other schemes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def memory_dir() -> Iterator[str]:
    """A folder with two GNT files in fsspec's file system within this process."""
    files = fsspec.filesystem("memory")
    files.pipe({"/in/2.gnt": b"22", "/in/b/1.gnt": b"1", "/in/_x/3.gnt": b"", "/in/b/1.txt": b""})
    yield "memory://in"
    files.rm("/in", recursive=True)


def test_any_scheme_of_fsspec_can_be_read_from(memory_dir: str) -> None:
    assert [entry.path for entry in storage.find(memory_dir, ".gnt")] == [
        "memory://in/2.gnt",
        "memory://in/b/1.gnt",
    ]
    entry = storage.stat(f"{memory_dir}/2.gnt")
    assert (entry.name, entry.size_bytes, entry.is_dir) == ("2.gnt", 2, False)
    assert abs(entry.mtime_s - time.time()) < 60
    assert entry in storage.list_dir(memory_dir)
    assert storage.is_dir(f"{memory_dir}/b")
    assert not storage.exists(f"{memory_dir}/c")
    assert storage.read_bytes(f"{memory_dir}/2.gnt") == b"22"
    with storage.open_read(f"{memory_dir}/2.gnt") as stream:
        stream.seek(1)
        assert stream.read(5) == b"2"
    for missing in (storage.open_read, storage.stat, storage.list_dir):
        with pytest.raises(MissingInputError, match=r"memory://in/c: .*not there"):
            missing("memory://in/c")
    with pytest.raises(MissingInputError, match="a file, not a folder"):
        storage.list_dir(f"{memory_dir}/2.gnt")


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: storage.write_bytes(f"{folder}/new", b"x"),
        lambda folder: storage.create_exclusive(f"{folder}/new", b"x"),
        lambda folder: storage.make_dirs(f"{folder}/new"),
        lambda folder: storage.remove(f"{folder}/2.gnt"),
        lambda folder: storage.rename(f"{folder}/2.gnt", f"{folder}/new"),
        lambda folder: storage.publish_dir(f"{folder}/b", f"{folder}/new"),
    ],
)
def test_no_other_scheme_is_written_to(memory_dir: str, write: Callable[[str], None]) -> None:
    with pytest.raises(SettingsError, match=r"memory://.*appear whole.*Write to hdfs://") as caught:
        write(memory_dir)
    assert caught.value.exit_code == 78
    assert len(storage.list_dir(memory_dir)) == 3


def test_a_scheme_nobody_knows_and_one_whose_package_is_missing() -> None:
    with pytest.raises(SettingsError, match="no file system has the scheme nosuch://"):
        storage.open_read("nosuch://bucket/a")
    fsspec.register_implementation(
        "absent", "no_such_package.Absent", errtxt="Install absentfs to access Absent", clobber=True
    )
    with pytest.raises(SettingsError, match=r"absent://a: .*Install absentfs to access Absent") as caught:
        storage.exists("absent://a")
    assert caught.value.exit_code == 78


class Broken(fsspec.AbstractFileSystem):
    """A file system whose library has exceptions of its own."""

    protocol = "broken"

    def info(self, path: str, **_: object) -> dict[str, object]:
        raise LookupError("the bucket is on fire")


def test_what_another_library_raises_is_a_storage_error() -> None:
    fsspec.register_implementation("broken", Broken, clobber=True)
    with pytest.raises(StorageError, match=r"broken://a: cannot look at it: LookupError: .*on fire"):
        storage.exists("broken://a")


# --- Hadoop's configuration ------------------------------------------------------------------------------------------


def hadoop_conf(folder: Path, **properties: str) -> str:
    """A HADOOP_CONF_DIR whose core-site.xml has some properties; `__` in their names stands for a dot."""
    lines = [
        f"<property><name>{name.replace('__', '.')}</name><value>{value}</value></property>"
        for name, value in properties.items()
    ]
    (folder / "core-site.xml").write_text(f"<configuration>{''.join(lines)}</configuration>")
    return str(folder)


def test_no_configuration_says_which_file_system_is_meant() -> None:
    with pytest.raises(SettingsError, match=r"hdfs:///: names no NameNode.*HADOOP_CONF_DIR, which is not set"):
        storage.exists("hdfs:///data")


def test_the_default_file_system_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", hadoop_conf(tmp_path, fs__defaultFS="file:///"))
    with pytest.raises(SettingsError, match=f"fs.defaultFS with hdfs://.*HADOOP_CONF_DIR={tmp_path}"):
        storage.exists("hdfs:///data")


def test_a_damaged_configuration_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "core-site.xml").write_text("<configuration>")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    with pytest.raises(SettingsError, match=f"{tmp_path}/core-site.xml.*: cannot be understood"):
        storage.exists("hdfs://host:8020/data")


def test_a_host_without_a_port_has_hadoops_default_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hdfs_client._DEFAULT_PORT == 8020
    monkeypatch.setattr(retry, "HDFS_TIMEOUT_S", 0.3)
    monkeypatch.setenv("HADOOP_CONF_DIR", hadoop_conf(tmp_path, fs__defaultFS="hdfs://127.0.0.1"))
    for url in ("hdfs://127.0.0.1/a", "hdfs:///a"):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(PATIENCE_S)
            monkeypatch.setattr(hdfs_client, "_DEFAULT_PORT", silent.getsockname()[1])
            with pytest.raises(StorageError, match=r"cannot look at it: .*no answer"):
                storage.stat(url)
            silent.accept()[0].close()


def test_addresses_in_hadoops_configuration_may_hold_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "HDFS_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_S)
        monkeypatch.setenv("NAMENODE", f"127.0.0.1:{silent.getsockname()[1]}")
        services = {
            "fs__defaultFS": "hdfs://${ns}",
            "ns": "cluster",
            "dfs__ha__namenodes__cluster": "nn1",
            "dfs__namenode__rpc-address__cluster__nn1": "${env.NAMENODE}",
            "fs__viewfs__mounttable__c__link__/data": "${fs.defaultFS}/d",
        }
        monkeypatch.setenv("HADOOP_CONF_DIR", hadoop_conf(tmp_path, **services))
        for url in ("hdfs:///a", "hdfs:/a", "viewfs://c/data/a"):
            with pytest.raises(StorageError, match=r"cannot look at it: .*no answer"):
                storage.stat(url)
            silent.accept()[0].close()


@pytest.mark.parametrize(
    ("text", "umask"),
    [
        ("", 0o022),
        ("027", 0o027),
        ("0077", 0o077),
        ("0", 0o002),  # not even then may all others write
        ("u=rwx,g=rx,o=", 0o027),
        ("u=rwx,go=", 0o077),
        ("a=rwx", 0o002),
        ("of another form", 0o022),
    ],
)
def test_files_on_hdfs_get_what_hadoop_would_give_them(text: str, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hdfs_client.umask_of({_UMASK: text}) == umask
    asked = []

    class Client:
        def mkdirs(self, path: str, permission: int, create_parent: bool) -> None:
            asked.append(permission)

        def create(self, path: str, options: Any) -> Any:
            asked.append(options.permission)
            raise FileExistsError(path)

        def delete(self, path: str, recursive: bool) -> None:
            pass

    system = hdfs_client.FileSystem(Client(), "hdfs://nn", umask=hdfs_client.umask_of({_UMASK: text}))
    monkeypatch.setattr(hdfs, "connect", lambda url: system)
    storage.make_dirs("hdfs://nn/d")
    with pytest.raises((StorageError, FileExistsError)):
        hdfs.Hdfs("hdfs://nn/d")._create("hdfs://nn/d/f")
    assert asked == [0o777 & ~umask, 0o666 & ~umask]


_UMASK = "fs.permissions.umask-mode"


def test_paths_outside_of_a_mount_table_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = {"fs__viewfs__mounttable__cluster__link__/data": "hdfs://127.0.0.1:9/d"}
    monkeypatch.setenv("HADOOP_CONF_DIR", hadoop_conf(tmp_path, fs__defaultFS="viewfs://cluster", **links))
    for url in ("viewfs://cluster/database/a", "viewfs:///database/a"):
        with pytest.raises(SettingsError, match=r"under no mount point of viewfs://.*, which has /data"):
            storage.stat(url)
    with pytest.raises(SettingsError, match=r"viewfs://other/: no mount table .* has this name"):
        storage.stat("viewfs://other/data")
