"""The addresses of this host."""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import socket
import struct

_SIOCGIFCONF = 0x8912
# struct ifreq of linux/if.h: 16 bytes of name, then the union, which begins with a sockaddr_in.
_REQUEST_BYTES, _ADDRESS_AT, _ADDRESS_BYTES = 40, 20, 4
_MAX_INTERFACES = 1024


def own_addresses(host: str) -> list[str]:
    """The IPv4 addresses from which processes of this host may connect to others.

    Args:
      host: the address, or the name, of this host that others are told. If it is a loopback address, all of the job is
        here, and it is the only one.
    """
    try:
        if _is_loopback(host):
            return [host]
        told = {host}
    except ValueError:
        told = set()  # a name: others may read another address in it than this host does
    return sorted(told.union(address for address in _of_interfaces() if not _is_loopback(address)))


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _of_interfaces() -> list[str]:
    memory = ctypes.create_string_buffer(_MAX_INTERFACES * _REQUEST_BYTES)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        asked = struct.pack("@iP", len(memory), ctypes.addressof(memory))
        (length,) = struct.unpack_from("@i", fcntl.ioctl(sock, _SIOCGIFCONF, asked))
    starts = range(_ADDRESS_AT, length, _REQUEST_BYTES)
    return [socket.inet_ntoa(memory.raw[start : start + _ADDRESS_BYTES]) for start in starts]
