"""A stand-in for Kubernetes' API server: it keeps what Spark's own client makes, and plays a driver's pod to its end.

No cluster is behind it. It answers the few requests of `spark-submit --deploy-mode cluster`, so that the texts that
Spark logs about a pod are Spark's, and not those of a test.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_TEXT_FRAME, _CLOSE_FRAME = b"\x81", b"\x88\x00"
_STATE_S = 0.3
TIME = "2026-11-29T08:00:00Z"


def terminated(exit_code: int, reason: str = "Error", name: str = "spark-kubernetes-driver") -> dict[str, Any]:
    """The status of a container that has ended."""
    state = {"exitCode": exit_code, "reason": reason, "startedAt": TIME, "finishedAt": TIME}
    return {"name": name, "image": "registry/tfos:1", "state": {"terminated": state}}


def waiting(reason: str) -> dict[str, Any]:
    """The status of a container that does not run yet."""
    return {"name": "spark-kubernetes-driver", "image": "registry/tfos:1", "state": {"waiting": {"reason": reason}}}


RUNNING = {
    "phase": "Running",
    "containerStatuses": [
        {"name": "spark-kubernetes-driver", "image": "registry/tfos:1", "state": {"running": {"startedAt": TIME}}}
    ],
}


@dataclass
class PodServer:
    """What the stand-in was sent, and what it plays.

    Attributes:
      states: of the driver's pod, each `status`; None deletes the pod; ... ends the watch and leaves the pod as it is.
      refusal: a `Status` with which a new pod is refused.
      objects: what was made, by its path.
      deleted: paths of what was deleted.
    """

    states: Sequence[Any] = ()
    refusal: dict[str, Any] | None = None
    port: int = 0
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    on_pod: Any = lambda pod: None

    @property
    def pod(self) -> dict[str, Any]:
        """The driver's pod, also after its deletion."""
        return next(made for path, made in self.objects.items() if "/pods/" in path)

    def find(self, path: str) -> dict[str, Any] | None:
        return None if path in self.deleted else self.objects.get(path)


@contextlib.contextmanager
def serving(**values: Any) -> Iterator[PodServer]:
    """Serves a `PodServer` of these values on a free port."""
    state = PodServer(**values)
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: PodServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if "watch" in parse_qs(address.query):
            self._watch()
        elif found := self.state.find(address.path):
            self._answer(200, found)
        else:
            self._answer(404, {"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound", "message": "?"})

    def do_POST(self) -> None:
        made, folder = self._body(), urlsplit(self.path).path
        if folder.endswith("/pods"):
            if self.state.refusal:
                self._answer(self.state.refusal["code"], self.state.refusal)
                return
            made["status"] = {"phase": "Pending"}
        made["metadata"] |= {"uid": "1c2e", "creationTimestamp": TIME, "resourceVersion": "1"}
        made["metadata"].setdefault("namespace", "ml")
        self.state.objects[f"{folder}/{made['metadata']['name']}"] = made
        if folder.endswith("/pods"):
            self.state.on_pod(made)
        self._answer(201, made)

    def do_PATCH(self) -> None:
        made = self.state.objects.setdefault(urlsplit(self.path).path, self._body())
        self._answer(200, made)

    def do_DELETE(self) -> None:
        self._body()
        self.state.deleted.append(urlsplit(self.path).path)
        self._answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _body(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        return json.loads(self.rfile.read(length)) if length else {}

    def _answer(self, code: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _watch(self) -> None:
        """Each state as an event, over the WebSocket that the client asks for."""
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + _MAGIC).digest()).decode())
        self.end_headers()
        self.close_connection = True
        path, pod = next((path, made) for path, made in self.state.objects.items() if "/pods/" in path)
        for version, status in enumerate(self.state.states, start=2):
            time.sleep(_STATE_S)
            if status is ...:
                break
            pod["metadata"]["resourceVersion"] = str(version)
            if status is None:
                self.state.deleted.append(path)
            else:
                pod["status"] = status
            self._send({"type": "DELETED" if status is None else "MODIFIED", "object": pod})
        else:
            self.rfile.read(1)  # until the client goes
        self.wfile.write(_CLOSE_FRAME)

    def _send(self, event: dict[str, Any]) -> None:
        data = json.dumps(event).encode()
        length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        self.wfile.write(_TEXT_FRAME + length + data)
        self.wfile.flush()
