"""The driver's child that directs a training: a process of its own for each attempt, so that it can be killed.

TensorFlow's coordinator cannot be stopped from outside once a worker has died under it, and its port cannot be used
again; inside the driver it would take the job's end with it. It is a `host.child.Child` with CUDA hidden, is told its
task (`Assignment`), and reports through the control line like every node. Results: files under `--train_dir`, messages
to the driver.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import traceback

from tfos_job.host import stacks
from tfos_job.host.imports import without
from tfos_job.host.parent import Parent, go_on_without_parent

if __name__ == "__main__":  # TensorFlow's import takes seconds, and may stand still, too
    go_on_without_parent()
    stacks.register()
with without("matplotlib"):  # Keras, which TensorFlow imports, would import it for pictures of its own
    import tensorflow as tf

from tfos_job import storage
from tfos_job.errors import JobError, NodeDiedError
from tfos_job.host import container, logs
from tfos_job.input.damage import data_errors
from tfos_job.layout import RunLayout
from tfos_job.protocol import failures, messages
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.frames import LineClosed
from tfos_job.protocol.line import NodeLine, call_driver, own_address
from tfos_job.protocol.topology import CHIEF
from tfos_job.run import checkpoints
from tfos_job.run.assignment import Assignment
from tfos_job.run.json_values import from_json
from tfos_job.training.engines import engine_of
from tfos_job.training.loop import Loop
from tfos_job.training.reporter import Reporter

_log = logging.getLogger(f"{logs.ROOT}.coordinator")  # this module's own name is __main__

# The errors that TensorFlow raises when another process of the cluster has gone.
_CONNECTION_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def run(assignment: Assignment, line: NodeLine, stop: threading.Event) -> messages.Finished:
    """Connects, trains, and returns how far it came; raises what stopped it."""
    plan, checkpoint = assignment.run.plan, assignment.run.checkpoint
    _log.info("attempt %d begins with %s", assignment.attempt, checkpoint or "fresh variables")
    engine = engine_of(assignment.cluster)

    def on_search(shard: str) -> None:
        line.send(messages.Searching(shard))

    with data_errors(assignment.run.shards, with_network=True, on_search=on_search):
        # Read once, and not held any longer than it is needed.
        engine.start(plan, checkpoints.read(RunLayout(assignment.run.train_dir), checkpoint)[1] if checkpoint else None)
        line.send(messages.Built(*engine.num_parameters, engine.step_bytes))
        line.send(messages.Ready(os.getpid()))
        reporter = Reporter(assignment.run, assignment.attempt, line, stop)
        try:
            end = Loop(engine, plan, reporter, stop.is_set).run()
        finally:
            reporter.finish_writing()
    reporter.close()
    return messages.Finished(
        step=end.step,
        interrupted=end.interrupted,
        seconds=end.seconds,
        images=end.images,
        records_read=list(end.positions),
        bound=messages.Bottleneck(**end.profile.to_json()) if end.profile else None,
    )


def to_failure(error: Exception) -> Failure:
    """The failure that is reported to the driver for an exception."""
    detail = "".join(traceback.format_exception(error))
    if isinstance(error, JobError):
        return failures.of_error(error)
    if full := storage.full_disk(error):
        return failures.of_error(full, detail)
    name = type(error).__name__
    cause = f"{name}: {telling_line(str(error)).removeprefix(f'{name}: ')}"
    if isinstance(error, _CONNECTION_ERRORS):
        return Failure(Kind.CONSEQUENCE, cause, NodeDiedError.exit_code, detail=detail, exception=name)
    return Failure(Kind.RAISED, cause, JobError.exit_code, detail=detail, exception=name)


def telling_line(message: str) -> str:
    """The line of an exception's message that has the cause.

    TensorFlow's errors of a graph begin with the place in Python, and name the node of the graph after the cause. Those
    of a graph that is being made end with it.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["no message"]
    if lines[0] == "in user code:":
        return lines[-1]
    node = next((at for at, line in enumerate(lines) if line.startswith("[[{{node")), 0)
    return lines[node - 1] if node and lines[0].startswith("Graph execution error") else lines[0]


def main() -> None:
    logs.text_to_stderr()
    orders = Parent().hear()
    if orders is None:
        sys.exit(1)  # The driver has gone before its orders came.
    assignment = from_json(Assignment, orders)
    driver = assignment.driver
    stop = threading.Event()
    hello = messages.Hello(
        CHIEF,
        0,
        own_address(driver),
        os.getpid(),
        container=container.container_id(),
        attempt=assignment.attempt,
    )
    line = call_driver(driver, bytes.fromhex(assignment.key), hello)

    def listen() -> None:
        try:
            while True:
                if isinstance(line.receive(), messages.Stop):
                    stop.set()
        except LineClosed:
            # Without a driver nobody holds the run's lock any more: nothing may be written.
            shutil.rmtree(assignment.scratch, ignore_errors=True)
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    last_word: messages.ToDriver
    try:
        last_word = run(assignment, line, stop)
    except Exception as e:  # noqa: BLE001 - whatever it was, the driver must hear of it
        traceback.print_exc()
        last_word = to_failure(e)
    line.send(last_word)
    # TensorFlow's own end would wait for servers that are being stopped.
    sys.stderr.flush()
    os._exit(0 if isinstance(last_word, messages.Finished) else 1)


if __name__ == "__main__":
    main()
