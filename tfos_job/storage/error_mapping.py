r"""Mapping of the backends' exceptions to the classes of `tfos_job.errors`, each with its next step.

An exception is passing (another try may help), a refusal (permission, quota, authentication), about the settings, or
none of these. Local files raise OSErrors, which have a class or a number. hdfs-native raises RuntimeErrors with Rust's
debug form of the error: `RPCError("java.Class", "message\n\tat stack …")`, `DataTransferError("…")`, `SASLError("…")`
and so on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from tfos_job.errors import AccessError, JobError, MissingInputError, SettingsError, StorageError

_RPC_ERROR = re.compile(r'(?:Fatal)?RPCError\("(?P<kind>[^"]*)", "(?P<message>.*)"\)', re.DOTALL)
_QUOTA_ERRNOS = (errno.EDQUOT,)
_FULL_WORDS = re.compile(r".*(?:No space left on device|Disk quota exceeded).*")
_UNAUTHENTICATED = ("SaslException", "InvalidToken")
_UNAUTHENTICATED_WORDS = ("authentication is not enabled", "Client cannot authenticate via")
_REFUSALS = ("AccessControlException", "AuthorizationException", "QuotaExceededException", *_UNAUTHENTICATED)
_CLIENT_REFUSALS = ("SASLError", "GSSAPIError", "NoSASLMechanism")
_CLIENT_SETTINGS = ("InvalidPath", "InvalidArgument", "UrlParseError", "XmlParseError")
# A NameNode answers with these while it starts or fails over, and while its view of the DataNodes is out of date. Its
# other answers are final.
_PASSING_KINDS = ("SafeModeException", "RetriableException", "StandbyException", "NotReplicatedYetException")
_PASSING_WORDS = ("could only be written to", "could only be replicated to", "Name node is in safe mode")
_CLIENT_FINAL = ("Unsupported", "Panic", *_CLIENT_SETTINGS, *_CLIENT_REFUSALS)


@contextlib.contextmanager
def job_errors(path: str, verb: str) -> Iterator[None]:
    """Converts exceptions of the `with` block into JobErrors: `path`: cannot `verb` it, the reason, the next step."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot {verb} it: not there", place=path, next_step="Check the path") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        kind = "a file, not a folder" if isinstance(error, NotADirectoryError) else "a folder, not a file"
        raise MissingInputError(f"cannot {verb} it: {kind}", place=path, next_step="Check the path") from error
    except (OSError, RuntimeError) as error:
        kind_of_error, next_step = _judge(error)
        raise kind_of_error(f"cannot {verb} it: {reason(error)}", place=path, next_step=next_step) from error


def _judge(error: OSError | RuntimeError) -> tuple[type[JobError], str]:
    if _is_unauthenticated(error):
        return AccessError, (
            "Get a new Kerberos ticket (kinit) or delegation token (the file that HADOOP_TOKEN_FILE_LOCATION names), "
            f"and check hadoop.security.authentication in {described_conf_dir()}"
        )
    if is_refusal(error):
        return AccessError, "Check the owner, the permissions and the quota of the folder"
    if is_setting(error):
        return SettingsError, f"Check the URL and {described_conf_dir()}"
    if getattr(error, "errno", None) == errno.ENOSPC:
        return StorageError, "Free some space there, then run again"
    return StorageError, "Check the disk or the file system, then run again"


def full_disk(error: BaseException) -> JobError | None:
    """Returns the error for another library's exception about a full disk or quota; None for any other exception.

    Python's exceptions have a number; Spark's have the message of a JVM, or of another Python process, in their text.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, *_QUOTA_ERRNOS):
        fact, place = str(error.strerror), str(error.filename or "")
    elif match := _FULL_WORDS.search(str(error)):
        fact, place = match[0].strip(), ""
    else:
        return None
    kind = AccessError if "quota" in fact else StorageError
    return kind(
        fact,
        place=place,
        next_step="Free some space there, or name other disks: SPARK_LOCAL_DIRS for Spark, TMPDIR for the rest",
    )


def described_conf_dir() -> str:
    """Returns the source of Hadoop's configuration, for an error's next step."""
    conf_dir = os.environ.get("HADOOP_CONF_DIR")
    return f"HADOOP_CONF_DIR={conf_dir}" if conf_dir else "HADOOP_CONF_DIR, which is not set"


def rpc_error(error: BaseException) -> tuple[str, str] | None:
    """Returns the Java class and the message of a NameNode's answer, without its stack."""
    match = _RPC_ERROR.fullmatch(str(error)) if isinstance(error, RuntimeError) else None
    return (
        (match["kind"].rpartition(".")[2], match["message"].split("\\n", 1)[0].replace('\\"', '"')) if match else None
    )


def reason(error: OSError | RuntimeError) -> str:
    """Returns the error in one line, without the NameNode's Java stack."""
    if answered := rpc_error(error):
        return ": ".join(part for part in answered if part)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).split("\n", 1)[0]


def is_refusal(error: OSError | RuntimeError) -> bool:
    if isinstance(error, PermissionError) or getattr(error, "errno", None) in _QUOTA_ERRNOS:
        return True
    if answered := rpc_error(error):
        return answered[0].endswith(_REFUSALS) or any(word in answered[1] for word in _REFUSALS)
    return isinstance(error, RuntimeError) and str(error).startswith(_CLIENT_REFUSALS)


def _is_unauthenticated(error: OSError | RuntimeError) -> bool:
    if answered := rpc_error(error):
        return answered[0].endswith(_UNAUTHENTICATED) or any(
            word in answered[1] for word in (*_UNAUTHENTICATED, *_UNAUTHENTICATED_WORDS)
        )
    return isinstance(error, RuntimeError) and str(error).startswith(_CLIENT_REFUSALS)


def is_setting(error: OSError | RuntimeError) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith(_CLIENT_SETTINGS)


def is_of_datanode(error: BaseException | None) -> bool:
    """True if an error of hdfs-native may come from a DataNode: it is neither a NameNode's answer nor its absence."""
    if isinstance(error, JobError):
        error = error.__cause__
    return error is not None and rpc_error(error) is None and not str(error).startswith("RPC")


def is_passing(error: BaseException) -> bool:
    """True if another try may succeed after this error of hdfs-native; a JobError is judged by its cause."""
    if isinstance(error, JobError):
        return isinstance(error, StorageError) and error.__cause__ is not None and is_passing(error.__cause__)
    if isinstance(
        error,
        FileNotFoundError
        | FileExistsError
        | PermissionError
        | NotADirectoryError
        | IsADirectoryError
        | NotImplementedError,
    ):
        return False
    if answered := rpc_error(error):
        kind, message = answered
        return kind in _PASSING_KINDS or any(word in message for word in _PASSING_WORDS)
    if isinstance(error, RuntimeError):
        return not str(error).startswith(_CLIENT_FINAL)
    return isinstance(error, OSError)  # the connection
