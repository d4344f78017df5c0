"""Every error this package raises on purpose, and the exit code each one ends a command with.

The tree (exit code; *r* = a retry can help)::

    JobError                     70     a bug, unless a subclass says otherwise
    ├── BadDataError             65     bad bytes, too many bad records, digests that do not fit
    ├── MissingInputError        66     input, dataset or checkpoint not there
    ├── ResourceError            69 r   containers, GPUs, slots, ports not available in time
    ├── NodeDiedError            71 r   a process of the cluster was killed or lost
    ├── StorageError             74 r   HDFS or disk failed longer than the retries
    ├── BusyError                75 r   another command holds the lock; preempted; deadline passed
    ├── DivergedError            76     the loss is NaN or infinite
    ├── AccessError              77     permission, quota, authentication
    ├── SettingsError            78     flags that do not go together, or do not fit what is on disk
    │   └── FlagError             2     a flag that does not exist, a value that its flag does not accept
    └── InterruptedJobError  130/143    SIGINT, SIGTERM

The codes are those of sysexits.h and of the shell.
"""

from __future__ import annotations

import signal


class JobError(Exception):
    """An error that names the fact, the place and the next step, in one line.

    Args:
      fact: what is wrong, with what was expected and what was found.
      place: where: a file and byte offset, a host and role, a flag.
      next_step: what the reader can do about it.
    """

    exit_code: int = 70
    retryable: bool = False

    def __init__(self, fact: str, *, place: str = "", next_step: str = "") -> None:
        super().__init__(fact)
        self.fact = fact
        self.place = place
        self.next_step = next_step

    @property
    def cause(self) -> str:
        """Place and fact, without what the reader can do."""
        return f"{self.place}: {self.fact}" if self.place else self.fact

    def __str__(self) -> str:
        return f"{self.cause}. {self.next_step}" if self.next_step else self.cause

    def __reduce__(self) -> tuple:
        # Keyword-only arguments do not survive Exception's own pickling, and errors travel from Spark executors.
        return _rebuild, (type(self), self.fact, self.place, self.next_step)


def _rebuild(kind: type[JobError], fact: str, place: str, next_step: str) -> JobError:
    return kind(fact, place=place, next_step=next_step)


class BadDataError(JobError):
    """Bytes that are not what they claim to be."""

    exit_code = 65


class MissingInputError(JobError):
    """An input, a dataset or a checkpoint that is not there."""

    exit_code = 66


class ResourceError(JobError):
    """A resource that the cluster did not provide in time."""

    exit_code = 69
    retryable = True


class NodeDiedError(JobError):
    """The unexpected end of a process of the cluster."""

    exit_code = 71
    retryable = True


class StorageError(JobError):
    """A failure of a file system that outlasted its retries."""

    exit_code = 74
    retryable = True


class BusyError(JobError):
    """Another command that works in the same folder."""

    exit_code = 75
    retryable = True


class DivergedError(JobError):
    """A loss that is no longer a finite number."""

    exit_code = 76


class AccessError(JobError):
    """Permission, quota or authentication."""

    exit_code = 77


class SettingsError(JobError):
    """Settings that contradict each other or what is on disk."""

    exit_code = 78


class FlagError(SettingsError):
    """A flag that does not exist or is missing, or a value that its flag does not accept."""

    exit_code = 2


class InterruptedJobError(JobError):
    """A request of the user or the scheduler to stop."""

    exit_code = 128 + signal.SIGINT

    def __init__(self, fact: str, *, place: str = "", next_step: str = "", signum: int = signal.SIGINT) -> None:
        super().__init__(fact, place=place, next_step=next_step)
        self.signum = signum
        self.exit_code = 128 + signum


def exit_code_class(exit_code: int) -> type[JobError]:
    """The error class that ends with `exit_code`; `JobError` for a code no class has."""
    kinds: list[type[JobError]] = [*JobError.__subclasses__(), FlagError]
    return next((kind for kind in kinds if kind.exit_code == exit_code), JobError)


def with_remark(error: JobError, remark: str) -> JobError:
    """The same error, with a remark behind its fact."""
    kind = exit_code_class(error.exit_code)
    return kind(f"{error.fact} ({remark})", place=error.place, next_step=error.next_step)
