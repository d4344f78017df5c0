"""Archives shipped with a job: the Python environment, Spark's jars and this package, named by their contents.

An archive is packed once into a cache on this host and uploaded once to a folder on HDFS. Its name has a digest of all
its contents, so an existing file of that name is the right one. Runs on the submitting host; imports neither TensorFlow
nor Spark. docs/decisions/0002-shipping-python.md has the reasons.

    python -m tfos_job.submit.environment --format zip --output Python.zip

writes the environment to a file, for `--archives Python.zip#Python` or for inspection.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import platform
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

import tfos_job
from tfos_job import storage
from tfos_job.errors import JobError, SettingsError
from tfos_job.host import logs
from tfos_job.layout import join
from tfos_job.submit import distributions, interpreter, packing, spark_folder

FOLDER = "environment"
"""Name of the environment's folder in a container: PYSPARK_PYTHON is `./environment/bin/python`."""

_BLOCK_BYTES = 4 << 20
_SHOWN_BYTES = 32 << 20  # smaller uploads end too soon for a progress bar
_DIGEST_LENGTH = 12
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shipment:
    """Arguments for spark-submit.

    Attributes:
      python_archive: for `--archives`, with `#environment`; empty if no Python is shipped.
      spark_archive: for `spark.yarn.archive`.
      package: for `--py-files`.
    """

    python_archive: str
    spark_archive: str
    package: str


@dataclass(frozen=True)
class _Archive:
    """One of the three archives: its folder in the cache, its name, and the function that writes it."""

    kind: str
    name: str
    write: Callable[[Path], None]


# --- shipping --------------------------------------------------------------------------------------------------------


def plan(hdfs_dir: str, *, python: bool = True) -> Shipment:
    """Returns the shipment of `prepare`, without packing, uploading or a call to HDFS.

    Args:
      hdfs_dir: folder of the archives.
      python: True to ship the Python environment.
    """
    archives = (*([_python()] if python else []), _spark_jars(), _package())
    urls = [join(hdfs_dir, archive.name) for archive in archives]
    return _shipment(urls, python=python)


def prepare(hdfs_dir: str, *, python: bool = True, log: Callable[[str], object] = _log.info) -> Shipment:
    """Ensures that all archives are on HDFS: packs those that changed and uploads those that are missing.

    Args:
      hdfs_dir: folder of the archives; created if it is missing.
      python: True to ship the Python environment.
      log: called with messages about long operations.
    """
    paths = [*([python_archive(log=log)] if python else []), spark_jars_archive(log=log), package_zip(log=log)]
    urls = [publish(path, hdfs_dir, log=log) for path in paths]
    return _shipment(urls, python=python)


def _shipment(urls: list[str], *, python: bool) -> Shipment:
    archive = f"{urls[0]}#{FOLDER}" if python else ""
    return Shipment(archive, urls[-2], urls[-1])


def python_archive(*, log: Callable[[str], object] = _log.info) -> Path:
    """Packs this interpreter with the packages that jobs need; returns the file in the cache."""
    return _cached(_python(), log)


def spark_jars_archive(*, log: Callable[[str], object] = _log.info) -> Path:
    """Packs the jars of the installed pyspark, uncompressed since jars are compressed; returns the file."""
    return _cached(_spark_jars(), log)


def package_zip(*, log: Callable[[str], object] = _log.info) -> Path:
    """Packs `tfos_job`, from the place that it is imported from; returns the file in the cache."""
    return _cached(_package(), log)


# --- the three archives ----------------------------------------------------------------------------------------------


def _python() -> _Archive:
    packages = distributions.shipped(distributions.installed())

    def write(path: Path) -> None:
        packing.write_tar_gz(path, packing.members(packages))

    return _Archive("environments", f"environment-{_python_digest(packages)}.tar.gz", write)


def _python_digest(packages: dict[str, Distribution]) -> str:
    """Returns the digest of the interpreter, its libraries, the packages, and the code that packs them."""
    program, extensions = interpreter.program(), interpreter.extension_modules()
    libraries = interpreter.shared_libraries([program, *extensions]).values()
    code = [Path(module.__file__ or "") for module in (distributions, interpreter, packing)]
    texts = [sys.version, platform.machine(), *map(distributions.fingerprint, packages.values())]
    return _digest(
        [*map(str.encode, texts), *(path.read_bytes() for path in (program, *extensions, *libraries, *code))]
    )


