"""All commands, in the order of `tfos-job --help`."""

from tfos_job.commands.clean import CLEAN
from tfos_job.commands.convert import CONVERT
from tfos_job.commands.doctor import DOCTOR
from tfos_job.commands.evaluate import EVALUATE
from tfos_job.commands.export import EXPORT
from tfos_job.commands.infer import INFER
from tfos_job.commands.inspect import INSPECT
from tfos_job.commands.pipeline import PIPELINE
from tfos_job.commands.promotion import HISTORY, PROMOTE, ROLLBACK
from tfos_job.commands.report import REPORT
from tfos_job.commands.run_results import PREDICT, TENSORBOARD
from tfos_job.commands.serve import SERVE
from tfos_job.commands.synth import SYNTH
from tfos_job.commands.train import TRAIN
from tfos_job.commands.verify import VERIFY

COMMANDS = {
    command.name: command
    for command in (
        SYNTH,
        CONVERT,
        VERIFY,
        INSPECT,
        TRAIN,
        EVALUATE,
        PREDICT,
        INFER,
        EXPORT,
        PROMOTE,
        ROLLBACK,
        HISTORY,
        PIPELINE,
        CLEAN,
        SERVE,
        REPORT,
        TENSORBOARD,
        DOCTOR,
    )
}
SUBMISSIONS = {name: command.submission for name, command in COMMANDS.items() if command.submission is not None}
"""The commands that `submit` sends to a cluster."""
SUBMIT = "submit"
"""No command of a configuration: `tfos_job/__main__.py` hands its words to `tfos_job.submit.main`."""
SUBMIT_HELP = f"send a command ({', '.join(SUBMISSIONS)}) to a cluster, and wait for its end"
