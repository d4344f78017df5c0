"""What is found below `--gnt_dir`, and what is refused before it is opened."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tfos_job.config import ConvertConfig
from tfos_job.conversion import sources
from tfos_job.conversion.dataset import refuse_non_folder, require_folders
from tfos_job.errors import BadDataError, JobError, MissingInputError, SettingsError


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")


def test_what_is_left_out_by_its_name_is_counted_and_named(tmp_path: Path) -> None:
    fill(tmp_path, "b/2.gnt", "a.gnt", "readme.txt", "b/3.GNT", "_hidden.gnt", ".git/1.gnt", ".git/2.gnt", ".DS_Store")
    found = sources.find(str(tmp_path))
    assert [(file.name, file.path, file.size_bytes) for file in found.sources] == [
        ("a.gnt", f"{tmp_path}/a.gnt", 5),
        ("b/2.gnt", f"{tmp_path}/b/2.gnt", 5),
    ]
    assert found.left_out == ("_hidden.gnt", "b/3.GNT", ".DS_Store", ".git", "readme.txt")
    assert found.left_out_text.startswith("5 files or folders were left out by name")
    assert found.left_out_text.endswith("such as _hidden.gnt")


@pytest.mark.parametrize(
    ("names", "fact"),
    [
        ((), r"no \*\.gnt files in it, nor in \*\.zip archives\."),
        (("1.GNT",), r"archives; 1 file or folder was .* such as 1\.GNT"),
    ],
)
def test_a_folder_without_sources_says_what_is_in_it(tmp_path: Path, names: tuple[str, ...], fact: str) -> None:
    fill(tmp_path, *names)
    with pytest.raises(MissingInputError, match=fact):
        sources.find(str(tmp_path))


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind", "fact"),
    [
        (os.mkfifo, BadDataError, "z.gnt: a FIFO, not a file"),
        (bind, BadDataError, "z.gnt: a socket, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), BadDataError, "z.gnt: a device, not a file"),
        (lambda path: path.symlink_to("gone"), MissingInputError, "z.gnt: a link that leads nowhere"),
        (lambda path: path.symlink_to(".."), MissingInputError, "z.gnt: a link that leads .* back to a folder"),
        (
            lambda path: fill(path.parent, os.fsdecode(b"\xd1\xb5\xc1\xb7.gnt")),
            BadDataError,
            r"/a/ѵ\\xc1\\xb7\.gnt: its name is not UTF-8",
        ),
    ],
)
def test_what_is_no_file_is_refused_before_it_is_opened(
    tmp_path: Path, make: Callable[[Path], None], kind: type[JobError], fact: str
) -> None:
    fill(tmp_path, "1.gnt", "a/2.gnt")
    make(tmp_path / "a" / "z.gnt")
    with pytest.raises(kind, match=fact):
        sources.find(str(tmp_path))


def test_files_and_patterns_are_no_folders(tmp_path: Path) -> None:
    fill(tmp_path, "gnt/1.gnt", "[odd]/1.gnt")

    def require(**changes: str) -> None:
        values = {"gnt_dir": str(tmp_path / "gnt"), "dataset_dir": str(tmp_path / "new")}
        require_folders(ConvertConfig(**values | changes))

    require()
    require(gnt_dir=str(tmp_path / "[odd]"))
    with pytest.raises(MissingInputError, match=rf"a file, and --gnt_dir is a folder\. .* is in: {tmp_path}/gnt$"):
        require(gnt_dir=str(tmp_path / "gnt" / "1.gnt"))
    with pytest.raises(MissingInputError, match=rf"--gnt_dir is a folder, and patterns .* alone: {tmp_path}/gnt$"):
        require(gnt_dir=str(tmp_path / "gnt" / "*.gnt"))
    with pytest.raises(MissingInputError, match=r"no such folder\. Check --gnt_dir"):
        require(gnt_dir=str(tmp_path / "gone"))
    with pytest.raises(SettingsError, match="a file, and --dataset_dir is a folder"):
        require(dataset_dir=str(tmp_path / "gnt" / "1.gnt"))
    with pytest.raises(SettingsError, match="patterns are not expanded"):
        require(dataset_dir=str(tmp_path / "n*"))
    with pytest.raises(MissingInputError, match="patterns are not expanded"):
        refuse_non_folder(str(tmp_path / "g?t"), "--dataset_dir")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["[odd]", "gnt"]
