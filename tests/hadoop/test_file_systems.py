"""What `hdfs://` and `viewfs://` mean by configuration, who the user is, and other schemes, on a live HDFS."""

from __future__ import annotations

import base64
import getpass
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from tfos_job import storage
from tfos_job.errors import AccessError, MissingInputError, SettingsError, StorageError
from tfos_job.lease import Lease

pytestmark = pytest.mark.hadoop

CLOSED = "127.0.0.1:9"
TABLE = "fs.viewfs.mounttable.cluster"


def write_conf(folder: Path, properties: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True)
    lines = [
        f"<property><name>{name}</name><value>{escape(value)}</value></property>" for name, value in properties.items()
    ]
    (folder / "core-site.xml").write_text(f"<configuration>{''.join(lines)}</configuration>")
    return folder


def name_service(hadoop, name: str = "nsjob") -> dict[str, str]:
    """A name service whose first NameNode is down."""
    return {
        "dfs.nameservices": name,
        f"dfs.ha.namenodes.{name}": "nn1,nn2",
        f"dfs.namenode.rpc-address.{name}.nn1": CLOSED,
        f"dfs.namenode.rpc-address.{name}.nn2": hadoop.url.removeprefix("hdfs://"),
    }


def use_everything(root: str) -> None:
    """Write, read, list, rename, publish, lock and remove in the empty folder `root`."""
    storage.make_dirs(f"{root}/building")
    storage.write_bytes(f"{root}/building/part", b"x" * 100_000)
    storage.rename(f"{root}/building/part", f"{root}/building/part-0")
    storage.publish_dir(f"{root}/building", f"{root}/gen-0")
    with pytest.raises(StorageError, match="already there"):
        storage.publish_dir(f"{root}/gen-0", root)
    with Lease(f"{root}/_lock", "test"):
        assert [entry.path for entry in storage.find(root, "-0")] == [f"{root}/gen-0/part-0"]
    assert storage.read_bytes(f"{root}/gen-0/part-0") == b"x" * 100_000
    assert storage.stat(f"{root}/gen-0/part-0").size_bytes == 100_000
    assert [entry.path for entry in storage.list_dir(root)] == [f"{root}/gen-0"]
    with pytest.raises(MissingInputError):
        storage.read_bytes(f"{root}/gen-0/part-1")
    storage.remove(f"{root}/gen-0")
    assert storage.list_dir(root) == []


# --- by configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nsjob", "NS-Job"])  # Python's URL parser would write it small
def test_a_name_service_goes_on_to_the_namenode_that_answers(
    hadoop, hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    conf = write_conf(tmp_path / "conf", name_service(hadoop, name) | {"fs.defaultFS": f"hdfs://{name}"})
    monkeypatch.setenv("HADOOP_CONF_DIR", str(conf))
    path = hdfs_dir.removeprefix(hadoop.url)
    use_everything(f"hdfs://{name}{path}")
    use_everything(f"hdfs://{path}")


@pytest.mark.parametrize("fallback", [True, False])  # hdfs-native asks for one, Hadoop does not
def test_a_mount_table_leads_to_name_services(
    hadoop, hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallback: bool
) -> None:
    path = hdfs_dir.removeprefix(hadoop.url)
    links = {
        "fs.defaultFS": "viewfs://cluster",
        f"{TABLE}.link./data": f"hdfs://nsjob{path}/data",
        f"{TABLE}.link./other": f"{hdfs_dir}/other",
    }
    if fallback:
        links[f"{TABLE}.linkFallback"] = f"hdfs://nsjob{path}"
    for name in ("data/sub", "other"):
        storage.make_dirs(f"{hdfs_dir}/{name}")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(write_conf(tmp_path / "conf", name_service(hadoop) | links)))
    use_everything("viewfs://cluster/data/sub")
    use_everything("viewfs:///data/sub")
    storage.write_bytes("viewfs://cluster/data/sub/a", b"x")
    assert storage.read_bytes(f"{hdfs_dir}/data/sub/a") == b"x"
    with pytest.raises(SettingsError, match=r"viewfs://cluster/data/sub/a: cannot rename it: .*Cannot rename across"):
        storage.rename("viewfs://cluster/data/sub/a", "viewfs://cluster/other/a")
    with pytest.raises(SettingsError, match="another file system"):
        storage.rename("viewfs://cluster/data/sub/a", f"{hdfs_dir}/data/sub/b")
    assert [entry.name for entry in storage.list_dir("viewfs://cluster/data/sub")] == ["a"]
    assert storage.list_dir("viewfs://cluster/other") == []


def test_without_an_authority_it_is_the_default_file_system(hadoop, hdfs_dir: str) -> None:
    use_everything(hdfs_dir.replace(hadoop.url, "hdfs://"))


