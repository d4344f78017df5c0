"""The part of a training that has a SparkContext: preflight, statistics, and its attempts, each on a TFCluster."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import signal
from collections.abc import Mapping
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tfos_job.config import DATASET, PCA, ZCA
from tfos_job.doctor import host_memory
from tfos_job.doctor.case import Expected
from tfos_job.doctor.diagnosis import FAILED, WARNING
from tfos_job.driver import preflight, session
from tfos_job.driver.attempt import Attempt, AttemptSpec
from tfos_job.driver.executors import Executors
from tfos_job.driver.progress import ProgressLine
from tfos_job.driver.restarts import Held, Launch, Restarts
from tfos_job.driver.run_report import RunReport
from tfos_job.driver.scheduler_backend import JVM_S
from tfos_job.driver.statistics_job import statistics_of
from tfos_job.driver.stop_signal import StopSignal
from tfos_job.errors import InterruptedJobError
from tfos_job.host import container
from tfos_job.host.limits import within
from tfos_job.layout import DatasetLayout
from tfos_job.lease import Lease
from tfos_job.protocol import messages
from tfos_job.protocol.attempt_end import AttemptEnd
from tfos_job.protocol.restart_policy import RestartPolicy
from tfos_job.protocol.spark_settings import doubts
from tfos_job.protocol.topology import Topology, is_local, topology_of
from tfos_job.run import folder, handover
from tfos_job.run.assignment import RunAssignment, assignment_of
from tfos_job.run.placement import wire_text
from tfos_job.run.plan import plan_of
from tfos_job.run.preparation import Preparation, resumed
from tfos_job.run.specs import NormalizationSpec, normalization_of
from tfos_job.run.worker_inputs import worker_inputs
from tfos_job.staging.stager import RESERVE_BYTES
from tfos_job.statistics.pixel_statistics import PIXELS, WHITENING, Subject

log = logging.getLogger(__name__)

_KILL_DELAY_MS = "yarn.nodemanager.sleep-delay-before-sigkill.ms"


def run(prepared: Preparation, master: str | None, report: RunReport, lease: Lease) -> None:
    """Starts Spark, commits the run to its settings, and trains, in as many attempts as it takes and may take.

    Args:
      prepared: the training.
      master: Spark's; None if spark-submit has set it.
      report: records all events.
      lease: the run's lock.

    Raises:
      JobError: the cause that stopped it.
    """
    config = prepared.config
    topology = topology_of(config, master)
    settings = session.training_settings(topology, master, config.max_restarts)
    name = f"tfos_job train {prepared.run.root}"
    report.on_phase("application")
    opened = session.open_session(name, master, settings, start_timeout=config.driver_start_s)
    # Outside this block a signal ends the command at once.
    with opened as spark, StopSignal() as stop:
        held = Held(stop=stop, lease=lease)
        local = is_local(spark.sparkContext.master)
        executors = Executors(spark.sparkContext, is_local=local)
        if not local:
            report.on_phase("containers")
            _examine(spark, prepared, topology, report, held, executors)
        prepared = commit(prepared, report)
        number = prepared.folder.next_attempt
        handover.take_over(prepared.run, lease, number, prepared.start.checkpoint)
        trainer = _Trainer(spark.sparkContext, master, report, held)
        policy = RestartPolicy(max_restarts=config.max_restarts, max_preemptions=config.max_preemptions)
        restarts = Restarts(trainer, policy=policy, report=report, held=held, executors=executors)
        finished = restarts.run(Launch(number=number, prepared=prepared))
    if finished is not None and finished.interrupted:
        total_steps = prepared.data.total_steps
        raise InterruptedJobError(
            f"stopped at step {finished.step} of {total_steps}"
            + (", with a checkpoint there" if finished.step else "")
            + (" and its evaluation to be done" if finished.step == total_steps else ""),
            next_step="Run train again to go on",
            signum=stop.signum or signal.SIGINT,
        )


def commit(prepared: Preparation, report: RunReport) -> Preparation:
    """Commits run and report to the settings. This is the first change of the run's folder.

    Returns:
      The same, with the checkpoint that training starts from in the run's own folder.
    """
    file = folder.commit(
        prepared.folder,
        prepared.config,
        changes=prepared.changes,
        dataset_digest=prepared.data.train.manifest.digest,
    )
    report.commit(file, prepared.changes)
    checkpoint = folder.adopt(prepared.run, prepared.start.checkpoint)
    return dataclasses.replace(prepared, start=dataclasses.replace(prepared.start, checkpoint=checkpoint))


def assignment_to(
    prepared: Preparation, normalization: NormalizationSpec, statistics: str | None, *, lock_token: str
) -> RunAssignment:
    """The part of the coordinator's assignment that is about the run."""
    config, data, start = prepared.config, prepared.data, prepared.start
    plan = plan_of(
        config,
        data,
        start_step=start.step,
        positions=start.positions,
        normalization=normalization,
        statistics=statistics,
    )
    checkpoint = start.checkpoint.path if start.checkpoint else None
    return assignment_of(config, data, plan, checkpoint=checkpoint, lock_token=lock_token)


