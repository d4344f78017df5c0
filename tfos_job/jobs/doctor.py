"""`doctor`: checks that the cluster meets a job's requirements, before a job is trusted to it."""

from __future__ import annotations

import dataclasses
import time

from tfos_job import storage
from tfos_job.config import DoctorConfig
from tfos_job.doctor.case import Expected
from tfos_job.doctor.diagnosis import Diagnosis, failed
from tfos_job.driver import preflight, session
from tfos_job.errors import ResourceError, SettingsError
from tfos_job.protocol.topology import slots_of


def doctor(config: DoctorConfig, master: str | None) -> Diagnosis:
    """Starts Spark and examines it. A failed start is one failure beside those that the driver finds alone.

    Args:
      config: what the job is to need.
      master: Spark's master; None where spark-submit has set it.
    """
    began_s = time.monotonic()
    folder = config.train_dir or config.dataset_dir
    expected = Expected(
        num_executors=config.num_executors,
        num_gpus=config.num_gpus,
        expected_hours=config.expected_hours,
        min_free_bytes=int(config.min_free_gb * (1 << 30)),
        port_range=config.ports,
        require_isolation=config.require_isolation,
        folder=storage.absolute(folder) if folder else None,
        start_timeout=config.start_timeout,
        deep=config.deep,
    )
    settings = _settings(master, config)
    try:
        name, limit_s = "tfos_job doctor", config.start_timeout
        with session.open_session(name, master, settings, start_timeout=limit_s) as spark:
            diagnosis = preflight.examine(spark, expected)
    except (ResourceError, SettingsError) as e:  # from open_session: `preflight.examine` raises none
        known = {**preflight.settings_without_spark(), **settings}
        cluster = preflight.cluster_of(known.get("spark.master", master or ""), known)
        where = [e.place] if e.place else []
        problem = failed("spark", type(e), e.fact, where=where, next_step=e.next_step)
        cluster = dataclasses.replace(cluster, problems=(*cluster.problems, problem))
        diagnosis = preflight.Examination(None, expected, cluster).run()
    return dataclasses.replace(diagnosis, seconds=time.monotonic() - began_s)


def _settings(master: str | None, config: DoctorConfig) -> dict[str, str]:
    """Spark's settings, as for a training: all executors at once, one task each, in a Python of its own."""
    settings = dict(session.ONE_TASK_SETTINGS)
    slots = slots_of(master) if master else None
    if slots is not None and slots.executors > 1:
        settings["spark.task.cpus"] = str(slots.cores)
    if master is not None and slots is None:
        settings["spark.executor.instances"] = str(config.num_executors)  # spark-submit has its own word for it
    return settings
