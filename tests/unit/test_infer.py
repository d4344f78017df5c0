"""`infer` without Spark: which files its inputs are, their partitions, what a folder of results accepts, its rows."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from tests.unit.manifests import example
from tfos_job import cli, storage
from tfos_job.config import InferConfig
from tfos_job.errors import BadDataError, FlagError, MissingInputError, SettingsError
from tfos_job.formats import gnt
from tfos_job.formats.charset import Charset
from tfos_job.jobs.predict_udf import predict_udf
from tfos_job.layout import InferenceLayout
from tfos_job.scoring import inputs, output, parquet, plan
from tfos_job.scoring.inputs import GNT, PICTURE, SHARD, InputFile
from tfos_job.scoring.plan import Model, Plan, partitions
from tfos_job.scoring.rows import COLUMNS, Counts, Row, write_json_lines
from tfos_job.scoring.task import PartRecord, PartTask, PicturesTask

MIB = 1 << 20


def gnt_bytes(text: str) -> bytes:
    stream = io.BytesIO()
    for character in text:
        gnt.write(stream, gnt.encode_tag(character), np.full((4, 4), 9, np.uint8))
    return stream.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """GNT files, an archive of such, and pictures, among what is none of these."""
    for name in ("gnt/b.gnt", "gnt/sub/a.gnt", "gnt/_hidden.gnt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(gnt_bytes("一丁"))
    with zipfile.ZipFile(tmp_path / "gnt" / "c.zip", "w") as archive:
        archive.writestr("in/1.gnt", gnt_bytes("七"))
        archive.writestr("readme.txt", "")
    for name in ("pictures/cat/2.png", "pictures/cat/1.JPG", "pictures/.cache/3.png", "pictures/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(root: Path, pattern: str) -> list[str]:
    return [os.path.relpath(file.name, root) for file in inputs.find(str(root / pattern)).files]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("gnt", ["gnt/b.gnt", "gnt/c.zip/in/1.gnt", "gnt/sub/a.gnt"]),
        ("gnt/", ["gnt/b.gnt", "gnt/c.zip/in/1.gnt", "gnt/sub/a.gnt"]),
        ("gnt/c.zip", ["gnt/c.zip/in/1.gnt"]),
        ("gnt/*.gnt", ["gnt/b.gnt"]),
        ("gnt/_hidden.gnt", ["gnt/_hidden.gnt"]),
        ("*/sub", ["gnt/sub/a.gnt"]),
        ("[gp]*/[!.]*/*", ["gnt/sub/a.gnt", "pictures/cat/1.JPG", "pictures/cat/2.png"]),
        ("pictures", ["pictures/cat/1.JPG", "pictures/cat/2.png"]),
        ("pictures/cat/2.png", ["pictures/cat/2.png"]),
    ],
)
def test_the_files_of_an_input_are_in_a_fixed_order(root: Path, pattern: str, expected: list[str]) -> None:
    assert names(root, pattern) == expected


def test_a_file_is_there_once_and_a_name_with_a_bracket_is_a_name(root: Path) -> None:
    os.rename(root / "pictures" / "cat", root / "pictures" / "cat[1]")
    assert names(root, "pictures/cat[1]") == ["pictures/cat[1]/1.JPG", "pictures/cat[1]/2.png"]
    assert names(root, "pictures/c*") == names(root, "pictures*/c*")
    found = inputs.find(str(root / "pictures"))
    assert (found.files[0].kind, found.num_left_out) == (PICTURE, 2)


def test_the_digest_is_that_of_names_sizes_and_times(root: Path) -> None:
    before = inputs.find(str(root / "gnt")).digest
    assert inputs.find(str(root / "gnt")).digest == before
    os.utime(root / "gnt" / "c.zip", (1, 1))
    assert inputs.find(str(root / "gnt")).digest != before


def test_a_split_is_its_manifests_shards(tmp_path: Path) -> None:
    charset = Charset(tuple("一丁"))
    contents = example(charset_digest=charset.digest)
    storage.make_dirs(str(tmp_path / "data" / "test"))
    storage.write_json(str(tmp_path / "data" / "test" / "manifest.json"), contents.to_json())
    with pytest.raises(MissingInputError, match="no charset"):
        inputs.find(str(tmp_path / "data" / "test"))
    storage.write_json(str(tmp_path / "data" / "charset.json"), charset.to_json())
    found = inputs.find(str(tmp_path / "data" / "test")).files
    assert [file.kind for file in found] == [SHARD] * len(contents.shards)
    assert [file.path for file in found] == [str(tmp_path / "data/test" / shard.file) for shard in contents.shards]
    assert {file.charset for file in found} == {str(tmp_path / "data" / "charset.json")}
    assert inputs.find(str(tmp_path / "data" / "*")).files == found
    with pytest.raises(SettingsError, match=r"whole dataset. Name a split in it: test"):
        inputs.find(str(tmp_path / "data"))
    storage.write_json(str(tmp_path / "data" / "charset.json"), Charset(tuple("丁一")).to_json())
    with pytest.raises(BadDataError, match=r"charset\.json: is not the charset of .*data/test"):
        inputs.find(str(tmp_path / "data" / "test"))


def test_a_pattern_matches_what_a_folder_would_have(root: Path) -> None:
    os.symlink("/nowhere", root / "pictures" / "cat" / "3.png")
    (root / "pictures" / "cat" / "notes.txt").write_text("")
    by_pattern = inputs.find(str(root / "pictures" / "cat" / "*"))
    assert by_pattern == inputs.find(str(root / "pictures" / "cat"))
    assert [file.fault for file in by_pattern.files] == ["", "", storage.BROKEN_LINK]
    assert by_pattern.num_left_out == 1


def test_what_cannot_be_read_among_others_is_an_input_with_its_fault(root: Path) -> None:
    (root / "gnt" / "a-damaged.zip").write_bytes(b"PK")
    with zipfile.ZipFile(root / "gnt" / "locked.zip", "w") as archive:
        archive.writestr("1.gnt", gnt_bytes("一"))
        archive.writestr("2.gnt", gnt_bytes("丁"))
    data = bytearray((root / "gnt" / "locked.zip").read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the first one is encrypted
    (root / "gnt" / "locked.zip").write_bytes(data)
    os.symlink("gone", root / "gnt" / "link.gnt")
    os.mkfifo(root / "gnt" / "pipe.gnt")
    found = {os.path.relpath(file.name, root / "gnt"): file.fault for file in inputs.find(str(root / "gnt")).files}
    assert list(found) == sorted(found)
    assert [name for name, fault in found.items() if not fault] == [
        "b.gnt",
        "c.zip/in/1.gnt",
        "locked.zip/2.gnt",
        "sub/a.gnt",
    ]
    assert "not a whole ZIP archive" in found["a-damaged.zip"]
    assert found["locked.zip/1.gnt"] == "its member 1.gnt is encrypted. Unpack it, and move it away"
    assert found["link.gnt"].startswith(storage.BROKEN_LINK)
    assert found["pipe.gnt"] == "a FIFO, not a file. Move it away"
    of_pattern = {
        os.path.relpath(file.name, root / "gnt"): file.fault for file in inputs.find(str(root / "gnt" / "*")).files
    }
    assert of_pattern == found


def test_pictures_are_not_lost_beside_an_archive(root: Path) -> None:
    (root / "pictures" / ".cache" / "backup.zip").write_bytes(b"")
    assert names(root, "pictures") == ["pictures/cat/1.JPG", "pictures/cat/2.png"]
    (root / "pictures" / "cat" / "backup.zip").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"such as cat/backup\.zip, and 2 pictures"):
        inputs.find(str(root / "pictures"))


@pytest.mark.parametrize(
    ("pattern", "error", "words"),
    [
        ("nothing", MissingInputError, "Check"),
        ("*.tfrecord", MissingInputError, "nothing matches the pattern"),
        ("pictures/notes.txt", SettingsError, "is no input. Give a dataset's split"),
        ("pictures/.cache", MissingInputError, "no input"),
        ("damaged.zip", BadDataError, "not a whole ZIP"),
    ],
)
def test_what_is_no_input_is_refused(root: Path, pattern: str, error: type[Exception], words: str) -> None:
    (root / "damaged.zip").write_bytes(b"PK")
    if pattern == "pictures/.cache":
        os.remove(root / "pictures/.cache/3.png")
    with pytest.raises(error, match=words):
        inputs.find(str(root / pattern))


def file(size: int, name: str = "f", kind: str = GNT) -> InputFile:
    return InputFile(kind, name, size, "1")


def test_partitions_are_of_whole_files_and_about_equal() -> None:
    assert [len(group) for group in partitions([file(10)] * 5)] == [5]
    assert [len(group) for group in partitions([file(MIB)] * 40)] == [2] * 20
    groups = partitions([file(300 * MIB, "large"), *[file(MIB)] * 2048])
    assert [len(group) for group in groups] == [1] + [64] * 32
    assert sum(map(len, partitions([file(100, kind=PICTURE)] * 100_000))) == 100_000
    assert max(map(len, partitions([file(100, kind=PICTURE)] * 100_000))) <= 4096


def a_plan(**changes: Any) -> Plan:
    values = {
        "input": "in",
        "input_digest": "i",
        "num_files": 3,
        "num_partitions": 2,
        "model_digest": "m",
        "step": 20,
        "model": "run/checkpoints/step-00000020",
        "output_format": "jsonl",
        "top_k": 3,
        "raw_image": False,
    }
    return Plan(**values | changes)


def to_json_lines(rows: list[Row], digest: str, step: int | None) -> bytes:
    stream = io.BytesIO()
    write_json_lines([rows], stream, digest, step)
    return stream.getvalue()


def parquet_table(blocks: list[list[Row]]) -> pyarrow.Table:
    stream = io.BytesIO()
    parquet.write_parquet(blocks, stream, "m", None)
    return pyarrow.parquet.read_table(io.BytesIO(stream.getvalue()))


def publish(layout: InferenceLayout, number: int, rows: list[Row]) -> PartRecord:
    data = to_json_lines(rows, "m", 20)
    storage.write_bytes(layout.part(number, "jsonl"), data)
    record = PartRecord(number=number, size_bytes=len(data), sha256="", counts=Counts.of(rows))
    storage.write_json(layout.part_record(number), record.to_json())
    return record


def test_a_folder_is_continued_by_the_same_plan_and_refused_to_another(tmp_path: Path) -> None:
    layout, rows = InferenceLayout(str(tmp_path / "out")), [Row("a", class_ids=[1], label_id=1), Row("b", error="no")]
    plan_id = output.begin(layout, a_plan())
    assert output.begin(layout, a_plan(input="other/../in", model="a copy", step=20)) == plan_id
    for changes, words in (
        ({"model_digest": "n"}, "the model changed"),
        ({"input_digest": "j", "num_partitions": 3}, r"the input, the partitions \(it was 2\) changed"),
        ({"raw_image": True}, r"--raw_image \(it was False\) changed. Give another --output_dir, or remove this one"),
    ):
        with pytest.raises(SettingsError, match=words):
            output.begin(layout, a_plan(**changes))
    publish(layout, 1, rows)
    assert list(output.done_parts(layout, a_plan())) == [1]
    assert output.finished(layout, a_plan()) is None
    publish(layout, 0, rows)
    found = output.done_parts(layout, a_plan())
    document = output.finish(layout, a_plan(), found.values())
    assert document == output.finished(layout, a_plan()) == json.loads((tmp_path / "out" / "_SUCCESS").read_text())
    assert {key: document[key] for key in ("num_rows", "num_errors", "num_labelled", "num_correct")} == {
        "num_rows": 4,
        "num_errors": 2,
        "num_labelled": 2,
        "num_correct": 2,
    }
    os.truncate(layout.part(0, "jsonl"), 3)  # by a copy that was cut short
    assert output.finished(layout, a_plan()) is None
    Path(layout.part(0, "jsonl")).unlink()
    assert output.finished(layout, a_plan()) is None
    Path(layout.part_record(1)).write_text("{")  # torn by a disk
    assert output.done_parts(layout, a_plan()) == {}


def test_results_without_an_answer_are_no_success(tmp_path: Path) -> None:
    layout, rows = InferenceLayout(str(tmp_path / "out")), [Row("a", error="no"), Row("b", error="no")]
    output.begin(layout, a_plan())
    records = [publish(layout, number, rows) for number in (0, 1)]
    with pytest.raises(BadDataError, match="none of the 4 inputs could be read"):
        output.finish(layout, a_plan(), records)
    assert output.finished(layout, a_plan()) is None
    assert list(output.done_parts(layout, a_plan())) == [0, 1]  # and say why


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("")
    with pytest.raises(SettingsError, match=r"something else than results of infer, such as letters.txt"):
        output.begin(InferenceLayout(str(tmp_path)), a_plan())
    with pytest.raises(SettingsError, match="is a file"):
        output.begin(InferenceLayout(str(tmp_path / "letters.txt")), a_plan())


ROWS = [
    Row("a.gnt", 14, "一", 0, ["一", "丁"], [0, 1], [0.75, 0.12345678]),
    Row("b\udcff.png", doubtful="blank"),
    Row("c.png", label="龘", error="not there"),
]


def test_both_formats_have_the_same_columns_and_values() -> None:
    text = [json.loads(line) for line in to_json_lines(ROWS, "m", None).splitlines()]
    table = parquet_table([ROWS[:2], ROWS[2:]])
    assert tuple(table.column_names) == tuple(text[0]) == COLUMNS
    values = table.to_pylist()
    assert values[0].pop("probabilities") == pytest.approx(text[0].pop("probabilities"), abs=1e-6)
    assert text[1]["source"] == r"b\xff.png"
    assert values == text
    assert parquet_table([]).schema == table.schema


def test_a_task_arrives_as_it_was_sent() -> None:
    task = PartTask(
        number=1,
        files=(file(3), InputFile(GNT, "a.zip", 4, "2", member={"name": "b.gnt"})),
        model=Model(digest="m", step=None),
        part="p",
        record="r",
        plan="q",
        plan_id="i",
        output_format="jsonl",
        top_k=1,
        raw_image=True,
        batch_size=2,
    )
    assert PartTask.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_parquet_without_pyarrow_says_what_to_install(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else found(name))
    flags = ["--train_dir", str(root), "--input", str(root / "gnt"), "--output_dir", str(root / "out")]
    assert cli.main(["infer", *flags]) == 78
    assert "pip install 'tfos_job[infer]', or give --output_format jsonl" in capsys.readouterr().err
    assert cli.main(["infer", *flags, "--output_format", "jsonl"]) == 66  # no checkpoint there
    assert not (root / "out").exists()


def test_flags_that_do_not_go_together() -> None:
    both = {"input": "i", "output_dir": "o"}
    with pytest.raises(FlagError, match="one of them is needed"):
        InferConfig(**both)
    with pytest.raises(SettingsError, match="given together"):
        InferConfig(**both, train_dir="r", export_dir="e")
    with pytest.raises(SettingsError, match="--checkpoint"):
        InferConfig(**both, export_dir="e", checkpoint="best")
    assert plan.FORMAT_VERSION == 1


def test_pictures_arrive_as_they_were_sent() -> None:
    pictures = (b"\x89PNG\xff", "hdfs://nn/a.png", None)
    task = PicturesTask(model=Model(digest="m", step=1), pictures=pictures, top_k=1, raw_image=False)
    assert PicturesTask.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_a_function_of_a_column_is_refused_before_there_is_a_column(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="train_dir or export_dir"):
        predict_udf("run", export_dir="exports")
    with pytest.raises(SettingsError, match="0 is not a whole number"):
        predict_udf("run", top_k=0)
    with pytest.raises(MissingInputError, match="no checkpoint"):
        predict_udf(root)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pandas" else found(name))
    with pytest.raises(SettingsError, match=r"needs pandas for .* pip install 'tfos_job\[infer\]'"):
        predict_udf(root)
