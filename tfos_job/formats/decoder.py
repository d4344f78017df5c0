"""A process that decodes picture files as training does, and answers with a digest of the pixels. On an executor.

Conversion carries no TensorFlow (`host/calls.py` says why). The process is started by the first question and stays for
the next ones, also those of other Spark tasks that the same Python worker runs. It ends after some time without a
question, and with the process that asked.

It is a `host.child.Child`; pictures, which are no JSON, go through a socket of their own that it inherits. A question
is a head (`QUESTION`) and the file, an answer a head (`ANSWER`) and a digest or the reason for none.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import socket
import struct
import tempfile

import numpy as np

from tfos_job.errors import JobError, NodeDiedError
from tfos_job.host.child import KILL_WAIT_S, Child, child_environment, end_in_words

QUESTION = struct.Struct("<4sQ")
"""The format (`image_files.STORED_FORMATS`), and how many bytes follow."""
ANSWER = struct.Struct("<?Q")
"""True if it was decoded, and the number of bytes that follow."""
PATIENCE_S = 300.0
"""For TensorFlow's start as for a picture: disks and processors may be busy."""
IDLE_S = 20.0
"""Without a question: then the process gives its memory back."""
_MODULE = "tfos_job.input.decoder_process"
_NAME = "the process that decodes pictures"
_LAST_BYTES = 2000  # of a dead process's output, for the error


def digest(pixels: np.ndarray) -> bytes:
    """SHA-256 of a picture: uint8 [h, w, 3]."""
    found = hashlib.sha256(f"{pixels.shape}".encode())
    found.update(np.ascontiguousarray(pixels).data)
    return found.digest()


class Decoder:
    """The process, and the end of the socket that it answers to."""

    def __init__(self, module: str = _MODULE, patience_s: float = PATIENCE_S) -> None:
        """Takes the process's module, which is started by the first question."""
        self._module = module
        self._patience_s = patience_s
        self._child: Child | None = None

    def digest(self, data: bytes, image_format: str) -> bytes:
        """The `digest` of the pixels that training sees in a file.

        Raises:
          ValueError: it is none that training reads.
          NodeDiedError: the process was killed, or does not answer.
        """
        question = QUESTION.pack(image_format.encode("ascii"), len(data))
        answer = self._ask(question, data)
        if answer is None:  # the idle process had just ended
            answer = self._ask(question, data)
        if answer is None:
            raise JobError(f"{_NAME} ends at once", next_step="This is a bug")
        decoded, body = answer
        if not decoded:
            raise ValueError(body.decode("utf-8"))
        return body

    def _ask(self, question: bytes, data: bytes) -> tuple[bool, bytes] | None:
        """The answer; None if the process has ended as it should."""
        child = self._child = self._child or self._start()
        try:
            with contextlib.suppress(BrokenPipeError):  # its last answer may have the reason
                self._socket.sendall(question)
                self._socket.sendall(data)
            decoded, size = ANSWER.unpack(self._receive(ANSWER.size))
            return decoded, self._receive(size)
        except TimeoutError:
            self.close()
            raise NodeDiedError(
                f"{_NAME} did not answer within {self._patience_s:g} s",
                next_step="Look whether the host is overloaded, or stopped it; then run again",
            ) from None
        except (EOFError, ConnectionError):
            self._bury(child)
            return None
        except BaseException:  # the next bytes would be the answer to this question
            self.close()
            raise

    def _receive(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._socket.recv(min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _start(self) -> Child:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(self._patience_s)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        env = child_environment("") | {"TF_CPP_MIN_LOG_LEVEL": "2"}
        with theirs:
            child = Child(self._module, name=_NAME, env=env, output=self._log, pass_fds=(theirs.fileno(),))
            child.tell({"descriptor": theirs.fileno(), "idle_s": IDLE_S})
        return child

    def _bury(self, child: Child) -> None:
        """Raises the cause of the process's death, unless it ended by itself."""
        code = child.end(grace_s=KILL_WAIT_S)
        self._log.seek(0)
        said = self._log.read()[-_LAST_BYTES:].decode(errors="replace").strip()
        self.close()
        if code == 0:
            return
        how = "has hung up" if code is None else end_in_words(code)
        if code is not None and code < 0:
            next_step = "If nobody killed it, it ran out of memory: give executors more, or move the picture away"
            raise NodeDiedError(f"{_NAME} {how}", next_step=next_step)
        raise JobError(f"{_NAME} {how}: {said}", next_step="This is a bug")

    def close(self) -> None:
        """Ends the process; the next question starts another one."""
        child, self._child = self._child, None
        if child is not None:
            self._socket.close()
            self._log.close()
            child.end()


@functools.cache
def of_this_process() -> Decoder:
    """The decoder shared by all tasks that this Python process runs, one after the other."""
    return Decoder()
