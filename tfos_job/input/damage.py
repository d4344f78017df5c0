"""Which file and which byte a damaged record is at, since TensorFlow does not say."""

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
from tfos_job.staging.stager import local_copy

_WRONG_NUMBER = "Input dataset was expected to contain"  # assert_cardinality's words
_NEXT_STEP = "Run `verify` on the split and convert it again"
_OF_INPUT = re.compile(r"IteratorGetNext|ReduceDataset|function passed to \w*Dataset")
_ANY_FORM = Form(image_size=8)  # what is decoded does not depend on it


@contextlib.contextmanager
def data_errors(
    shards: Sequence[str] = (), *, beside_network: bool = False, on_search: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Turns what TensorFlow raises over bad input into this package's errors.

    The shards are read again to find the record.

    Args:
      shards: the files being read, where they lie: remote ones are copied here, one at a time.
      beside_network: what is read passes a network in the same graph, whose own errors are none of the input's.
      on_search: told of each shard before it is read again.

    Raises:
      BadDataError: a record whose checksum is wrong, that is cut off, or that cannot be decoded, by file and byte; more
        or fewer records than there should be.
      MissingInputError: a shard is not there.
    """
    try:
        yield
    except tf.errors.NotFoundError as error:
        raise MissingInputError(_first_line(error), next_step="Run `verify` on the split") from error
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError) as error:
        if beside_network and not _is_of_input(error):
            raise
        for shard in shards:
            on_search(shard)
            try:
                _read_through(shard)
            except BadDataError as found:
                raise found from error
        if not (isinstance(error, tf.errors.DataLossError) or _WRONG_NUMBER in error.message):
            raise  # The records are fine: this is somebody else's mistake.
        raise BadDataError(_first_line(error), place=", ".join(shards), next_step=_NEXT_STEP) from error


def _is_of_input(error: tf.errors.OpError) -> bool:
    """Whether a `tf.data` pipeline has raised it. The nodes that ask a pipeline for something are in the message."""
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
                    fact = f"the record cannot be decoded: {_first_line(error)}"
                    raise BadDataError(fact, place=f"{shard}, byte {offset}", next_step=_NEXT_STEP) from error


def _first_line(error: tf.errors.OpError) -> str:
    """What a kernel says; of a graph's error the traceback is before it, and the node's name behind."""
    message = error.message
    if message.startswith("Graph execution error"):
        return message.partition("\n\t [[")[0].strip().rpartition("\n")[2].strip()
    text = message.partition("}} ")[2] or message
    return text.partition("\n")[0].partition(" [Op:")[0]
