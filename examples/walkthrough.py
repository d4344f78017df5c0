"""The whole job from Python, in cells for Jupyter, VS Code or PyCharm: draw, convert, train, evaluate, ask.

    python examples/walkthrough.py

Files go to `walkthrough/` in the current folder. Two cores take some minutes. It can be run again: what is converted
and trained is found, and stays.
"""

# %% The public names of the package are the commands' functions, and their flags as configurations.
import os
import sys
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from tfos_job import (
    ConvertConfig,
    EvaluateConfig,
    Predictor,
    SynthConfig,
    TrainConfig,
    convert,
    evaluate,
    synthesize,
    train,
)
from tfos_job.formats.gnt import decode_tag
from tfos_job.formats.gnt_reader import read_records

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else Spark's workers take the `python3` that PATH has
os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # all of Spark is on this host
folder = Path("walkthrough")
gnt_dirs = {split: str(folder / "gnt" / split) for split in ("train", "test")}
dataset_dir, train_dir = str(folder / "dataset"), str(folder / "run")

# %% Handwriting of 20 characters: 24 writers for training, and 10 others, whose hands the network never sees.
synthesize(SynthConfig(gnt_dir=gnt_dirs["train"], charset_size=20, num_writers=24))
synthesize(SynthConfig(gnt_dir=gnt_dirs["test"], charset_size=20, num_writers=10, first_writer=25))

# %% GNT files to TFRecords, on a SparkSession of yours. The second split takes the charset of the first.
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
for split, gnt_dir in gnt_dirs.items():
    charset_size = 20 if split == "train" else None
    config = ConvertConfig(
        gnt_dir=gnt_dir, dataset_dir=dataset_dir, dataset_split_name=split, charset_size=charset_size
    )
    print(f"{split}: {convert(spark, config).num_records} records")

# %% Training, with one parameter server and one worker, on the same SparkSession: `train` starts one if there is none.
report = train(
    TrainConfig(
        dataset_dir=dataset_dir,
        train_dir=train_dir,
        validation_split_name="test",
        image_size=32,
        batch_size=32,
        epoch=8,
        learning_rate=5e-4,
        eval_steps=0,  # evaluate at the end alone
    )
)
print(f"{report['state']} at step {report['step']}, {report['images_per_second']:.0f} images/s")

# %% Every record of the other writers, once. Numbers and pictures are in walkthrough/run/evaluation.
counts = evaluate(EvaluateConfig(dataset_dir=dataset_dir, train_dir=train_dir, dataset_split_name="test"))
print(f"top-1 {counts['top_1']:.3f}, top-3 {counts['top_3']:.3f} of {counts['num_examples']} images")

# %% The characters of a writer, as arrays.
path = min(Path(gnt_dirs["test"]).glob("*.gnt"))
with path.open("rb") as file:
    records = [
        (decode_tag(record.tag), np.frombuffer(record.pixels, np.uint8).reshape(record.height, record.width))
        for record in read_records(file, str(path))
    ]

# %% A predictor loads the network once, and answers about files, bytes, arrays and Pillow images.
predictor = Predictor(train_dir)
answers = predictor.predict([pixels for _, pixels in records])
for (character, _), answer in zip(records, answers, strict=True):
    print(f"{character}:", *(f"{guess['character']} {guess['probability']:.2f}" for guess in answer["top"]))

# %% It finds the ink on a page, too. A page without any has a mark, and no character.
character, pixels = records[0]
page = np.full((400, 300), 230, np.uint8)
page[250 : 250 + pixels.shape[0], 40 : 40 + pixels.shape[1]] = np.minimum(pixels, 230)
found, nothing = predictor.predict([page, np.full((400, 300), 230, np.uint8)])
print(f"{character} on a page: {found['top'][0]['character']}, at {found['box']}")
print(f"an empty page: {nothing['doubtful']}")
