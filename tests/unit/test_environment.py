"""What travels with a job: which packages and files, modules out of one file, archives, the cache, the upload."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import marshal
import multiprocessing
import os
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
import zlib
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

import tfos_job
from tfos_job.errors import SettingsError
from tfos_job.fonts import find_font
from tfos_job.submit import distributions, environment, interpreter, packing
from tfos_job.submit.packing import PackedFile


def run(command: list[str], *, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env or {}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_tree(root: Path, files: dict[str, str]) -> dict[str, Path]:
    for relative, text in files.items():
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        (root / relative).write_text(text, "utf-8")
    return {relative: root / relative for relative in files if relative.endswith(".py")}


# --- which packages, which files -------------------------------------------------------------------------------------


def test_the_closure_follows_extras_and_markers_but_not_what_stays_at_home() -> None:
    requirements = {
        "tfos-job": ["Tensor_Flow[gpu]>=2", "pyspark", "old; python_version < '3'", "pytest; extra == 'dev'"],
        "tensor-flow": ["numpy", "cuda.runtime; extra == 'gpu'", "tpu; extra == 'tpu'", "libclang"],
        "numpy": [],
        "cuda-runtime": ["tensor-flow"],  # a circle
        "pyspark": ["py4j"],
        "pytest": [],
    }
    assert distributions.closure("tfos_job", requirements) == {"tfos-job", "tensor-flow", "numpy", "cuda-runtime"}


def test_the_closure_has_the_extras_that_a_command_asks_for() -> None:
    requirements = {
        "tfos-job": ["numpy", "pyarrow; extra == 'infer'", "pytest; extra == 'dev'", "old; python_version < '3'"],
        "numpy": [],
        "pyarrow": ["numpy"],
    }
    assert distributions.closure("tfos_job", requirements) == {"tfos-job", "numpy"}
    assert distributions.closure("tfos_job", requirements, ["infer"]) == {"tfos-job", "numpy", "pyarrow"}
    with pytest.raises(SettingsError, match=r"has no extra 'serve'.* pip install 'tfos_job\[serve\]'"):
        distributions.closure("tfos_job", requirements, ["serve"])
    del requirements["pyarrow"]
    with pytest.raises(SettingsError, match="tfos-job requires pyarrow, which is not installed"):
        distributions.closure("tfos_job", requirements, ["infer"])


def test_what_parquet_needs_travels() -> None:
    """By the requirements of pyproject.toml: an environment's metadata may be of another day."""
    project = tomllib.loads((Path(tfos_job.__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    available = distributions.installed()
    requirements = {name: distribution.requires or [] for name, distribution in available.items()}
    of_infer = [f"{text}; extra == 'infer'" for text in project["optional-dependencies"]["infer"]]
    requirements["tfos-job"] = [*project["dependencies"], *of_infer]
    plain = distributions.closure("tfos_job", requirements)
    assert distributions.closure("tfos_job", requirements, ["infer"]) - plain >= {"pyarrow", "pandas", "pytz"}
    assert "pyarrow" in distributions.shipped(available)  # with every job: they all have one environment
    assert "pyarrow" not in distributions.shipped({name: it for name, it in available.items() if name != "pyarrow"})
    needed = {file.relative for file in distributions.files(available["pyarrow"])}
    assert {"pyarrow/__init__.py", "pyarrow/parquet/core.py"} <= needed


def test_a_requirement_that_is_not_installed_is_named_with_the_one_who_wants_it() -> None:
    with pytest.raises(SettingsError, match="keras requires numpy, which is not installed"):
        distributions.closure("tfos_job", {"tfos-job": ["keras"], "keras": ["numpy"]})


def test_what_is_shipped_holds_the_libraries_of_gpus_and_no_tools() -> None:
    available = dict(distributions.installed())
    available["nvidia-cudnn-cu12"] = available["numpy"]
    names = set(distributions.shipped(available))
    assert names >= {"tensorflow", "keras", "numpy", "hdfs-native", "setuptools", "nvidia-cudnn-cu12"}
    assert names.isdisjoint({"pytest", "ruff", "mypy", "pyspark", "py4j", "tfos-job", "pip", "libclang"})


def test_the_font_of_pictures_travels() -> None:
    project = tomllib.loads((Path(tfos_job.__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    available = distributions.installed()
    requirements = {name: distribution.requires or [] for name, distribution in available.items()}
    requirements["tfos-job"] = project["dependencies"]
    assert "cvttf-notosanscjk-regular" in distributions.closure("tfos_job", requirements)
    files = [file.path for file in distributions.files(available["cvttf-notosanscjk-regular"])]
    assert Path(find_font()) in files


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("numpy/linalg/_umath_linalg.cpython-311-x86_64-linux-gnu.so", True),
        ("numpy.libs/libscipy_openblas64_-32a4b2a6.so", True),
        ("tensorflow/_api/v2/test/__init__.py", True),
        ("matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf", True),
        ("keras-3.15.1.dist-info/METADATA", True),
        ("keras-3.15.1.dist-info/RECORD", False),
        ("numpy/linalg/tests/test_linalg.py", False),
        ("numpy/__pycache__/version.cpython-311.pyc", False),
        ("tensorflow/include/Eigen/Core", False),
        ("numpy/__init__.pyi", False),
        ("../../../bin/tensorboard", False),
    ],
)
def test_files_that_no_node_opens_stay_at_home(path: str, needed: bool) -> None:
    assert distributions.is_needed(path) == needed


def test_a_fingerprint_changes_with_a_file(tmp_path: Path) -> None:
    info = "thing-1.0.dist-info"
    record = f"thing.py,sha256=abc,4\n{info}/METADATA,sha256=def,9\n"
    write_tree(
        tmp_path, {"thing.py": "a = 1", f"{info}/METADATA": "Name: thing\nVersion: 1.0\n", f"{info}/RECORD": record}
    )
    (thing,) = importlib.metadata.distributions(path=[str(tmp_path)])
    before = distributions.fingerprint(thing)
    assert distributions.fingerprint(thing) == before
    (tmp_path / "thing.py").write_text("a = 10")
    assert distributions.fingerprint(thing) != before
    (tmp_path / "thing.py").unlink()
    with pytest.raises(SettingsError, match="a file of the package thing is not there"):
        distributions.fingerprint(thing)


# --- the interpreter -------------------------------------------------------------------------------------------------


def test_ldd_without_what_belongs_to_the_node() -> None:
    text = """/usr/lib/python3.11/lib-dynload/_ssl.so:
\tlinux-vdso.so.1 (0x00007ffd2b5f2000)
\tlibssl.so.3 => /lib/x86_64-linux-gnu/libssl.so.3 (0x00007f1)
\tlibpython3.11.so.1.0 => /opt/py/bin/../lib/libpython3.11.so.1.0 (0x00007f2)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f3)
\tlibcuda.so.1 => /lib/x86_64-linux-gnu/libcuda.so.1 (0x00007f4)
\tlibhdf5-8c29085d.so.310 => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f5)
"""
    assert interpreter.parse_ldd(text) == {
        "libpython3.11.so.1.0": Path("/opt/py/lib/libpython3.11.so.1.0"),
        "libssl.so.3": Path("/lib/x86_64-linux-gnu/libssl.so.3"),
    }


SELF_REPORT = """
import bz2, ctypes, decimal, json, lzma, numpy, sqlite3, ssl, sys, tqdm, uuid, zlib
import inspect, multiprocessing, pkg_resources, tomllib
assert pkg_resources.get_distribution("numpy").version == numpy.__version__
assert inspect.getsource(json.dumps).startswith("def dumps")
assert numpy.ones(3).sum() == 3
lines = [line.split() for line in open("/proc/self/maps")]
libraries = sorted({fields[-1] for fields in lines if ".so" in fields[-1]})
print(json.dumps({"executable": sys.executable, "prefix": sys.prefix, "path": sys.path, "libraries": libraries}))
"""


@pytest.fixture(scope="module")
def contents() -> list[PackedFile]:
    """Of an environment of few packages."""
    available = distributions.installed()
    return packing.members({name: available[name] for name in ("numpy", "setuptools", "tqdm")})


@pytest.mark.parametrize("archive_format", ["tar.gz", "zip"])
def test_a_packed_interpreter_runs_on_nothing_but_the_c_library(
    tmp_path: Path, contents: list[PackedFile], archive_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zlib, "Z_DEFAULT_COMPRESSION", 1)  # a zip in a third of the time
    packing.WRITERS[archive_format](tmp_path / "packed", contents)
    (tmp_path / "packed").rename(tmp_path / f"packed.{archive_format}")
    root = tmp_path / "moved" / "environment"
    if archive_format == "zip":
        with zipfile.ZipFile(tmp_path / "packed.zip") as archive:
            archive.extractall(root)
        (root / "bin" / "python").chmod(0o700)  # YARN sets it on every file, and Python's zipfile on none
    else:
        with tarfile.open(tmp_path / "packed.tar.gz") as archive:
            archive.extractall(root, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    packed = {member.name for member in contents}
    report = json.loads(run([str(root / "bin" / "python"), "-c", SELF_REPORT], cwd=tmp_path))
    assert (report["executable"], report["prefix"]) == (str(root / "bin" / "python"), str(root))
    assert all(entry == "" or entry.startswith(f"{root}/") for entry in report["path"])
    foreign = [Path(path).name for path in report["libraries"] if not path.startswith(f"{root}/")]
    assert [name for name in foreign if not interpreter._OF_THE_NODE.fullmatch(name)] == []
    assert [path for path in root.rglob("*.pyc") if path.relative_to(root).as_posix() not in packed] == []


# --- bytecode --------------------------------------------------------------------------------------------------------


def test_each_module_travels_with_bytecode_unless_it_is_no_python(tmp_path: Path) -> None:
    modules = write_tree(tmp_path, {"pack/part.py": "a = 1\n", "pack/template.py": "{{ this is no Python }}\n"})
    tag = sys.implementation.cache_tag
    found = [relative for relative, _ in packing.with_bytecode(modules)]
    assert found == ["pack/part.py", f"pack/__pycache__/part.{tag}.pyc", "pack/template.py"]


def test_bytecode_is_believed_whatever_the_time_of_its_source_and_names_the_place_where_it_lies(tmp_path: Path) -> None:
    source = "def fail():\n    raise ValueError('in a packed module')\n"
    modules = write_tree(tmp_path / "build", {"pack/part.py": source})
    for relative, content in packing.with_bytecode(modules):
        (tmp_path / "site" / relative).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / relative).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    os.utime(tmp_path / "site" / "pack" / "part.py", (1, 1))
    compiled = tmp_path / "site" / "pack" / "__pycache__" / f"part.{sys.implementation.cache_tag}.pyc"
    before = compiled.stat().st_mtime_ns
    program = "import pack.part, traceback\ntry: pack.part.fail()\nexcept ValueError: print(traceback.format_exc())"
    shown = run([sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")})
    assert f'File "{tmp_path}/site/pack/part.py", line 2, in fail' in shown
    assert "raise ValueError('in a packed module')" in shown
    assert compiled.stat().st_mtime_ns == before
    assert str(tmp_path / "build").encode() not in compiled.read_bytes()


def value_of(code: bytes | None) -> object:
    assert code is not None
    names: dict[str, object] = {}
    exec(marshal.loads(code[16:]), names)  # behind the header of a .pyc file
    return names["value"]


def test_bytecode_is_that_of_the_source_as_it_is_now(tmp_path: Path) -> None:
    path = write_tree(tmp_path, {"a.py": "value = 'as compiled by pip'\n"})["a.py"]
    run([sys.executable, "-m", "compileall", "-q", str(path)], cwd=tmp_path)
    assert value_of(packing.bytecode(path, b"value = 'not compiled again'", "a.py")) == "as compiled by pip"
    path.write_text("value = 'edited since'\n")
    assert value_of(packing.bytecode(path, path.read_bytes(), "a.py")) == "edited since"


# --- archives --------------------------------------------------------------------------------------------------------


def test_a_tar_of_many_blocks_is_read_by_others_and_written_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_BLOCK_BYTES", 1 << 16)
    size = packing._BLOCK_BYTES * (2 * (os.cpu_count() or 1) + 3) + 17  # more blocks than wait to be written
    (tmp_path / "large").write_bytes(os.urandom(size))
    contents = [PackedFile("bin/python", b"program", is_program=True), PackedFile("lib/large", tmp_path / "large")]
    packing.write_tar_gz(tmp_path / "a.tar.gz", contents)
    os.utime(tmp_path / "large", (1, 1))
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.5)
    packing.write_tar_gz(tmp_path / "b.tar.gz", contents)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    run(["tar", "xzf", "a.tar.gz"], cwd=tmp_path, env={"PATH": os.environ["PATH"]})
    assert (tmp_path / "lib" / "large").read_bytes() == (tmp_path / "large").read_bytes()
    assert os.access(tmp_path / "bin" / "python", os.X_OK)
    assert not os.access(tmp_path / "lib" / "large", os.X_OK) or os.geteuid() == 0
    assert len(gzip.decompress((tmp_path / "a.tar.gz").read_bytes())) > size


def test_the_package_travels_with_its_data_and_runs_from_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFOS_JOB_CACHE", str(tmp_path / "cache"))
    path = environment.package_zip()
    with zipfile.ZipFile(path) as archive:
        assert {"tfos_job/driver/log4j2.properties", "tfos_job/py.typed"} <= set(archive.namelist())
        assert not [name for name in archive.namelist() if name.endswith(".pyc")]
    program = "import tfos_job; from tfos_job import config; print(tfos_job.__version__, tfos_job.__file__)"
    shown = run([sys.executable, "-P", "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(path)})
    assert shown == f"{tfos_job.__version__} {path}/tfos_job/__init__.py\n"


# --- the cache, and the upload ---------------------------------------------------------------------------------------


def pack_slowly(log: Path, all_there: Barrier) -> None:
    def write(path: Path) -> None:
        with log.open("a") as stream:
            stream.write("packed\n")
        path.write_bytes(b"half")
        time.sleep(0.5)  # the others come meanwhile, as a rule
        path.write_bytes(b"whole")

    all_there.wait()
    archive = environment._cached(environment._Archive("things", "thing-0123.zip", write), str)
    assert archive.read_bytes() == b"whole"


def test_packers_at_the_same_time_pack_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFOS_JOB_CACHE", str(tmp_path))
    context = multiprocessing.get_context("fork")
    all_there = context.Barrier(3)
    packers = [context.Process(target=pack_slowly, args=(tmp_path / "log", all_there)) for _ in range(3)]
    for packer in packers:
        packer.start()
    for packer in packers:
        packer.join()
    assert [packer.exitcode for packer in packers] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "packed\n"


def test_a_packer_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFOS_JOB_CACHE", str(tmp_path))

    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise SettingsError("no patchelf")

    with pytest.raises(SettingsError):
        environment._cached(environment._Archive("things", "thing.zip", write), str)
    assert [entry.name for entry in (tmp_path / "things").iterdir()] == ["lock"]


def test_an_upload_is_not_repeated_and_never_changes_what_is_there(tmp_path: Path) -> None:
    archive = tmp_path / "thing-0123.zip"
    archive.write_bytes(b"first")
    url = environment.publish(archive, f"file://{tmp_path}/hdfs/of/mine")
    assert url == f"file://{tmp_path}/hdfs/of/mine/thing-0123.zip"
    published = tmp_path / "hdfs" / "of" / "mine" / "thing-0123.zip"
    assert published.read_bytes() == b"first"
    archive.write_bytes(b"another build of the same")
    assert environment.publish(archive, f"file://{tmp_path}/hdfs/of/mine") == url
    assert published.read_bytes() == b"first"
    assert [entry.name for entry in published.parent.iterdir()] == ["thing-0123.zip"]


def test_a_plan_has_the_names_and_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFOS_JOB_CACHE", str(tmp_path / "cache"))
    plan = environment.plan("hdfs://nowhere:1/user/me/.tfos_job/")
    assert not list(tmp_path.iterdir())
    names = [
        url.removeprefix("hdfs://nowhere:1/user/me/.tfos_job/") for url in (plan.python_archive, plan.spark_archive)
    ]
    assert names[0].startswith("environment-")
    assert names[0].endswith(".tar.gz#environment")
    assert names[1].startswith("spark-4.")
    assert environment.plan("hdfs://x", python=False).python_archive == ""
    assert plan.package.endswith(environment.package_zip().name)
