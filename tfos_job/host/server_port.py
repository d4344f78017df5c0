"""The port of one TensorFlow server: held for it, and open to the hosts of the job alone.

TensorFlow listens on every interface and executes what it is sent. So the port is guarded in the kernel, and from
before its number is announced: the socket that holds it and TensorFlow's own are a group (SO_REUSEPORT), in which a
program gives connections of the job's hosts to TensorFlow, and all others to the holder, whose packets are dropped. No
moment is left between TensorFlow's `listen` and a filter, and the list can be changed without TensorFlow.

This is no cryptography: whoever may send from an address of the list passes, such as the other users of those hosts.
"""

from __future__ import annotations

import contextlib
import errno
import random
import select
import socket
from collections.abc import Collection, Mapping
from types import TracebackType

from tfos_job.errors import ResourceError, SettingsError
from tfos_job.host import packet_filter, ports
from tfos_job.host.ports import PortRange

_HOLDER, _TENSORFLOW = 0, 1  # in the order in which the two begin to listen
_SHARE_VARIABLE = "TF_GRPC_REUSE_PORT"
_LOOPBACK = "127.0.0.1"
_PROOF_S = 0.2
_CONTROL_S = 5.0
NEXT_STEP = "Run on hosts whose kernel allows it (Linux 4.6 or later), or without --require_isolation"
_ANY = {socket.AF_INET6: "::", socket.AF_INET: "0.0.0.0"}


class ServerPort:
    """A port that this process or its parent holds.

    Attributes:
      why_open: why every host can connect, in words; empty if none can but those that were admitted.
    """

    def __init__(self, holder: socket.socket, host: str, why_open: str = "") -> None:
        """See `hold`, and `inherited`."""
        self._holder = holder
        self._host = host
        self.why_open = why_open

    @property
    def port(self) -> int:
        return int(self._holder.getsockname()[1])

    @property
    def address(self) -> str:
        """`host:port`, which others are told."""
        return f"{self._host}:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What TensorFlow's process needs in its environment to take the port."""
        return {_SHARE_VARIABLE: "0" if self.why_open else "1"}

    @property
    def fd_to_keep(self) -> int:
        """Descriptor that TensorFlow's process inherits and keeps: without the holder the group's order is another."""
        return self._holder.fileno()

    @property
    def fd_to_release(self) -> int | None:
        """Descriptor of a socket that must be released before TensorFlow takes the port; None if both can listen."""
        return self._holder.fileno() if self.why_open else None

    def admit(self, hosts: Collection[str]) -> None:
        """Lets these hosts connect, by their IPv4 addresses, and no others; at first it is none.

        A port that is open to all stays so.

        Raises:
          ResourceError: the kernel does not take so many; nobody new is admitted.
        """
        if self.why_open:
            return
        try:
            program = packet_filter.from_hosts(hosts, accepted=_TENSORFLOW, refused=_HOLDER)
            packet_filter.choose(self._holder, program)
        except (ValueError, OSError) as error:
            raise ResourceError(
                f"the kernel does not take a list of {len(hosts)} addresses: {error}",
                place=f"host {self._host}",
                next_step="Give fewer --num_executors, or raise the kernel's net.core.optmem_max",
            ) from error

    def prove(self) -> None:
        """Tries to connect as a stranger, and notes `why_open` if that succeeds.

        There are systems that take a filter and do nothing with it. No answer proves the filter only if the stranger's
        packets arrive at all: so he asks an open port of this process next, from the same address. Packets to the own
        host arrive in their order, so when that one has answered, the other has, or will not. To be called when
        TensorFlow listens.
        """
        if self.why_open:
            return
        source = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        with socket.socket() as stranger, socket.socket() as same, socket.create_server((_LOOPBACK, 0)) as open_port:
            stranger.setblocking(False)
            same.settimeout(_CONTROL_S)
            try:
                stranger.bind((source, 0))
                same.bind((source, 0))
                error = stranger.connect_ex((_LOOPBACK, self.port))
                same.connect(open_port.getsockname())
            except OSError as error_of_control:
                why = error_of_control.strerror or error_of_control
                self.why_open = f"it cannot be proved: no connection from another loopback address ({why})"
                return
            # A connection that was made is writable, and so is one that was refused.
            if error in (0, errno.EINPROGRESS):
                select.select([], [stranger], [], _PROOF_S)
                with contextlib.suppress(OSError):
                    stranger.getpeername()
                    self.why_open = "the kernel has taken the filter and does nothing with it"

    def shared(self) -> socket.socket:
        """Another socket of a port that is guarded, bound as TensorFlow's own will be."""
        return _shared(self._holder)

    def judge(self, *, is_required: bool) -> str:
        """What to warn of if every host can connect; empty otherwise.

        Args:
          is_required: `--require_isolation`.

        Raises:
          SettingsError: it is required, and every host can connect.
        """
        if not self.why_open:
            return ""
        place = f"host {self._host}, port {self.port}"
        fact = f"any host may use this TensorFlow server: {self.why_open}"
        if is_required:
            raise SettingsError(fact, place=f"{place}, --require_isolation", next_step=NEXT_STEP)
        return f"{place}: {fact}. TensorFlow executes what it is sent: let a firewall close --port_range to others"

    def release(self) -> None:
        """Frees the port, also if child processes have inherited it."""
        ports.release(self._holder)

    def close(self) -> None:
        """Frees the port as soon as nobody who has inherited it has it any more."""
        self._holder.close()

    def __enter__(self) -> ServerPort:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def hold(host: str, port_range: PortRange | None = None) -> ServerPort:
    """Holds a port for a TensorFlow server, guarded unless the kernel refuses that.

    Args:
      host: address of this host, which others are told.
      port_range: to choose from; None: any port.

    Raises:
      ResourceError: no port of the range is free, or the host has no such address.
    """
    family = _family()
    try:
        return ServerPort(ports.first_free(host, port_range, lambda port: _guarded(family, port)), host)
    except OSError as error:
        why = f"the kernel takes no filter for it: {error.strerror or error}"
    return ServerPort(ports.listen(host, port_range), host, why)


