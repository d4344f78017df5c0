"""`doctor`."""

from __future__ import annotations

from tfos_job.commands import container_memory
from tfos_job.commands.command import Command, Context, Submission, Work
from tfos_job.config import DoctorConfig


def run(config: DoctorConfig, context: Context) -> None:
    from tfos_job.jobs.doctor import doctor
    from tfos_job.protocol.topology import resolve_master

    diagnosis = doctor(config, resolve_master(context.master, config.num_executors))
    context.say(diagnosis.table())
    context.emit(diagnosis.to_dict())
    diagnosis.raise_for_failures()


def containers(config: DoctorConfig, work: Work, master: str) -> dict[str, str]:
    """Executors of which each has room for a process that imports TensorFlow."""
    executor = container_memory.parameter_server(parameters=0, share=1, num_workers=0)
    return {
        **container_memory.batch_driver().of_driver(),
        **executor.of_executor(),
        "spark.executor.instances": str(config.num_executors),
    }


DOCTOR = Command(
    name="doctor",
    config=DoctorConfig,
    run=run,
    help="check, on every executor, that the cluster meets a job's requirements",
    when_stopped="Nothing is left; run it again",
    on_spark=True,
    submission=Submission(profiles=("common", "train"), containers=containers, fills_executors=True),
)
