"""The process of a statistics task: sums over the decoded pixels of some shards (`host/calls.py` starts it).

TensorFlow decodes, so that the pixels are exactly those of training.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.formats.form import GROUP_SIZE, Form
from tfos_job.formats.tfrecord import read_records
from tfos_job.host import calls
from tfos_job.input.damage import data_errors
from tfos_job.input.decoding import decode
from tfos_job.staging.copies import local_copy
from tfos_job.statistics.pixel_statistics import add_images, is_sampled, to_bytes, zero_sums
from tfos_job.statistics.task import StatisticsTask, TaskShard


def sum_shards(task: StatisticsTask) -> dict[str, np.ndarray]:
    """Sums the task's records that are in the sample (`pixel_statistics.zero_sums` has the form).

    Raises:
      BadDataError: a record is damaged, or their number is not the manifest's.
      JobError: storage fails.
    """
    subject = task.subject
    form = Form(image_size=subject.image_size, num_channels=subject.num_channels, antialias=subject.antialias)
    sums = zero_sums(subject)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def pixels(serialized: tf.Tensor) -> tf.Tensor:
        return decode(serialized, form, GROUP_SIZE)[0]

    for shard in task.shards:
        with local_copy(shard.path, shard.size_bytes, shard.sha256) as local, data_errors([shard.path]):
            wanted = (
                data
                for index, data in enumerate(_records(local, shard), start=shard.first_index)
                if is_sampled(index, task.num_records, task.limit)
            )
            while group := list(itertools.islice(wanted, GROUP_SIZE)):
                add_images(sums, pixels(tf.constant(group)).numpy())
    return sums


def _records(local: str, shard: TaskShard) -> Iterator[bytes]:
    found = 0
    with open(local, "rb") as stream:
        for _, data in read_records(stream, shard.path):
            found += 1
            yield data
    if found != shard.num_records:
        raise BadDataError(
            f"holds {found} records, its manifest says {shard.num_records}",
            place=shard.path,
            next_step="Run `verify` on the split and convert it again",
        )


def _sum(request: dict[str, Any]) -> None:
    task = StatisticsTask.from_json(request)
    storage.write_bytes(task.output, to_bytes(sum_shards(task)))


if __name__ == "__main__":
    calls.answer(_sum)
