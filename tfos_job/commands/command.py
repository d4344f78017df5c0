"""The form of a command's declaration: all that the package knows of a command by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tfos_job.commands import container_memory
from tfos_job.commands.container_memory import Network
from tfos_job.config.process import ProcessConfig

if TYPE_CHECKING:
    from tfos_job.run.outgrown import Outgrown  # with storage, which `--help` need not import


@dataclass(frozen=True, kw_only=True)
class Context:
    """The process that a command runs in.

    Attributes:
      master: `--master`; None unless it is given.
      process: the flags of every command.
      is_debug: `--debug`.
      emit: takes a result, a JSON value, to standard output and to the host that has submitted the command.
      write: writes a line to standard output.
      say: writes what is for people alone, such as a table, to standard error; a log line with `--log_format json`,
        nothing with `-q`.
    """

    master: str | None
    process: ProcessConfig
    is_debug: bool
    emit: Callable[[Any], None]
    write: Callable[[str], None]
    say: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """The size of a command's work, as far as the submitting host knows it; the defaults are the seed job's.

    Attributes:
      network: the network that is trained or evaluated.
      worker_records: records of the worker with the most.
      record_bytes: mean bytes of a record; 0 if unknown.
      of_pictures: whether image files are converted, or a dataset of image files is verified.
      outgrown: what was too much for the containers of earlier attempts; None if nothing was.
    """

    network: Network = field(default_factory=Network)
    worker_records: int = 0
    record_bytes: int = 0
    of_pictures: bool = False
    outgrown: Outgrown | None = None


def _unknown(config: Any) -> Work:
    return Work()


def _unchecked(config: Any) -> Any | None:
    return None


def _foretell_nothing(config: Any, master: str) -> None:
    return None


def _nothing_to_tell(config: Any, work: Work, master: str) -> Mapping[str, str]:
    return {}


def _none(config: Any) -> Sequence[tuple[str, str]]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The submission of a command to a cluster.

    Attributes:
      profiles: files of spark/conf/ with the settings to start from.
      containers: Spark's settings of driver and executors, from configuration, size of work and Spark's master. Pure.
      remarks: what the user is told about some of these settings, by setting, unless they give it. Pure.
      queue: YARN's queue unless `--queue` is given.
      size_of_work: reads dataset and run.
      check: raises on the submitting host what the job would raise minutes later; returns the result of a job that has
        nothing left to do, else None.
      foretell: logs what the job would do, without doing it, from configuration and Spark's master.
      other_dirs: folders that the command uses beside those of its flags, each with the flag that stands for it.
      fills_executors: one task fills an executor and has its GPUs.
      trains: the job writes a run's report, which is followed, and a second attempt of the application resumes it.
    """

    profiles: tuple[str, ...]
    containers: Callable[[Any, Work, str], dict[str, str]]
    remarks: Callable[[Any, Work, str], Mapping[str, str]] = _nothing_to_tell
    queue: str = "default"
    size_of_work: Callable[[Any], Work] = _unknown
    check: Callable[[Any], Any | None] = _unchecked
    foretell: Callable[[Any, str], None] = _foretell_nothing
    other_dirs: Callable[[Any], Sequence[tuple[str, str]]] = _none
    fills_executors: bool = False
    trains: bool = False


@dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand of `tfos-job`.

    Attributes:
      name: its name; `spark/NAME_job.py` is its program for spark-submit.
      config: its configuration, whose fields are its flags.
      run: runs it. Heavy libraries are imported within, so that `--help` and a wrong flag answer at once.
      help: one line.
      when_stopped: what a signal leaves and what the next run does; true whenever the signal comes.
      on_spark: whether it takes `--master`.
      submission: how it is submitted to a cluster; None for a command that runs on this host only.
      configure: makes the configuration from the flags that are given; by default they are its arguments.
      sections: its flags that are a section in a file, with flags of another command, which is named.
      not_yet: keys of such a file that it does not know, and which one may expect, each with what to do instead.
    """

    name: str
    config: type
    run: Callable[[Any, Context], None]
    help: str
    when_stopped: str
    on_spark: bool = False
    submission: Submission | None = None
    configure: Callable[[Mapping[str, Any]], Any] | None = None
    sections: Mapping[str, str] = field(default_factory=dict)
    not_yet: Mapping[str, str] = field(default_factory=dict)

    @property
    def process_flags(self) -> list[dataclasses.Field[Any]]:
        """The flags of every command, as far as this one has them."""
        return [item for item in dataclasses.fields(ProcessConfig) if self.on_spark or item.name != "master"]

    @property
    def flags(self) -> list[dataclasses.Field[Any]]:
        """All that stands on its command line: its own flags, then those of every command."""
        return [*dataclasses.fields(self.config), *self.process_flags]


def batch_containers(config: Any, work: Work, master: str) -> dict[str, str]:
    """A driver, and executors that stream through files."""
    executor = container_memory.batch_executor(of_pictures=work.of_pictures)
    return container_memory.batch_driver().of_driver() | executor.of_executor()
