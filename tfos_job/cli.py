"""`tfos-job COMMAND`: one parser, one subcommand a stage. The flags are the fields of the stage's configuration.

stdout carries results, stderr everything else. Heavy libraries are imported by the command that needs them, so that
`--help` and a wrong flag answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job import __version__
from tfos_job.config import (
    Bond,
    ConvertConfig,
    DoctorConfig,
    EvaluateConfig,
    InspectConfig,
    PredictConfig,
    ReportConfig,
    SynthConfig,
    TensorboardConfig,
    TrainConfig,
    VerifyConfig,
)
from tfos_job.config.flags import has_bonds, is_inherited, own_first, range_of
from tfos_job.errors import JobError
from tfos_job.host import process_environment, signals
from tfos_job.host.imports import without
from tfos_job.host.results import ReaderGone, Results
from tfos_job.outcome import Outcome

log = logging.getLogger("tfos_job")


@dataclass(frozen=True)
class Emit:
    """Takes results, as JSON values, to standard output and to whoever has submitted the command."""

    outcome: Outcome
    results: Results

    def __call__(self, value: Any) -> None:
        self.outcome.add(value)
        self.results.add(value)


def _say(line: str) -> None:
    """On stderr; who has stopped to read that may still want the results."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _synth(config: SynthConfig, _: argparse.Namespace, emit: Emit) -> None:
    from tfos_job.local_jobs.synth import synthesize

    emit({"gnt_dir": config.gnt_dir, "files": len(synthesize(config))})


def _convert(config: ConvertConfig, args: argparse.Namespace, emit: Emit) -> None:
    from tfos_job.conversion.dataset import require_folders
    from tfos_job.driver import session
    from tfos_job.jobs.convert import convert
    from tfos_job.jobs.convert_images import convert_images

    require_folders(config)
    master = session.resolve_master(args.master, num_nodes=1)
    with session.open_session(f"tfos_job convert {config.dataset_dir}", master) as spark:
        result = convert(spark, config) if config.image_dir is None else convert_images(spark, config)
    emit(result.to_dict())


def _verify(config: VerifyConfig, args: argparse.Namespace, emit: Emit) -> None:
    from tfos_job.conversion.dataset import refuse_non_folder
    from tfos_job.driver import session
    from tfos_job.jobs.verify import verify

    refuse_non_folder(config.dataset_dir, "--dataset_dir")
    if config.gnt_dir not in (None, "auto"):
        refuse_non_folder(config.gnt_dir, "--gnt_dir")
    master = session.resolve_master(args.master, num_nodes=1)
    with session.open_session(f"tfos_job verify {config.dataset_dir}", master) as spark:
        result = verify(spark, config)
    for line in result.lines():
        _say(line)
    emit(result.to_dict())
    result.raise_for_findings()


def _inspect(config: InspectConfig, args: argparse.Namespace, emit: Emit) -> None:
    _load_tensorflow(loud=args.debug)
    from tfos_job.local_jobs.inspect import inspect

    emit(inspect(config))


def _train(config: TrainConfig, args: argparse.Namespace, emit: Emit) -> None:
    from tfos_job.driver import session
    from tfos_job.jobs.train import train

    emit(summary_of_run(train(config, session.resolve_master(args.master, config.num_executors))))


def summary_of_run(report: dict[str, Any]) -> dict[str, Any]:
    """What `train` prints of a run's report."""
    keys = ("state", "step", "total_steps", "images_per_second", "metrics", "checkpoint")
    return {key: report[key] for key in keys if key in report}


def _evaluate(config: EvaluateConfig, args: argparse.Namespace, emit: Emit) -> None:
    _load_tensorflow(loud=args.debug)
    from tfos_job.local_jobs.evaluate import evaluate

    result = evaluate(config)
    for key, value in result.items():
        _say(f"{key:<14}{value:.4f}" if isinstance(value, float) else f"{key:<14}{value}")
    emit(result)


def _predict(config: PredictConfig, args: argparse.Namespace, emit: Emit) -> None:
    _load_tensorflow(loud=args.debug)
    from tfos_job.local_jobs.predict import predict

    for result in predict(config):
        emit(result)


