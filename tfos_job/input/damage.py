"""File and byte of a damaged record, which TensorFlow's errors do not name."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats.form import GROUP_SIZE, Form
from tfos_job.formats.tfrecord import read_records
from tfos_job.input.decoding import decode
from tfos_job.staging.copies import local_copy

_WRONG_NUMBER = "Input dataset was expected to contain"  # assert_cardinality's words
_NEXT_STEP = "Run `verify` on the split and convert it again"
_OF_INPUT = re.compile(r"IteratorGetNext|ReduceDataset|function passed to \w*Dataset")
_ANY_FORM = Form(image_size=8)  # any: the result does not depend on it


@contextlib.contextmanager
def data_errors(
    shards: Sequence[str] = (), *, with_network: bool = False, on_search: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Converts TensorFlow's errors about bad input into classes of `tfos_job.errors`.

    The shards are read again to find the record.

    Args:
      shards: files of the input; remote ones are copied here, one at a time.
      with_network: True if the same graph contains a network, whose errors do not concern the input.
      on_search: called with each shard before it is read again.

    Raises:
      BadDataError: a record has a wrong checksum, is truncated or cannot be decoded (with file and byte), or the number
        of records is wrong.
      MissingInputError: a shard does not exist.
    """
    try:
        yield
    except tf.errors.NotFoundError as error:
        raise MissingInputError(first_line(error), next_step="Run `verify` on the split") from error
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError) as error:
        if with_network and not _is_of_input(error):
            raise
        for shard in shards:
            on_search(shard)
            try:
                _read_through(shard)
            except BadDataError as found:
                raise found from error
        if not (isinstance(error, tf.errors.DataLossError) or _WRONG_NUMBER in error.message):
            raise  # the records are intact: the error has another cause
        raise BadDataError(first_line(error), place=", ".join(shards), next_step=_NEXT_STEP) from error


def _is_of_input(error: tf.errors.OpError) -> bool:
    """True if a `tf.data` pipeline raised the error: its message names the node that reads from the pipeline."""
    return isinstance(error, tf.errors.DataLossError) or _OF_INPUT.search(error.message) is not None


def _read_through(shard: str) -> None:
    """Raises BadDataError for the first record that cannot be read or decoded."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decoded(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return decode(serialized, _ANY_FORM)

    with local_copy(shard) as local, open(local, "rb") as stream:
        records = read_records(stream, shard)
        while group := list(itertools.islice(records, GROUP_SIZE)):
            with contextlib.suppress(tf.errors.OpError):
                decoded(tf.constant([data for _, data in group]))
                continue
            for offset, data in group:
                try:
                    decoded(tf.constant([data]))
                except tf.errors.OpError as error:
                    fact = f"the record cannot be decoded: {first_line(error)}"
                    raise BadDataError(fact, place=f"{shard}, byte {offset}", next_step=_NEXT_STEP) from error


def first_line(error: tf.errors.OpError) -> str:
    """Returns the kernel's message, without a graph's traceback before it and the node's name after it."""
    message = error.message
    if message.startswith("Graph execution error"):
        return message.partition("\n\t [[")[0].strip().rpartition("\n")[2].strip()
    text = message.partition("}} ")[2] or message
    return text.partition("\n")[0].partition(" [Op:")[0]
