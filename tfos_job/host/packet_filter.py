"""Allow-lists that the kernel applies to the packets of one socket: classic BPF, which needs no rights.

`socket(7)` has SO_ATTACH_FILTER: a packet for which the program returns 0 is dropped, as if it had never come. SYNs are
packets, too, so whoever is not on the list of a listening socket gets no answer. SO_ATTACH_REUSEPORT_CBPF attaches a
program to a group of sockets that listen on one port; it returns the number of the one that a connection is for.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address

_SO_ATTACH_FILTER = 26
_SO_ATTACH_REUSEPORT_CBPF = 51
# Offsets from here are counted from the beginning of the network header.
_NETWORK_HEADER = 0xFFF00000
_IPV4_SOURCE = 12
# BPF_LD | BPF_B | BPF_ABS and so on, of linux/bpf_common.h.
_LOAD_BYTE, _LOAD_WORD, _SHIFT_RIGHT, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x20, 0x74, 0x15, 0x06
_MAX_INSTRUCTIONS = 4096
_INSTRUCTION = struct.Struct("=HBBI")
_PROGRAM = struct.Struct("@HP")


@dataclass(frozen=True)
class Instruction:
    """One of classic BPF: what to do with `operand`, and how many instructions to leave out where it jumps."""

    code: int
    operand: int
    if_true: int = 0
    if_false: int = 0


Program = tuple[Instruction, ...]


def from_hosts(addresses: Collection[str], *, accepted: int, refused: int) -> Program:
    """The program that returns `accepted` for packets from these hosts, and `refused` for all others.

    Args:
      addresses: IPv4. Packets of IPv6 are refused: no process of a job uses it.

    Raises:
      ValueError: more hosts than a program can have, or what is no address.
    """
    listed = sorted({int(IPv4Address(address)) for address in addresses})
    program = [
        Instruction(_LOAD_BYTE, _NETWORK_HEADER),
        Instruction(_SHIFT_RIGHT, 4),  # leaves the version
        Instruction(_JUMP_IF_EQUAL, 4, if_true=1),
        Instruction(_RETURN, refused),
        Instruction(_LOAD_WORD, _NETWORK_HEADER + _IPV4_SOURCE),
    ]
    for source in listed:  # not one jump over all of them: it reaches 255 instructions
        program += [Instruction(_JUMP_IF_EQUAL, source, if_false=1), Instruction(_RETURN, accepted)]
    program.append(Instruction(_RETURN, refused))
    if len(program) > _MAX_INSTRUCTIONS:
        raise ValueError(f"{len(listed)} hosts; the kernel takes {(_MAX_INSTRUCTIONS - 6) // 2}")
    return tuple(program)


def drop_all(sock: socket.socket) -> None:
    """Has the kernel drop every packet for the socket. Raises OSError where it refuses."""
    _attach(sock, _SO_ATTACH_FILTER, (Instruction(_RETURN, 0),))


def choose(member: socket.socket, program: Program) -> None:
    """Has the program choose the socket for each new connection, in the group of `member`, which listens.

    It takes the place of an earlier one at once, whoever has attached that. Sockets are numbered from 0 in the order in
    which they began to listen. For a number that no socket has the kernel chooses any.

    Raises:
      OSError: the kernel refuses it, or the socket has no group.
    """
    _attach(member, _SO_ATTACH_REUSEPORT_CBPF, program)


def _attach(sock: socket.socket, option: int, program: Program) -> None:
    packed = b"".join(_INSTRUCTION.pack(each.code, each.if_true, each.if_false, each.operand) for each in program)
    memory = ctypes.create_string_buffer(packed, len(packed))
    sock.setsockopt(socket.SOL_SOCKET, option, _PROGRAM.pack(len(program), ctypes.addressof(memory)))