def _report(config: ReportConfig, args: argparse.Namespace, emit: Emit) -> None:
    from tfos_job.local_jobs.report import read, summary, write_page

    if config.html is None:
        report = read(config.train_dir)
        for name, value in summary(report):
            _say(f"{name:<18}{value}")
        emit(report)
        return
    _load_tensorflow(loud=args.debug)
    emit(write_page(config.train_dir, config.html))


def _tensorboard(config: TensorboardConfig, _: argparse.Namespace, emit: Emit) -> None:
    from tfos_job.local_jobs.tensorboard import tensorboard

    tensorboard(config, emit.results.write)


def _doctor(config: DoctorConfig, args: argparse.Namespace, emit: Emit) -> None:
    from tfos_job.driver import session
    from tfos_job.jobs.doctor import doctor

    diagnosis = doctor(config, session.resolve_master(args.master, config.num_executors))
    _say(diagnosis.table())
    emit(diagnosis.to_dict())
    diagnosis.raise_for_failures()


@dataclass(frozen=True)
class Command:
    """A subcommand: its configuration, what runs it, and whether it takes `--master`.

    Attributes:
      when_stopped: what a signal leaves, and what the next run does; true whenever it comes.
    """

    config: type
    run: Callable[[Any, argparse.Namespace, Emit], None]
    on_spark: bool
    help: str
    when_stopped: str