def _examine(
    spark: SparkSession,
    prepared: Preparation,
    topology: Topology,
    report: RunReport,
    held: Held,
    executors: Executors,
) -> None:
    """Checks that every executor meets the job's requirements, before any node starts.

    Raises:
      JobError: one error that names every unmet requirement.
    """
    config = prepared.config
    settings = dict(spark.sparkContext.getConf().getAll())
    for doubt in doubts(settings, topology.num_spark_executors, config.max_restarts):
        log.warning("%s", doubt)
    inputs = worker_inputs(config, prepared.data, prepared.start.positions)
    needed = [worker.cache_plan.least_bytes if worker.cache_plan else 0 for worker in inputs]
    expected = Expected(
        num_executors=topology.num_spark_executors,
        num_gpus=config.num_gpus,
        num_gpu_nodes=config.num_workers,
        num_driver_nodes=topology.num_driver_ps_tasks,
        allow_cpu=config.allow_cpu,
        min_free_bytes=max(needed) + RESERVE_BYTES,
        port_range=config.ports,
        require_isolation=config.require_isolation,
        folder=config.train_dir,
        start_timeout=config.phase_deadlines.containers,
    )
    diagnosis = preflight.examine(spark, expected, held.check, executors)
    noticed = [check for check in diagnosis.checks if check.state in (WARNING, FAILED)]
    report.values["preflight"] = [dataclasses.asdict(check) for check in noticed]
    for check in noticed:
        log.warning("%s: %s: %s", check.state, check.name, check)
    diagnosis.raise_for_failures()
    log.info("%d executors have what the job needs (%.1f s)", len(diagnosis.executors), diagnosis.seconds)


def _normalization(
    sc: SparkContext, prepared: Preparation, report: RunReport, held: Held
) -> tuple[NormalizationSpec, str | None]:
    """The normalization with the digest of its statistics, and their path, if they are needed.

    A run that begins with a checkpoint uses the statistics in it: the network was trained with them.
    """
    config, data = prepared.config, prepared.data
    wanted = normalization_of(config)
    if prepared.start.checkpoint is not None:
        digest = prepared.start.checkpoint.normalization.get("digest")
        return dataclasses.replace(wanted, digest=digest), None
    if wanted.kind not in (DATASET, PCA, ZCA):
        return wanted, None
    manifest = data.train.manifest
    subject = Subject(
        kind=PIXELS if wanted.kind == DATASET else WHITENING,
        split_name=config.dataset_split_name,
        dataset_digest=manifest.digest,
        image_size=data.model.image_size,
        num_channels=data.model.num_channels,
        antialias=data.reader.antialias,
    )
    report.on_phase("statistics")
    dataset = DatasetLayout(config.dataset_dir)
    made, path = statistics_of(sc, dataset, manifest, subject, run=prepared.run, guard=held.check)
    return dataclasses.replace(wanted, digest=made.digest), path