def _spark_jars() -> _Archive:
    spec = importlib.util.find_spec("pyspark")  # found, not imported: that takes a second
    if spec is None or spec.origin is None:
        raise SettingsError("there is no pyspark in this Python", next_step="pip install pyspark")
    jars = sorted((Path(spec.origin).parent / "jars").glob("*.jar"))
    version = importlib.metadata.version("pyspark")

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for jar in jars:
                archive.write(jar, jar.name)

    digest = _digest(f"{jar.name} {jar.stat().st_size}".encode() for jar in jars)
    return _Archive("spark-jars", f"spark-{version}-jars-{digest}.zip", write)


def _package() -> _Archive:
    root = Path(tfos_job.__file__).parent
    # spark-submit takes `spark/` along itself; without it a wheel and the checkout that it was built from are the same.
    paths = [path for path in packing.sorted_files(root) if path.relative_to(root).parts[0] != spark_folder.NAME]
    content = {f"{root.name}/{path.relative_to(root)}": path.read_bytes() for path in paths}

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content.items():
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)

    digest = _digest(part for name, data in content.items() for part in (name.encode(), data))
    return _Archive("packages", f"{root.name}-{digest}.zip", write)


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())  # each part is hashed, so that the borders between parts matter
    return digest.hexdigest()[:_DIGEST_LENGTH]


# --- the cache -------------------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """Returns TFOS_JOB_CACHE, else `tfos_job` in the user's cache folder; scripts/hadoop.py uses it as well."""
    own = os.environ.get("TFOS_JOB_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(own) if own else Path(shared) / "tfos_job"


def _cached(archive: _Archive, log: Callable[[str], object]) -> Path:
    folder = cache_dir() / archive.kind
    path = folder / archive.name
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if not path.is_file():  # another process may have packed it meanwhile
            begun_s = time.monotonic()
            log(f"packing {archive.name} into {folder}")
            with tempfile.TemporaryDirectory(dir=folder, prefix="packing.") as aside:
                archive.write(Path(aside, archive.name))
                os.replace(Path(aside, archive.name), path)
            log(f"{archive.name}: {path.stat().st_size / 1e6:.1f} MB, {time.monotonic() - begun_s:.1f} s")
    return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- HDFS ------------------------------------------------------------------------------------------------------------


def publish(local_archive: Path, hdfs_dir: str, *, log: Callable[[str], object] = _log.info) -> str:
    """Uploads an archive of the cache, unless one of its name exists: the name identifies the contents.

    Existing archives are never overwritten: running applications read them, and YARN fails an application if they
    change.

    Returns:
      Its URL.
    """
    url = join(hdfs_dir, local_archive.name)
    if storage.exists(url):
        return url
    storage.make_dirs(hdfs_dir)
    size_bytes = local_archive.stat().st_size
    begun_s = time.monotonic()

    def upload(target: BinaryIO) -> None:
        with (
            local_archive.open("rb") as source,
            tqdm(
                desc=f"upload {local_archive.name}",
                total=size_bytes,
                unit="B",
                unit_scale=True,
                file=sys.stderr,
                disable=size_bytes < _SHOWN_BYTES or not logs.shows_bars(),
            ) as bar,
        ):
            while block := source.read(_BLOCK_BYTES):
                target.write(block)
                bar.update(len(block))

    storage.write_file(url, upload)
    log(f"uploaded {url}: {size_bytes / 1e6:.1f} MB, {time.monotonic() - begun_s:.1f} s")
    return url


# --- command line ----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Packs the environment into the file of `--output`."""
    parser = argparse.ArgumentParser(prog="python -m tfos_job.submit.environment", description=__doc__)
    parser.add_argument("--format", choices=packing.WRITERS, default="tar.gz")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--extra", action="append", default=[], help="of tfos_job, such as infer; may be repeated")
    options = parser.parse_args(argv)
    logs.text_to_stderr()
    try:
        contents = packing.members(distributions.shipped(distributions.installed(), options.extra))
        packing.WRITERS[options.format](options.output, contents)
    except JobError as error:
        _log.error("%s", error)
        return error.exit_code
    _log.info("%s: %d files, %.1f MB", options.output, len(contents), options.output.stat().st_size / 1e6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