COMMANDS = {
    "synth": Command(
        SynthConfig,
        _synth,
        False,
        "write GNT shards of rendered characters, one per synthetic writer",
        "The files that are there are whole; run it again to write all of them",
    ),
    "convert": Command(
        ConvertConfig,
        _convert,
        True,
        "make one split of a dataset from GNT shards or images",
        "A split is published whole or not at all; run the same command again",
    ),
    "verify": Command(
        VerifyConfig,
        _verify,
        True,
        "prove the splits of a dataset, and that they share nothing",
        "Nothing was changed; run it again",
    ),
    "inspect": Command(
        InspectConfig,
        _inspect,
        False,
        "draw a split: a sample as the network sees it, its classes",
        "Pictures may be missing; run it again to draw all of them",
    ),
    "train": Command(
        TrainConfig,
        _train,
        True,
        "train on a TFCluster with parameter servers",
        "Run train again to go on from the last checkpoint",
    ),
    "evaluate": Command(
        EvaluateConfig,
        _evaluate,
        False,
        "count top-k and loss of a checkpoint exactly; draw them",
        "Numbers are written before pictures; run it again to have all of them",
    ),
    "predict": Command(PredictConfig, _predict, False, "name the classes of images", "Nothing is left; run it again"),
    "report": Command(
        ReportConfig,
        _report,
        False,
        "print a run's account, or write all of it as one HTML file",
        "Nothing is left; run it again",
    ),
    "tensorboard": Command(
        TensorboardConfig, _tensorboard, False, "show a run's summaries, also those on HDFS", "Nothing is left"
    ),
    "doctor": Command(
        DoctorConfig,
        _doctor,
        True,
        "look whether a cluster has what a job needs, on every executor",
        "Nothing is left; run it again",
    ),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tfos-job",
        description="GNT shards to TFRecords to a trained classifier, with TensorFlowOnSpark.",
        epilog="Exit codes: docs/reference.md has the table. `tfos-job COMMAND --help` lists a command's flags.",
    )
    parser.add_argument("--version", action="version", version=f"tfos_job {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.help, description=command.help, allow_abbrev=False)
        hints = typing.get_type_hints(command.config)
        bonds = Bond if has_bonds(command.config) else ()
        groups = {bond: subparser.add_argument_group(bond.name.lower(), bond.value) for bond in bonds}
        for field in own_first(command.config):
            group = groups[field.metadata["bond"]] if groups else subparser
            _add_flag(group, field, hints[field.name])
        if command.on_spark:
            subparser.add_argument(
                "--master",
                help="Spark's master, such as local[4] or local-cluster[3,1,1024] (default: what spark-submit has set, "
                "else local Spark with a slot for each core or node, whichever are more)",
            )
        subparser.add_argument("--verbose", "-v", action="store_true", help="say more, as which settings are overruled")
        subparser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    return parser


def _add_flag(parser: argparse._ActionsContainer, field: dataclasses.Field[Any], hint: Any) -> None:
    """A flag that is not given leaves nothing in the result: its default is the configuration's to know."""
    metadata, help_text = field.metadata, _help(field, hint)
    inherited = is_inherited(field)
    if "nargs" in metadata:
        parser.add_argument(
            field.name, type=_text, help=help_text, nargs=metadata["nargs"], metavar=metadata["metavar"]
        )
        return
    if hint is bool and not inherited:
        parser.add_argument(f"--{field.name}", action="store_true", default=argparse.SUPPRESS, help=help_text)
        return
    kind, is_optional = _value_type(hint)
    metavar, choices = metadata.get("metavar"), metadata.get("choices")
    if kind is bool:
        metavar = "true|false"
    elif choices and is_optional and inherited:
        metavar, choices = "|".join((*choices, "none")), (*choices, None)
    elif not choices:
        metavar = metavar or kind.__name__.upper()
    const = True if kind is bool else metadata.get("const")
    optional_value: dict[str, Any] = {} if const is None else {"nargs": "?", "const": const}
    read = _truth if kind is bool else _text if kind is str and field.default != "" else kind
    parser.add_argument(
        f"--{field.name}",
        type=_or_none(read, kind) if is_optional and inherited else read,
        required=field.default is dataclasses.MISSING and not inherited,
        default=argparse.SUPPRESS,
        help=help_text,
        metavar=metavar,
        choices=choices,
        **optional_value,
    )


def _help(field: dataclasses.Field[Any], hint: Any) -> str:
    """A flag's help text with its range and default."""
    text, numbers = field.metadata["help"], range_of(field.metadata)
    head, default, tail = text.partition(" (default: ")
    if numbers is not None:
        head += f", {numbers}" if "," not in head and ";" not in head else f"; {numbers}"
    if not default and hint is not bool and field.default not in (None, dataclasses.MISSING, ""):
        default, tail = " (default: ", f"{field.default})"
    return f"{head}{default}{tail}".replace("%", "%%")


def _value_type(hint: Any) -> tuple[type, bool]:
    """`int` of `int | None`, and whether it may be None."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not types.NoneType), True
    return typing.cast("type", hint), False


def _truth(text: str) -> bool:
    """What a run has may have to be taken back."""
    try:
        return {"true": True, "false": False}[text]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false") from None


def _or_none(read: Callable[[str], Any], kind: type) -> Callable[[str], Any]:
    """As `_truth`: `none` takes back what a run has."""

    def value(text: str) -> Any:
        return None if text == "none" else read(text)

    value.__name__ = kind.__name__
    return value


def _text(value: str) -> str:
    """A value as it is: a path, a name, a list. Raises ArgumentTypeError, which ends the command with exit code 2.

    What is not UTF-8 would come as far as the first JSON file, or the JVM, and fail there.
    """
    if not value:
        raise argparse.ArgumentTypeError("its value is empty")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise argparse.ArgumentTypeError(f"its value is not UTF-8: {os.fsencode(value)!r}; give the path another name")
    return value


def parse_config(name: str, flags: Sequence[str]) -> Any:
    """The configuration of a command from its flags, as `main` would read them; argparse's own exit for bad ones.

    Raises:
      SettingsError: values that do not go together.
      JobError: the settings of the run that is to go on cannot be read.
    """
    args = make_parser().parse_args([name, *flags])
    return _config(COMMANDS[name], args)


def _config(command: Command, args: argparse.Namespace) -> Any:
    names = (field.name for field in dataclasses.fields(command.config))
    given: Mapping[str, Any] = {name: getattr(args, name) for name in names if hasattr(args, name)}
    if command.config is TrainConfig:
        from tfos_job.run import resume  # with storage, which `--help` need not import

        return resume.settings(given)
    return command.config(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _load_tensorflow(*, loud: bool) -> None:
    """Imports TensorFlow and lets it look for devices, without the lines that it greets every user with.

    They come from its libraries before any log level is heard; where the import fails they are shown after all.
    """
    with contextlib.ExitStack() as stack:
        if not loud:
            said = stack.enter_context(tempfile.TemporaryFile())
            stderr = os.dup(2)
            os.dup2(said.fileno(), 2)
            stack.callback(os.close, stderr)
            stack.callback(os.dup2, stderr, 2)
        try:
            with without("matplotlib"):  # Keras would import it for pictures of its own
                import tensorflow as tf

            tf.config.list_logical_devices()
        except Exception:
            if not loud:
                os.dup2(stderr, 2)
                said.seek(0)
                sys.stderr.write(said.read().decode(errors="replace"))
            raise


def _prepare_process(*, debug: bool) -> None:
    """Logs to stderr, and libraries that speak only when something is wrong."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    if not debug:
        logging.getLogger("py4j").setLevel(logging.CRITICAL)
        logging.getLogger().addFilter(_is_not_py4js)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _is_not_py4js(record: logging.LogRecord) -> bool:
    """py4j logs a traceback wherever a signal, or the JVM's end, keeps an answer from it; the error says the same."""
    return record.module != "java_gateway"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    with signals.raised():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    changes = process_environment.settle_process()
    outcome = Outcome(argv[0] if argv else "")
    try:
        _begin_in_cluster(argv)
        outcome.begin()  # Not before: a NameNode that is slow to answer must not keep YARN waiting for the context.
        args = make_parser().parse_args(argv)
    except (JobError, KeyboardInterrupt) as e:
        ended = as_job_error(e, _when_stopped(argv[0] if argv else ""))
        return _conclude(outcome, argv[0] if argv else "", ended.exit_code, ended)
    except SystemExit as e:
        outcome.end(int(e.code or 0), None)
        raise
    _prepare_process(debug=args.debug)
    if args.verbose:
        log.setLevel(logging.DEBUG)
    for change in changes:
        log.debug("%s", change)
    with Results() as results:
        exit_code, error = _run(args.command, args, Emit(outcome, results))
    if error is not None and args.debug:
        logging.getLogger().error("", exc_info=error)
    return _conclude(outcome, args.command, exit_code, error)


def _conclude(outcome: Outcome, command: str, exit_code: int, error: JobError | None) -> int:
    if error is not None:
        _say(f"tfos-job {command}: error: {error}")
    outcome.end(exit_code, error)
    return exit_code


def _begin_in_cluster(argv: Sequence[str]) -> None:
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit's variable: others need not import pyspark for this
        from tfos_job.driver import session

        if session.in_cluster_mode():
            session.begin_in_cluster(argv[0] if argv else "")


def _run(name: str, args: argparse.Namespace, emit: Emit) -> tuple[int, JobError | None]:
    try:
        command = COMMANDS[name]
        command.run(_config(command, args), args, emit)
        return 0, None
    except ReaderGone:
        return 128 + signal.SIGPIPE, None
    except (Exception, KeyboardInterrupt) as e:  # noqa: BLE001 - a bug must end with its own exit code, too
        error = as_job_error(e, _when_stopped(name))
    return error.exit_code, error


def _when_stopped(name: str) -> str:
    return COMMANDS[name].when_stopped if name in COMMANDS else ""


def as_job_error(error: BaseException, when_stopped: str) -> JobError:
    """What a command raised, as the error that it ends with: a signal, or a `JobError`; all else is a bug."""
    judged = signals.interruption(error, when_stopped) or error
    if not isinstance(judged, JobError):
        from tfos_job import storage  # which `--help` need not import

        summary = next(iter(str(error).splitlines()), "")
        judged = storage.full_disk(error) or JobError(
            f"{type(error).__name__}: {summary}", next_step="This is a bug; run again with --debug for the traceback"
        )
    if judged is not error:
        judged.__cause__ = error
    return judged
