"""The main job from the command line: what it learns and leaves on disk, with one worker and with several."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psutil
import pytest
import tensorflow as tf
from PIL import Image

from tests.cluster import notebook
from tests.command import SMALL, StartCommand, example, run
from tests.ports import free_port_range
from tfos_job.formats import gnt, gnt_reader
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoints

pytestmark = pytest.mark.cluster

NUM_CLASSES, NUM_WRITERS, NUM_EPOCHS, BATCH_SIZE = 20, 24, 8, 32  # of examples/walkthrough.py


def test_writers_never_seen_are_read_in_a_notebook(tmp_path: Path) -> None:
    """All of it from Python, with the seed's network. What must not be learned is in tests/unit/test_learning.py."""
    steps = NUM_EPOCHS * NUM_WRITERS * NUM_CLASSES // BATCH_SIZE
    home = tmp_path / "walkthrough"
    *said, found = example(
        "walkthrough.py", home / "dataset", home / "again", folder=tmp_path,
        num_images=(steps + 2) * BATCH_SIZE, num_trainings=2, by=(notebook.__file__,),
    )  # fmt: skip
    # The first training was on a thread and in the program's session, which outlived it; the second on the main thread.
    assert json.loads(found) == {"rows": 3, "steps": 2, "changed": []}
    train_dir, gnt_dir = home / "run", home / "gnt"
    (path,) = (train_dir / "evaluation").glob("step-*-test.json")
    evaluation = json.loads(path.read_text())
    assert 0.90 <= evaluation["top_1"] <= evaluation["top_3"] <= evaluation["top_5"] <= 1
    assert evaluation["num_examples"] == 10 * NUM_CLASSES
    assert "ece" in evaluation  # the file is that of `evaluate`, not of the evaluation within training
    assert evaluation["step"] == steps

    # The evaluation within training, on the cluster, counted the same.
    report = json.loads((train_dir / "report.json").read_text())
    assert report["state"] == "finished"
    assert report["metrics"]["num_examples"] == evaluation["num_examples"]
    assert report["metrics"]["top_1"] == pytest.approx(evaluation["top_1"], abs=1e-9)
    assert report["records_read"] == [steps * BATCH_SIZE]
    assert report["images_per_second"] > 0
    assert report["input_mode"] == "preloaded"
    assert [attempt["records"] for attempt in report["attempts"]] == [{"seen_twice": 0, "skipped": 0}]
    bound = report["bound"]
    assert bound["by"] in ("network", "compute")  # not by input, whatever the machine
    assert sum(bound["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert min(bound["compute_s"], bound["step_s"]) > 0  # measured alone, a pass may take longer than a whole step
    scalars = {kind: read_scalars(train_dir / "summaries" / kind) for kind in ("train", "validation")}
    assert scalars["train"] >= {"loss", "top_1", "learning_rate", "images_per_second", "input_wait_fraction"}
    assert scalars["validation"] >= {"loss", "top_1", "top_3", "top_5"}
    with Image.open(train_dir / "loss.png") as picture:
        assert picture.size == (1000, 400)

    # What it says of a writer's characters, of one on a page and of an empty page.
    *told, on_page, empty = said[-NUM_CLASSES - 2 :]
    assert sum(line[0] == line[3] for line in told) >= 0.8 * NUM_CLASSES
    assert on_page[0] == on_page.partition(": ")[2][0]
    assert empty == "an empty page: blank"

    # And of the same characters in files, asked in each way that there is.
    images, characters = glyphs(gnt_dir / "test", tmp_path)
    lines = [line.split("\t") for line in example("predictor.py", train_dir, *images, folder=tmp_path)]
    assert [line[0] for line in lines] == [str(image) for image in images for _ in range(4)]
    assert [line[2] == character for line, character in zip(lines[::4], characters, strict=True)].count(True) >= 8
    for ways in zip(*(lines[way::4] for way in range(4)), strict=True):
        assert len({tuple(way[2:]) for way in ways}) == 1


def read_scalars(folder: Path) -> set[str]:
    tags = set()
    for path in folder.iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            tags |= {value.tag for value in event.summary.value}
    return tags


def glyphs(folder: Path, target: Path) -> tuple[list[Path], list[str]]:
    """The first characters of a test writer as PNG files, and what they are."""
    images, characters = [], []
    path = min(folder.glob("*.gnt"))
    with path.open("rb") as source:
        for number, record in zip(range(10), gnt_reader.read_records(source, str(path)), strict=False):
            images.append(target / f"{number}.png")
            Image.frombytes("L", (record.width, record.height), record.pixels).save(images[-1])
            characters.append(str(gnt.decode_tag(record.tag)))
    return images, characters


def test_two_parameter_servers_and_two_workers(small_dataset: Path, tmp_path: Path) -> None:
    run(
        "train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, "--master", "local[4]",
        "--num_executors", 4, "--num_ps_tasks", 2, "--max_number_of_steps", 50, "--validation_split_name", "test",
    )  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["step"] == 50
    # Which worker took which step is the coordinator's choice; that no step is lost is not.
    assert len(report["records_read"]) == 2
    assert min(report["records_read"]) > 0
    assert sum(report["records_read"]) == 50 * 32
    assert report["metrics"]["num_examples"] == 20
    # Variables of both servers are in the checkpoint, and they have moved.
    info = checkpoints.latest(RunLayout(str(tmp_path)))
    assert info is not None
    arrays = checkpoints.load(info)
    kernels = [array for name, array in arrays.items() if name.startswith("model/") and name.endswith("/kernel")]
    assert len(kernels) == 5
    moments = [array for name, array in arrays.items() if "momentum" in name or "velocity" in name]
    assert moments
    assert all(array.any() for array in moments)


AUGMENTED = ("--random_rotation", 10, "--elastic_distortion", 0.02, "--stroke_width", 1, "--random_contrast")
WHITENED = ("--normalization", "zca", "--whitening_epsilon", 0.05)


def test_one_executor_with_its_server_on_the_drivers_host_and_statistics_of_its_data(
    start: StartCommand, small_dataset: Path, tmp_path: Path
) -> None:
    first_port, last_port = free_port_range(60)
    options = ("--dataset_dir", small_dataset, "--train_dir", tmp_path)
    job = start(
        "train", *options, *SMALL, *AUGMENTED, *WHITENED, "--max_number_of_steps", 20,
        "--validation_split_name", "test", "--ps_place", "driver", "--master", "local-cluster[1,1,1024]",
        "--port_range", f"{first_port}-{last_port}",
    )  # fmt: skip
    job.wait_for_step()
    server = job.find("ps")
    assert is_below_the_driver(server, job.pid)
    assert not is_below_the_driver(job.find("worker"), job.pid)
    assert server.environ()["CUDA_VISIBLE_DEVICES"] == ""
    ours = {role: listening_ports(job.find(role)) for role in ("ps", "worker", "coordinator")}
    assert job.wait() == 0, job.stderr
    said = [
        "Training ", " 80 records of 10 classes", "Starting Spark (local-cluster[1,1,1024])",
        "Computing whitening statistics of 80 records", "Starting attempt 1: 1 parameter server and 1 worker",
        "Building the network", "The network has ", "step 20 of 20: ",
    ]  # fmt: skip
    assert [words for words in said if words not in job.stderr] == []
    assert sorted(said, key=job.stderr.index) == said
    assert "incubator" not in job.stderr
    assert all(ports and all(first_port <= port <= last_port for port in ports) for ports in ours.values()), ours

    (statistics,) = small_dataset.glob("statistics-train-16-whitening-*.npz")
    assert not (tmp_path / "_scratch").exists()
    info = checkpoints.latest(RunLayout(str(tmp_path)))
    assert info is not None
    assert checkpoints.load(info)["normalization/matrix"].shape == (256, 256)
    assert (info.normalization["kind"], info.normalization["epsilon"]) == ("zca", 0.05)
    assert re.fullmatch("[0-9a-f]{64}", info.normalization["digest"])
    # Evaluation in training, by a worker, and afterwards from the checkpoint alone count the same.
    statistics.unlink()
    evaluated = run("evaluate", *options)
    assert evaluated.stderr.index("Loading TensorFlow") < evaluated.stderr.index("Evaluating step 20 on 20 records")
    evaluation = evaluated.result()
    metrics = json.loads((tmp_path / "report.json").read_text())["metrics"]
    assert evaluation["num_examples"] == metrics["num_examples"] == 20
    assert evaluation["loss"] == pytest.approx(metrics["loss"], rel=1e-4)
    assert evaluation["top_1"] == pytest.approx(metrics["top_1"])


def is_below_the_driver(process: psutil.Process, job_pid: int) -> bool:
    """Whether no JVM is between the driver and the process."""
    parents = process.parents()
    below = parents[: [parent.pid for parent in parents].index(job_pid)]
    return all("python" in parent.name() for parent in below)


def listening_ports(process: psutil.Process) -> list[int]:
    return [c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