class _Trainer:
    """Runs the attempts of a training on TFClusters of one SparkContext."""

    def __init__(self, sc: SparkContext, master: str | None, report: RunReport, held: Held) -> None:
        self._sc = sc
        self._master = master
        self._report = report
        self._held = held

    def topology(self, prepared: Preparation) -> Topology:
        return topology_of(prepared.config, self._master)

    # Asked for once, before the first attempt: a JVM that is stopped later would keep the driver waiting for ever.

    @functools.cached_property
    def _settings(self) -> Mapping[str, str]:
        return dict(self._sc.getConf().getAll())

    @functools.cached_property
    def _kill_delay_s(self) -> float:
        """In YARN's cluster mode its delay between SIGTERM and SIGKILL, which limits a last checkpoint."""
        if not (session.in_cluster_mode() and container.container_id()):
            return math.inf
        settings: Any = self._sc._jsc.hadoopConfiguration()
        return int(settings.get(_KILL_DELAY_MS, "250")) / 1000

    def why_spark_is_gone(self) -> str:
        try:
            is_stopped = within(JVM_S, lambda: bool(self._sc._jsc.sc().isStopped()), "is Spark there")
        except TimeoutError:
            return "Spark's JVM does not answer"
        except Exception as e:  # noqa: BLE001 - whatever py4j makes of a JVM that is gone
            log.debug("cannot ask Spark whether it is there: %s", e)
            return "Spark's JVM has ended"
        return "Spark has stopped" if is_stopped else ""

    def resume(self, prepared: Preparation, number: int, num_executors: int) -> Preparation:
        checkpoint = handover.take_over(prepared.run, self._held.lease, number)
        found = resumed(prepared, checkpoint, num_executors)
        self._report.values.update(num_workers=found.config.num_workers, records_per_worker=list(found.data.part_sizes))
        return found

    def run(self, launch: Launch) -> AttemptEnd:
        prepared = launch.prepared
        normalization, statistics = _normalization(self._sc, prepared, self._report, self._held)
        lease = self._held.lease
        assignment = assignment_to(prepared, normalization, statistics, lock_token=lease.token)
        with ProgressLine(prepared.start.step, assignment.plan.total_steps, attempt=launch.number) as progress:

            def on_message(message: messages.ToDriver) -> None:
                self._report.on_message(message)
                if isinstance(message, messages.Built):
                    log.info("The network moves %s", wire_text(self._report.values["wire"]))
                progress.on_message(message)

            attempt = Attempt(
                self._sc,
                self._spec(launch, assignment),
                on_message=on_message,
                on_phase=self._report.on_phase,
                stop=self._held.stop,
                guard=lease.check_quickly,
            )
            return attempt.run()

    def _spec(self, launch: Launch, assignment: RunAssignment) -> AttemptSpec:
        prepared = launch.prepared
        config = prepared.config
        return AttemptSpec(
            number=launch.number,
            topology=self.topology(prepared),
            inputs=worker_inputs(config, prepared.data, prepared.start.positions),
            assignment=assignment,
            num_gpus=config.num_gpus,
            driver_host=self._settings.get("spark.driver.host", ""),
            local=is_local(self._sc.master),
            deadlines=dataclasses.replace(
                config.phase_deadlines, drain=min(config.phase_deadlines.drain, self._kill_delay_s)
            ),
            allow_cpu=config.allow_cpu,
            port_range=config.ports,
            require_isolation=config.require_isolation,
            avoided_hosts=launch.avoided_hosts,
            container_bytes=_container_bytes(self._sc.master, self._settings),
            executor_hosts=launch.executor_hosts,
        )


def _container_bytes(master: str, settings: Mapping[str, str]) -> int:
    """The memory of an executor's container, which YARN limits; 0 elsewhere."""
    if not master.startswith("yarn"):
        return 0
    return host_memory.executor_container(dict(settings)).total_mb * host_memory.MIB
