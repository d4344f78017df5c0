"""TensorFlowOnSpark's modules as this package uses them, on the driver and on executors. The only importer of TFoS.

TensorFlowOnSpark 2.2.5 is used for what it does well (a rendezvous of Spark tasks, roles, ports) and kept from what it
does badly: it stops the SparkContext and the process on any error, unpickles what anybody sends to its port, looks for
its own address at 8.8.8.8, counts GPUs by a wrong column of nvidia-smi, logs its keys, and leaves processes behind.
"""

from __future__ import annotations

import logging
import pickle
import socket
import sys
import types
import warnings
from typing import Any

from tfos_job.host import ports
from tfos_job.host.ports import PortRange
from tfos_job.protocol.frames import seal, unseal

_RESERVATION_CONTEXT = b"reservation"
_REQUEST_LIMIT_S = 1.0
_ANSWER_LIMIT_S = 60.0


def import_tfos() -> types.SimpleNamespace:
    """TFoS's modules, without the TensorFlow that its `compat` imports for functions that are not called here.

    TensorFlow takes seconds and hundreds of megabytes, in the driver and in every supervisor; where it is loaded
    already it stays as it is.
    """
    absent = "tensorflow" not in sys.modules
    if absent:
        sys.modules["tensorflow"] = types.ModuleType("tensorflow")
    root_handlers, root_level = logging.root.handlers[:], logging.root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pkg_resources announces its end at every import.
            from tensorflowonspark import TFCluster, TFManager, TFSparkNode, gpu_info, reservation, util
    finally:
        if absent:
            del sys.modules["tensorflow"]
        # TFoS calls logging.basicConfig(level=INFO) for the whole process.
        logging.root.handlers[:], logging.root.level = root_handlers, root_level
    # At INFO it logs every node's authkey; what it logs as an error arrives here as a Failure.
    logging.getLogger("tensorflowonspark").setLevel(logging.CRITICAL)
    return types.SimpleNamespace(
        TFCluster=TFCluster,
        TFManager=TFManager,
        TFSparkNode=TFSparkNode,
        gpu_info=gpu_info,
        reservation=reservation,
        util=util,
    )


def secure_reservations(
    tfos: types.SimpleNamespace, key: bytes, host: str, port_range: PortRange | None = None
) -> None:
    """Makes TFoS's rendezvous listen on `host` alone, and unpickle a message only after its HMAC was verified.

    TFoS serves all its connections in one thread, so a peer that sends slowly is disconnected.
    """

    def send(_: Any, sock: socket.socket, message: Any) -> None:
        sock.sendall(seal(key, _RESERVATION_CONTEXT, pickle.dumps(message)))

    def receive(end: Any, sock: socket.socket) -> Any:
        limit_s = _REQUEST_LIMIT_S if isinstance(end, tfos.reservation.Server) else _ANSWER_LIMIT_S
        return pickle.loads(unseal(key, _RESERVATION_CONTEXT, sock, limit_s))

    def listen(_: Any) -> socket.socket:
        return ports.listen(host, port_range)

    tfos.reservation.Server.start_listening_socket = listen
    tfos.reservation.MessageSocket.send = send
    tfos.reservation.MessageSocket.receive = receive
