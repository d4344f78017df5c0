"""storage.py and lease.py on a live HDFS: in peace, refused, and while daemons die."""

from __future__ import annotations

import contextlib
import getpass
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from tfos_job import storage
from tfos_job.conversion import sources
from tfos_job.errors import AccessError, BusyError, MissingInputError, StorageError
from tfos_job.formats import archives
from tfos_job.lease import Lease
from tfos_job.storage import backends, hdfs, hdfs_client, hdfs_files, retry

pytestmark = pytest.mark.hadoop

MIB = 1 << 20


def wait_until(true: Callable[[], Any]) -> None:
    while not true():
        time.sleep(0.1)


def names(folder: str) -> list[str]:
    return [entry.name for entry in storage.list_dir(folder)]


def pattern(num_bytes: int) -> bytes:
    """Bytes of which no two stretches are alike, so that a piece in the wrong place is seen."""
    return b"".join(number.to_bytes(8, "big") for number in range(num_bytes // 8))


# --- in peace --------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole_and_replaces_an_older_one(hdfs_dir: str) -> None:
    path = f"{hdfs_dir}/a.bin"
    storage.write_bytes(path, b"old")
    with storage.open_write(path) as stream:
        stream.write(pattern(3 * MIB))
        assert storage.read_bytes(path) == b"old"
    assert storage.read_bytes(path) == pattern(3 * MIB)
    assert storage.stat(path).size_bytes == 3 * MIB
    assert abs(storage.stat(path).mtime_s - time.time()) < 60
    system = hdfs_client.connect(path)
    status = system.client.get_file_info(system.path(path))
    assert oct(status.permission) == oct(0o666 & ~system.umask)
    assert names(hdfs_dir) == ["a.bin"]


def test_members_of_an_archive_are_read_where_it_lies(hdfs_dir: str) -> None:
    packed = io.BytesIO()
    contents = {"gnt/1.gnt": pattern(3 * MIB), "gnt/2.gnt": pattern(MIB)}
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    storage.write_bytes(f"{hdfs_dir}/a.zip", packed.getvalue())
    found = {}
    for member in archives.read_directory(f"{hdfs_dir}/a.zip"):
        with archives.open_source(f"{hdfs_dir}/a.zip", member) as stream:
            found[member.name] = b"".join(iter(lambda stream=stream: stream.read(MIB), b""))
    assert found == contents
    assert [source.name for source in sources.find(hdfs_dir).sources] == ["a.zip/gnt/1.gnt", "a.zip/gnt/2.gnt"]


def test_exception_while_writing_leaves_everything_as_it_was(hdfs_dir: str) -> None:
    storage.write_bytes(f"{hdfs_dir}/a", b"old")

    def fail() -> None:
        with storage.open_write(f"{hdfs_dir}/a") as stream:
            stream.write(b"half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert storage.read_bytes(f"{hdfs_dir}/a") == b"old"
    assert names(hdfs_dir) == ["a"]


def test_reading_in_pieces_seeks_and_ends(hdfs_dir: str) -> None:
    content = pattern(2 * MIB)
    storage.write_bytes(f"{hdfs_dir}/a", content)
    with storage.open_read(f"{hdfs_dir}/a") as stream:
        assert stream.read(10) == content[:10]
        stream.seek(MIB + 3)
        assert stream.read(5) == content[MIB + 3 : MIB + 8]
        assert stream.tell() == MIB + 8
        assert stream.read() == content[MIB + 8 :]
        assert stream.read(1) == b""


def test_json_names_and_a_url_without_a_host(hadoop, hdfs_dir: str) -> None:
    path = f"{hdfs_dir}/50% a#b?c 啊.json"
    storage.write_json(path, {"字": 1})
    assert names(hdfs_dir) == ["50% a#b?c 啊.json"]
    assert storage.read_json(path.replace(hadoop.url, "hdfs://")) == {"字": 1}


def test_folders_are_made_found_moved_and_removed(hdfs_dir: str) -> None:
    for name in ("in/b/2.gnt", "in/1.gnt", "in/_building/x.gnt", "in/b/1.txt"):
        storage.make_dirs(f"{hdfs_dir}/{name}".rpartition("/")[0])
        storage.write_bytes(f"{hdfs_dir}/{name}", b"12")
    assert [entry.path for entry in storage.find(f"{hdfs_dir}/in", ".gnt")] == [
        f"{hdfs_dir}/in/1.gnt",
        f"{hdfs_dir}/in/b/2.gnt",
    ]
    assert storage.is_dir(f"{hdfs_dir}/in/b")
    assert not storage.is_dir(f"{hdfs_dir}/in/1.gnt")
    assert not storage.exists(f"{hdfs_dir}/out")
    storage.rename(f"{hdfs_dir}/in/1.gnt", f"{hdfs_dir}/in/b/2.gnt")
    storage.remove(f"{hdfs_dir}/in")
    storage.remove(f"{hdfs_dir}/in")
    assert names(hdfs_dir) == []


def test_a_folder_is_published_by_one_rename_and_never_over_another(hdfs_dir: str) -> None:
    storage.make_dirs(f"{hdfs_dir}/building")
    storage.write_bytes(f"{hdfs_dir}/building/part", b"x")
    storage.make_dirs(f"{hdfs_dir}/gen")
    with pytest.raises(StorageError, match="already there"):
        storage.publish_dir(f"{hdfs_dir}/building", f"{hdfs_dir}/gen")
    with pytest.raises(FileExistsError):  # and where another one appears after the look
        backends.backend_of(hdfs_dir).move_dir(f"{hdfs_dir}/building", f"{hdfs_dir}/gen")
    assert names(f"{hdfs_dir}/gen") == []
    storage.publish_dir(f"{hdfs_dir}/building", f"{hdfs_dir}/gen-1")
    assert names(f"{hdfs_dir}/gen-1") == ["part"]


def test_a_discarded_folder_does_not_come_back(hdfs_dir: str) -> None:
    storage.make_dirs(f"{hdfs_dir}/building")
    storage.discard_dir(f"{hdfs_dir}/building")
    storage.discard_dir(f"{hdfs_dir}/building")
    with pytest.raises(MissingInputError):  # a task that nobody could stop
        storage.write_bytes(f"{hdfs_dir}/building/part", b"late")
    assert names(hdfs_dir) == []


RACE = """
import sys
from tfos_job import storage
folder, me, count = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
print([number for number in range(int(count)) if storage.create_exclusive(f"{folder}/{number}", me.encode())])
"""


def test_exclusive_creation_has_one_winner_among_processes(hdfs_dir: str) -> None:
    count = 30
    racers = {
        name: subprocess.Popen(
            [sys.executable, "-c", RACE, hdfs_dir, name, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("red", "blue")
    }
    for racer in racers.values():
        assert racer.stdout.readline() == "ready\n"
    for racer in racers.values():
        racer.stdin.write("go\n")
        racer.stdin.flush()
    wins = {name: json.loads(racer.communicate()[0]) for name, racer in racers.items()}
    assert sorted(wins["red"] + wins["blue"]) == list(range(count))
    for name, numbers in wins.items():
        assert all(storage.read_bytes(f"{hdfs_dir}/{number}") == name.encode() for number in numbers)
    assert len(names(hdfs_dir)) == count


def test_a_lease_is_held_refused_lost_and_released(hdfs_dir: str) -> None:
    path = f"{hdfs_dir}/run/_lock"
    with Lease(path, "first") as first:
        with pytest.raises(BusyError, match="held by first"), Lease(path, "second"):
            pass
        first.check()
        storage.write_json(path, {"owner": "third", "token": "third"})
        with pytest.raises(BusyError, match=r"first lost its lock: third .* has taken it over"):
            first.check()
        storage.remove(path)
    assert names(f"{hdfs_dir}/run") == []


# --- refused ---------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_a_missing_input(hdfs_dir: str) -> None:
    with pytest.raises(MissingInputError, match=f"{hdfs_dir}/missing: cannot read it: not there") as caught:
        storage.read_bytes(f"{hdfs_dir}/missing")
    assert caught.value.exit_code == 66
    with pytest.raises(MissingInputError, match="not there"):
        storage.list_dir(f"{hdfs_dir}/missing")
    with pytest.raises(MissingInputError, match="not there"):
        storage.rename(f"{hdfs_dir}/missing", f"{hdfs_dir}/b")
    with pytest.raises(MissingInputError, match="a folder, not a file"):
        storage.open_read(hdfs_dir)
    storage.write_bytes(f"{hdfs_dir}/file", b"")
    with pytest.raises(MissingInputError, match="a file, not a folder"):
        storage.list_dir(f"{hdfs_dir}/file")
    with pytest.raises(MissingInputError, match="a file, not a folder"):
        storage.write_bytes(f"{hdfs_dir}/file/below", b"")


FOREIGNER = """
import sys
from tfos_job import errors, storage
try:
    storage.write_bytes(sys.argv[1], b"x")
except errors.JobError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_folder_without_permission_is_an_access_error_at_once(hdfs_dir: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FOREIGNER, f"{hdfs_dir}/a"],
        env={**os.environ, "HADOOP_USER_NAME": "mallory"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 77, done.stdout + done.stderr
    assert "trying again" not in done.stderr
    assert f"{hdfs_dir}/a: cannot write it" in done.stdout
    assert "Permission denied: user=mallory, access=WRITE" in done.stdout
    assert done.stdout.count("\n") == 1
    assert names(hdfs_dir) == []


@pytest.mark.parametrize("quota", ["namespacequota=1", "storagespacequota=1000"])
def test_a_full_quota_is_an_access_error_and_leaves_nothing(
    hadoop, hdfs_dir: str, quota: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = f"{hdfs_dir}/full"
    storage.make_dirs(folder)
    hadoop.webhdfs(folder.removeprefix(hadoop.url), f"op=SETQUOTA&{quota}&user.name={getpass.getuser()}")
    with pytest.raises(AccessError, match="uota") as caught:
        storage.write_bytes(f"{folder}/a", pattern(MIB))
    assert caught.value.exit_code == 77
    assert "\n" not in str(caught.value)
    assert "trying again" not in caplog.text
    assert names(folder) == []


# --- while daemons die -----------------------------------------------------------------------------------------------


@pytest.fixture
def wounded(hadoop, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """The same Hadoop; whatever the test killed or stopped is up again afterwards, and forgotten."""
    monkeypatch.setattr(hdfs, "_trouble_s", {})
    yield hadoop
    for daemon in hadoop.state["daemons"]:
        with contextlib.suppress(psutil.NoSuchProcess):
            hadoop.thaw(daemon)
    hadoop.up()


def wait_for_replicas(hadoop, url: str) -> None:
    """Until the NameNode knows both: a DataNode may report after the file is complete, and readers go by reports."""
    path, query = url.removeprefix(hadoop.url), f"op=GETFILEBLOCKLOCATIONS&user.name={getpass.getuser()}"
    while any(
        len(block["names"]) < 2 for block in hadoop.webhdfs(path, query, "GET")["BlockLocations"]["BlockLocation"]
    ):
        time.sleep(0.2)


@pytest.mark.parametrize("daemon", ["datanode1", "datanode2"])  # one of them is the reader's, the other one is not
def test_a_datanode_dies_while_a_file_is_read(wounded, hdfs_dir: str, daemon: str) -> None:
    content = pattern(16 * MIB)
    storage.write_bytes(f"{hdfs_dir}/a", content)
    wait_for_replicas(wounded, f"{hdfs_dir}/a")
    with storage.open_read(f"{hdfs_dir}/a") as stream:
        head = stream.read(2 * MIB)
        os.kill(wounded.pid(daemon), signal.SIGKILL)
        assert head + stream.read() == content
    assert storage.read_bytes(f"{hdfs_dir}/a") == content


def write_everything(folder: str, content: bytes) -> None:
    """By every function that writes, and reads it back."""
    storage.write_bytes(f"{folder}/bytes", content)
    with storage.open_write(f"{folder}/stream") as stream:
        for begin in range(0, len(content), MIB):
            stream.write(content[begin : begin + MIB])
    assert storage.write_file(f"{folder}/file", lambda stream: stream.write(content)) == len(content)
    storage.write_json(f"{folder}/json", {"a": 1})
    assert storage.create_exclusive(f"{folder}/exclusive", content[:100])
    assert names(folder) == ["bytes", "exclusive", "file", "json", "stream"]
    for name in ("bytes", "file", "stream"):
        assert storage.read_bytes(f"{folder}/{name}") == content
    assert storage.read_json(f"{folder}/json") == {"a": 1}


def live_datanodes(hadoop) -> int:
    """How many of them the NameNode takes for alive."""
    page = f"http://127.0.0.1:{hadoop.state['ports']['namenode.http']}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(page, timeout=60) as response:
        return json.load(response)["beans"][0]["NumLiveDataNodes"]


def test_a_datanode_dies_while_files_are_written(wounded, hdfs_dir: str) -> None:
    """While it is written to, and before the NameNode knows, which takes minutes."""
    content = pattern(8 * MIB)
    with storage.open_write(f"{hdfs_dir}/open") as stream:
        stream.write(content[: 3 * MIB])
        time.sleep(1)  # its pipeline of DataNodes stands
        os.kill(wounded.pid("datanode1"), signal.SIGKILL)
        stream.write(content[3 * MIB :])
    assert storage.read_bytes(f"{hdfs_dir}/open") == content
    storage.make_dirs(f"{hdfs_dir}/more")
    write_everything(f"{hdfs_dir}/more", content)
    assert live_datanodes(wounded) == 2
    # Copies are ordered. Those that the NameNode has given to the dead one already are made minutes later.
    status = "op=LISTSTATUS&user.name=" + getpass.getuser()
    listed = wounded.webhdfs(f"{hdfs_dir}/more".removeprefix(wounded.url), status, "GET")
    assert {file["replication"] for file in listed["FileStatuses"]["FileStatus"]} == {2}


def test_a_datanode_hangs_while_files_are_written_and_read(
    wounded, hdfs_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdfs_client, "_MAX_SOCKET_TIMEOUT_MS", 1000)
    monkeypatch.setattr(hdfs_files, "_PROOF_TIMEOUT_S", 2.0)
    hdfs_client._connect.cache_clear()
    content = pattern(4 * MIB)
    storage.write_bytes(f"{hdfs_dir}/before", content)
    wait_for_replicas(wounded, f"{hdfs_dir}/before")
    wounded.freeze("datanode2")
    try:
        storage.make_dirs(f"{hdfs_dir}/more")
        write_everything(f"{hdfs_dir}/more", content)
        assert storage.read_bytes(f"{hdfs_dir}/before") == content
        assert live_datanodes(wounded) == 2
    finally:
        hdfs_client._connect.cache_clear()


def test_a_file_is_deleted_under_its_reader(hdfs_dir: str) -> None:
    content = pattern(8 * MIB)
    storage.write_bytes(f"{hdfs_dir}/a", content)
    with storage.open_read(f"{hdfs_dir}/a") as stream:
        head = stream.read(MIB)
        storage.remove(f"{hdfs_dir}/a")
        with contextlib.suppress(StorageError, MissingInputError):  # or the DataNodes still have it
            assert head + stream.read() == content
    with pytest.raises(MissingInputError):
        storage.read_bytes(f"{hdfs_dir}/a")


def test_the_namenode_restarts_while_files_are_written(wounded, hdfs_dir: str) -> None:
    written: list[int] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def write_and_publish() -> None:
        try:
            while not stop.is_set():
                number = len(written)
                storage.make_dirs(f"{hdfs_dir}/building-{number}")
                storage.write_bytes(f"{hdfs_dir}/building-{number}/part", pattern(MIB))
                storage.publish_dir(f"{hdfs_dir}/building-{number}", f"{hdfs_dir}/gen-{number}")
                storage.write_json(f"{hdfs_dir}/manifest.json", {"live": number})
                written.append(number)
        except BaseException as error:  # noqa: BLE001  # shown below
            failures.append(error)

    writer = threading.Thread(target=write_and_publish)
    writer.start()
    try:
        wait_until(lambda: len(written) > 3 or failures)
        wounded.kill("namenode")
        before = len(written)
        wounded.up()
        wait_until(lambda: len(written) >= before + 3 or failures)
    finally:
        stop.set()
        writer.join()
    assert not failures, failures
    # What a reader finds. The file of a write that failed begins with `_`: it is removed aside, when there is an answer
    # again, and is not found where its folder has been published meanwhile.
    parts = [f"{hdfs_dir}/gen-{number}/part" for number in range(len(written))]
    assert [entry.path for entry in storage.find(hdfs_dir, "")] == sorted([*parts, f"{hdfs_dir}/manifest.json"])
    assert storage.read_json(f"{hdfs_dir}/manifest.json") == {"live": written[-1]}
    assert all(storage.read_bytes(part) == pattern(MIB) for part in parts)


def test_a_closed_namenode_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "HDFS_TIMEOUT_S", 1.0)
    with pytest.raises(StorageError, match=r"hdfs://127\.0\.0\.1:9/a: cannot write it: no answer for [01] s") as caught:
        storage.write_bytes("hdfs://127.0.0.1:9/a", b"x")
    assert caught.value.exit_code == 74


def test_a_hung_namenode_is_given_up_in_time(wounded, hdfs_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(f"{hdfs_dir}/a", b"x")
    monkeypatch.setattr(retry, "HDFS_TIMEOUT_S", 1.0)
    with Lease(f"{hdfs_dir}/_lock", "holder", ttl_s=1.0) as lease:  # a lock outlives an outage
        wounded.freeze("namenode")
        for call in (storage.read_bytes, storage.list_dir, storage.exists):
            with pytest.raises(StorageError, match=r"no answer for [01] s"):
                call(f"{hdfs_dir}/a")
        with pytest.raises(StorageError, match=r"no answer for [01] s"):
            storage.write_bytes(f"{hdfs_dir}/a", b"y")
        wounded.thaw("namenode")
        monkeypatch.undo()
        lease.check_quickly()
        lease.check()
        assert storage.read_bytes(f"{hdfs_dir}/a") == b"x"
