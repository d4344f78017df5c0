"""A trained run as a function of a Spark DataFrame's column: here picture files, with their folders as true classes.

    python examples/predict_dataframe.py TRAIN_DIR FOLDER

Prints for each class its pictures and those that were named rightly, and what could not be read. The run may be that of
examples/train_dataframe.py. It needs the extra `infer` (pandas, pyarrow).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql.functions import expr

from tfos_job import predict_udf


def main(train_dir: str, folder: Path) -> None:
    """Names the classes of all PNG files below a folder."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else Spark's workers take the `python3` that PATH has
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # all of Spark is on this host
    spark = SparkSession.builder.master("local[2]").config("spark.ui.showConsoleProgress", False).getOrCreate()
    options = {"recursiveFileLookup": True, "pathGlobFilter": "*.png"}
    files = spark.read.format("binaryFile").options(**options).load(folder.resolve().as_uri())
    files = files.coalesce(2)  # Spark would make a task of each few files
    answers = files.selectExpr("path", "element_at(split(path, '/'), -2) AS label", "content").withColumn(
        "answer", predict_udf(train_dir, top_k=1)("content")
    )
    answers = answers.drop("content").cache()
    counts = answers.groupBy("label").agg(
        expr("count(*)").alias("num_pictures"), expr("count_if(get(answer.classes, 0) = label)").alias("num_right")
    )
    for row in counts.sort("label").collect():
        print(row.label, row.num_pictures, row.num_right)
    for row in answers.where("answer.error IS NOT NULL").collect():
        print(f"{row.path.rpartition('/')[2]}: {row.answer.error}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
