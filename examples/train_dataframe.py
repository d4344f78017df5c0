"""Trains on a Spark DataFrame: here picture files with their classes, as any query could return them.

    python examples/train_dataframe.py FOLDER

The run is FOLDER/run; the dataset that was made of the rows stays in it (`keep_dataset`), so that the commands work on
it: `tfos-job evaluate --dataset_dir FOLDER/run/dataset --train_dir FOLDER/run --dataset_split_name test`.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from PIL import Image, ImageDraw
from pyspark.sql import DataFrame, SparkSession

from tfos_job import FeedConfig, Predictor, train_dataframe

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200)}
SIDE = 24


def draw(path: Path, name: str, number: int) -> None:
    """Writes a picture of a disc of a colour; its place and size follow from the number."""
    picture = Image.new("RGB", (SIDE, SIDE), (255 - number % 40,) * 3)
    radius, x, y = 4 + number % 5, 8 + number % 7, 8 + number % 9
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLOURS[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def pictures(spark: SparkSession, folder: Path) -> DataFrame:
    """A row for each picture: its bytes, and the name of its folder as the label."""
    files = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(folder.resolve().as_uri())
    files = files.coalesce(4)  # Spark would make a task of each few files
    return files.selectExpr("content AS image", "element_at(split(path, '/'), -2) AS label")


def main(folder: Path) -> None:
    """Trains on 300 pictures, tests on 90 others, and asks for one."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for number in range(390):
        split, name = "train" if number < 300 else "test", list(COLOURS)[number % 3]
        draw(folder / split / name / f"{number}.png", name, number * 37)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else Spark's workers take the `python3` that PATH has
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # all of Spark is on this host
    spark = SparkSession.builder.master("local[2]").config("spark.ui.showConsoleProgress", False).getOrCreate()
    report = train_dataframe(
        pictures(spark, folder / "train"),
        FeedConfig(
            train_dir=str(folder / "run"),
            epoch=3,
            batch_size=30,
            image_size=SIDE,
            learning_rate=1e-3,
            validation_split_name="test",
        ),
        validation=pictures(spark, folder / "test"),
        num_channels=3,
        keep_dataset=True,
    )
    print(f"{report['state']} after {report['step']} steps: top-1 {report['metrics']['top_1']:.3f} of 90 new pictures")
    answer = Predictor(str(folder / "run")).predict([folder / "test" / "red" / "300.png"])[0]
    print(f"{answer['image']}: {answer['top'][0]['character']}, {answer['top'][0]['probability']:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
