"""What this host knows of its Hadoop: the XML files in HADOOP_CONF_DIR."""

from __future__ import annotations

import getpass
import os
import xml.etree.ElementTree
from pathlib import Path

from tfos_job.errors import SettingsError


def conf_dir() -> Path:
    """`$HADOOP_CONF_DIR`, else `$YARN_CONF_DIR`.

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


def read_settings(path: Path) -> dict[str, str]:
    """The properties of one file; none where it is not there.

    Raises:
      SettingsError: it is not Hadoop's XML.
    """
    if not path.is_file():
        return {}
    try:
        root = xml.etree.ElementTree.parse(path).getroot()
    except (xml.etree.ElementTree.ParseError, OSError) as e:
        raise SettingsError(f"cannot be understood: {e}", place=str(path), next_step="Check HADOOP_CONF_DIR") from e
    return {p.findtext("name", "").strip(): p.findtext("value", "").strip() for p in root.iter("property")}


def default_fs(folder: Path) -> str:
    """`fs.defaultFS`, without a slash at its end.

    Raises:
      SettingsError: there is none, or it is no distributed one.
    """
    value = read_settings(folder / "core-site.xml").get("fs.defaultFS", "").rstrip("/")
    if not value.startswith(("hdfs://", "viewfs://")):
        raise SettingsError(
            f"fs.defaultFS is {value or 'not set'}: neither hdfs:// nor viewfs://",
            place=str(folder / "core-site.xml"),
            next_step="Give --hdfs_dir hdfs://…, where environments, outcomes and event logs may lie",
        )
    return value


def user() -> str:
    """Whose home on HDFS it is; a Kerberos principal of another name wants --hdfs_dir."""
    return os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
