"""`synth`."""

from tfos_job.commands.command import Command, Context
from tfos_job.config import SynthConfig


def run(config: SynthConfig, context: Context) -> None:
    from tfos_job.local_jobs.synth import synthesize

    context.emit({"gnt_dir": config.gnt_dir, "files": len(synthesize(config))})


SYNTH = Command(
    name="synth",
    config=SynthConfig,
    run=run,
    help="write GNT shards of rendered characters, one per synthetic writer",
    when_stopped="The files that are there are whole; run it again to write all of them",
)