def _family() -> socket.AddressFamily:
    """That of TensorFlow's socket, which only one of the same family can share a port with.

    gRPC listens on both families at once, with a socket of IPv6, if the loopback interface has an address of it.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return socket.AF_INET6
    return socket.AF_INET


def try_out() -> str:
    """Why a TensorFlow server of this host would be open to every host; empty if the kernel guards its port."""
    with hold(_LOOPBACK) as held:
        if not held.why_open:
            with held.shared() as server:  # in TensorFlow's place
                server.listen(1)
                held.prove()
        return held.why_open


def inherited(fd: int, host: str, why_open: str) -> ServerPort:
    """The port that a parent holds, with its host and its `why_open`."""
    return ServerPort(socket.socket(fileno=fd), host, why_open)


def _guarded(family: socket.AddressFamily, port: int) -> socket.socket:
    """A socket that holds the port alone, drops every packet, and leads a group that TensorFlow's can join."""
    holder = _wildcard(family)
    try:
        # First as the only one that may listen: a group would let another job of the same user in.
        holder.bind((_ANY[family], port))
        packet_filter.drop_all(holder)
        holder.listen(1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with _shared(holder) as second:  # a group is made when a second one joins
            packet_filter.drop_all(second)
            second.listen(1)
            packet_filter.choose(holder, packet_filter.from_hosts((), accepted=_TENSORFLOW, refused=_HOLDER))
    except BaseException:
        holder.close()
        raise
    return holder


def _shared(holder: socket.socket) -> socket.socket:
    sock = _wildcard(holder.family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(holder.getsockname())
    except BaseException:
        sock.close()
        raise
    return sock


def _wildcard(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after an attempt whose connections linger
    return sock