def test_in_a_container_sparks_copy_of_the_configuration_is_used(
    hadoop, hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_conf(tmp_path / "__spark_conf__" / "__hadoop_conf__", name_service(hadoop) | {"fs.defaultFS": "hdfs://nsjob"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HADOOP_CONF_DIR")
    use_everything(hdfs_dir.replace(hadoop.url, "hdfs://"))


def test_a_host_that_is_neither_known_nor_a_name_service(hadoop) -> None:
    with pytest.raises((SettingsError, StorageError), match=r"nsnone\.invalid") as caught:
        storage.exists("hdfs://nsnone.invalid/data")
    # 74 where this machine cannot ask a name server whether there is such a host.
    assert caught.value.exit_code == (78 if isinstance(caught.value, SettingsError) else 74)


# --- who the user is -------------------------------------------------------------------------------------------------


def vint(number: int) -> bytes:
    """Hadoop's WritableUtils.writeVInt, for lengths."""
    if number < 128:
        return bytes([number])
    size = (number.bit_length() + 7) // 8
    return bytes([(-112 - size) % 256]) + number.to_bytes(size, "big")


def read_vint(data: bytes) -> tuple[int, bytes]:
    first = int.from_bytes(data[:1], signed=True)
    if first >= -112:
        return first, data[1:]
    size = -112 - first
    return int.from_bytes(data[1 : 1 + size], "big"), data[1 + size :]


def token_file(path: Path, token: str, service: str) -> Path:
    """The file that YARN gives a container, from a token as WebHDFS writes it."""
    rest = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    fields = []
    for _ in ("identifier", "password"):
        length, rest = read_vint(rest)
        fields.append(rest[:length])
        rest = rest[length:]
    # WebHDFS says "WEBHDFS delegation", but it is the NameNode's, which takes both.
    fields += [b"HDFS_DELEGATION_TOKEN", service.encode()]
    path.write_bytes(b"HDTS\0" + vint(1) + b"".join(vint(len(field)) + field for field in (service.encode(), *fields)))
    return path


@pytest.fixture
def secure_conf(hadoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that must authenticate; the NameNode takes a delegation token, or anybody."""
    properties = {"fs.defaultFS": hadoop.url, "hadoop.security.authentication": "kerberos"}
    monkeypatch.setenv("HADOOP_CONF_DIR", str(write_conf(tmp_path / "secure", properties)))


def test_a_delegation_token_says_who_the_user_is_until_it_is_cancelled(
    hadoop, hdfs_dir: str, tmp_path: Path, secure_conf: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = getpass.getuser()
    token = hadoop.webhdfs("/", f"op=GETDELEGATIONTOKEN&renewer={user}&user.name={user}", "GET")["Token"]["urlString"]
    file = token_file(tmp_path / "tokens", token, hadoop.url.removeprefix("hdfs://"))
    monkeypatch.setenv("HADOOP_TOKEN_FILE_LOCATION", str(file))
    monkeypatch.setenv("HADOOP_USER_NAME", "mallory")  # who would not be allowed to
    storage.write_bytes("hdfs://" + hdfs_dir.removeprefix(hadoop.url) + "/a", b"x")
    hadoop.webhdfs("/", f"op=CANCELDELEGATIONTOKEN&token={token}&user.name={user}")
    other = write_conf(tmp_path / "other", {"fs.defaultFS": hadoop.url, "hadoop.security.authentication": "kerberos"})
    monkeypatch.setenv("HADOOP_CONF_DIR", str(other))  # another connection
    with pytest.raises(AccessError, match=r"InvalidToken.*HADOOP_TOKEN_FILE_LOCATION") as caught:
        storage.read_bytes("hdfs://" + hdfs_dir.removeprefix(hadoop.url) + "/a")
    assert caught.value.exit_code == 77


# --- other schemes ---------------------------------------------------------------------------------------------------


def test_webhdfs_is_read_and_not_written(hadoop, hdfs_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("requests")
    monkeypatch.setenv("NO_PROXY", "*")
    storage.make_dirs(f"{hdfs_dir}/in")
    storage.write_bytes(f"{hdfs_dir}/in/a.gnt", b"xy" * 1000)
    there = f"webhdfs://127.0.0.1:{hadoop.state['ports']['namenode.http']}" + hdfs_dir.removeprefix(hadoop.url)
    (entry,) = storage.find(there, ".gnt")
    assert entry.path == f"{there}/in/a.gnt"
    assert entry.size_bytes == 2000
    assert entry.mtime_s == storage.stat(f"{hdfs_dir}/in/a.gnt").mtime_s
    assert storage.read_bytes(entry.path) == b"xy" * 1000
    with pytest.raises(MissingInputError):
        storage.read_bytes(f"{there}/in/b.gnt")
    with pytest.raises(SettingsError, match="Write to hdfs://"):
        storage.write_bytes(f"{there}/in/b.gnt", b"x")
