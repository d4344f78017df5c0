"""Hadoop's configuration on this host: the XML files of HADOOP_CONF_DIR, read as Hadoop's `Configuration` does.

A later property replaces an earlier one, unless that is `final`; `xi:include` includes another file; `${name}` is
another property, a system property of Java or, as `env.NAME`, an environment variable. hdfs-native does none of that.
"""

from __future__ import annotations

import getpass
import os
import pwd
import re
import xml.etree.ElementTree
import xml.sax.handler
import xml.sax.xmlreader
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfos_job.errors import SettingsError

_MAX_DEPTH = 20  # Hadoop's own
_VARIABLE = re.compile(r"\$\{([^}$ ]+)\}")  # matches the innermost of nested variables
_ENVIRONMENT = re.compile(r"env\.(?P<name>.*?)(?:(?P<colon>:)?-(?P<default>.*))?", re.DOTALL)


def conf_dir() -> Path:
    """Returns `$HADOOP_CONF_DIR`, else `$YARN_CONF_DIR`.

    Raises:
      SettingsError: neither names a folder.
    """
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        if folder := os.environ.get(name):
            if not Path(folder).is_dir():
                raise SettingsError("no such folder", place=f"{name}={folder}", next_step="Name Hadoop's configuration")
            return Path(folder)
    raise SettingsError(
        "neither HADOOP_CONF_DIR nor YARN_CONF_DIR is set",
        place="--master yarn",
        next_step='Name the folder with core-site.xml and yarn-site.xml; here: eval "$(scripts/hadoop.sh env)"',
    )


def read_settings(*paths: Path) -> dict[str, str]:
    """Reads the properties of files, in this order; missing files are ignored.

    Raises:
      SettingsError: a file is not Hadoop's XML, or includes itself or a missing file.
    """
    found: dict[str, _Property] = {}
    for path in paths:
        if path.is_file():
            for name, each in _properties(path, depth=0):
                if name not in found or not found[name].is_final:
                    found[name] = each
    raw = {name: each.value for name, each in found.items()}
    return {name: _expand(value, raw) for name, value in raw.items()}


@dataclass(frozen=True)
class _Property:
    value: str
    is_final: bool


def _properties(path: Path, depth: int) -> Iterator[tuple[str, _Property]]:
    builder = _Builder()
    parser = xml.sax.make_parser()
    parser.setFeature(xml.sax.handler.feature_external_ges, True)  # entities may include files as well
    parser.setContentHandler(builder)
    parser.setEntityResolver(_Entities(path.parent))
    try:
        parser.parse(str(path))
        root = builder.tree.close()
    except (xml.sax.SAXException, OSError, AssertionError) as e:
        raise SettingsError(f"cannot be understood: {e}", place=str(path), next_step="Check HADOOP_CONF_DIR") from e
    yield from _below(root, path, depth)


class _Builder(xml.sax.ContentHandler):
    """A builder of an element tree, without the prefixes of names: `include` for `xi:include`."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = xml.etree.ElementTree.TreeBuilder()

    def startElement(self, name: str, attrs: xml.sax.xmlreader.AttributesImpl) -> None:  # noqa: N802  # SAX's name
        self.tree.start(name.rpartition(":")[2], dict(attrs.items()))

    def endElement(self, name: str) -> None:  # noqa: N802  # SAX's name
        self.tree.end(name.rpartition(":")[2])

    def characters(self, content: str) -> None:
        self.tree.data(content)


class _Entities(xml.sax.handler.EntityResolver):
    """A resolver of entities: files relative to the including one, and nothing from the network."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def resolveEntity(self, publicId: str | None, systemId: str) -> str:  # noqa: N802, N803  # SAX's names
        return (self._folder / systemId).resolve(strict=True).as_uri()


def _below(parent: xml.etree.ElementTree.Element, path: Path, depth: int) -> Iterator[tuple[str, _Property]]:
    for element in parent:
        if element.tag == "property":
            # As elements or, since Hadoop 3, as attributes.
            name, value, final = (
                (element.findtext(key) or element.get(key) or "").strip() for key in ("name", "value", "final")
            )
            yield name, _Property(value, final == "true")
        elif element.tag == "configuration":
            yield from _below(element, path, depth)
        elif element.tag == "include":
            yield from _included(element, path, depth)


def _included(element: xml.etree.ElementTree.Element, path: Path, depth: int) -> Iterator[tuple[str, _Property]]:
    href = element.get("href", "")
    included = path.parent / href.removeprefix("file://")
    fallback = element.find("fallback")
    if included.is_file() and depth < _MAX_DEPTH:
        yield from _properties(included, depth + 1)
    elif included.is_file():
        raise SettingsError("includes itself", place=str(path), next_step="Check HADOOP_CONF_DIR")
    elif fallback is not None:
        yield from _below(fallback, path, depth)
    else:
        raise SettingsError(
            f"includes {href!r}, which is no file beside it", place=str(path), next_step="Check HADOOP_CONF_DIR"
        )


def _expand(value: str, raw: dict[str, str]) -> str:
    """Expands the variables of a value; returns it unchanged if one is unknown or recursive."""
    expanded = value
    for _ in range(_MAX_DEPTH):
        match = _VARIABLE.search(expanded)
        meaning = _meaning(match[1], raw) if match else None
        if match is None or meaning is None:
            return expanded
        if match[0] in meaning:
            return value
        expanded = expanded[: match.start()] + meaning + expanded[match.end() :]
    return value


def _meaning(name: str, raw: dict[str, str]) -> str | None:
    """Returns the value of `${name}`; `env.NAME-default` and `env.NAME:-default` have a default."""
    if name.startswith("env."):
        match = _ENVIRONMENT.fullmatch(name)
        assert match is not None, name
        value = os.environ.get(match["name"])
        return match["default"] if value is None or (not value and match["colon"]) else value
    return _system_properties().get(name, raw.get(name))


def _system_properties() -> dict[str, str]:
    """Returns Java's properties that are equal in all JVMs of this user; others, as `hadoop.tmp.dir`, are in files."""
    try:
        entry = pwd.getpwuid(os.getuid())
        name, home = entry.pw_name, entry.pw_dir
    except KeyError:
        name = home = "?"
    return {"user.name": name, "user.home": home, "user.dir": os.getcwd(), "java.io.tmpdir": "/tmp"}


def default_fs(folder: Path) -> str:
    """Returns `fs.defaultFS`, without a slash at its end.

    Raises:
      SettingsError: it is not set, or is no distributed file system.
    """
    value = read_settings(folder / "core-site.xml", folder / "hdfs-site.xml").get("fs.defaultFS", "").rstrip("/")
    if not value.startswith(("hdfs://", "viewfs://")):
        raise SettingsError(
            f"fs.defaultFS is {value or 'not set'}: neither hdfs:// nor viewfs://",
            place=str(folder / "core-site.xml"),
            next_step="Give --hdfs_dir hdfs://…, where environments, outcomes and event logs may lie",
        )
    return value


def user() -> str:
    """Returns the user of the home folder on HDFS; a Kerberos principal of another name needs --hdfs_dir.

    Raises:
      SettingsError: this user has no name.
    """
    try:
        return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    except KeyError as e:  # a container may run with a user id that has no name
        raise SettingsError(
            f"user {os.getuid()} has no name here", place="/etc/passwd", next_step="Set HADOOP_USER_NAME"
        ) from e
