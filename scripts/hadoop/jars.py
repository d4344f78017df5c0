"""The jars of the daemons: those that pyspark brings, and four of Maven Central in a cache on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .problem import HadoopError, say, tail_of

DOWNLOAD_TIMEOUT_S = 600


@dataclass(frozen=True)
class Jar:
    """A file of Maven Central, with what it must weigh and hash to."""

    organisation: str
    module: str
    revision: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.module}-{self.revision}.jar"


# The ResourceManager does not start without BouncyCastle, which the minicluster's jar leaves to others.
JARS = (
    Jar(
        "org.apache.hadoop",
        "hadoop-client-minicluster",
        "3.5.0",
        56006450,
        "06772d24529e59939915979b3edba204d367750ef7dc5120411f35221dd4818c",
    ),
    Jar(
        "org.bouncycastle",
        "bcprov-jdk18on",
        "1.82",
        8451859,
        "14cde2fdfaa8890480a8e5b67aceef0c90f96682c1e23c133bafdc9e0b3255ce",
    ),
    Jar(
        "org.bouncycastle",
        "bcpkix-jdk18on",
        "1.82",
        1151390,
        "bdc723e20834832ac6af136cb5b5ff05e43b71d4fa151cc6510d9212ee086e63",
    ),
    Jar(
        "org.bouncycastle",
        "bcutil-jdk18on",
        "1.82",
        706248,
        "4420691958ad1c0ba275a6d6d8a6317adbdbdc9277055b6a72aa89c88cda8c7d",
    ),
)


def spark_jars_dir() -> Path:
    spec = importlib.util.find_spec("pyspark")  # found, not imported: that takes a second
    if spec is None or spec.origin is None:
        raise HadoopError("no pyspark in this Python; call scripts/hadoop.sh, which sets up for it")
    return Path(spec.origin).parent / "jars"


def java() -> str:
    home = os.environ.get("JAVA_HOME")
    program = shutil.which(str(Path(home) / "bin" / "java") if home else "java")
    if program is None:
        raise HadoopError(
            f"no java ({f'JAVA_HOME={home}' if home else 'on PATH'}); call scripts/hadoop.sh, which finds it"
        )
    return program


def cache_dir() -> Path:
    own = os.environ.get("TFOS_JOB_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(own) if own else Path(shared) / "tfos_job") / "hadoop-jars"


def is_right(path: Path, jar: Jar) -> bool:
    if not path.is_file() or path.stat().st_size != jar.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256


def fetch_jars() -> list[Path]:
    """The jars in the cache, fetched where they are missing or not what they should be."""
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        missing = [jar for jar in JARS if not is_right(folder / jar.file_name, jar)]
        if missing:
            say(f"fetching {', '.join(jar.file_name for jar in missing)} into {folder}")
            with tempfile.TemporaryDirectory(dir=folder, prefix="fetch.") as aside:
                run_ivy(missing, Path(aside))
                for jar in missing:
                    fetched = Path(aside) / jar.file_name
                    if not is_right(fetched, jar):
                        raise HadoopError(
                            f"{jar.file_name} is not the file that scripts/hadoop.py knows (size or SHA-256 differ)"
                        )
                    os.replace(fetched, folder / jar.file_name)
    return [folder / jar.file_name for jar in JARS]


def run_ivy(jars: list[Jar], target: Path) -> None:
    """Fetches with the Ivy that pyspark brings. TFOS_JOB_IVY_SETTINGS names a settings file, for a mirror."""
    ivy = next(iter(spark_jars_dir().glob("ivy-*.jar")), None)
    if ivy is None:
        raise HadoopError(f"no ivy-*.jar in {spark_jars_dir()}")
    dependencies = "".join(
        f'<dependency org="{jar.organisation}" name="{jar.module}" rev="{jar.revision}" conf="default-&gt;master"/>'
        for jar in jars
    )
    (target / "ivy.xml").write_text(
        '<ivy-module version="2.0"><info organisation="tfos_job" module="hadoop"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )
    command = [java(), "-jar", str(ivy), "-warn", "-cache", str(target / "cache"), "-ivy", str(target / "ivy.xml")]
    command += ["-confs", "default", "-retrieve", f"{target}/[artifact]-[revision].[ext]"]
    if settings := os.environ.get("TFOS_JOB_IVY_SETTINGS"):
        command += ["-settings", settings]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise HadoopError(f"the download did not end within {DOWNLOAD_TIMEOUT_S} s") from error
    if done.returncode:
        raise HadoopError(f"Ivy could not fetch the jars:\n{tail_of((done.stdout + done.stderr).splitlines())}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
