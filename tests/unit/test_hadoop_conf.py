"""Hadoop's XML as Hadoop's own `Configuration` (3.5) reads it."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

import pytest

from tfos_job.errors import SettingsError
from tfos_job.hadoop_conf import read_settings, user

INCLUDE = 'xmlns:xi="http://www.w3.org/2001/XInclude"'


def write(path: Path, *items: str, **properties: str) -> Path:
    """A file with some properties, whose names have dots for `__`, and what is given as it is."""
    made = [
        f"<property><name>{n.replace('__', '.')}</name><value>{v}</value></property>" for n, v in properties.items()
    ]
    path.write_text(f"<configuration {INCLUDE}>{''.join([*items, *made])}</configuration>", "utf-8")
    return path


def test_later_files_and_properties_win_unless_one_is_final(tmp_path: Path) -> None:
    final = "<property><name>b</name><value>1</value><final>true</final></property>"
    as_attributes = '<property name="d" value="5"/>'
    core = write(tmp_path / "core-site.xml", final, as_attributes, a="1", c="1")
    core.write_text(core.read_text().replace("</configuration>", "<!-- no element --><property/></configuration>"))
    hdfs = write(tmp_path / "hdfs-site.xml", a="2", b="2", c=" 3 ")
    found = read_settings(core, hdfs, tmp_path / "missing.xml")
    assert {name: found[name] for name in "abcd"} == {"a": "2", "b": "1", "c": "3", "d": "5"}


def test_variables_are_other_properties_javas_and_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTER", "east")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    core = write(
        tmp_path / "core-site.xml",
        fs__defaultFS="hdfs://${ns}",
        nested="${${which}}",
        which="ns",
        user="/user/${user.name}/${env.CLUSTER}",
        defaults="${env.UNSET-a}${env.EMPTY-b}${env.EMPTY:-c}${env.CLUSTER:-d}",
        unknown="${nobody.knows} ${ns}",
        unset="${env.UNSET}",
        itself="x${itself}",
        not_one="$ns ${a b} ${}",
    )
    hdfs = write(tmp_path / "hdfs-site.xml", ns="ns-${env.CLUSTER}")
    found = read_settings(core, hdfs)
    assert found["fs.defaultFS"] == "hdfs://ns-east"
    assert found["nested"] == "ns-east"
    assert found["user"] == f"/user/{getpass.getuser()}/east"
    assert found["defaults"] == "aceast"
    assert found["unknown"] == "${nobody.knows} ${ns}"  # Hadoop stops there as well
    assert found["unset"] == "${env.UNSET}"
    assert found["itself"] == "x${itself}"
    assert found["not_one"] == "$ns ${a b} ${}"


def test_what_refers_to_others_more_than_twenty_times_is_left_as_it_is(tmp_path: Path) -> None:
    chain = {f"p{n}": f"${{p{n + 1}}}" for n in range(20)} | {"p20": "end"}
    endless = {"one": "${two}", "two": "${three}", "three": "${one}${two}"}
    found = read_settings(write(tmp_path / "core-site.xml", **chain, **endless))
    assert (found["p1"], found["p0"]) == ("end", "${p1}")
    assert found["one"] == "${two}"


def test_included_files_are_read_where_they_are_included(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "mounts.xml", '<xi:include href="deep.xml"/>', link="hdfs://${ns}/d", first="2")
    write(tmp_path / "more" / "deep.xml", ns="deep")
    fallback = "<xi:fallback><property><name>f</name><value>1</value></property></xi:fallback>"
    core = write(
        tmp_path / "core-site.xml",
        "<property><name>first</name><value>1</value></property>",
        '<xi:include href="more/mounts.xml"/>',
        f'<xi:include href="none.xml">{fallback}</xi:include>',
        last="3",
    )
    assert read_settings(core) == {"first": "2", "ns": "deep", "link": "hdfs://deep/d", "f": "1", "last": "3"}
    absolute = write(tmp_path / "hdfs-site.xml", f'<xi:include href="{tmp_path}/more/deep.xml"/>')
    assert read_settings(absolute) == {"ns": "deep"}
    assert read_settings(write(absolute, f'<xi:include href="file://{tmp_path}/more/deep.xml"/>')) == {"ns": "deep"}


def test_files_brought_by_entities_are_read(tmp_path: Path) -> None:
    (tmp_path / "more.xml").write_text("<property><name>a</name><value>1</value></property>")
    core = tmp_path / "core-site.xml"
    core.write_text('<!DOCTYPE c [<!ENTITY more SYSTEM "more.xml">]><configuration>&more;</configuration>')
    assert read_settings(core) == {"a": "1"}


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("<configuration>", "cannot be understood"),
        ("", "cannot be understood"),
        (
            '<configuration xmlns:xi="x"><xi:include href="none.xml"/></configuration>',
            "includes 'none.xml', which is no",
        ),
        ('<configuration xmlns:xi="x"><xi:include href="core-site.xml"/></configuration>', "includes itself"),
        (
            '<!DOCTYPE c [<!ENTITY more SYSTEM "none.xml">]><configuration>&more;</configuration>',
            "cannot be understood",
        ),
    ],
)
def test_a_file_that_hadoop_would_not_read_is_named(tmp_path: Path, content: str, fact: str) -> None:
    (tmp_path / "core-site.xml").write_text(content)
    with pytest.raises(SettingsError, match=f"core-site.xml.*: {fact}"):
        read_settings(tmp_path / "core-site.xml")


def test_entities_neither_grow_without_end_nor_ask_another_host(tmp_path: Path) -> None:
    """An attacker's file: a billion words in a few lines, and a page that is fetched."""
    levels = [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12)]
    core = tmp_path / "core-site.xml"
    core.write_text(f'<!DOCTYPE c [<!ENTITY e0 "word">{"".join(levels)}]><configuration>&e11;</configuration>')
    with pytest.raises(SettingsError, match=r"cannot be understood: .*amplification"):
        read_settings(core)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/more.xml"
        core.write_text(f'<!DOCTYPE c [<!ENTITY more SYSTEM "{url}">]><configuration>&more;</configuration>')
        with pytest.raises(SettingsError, match="cannot be understood"):
            read_settings(core)
        core.write_text(f'<!DOCTYPE c SYSTEM "{url}"><configuration/>')
        with pytest.raises(SettingsError, match="cannot be understood"):
            read_settings(core)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody has connected
            server.accept()


def test_a_user_without_a_name_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_USER_NAME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # of nobody
    with pytest.raises(SettingsError, match=r"user 2147483641 has no name here.*HADOOP_USER_NAME"):
        user()
    monkeypatch.setenv("HADOOP_USER_NAME", "me")
    assert user() == "me"
