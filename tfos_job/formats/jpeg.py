"""The proof that a JPEG is whole, by its markers and by decoding. Pure.

Decoders forgive what is missing: libjpeg fills it up with grey or smooths it over, and says so in a warning that
neither Pillow nor TensorFlow hands on. So scans and restarts are counted here (ITU-T T.81, annex B). Whether the bits
of each are enough shows when others are put behind them: with a whole picture nobody reads those, and all pixels stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

SIGNATURE = b"\xff\xd8\xff"
# Markers are FF, as often as one likes, and a code; most are followed by their length in two bytes. FF 00 is a byte FF
# of a scan's own.
_START_OF_FRAME = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
_PROGRESSIVE = (0xC2, 0xCA)
_FIRST_ARITHMETIC = 0xC9
_RESTARTS = range(0xD0, 0xD8)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xDA))
_END, _START_OF_SCAN, _RESTART_INTERVAL = 0xD9, 0xDA, 0xDD
_SIDE = 8  # of a block, in pixels and in coefficients
_BLOCK = _SIDE * _SIDE
_UNKNOWN = 0xFF  # a coefficient that no scan has had yet
_MOST_SCANS = 100  # encoders make about ten; each may be a few bytes, and takes as long as the whole picture
_MOST_MARKERS = 1 << 17  # a restart has two bytes, and gets 128 more here

# They begin with a 1, since missing bits count as 0.
_MORE_BITS = bytes(range(0xB5, 0xF5)) * 2
_MORE_A_BYTE = 24  # in place of a byte of a scan: a code that means nothing takes 17 bits, others but one
_MANY_ZEROS = 16  # bytes at the end of a scan; fewer may be an encoder's alignment


@dataclass(frozen=True)
class _Frame:
    """The header; `components` are (across, down) by their number: blocks in a unit of the whole picture."""

    code: int
    height: int
    width: int
    components: dict[int, tuple[int, int]]

    def num_units(self, scanned: Sequence[int]) -> int:
        """Of a scan of these components: restarts are counted in them."""
        most_across = max(across for across, _ in self.components.values())
        most_down = max(down for _, down in self.components.values())
        across, down = self.components[scanned[0]] if len(scanned) == 1 else (1, 1)
        width, height = self.width * across, self.height * down
        return -(-width // (_SIDE * most_across)) * -(-height // (_SIDE * most_down))


class _Marker(NamedTuple):
    """A marker: its code, its start, and what follows it, without its length."""

    code: int
    start: int
    body: bytes


class Jpeg(NamedTuple):
    """A JPEG whose markers are all there.

    Attributes:
      data: the file.
      height: in pixels.
      ends: where the bits of each scan, or of each part of one between restarts, end; none with arithmetic coding.
    """

    data: bytes
    height: int
    ends: tuple[int, ...]

    def padded(self) -> bytes:
        """The file with extra bits wherever some may be missing; its pixels are the same if none are missing."""
        return _padded(self.data, self.ends)


def parse(data: bytes) -> Jpeg:
    """Reads a JPEG's markers up to its end mark.

    Raises:
      ValueError: parts of scans are missing, whole scans, or the end mark.
    """
    try:
        frame, ends = _read(data)
    except (IndexError, KeyError, ValueError, ZeroDivisionError) as error:
        raise ValueError(str(error) if type(error) is ValueError else "a JPEG whose markers make no sense") from error
    # With arithmetic coding a scan's last zeros are left out, so missing bits cannot be found.
    return Jpeg(data, frame.height, tuple(ends) if frame.code < _FIRST_ARITHMETIC else ())


def check_bits(found: Jpeg, first_change: Callable[[bytes], int | None]) -> None:
    """Proves that there are bits for all pixels.

    Args:
      found: the file.
      first_change: decodes another JPEG, and says from which row on its pixels are not those of `found.padded()`.

    Raises:
      ValueError: some are missing.
    """
    row = first_change(found.data)
    if row is not None:
        raise ValueError(f"its pixels end too early: from row {row} of {found.height} on there are too few")


def check_zeros(found: Jpeg, first_change: Callable[[bytes], int | None]) -> None:
    """Proves that the zeros at the end are not those of a file that was written in part.

    They may all be pixels, or all be padding. In a file written in part some are in the place of pixels, and the rest
    is padding.

    Args:
      found: the file.
      first_change: as in `check_bits`.

    Raises:
      ValueError: zeros are in the place of pixels.
    """
    if not found.ends:
        return
    data, end = found.data, found.ends[-1]
    rest = data[:end].rstrip(b"\0")
    num_zeros = end - len(rest) - rest.endswith(b"\xff")  # FF 00
    if num_zeros >= _MANY_ZEROS and first_change(_padded(data, [end], 1)) is None:
        row = first_change(_padded(data, [end], num_zeros))
        if row is not None:
            raise ValueError(f"its pixels end too early: from row {row} of {found.height} on there are zeros")


def _padded(data: bytes, ends: Sequence[int], cut: int = 0) -> bytes:
    """The file with more bits at each of the ends, in place of `cut` bytes."""
    parts, at = [], 0
    for end in ends:
        parts += [data[at : end - cut], _MORE_BITS * (1 + cut * _MORE_A_BYTE // len(_MORE_BITS))]
        at = end
    return b"".join((*parts, data[at:]))


def _read(data: bytes) -> tuple[_Frame, list[int]]:
    """The frame and the ends."""
    frame, interval, missing_restarts, in_scan = _Frame(0, 0, 0, {}), 0, 0, False
    ends: list[int] = []
    lowest: dict[int, list[int]] = {}  # of each component's coefficients the bits that are still to come
    num_scans = 0
    for number, (code, start, body) in enumerate(_markers(data)):
        num_scans += code == _START_OF_SCAN
        if num_scans > _MOST_SCANS or number > _MOST_MARKERS:
            raise ValueError("a JPEG of more parts than any picture needs")
        if in_scan:
            ends.append(start)
        if in_scan and code not in _RESTARTS and missing_restarts > 0:
            raise ValueError(f"its pixels end too early: {missing_restarts} parts between restarts are missing")
        in_scan = code == _START_OF_SCAN or (in_scan and code in _RESTARTS)
        if code in _START_OF_FRAME:
            frame = _frame(code, body)
            lowest = {component: [_UNKNOWN] * _BLOCK for component in frame.components}
        elif code == _RESTART_INTERVAL:
            interval = _number(body, 0)
        elif code in _RESTARTS:
            missing_restarts -= 1
        elif code == _START_OF_SCAN:
            scanned = _scan(frame, body, lowest)
            missing_restarts = -(-frame.num_units(scanned) // interval) - 1 if interval else 0
    num_missing = sum(bits > 0 for component in lowest.values() for bits in component)
    if num_missing:
        num_all = _BLOCK * len(lowest)
        raise ValueError(f"its last scans are missing: {num_missing} of {num_all} coefficients are not there in full")
    return frame, ends


def _markers(data: bytes) -> Iterator[_Marker]:
    """All markers behind the first one, up to the end mark; what is between them and means nothing is passed over."""
    at, code = 2, 0
    while code != _END and (start := data.find(b"\xff", at)) >= 0:
        at = start + 1
        while data[at : at + 1] == b"\xff":
            at += 1
        if at == len(data) or data[at] == 0:
            continue
        code = data[at]
        at += 1
        size = 0 if code in _WITHOUT_LENGTH else max(int.from_bytes(data[at : at + 2], "big"), 2)
        if at + size > len(data):
            raise ValueError("a JPEG that ends before its end mark")
        yield _Marker(code, start, data[at + 2 : at + size])
        at += size
    if code != _END:
        raise ValueError("a JPEG that ends before its end mark")


def _frame(code: int, body: bytes) -> _Frame:
    precision = 1  # a byte before the height
    table = body[6 : 6 + 3 * body[5]]
    components = {table[i]: (table[i + 1] >> 4, table[i + 1] & 0xF) for i in range(0, len(table), 3)}
    return _Frame(code, _number(body, precision), _number(body, precision + 2), components)


def _scan(frame: _Frame, body: bytes, lowest: dict[int, list[int]]) -> list[int]:
    """The components of a scan. Notes in `lowest` the bits that it has of them."""
    num = body[0]
    scanned = [body[1 + 2 * i] for i in range(num)]
    first, last, before, bits = body[1 + 2 * num], body[2 + 2 * num], body[3 + 2 * num] >> 4, body[3 + 2 * num] & 0xF
    if frame.code not in _PROGRESSIVE:
        first, last, before, bits = 0, _BLOCK - 1, 0, 0
    for component in scanned:
        if before and any(there != before for there in lowest[component][first : last + 1]):
            raise ValueError("one of its scans is missing")
        lowest[component][first : last + 1] = [bits] * (last + 1 - first)
    return scanned


def _number(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]
