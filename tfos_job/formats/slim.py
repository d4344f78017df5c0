"""Records of TF-Slim's datasets, as its programs write them: `tf.train.Example`s that are read without TensorFlow.

Training parses five of their features, so what it could not parse is refused here: `image/encoded` and
`image/class/label` must be there, `image/format`, `image/height` and `image/width` may be, each with one value of its
type. Of all others only the two that name things are looked at.
"""

from __future__ import annotations

from typing import NamedTuple

from tfos_job.formats import gif, jpeg, png
from tfos_job.formats.tf_example import decode_features

MAX_LABEL = (1 << 20) - 1
"""A larger one is no class id: each class has a row of weights, and a line in the manifest."""
_PARSED = {
    "image/encoded": bytes,
    "image/class/label": int,
    "image/format": bytes,
    "image/height": int,
    "image/width": int,
}
_REQUIRED = ("image/encoded", "image/class/label")
_NAMES = ("image/class/text", "image/filename")
_WORDS = {bytes: "bytes", int: "int64"}
_HEADS: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    (jpeg.SIGNATURE, "jpeg"),
    (png.SIGNATURE, "png"),
    (gif.SIGNATURES, "gif"),
)
_OTHERS = ((b"BM", "BMP"), (b"RIFF", "WebP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"))


class SlimRecord(NamedTuple):
    """The features of a record that matter here.

    Attributes:
      label: the class id.
      text: `image/class/text`; "" if it has none.
      encoded: a picture file.
      image_format: `jpeg`, `png` or `gif`, by the picture's first bytes. Slim's readers do not trust `image/format`
        either, which may be `JPEG`, `jpg` or missing.
      filename: `image/filename`; "" if it has none.
    """

    label: int
    text: str
    encoded: bytes
    image_format: str
    filename: str


def read_record(data: bytes) -> SlimRecord:
    """The record in an Example.

    Raises:
      ValueError: not an Example, or one that training cannot parse, or without a picture of a kind that it reads.
    """
    found = decode_features(data, (*_PARSED, *_NAMES))
    values = {key: _single(key, kind, found) for key, kind in _PARSED.items()}
    label, encoded, stated = values["image/class/label"], values["image/encoded"], values["image/format"] or b""
    assert isinstance(label, int)
    assert isinstance(encoded, bytes)
    assert isinstance(stated, bytes)
    if not 0 <= label <= MAX_LABEL:
        raise ValueError(f"image/class/label is {label}, expected a class id of 0 to {MAX_LABEL}")
    return SlimRecord(
        label, _text("image/class/text", found), encoded, picture_kind(encoded, stated), _text("image/filename", found)
    )


def _single(key: str, kind: type, found: dict[str, list[bytes] | list[int] | None]) -> bytes | int | None:
    """The value of a feature; None if an optional one is missing."""
    if key not in found:
        if key in _REQUIRED:
            raise ValueError(f"no feature {key}")
        return None
    values = found[key]
    if values is None:
        raise ValueError(f"{key} is a list of floats, expected {_WORDS[kind]}")
    if len(values) != 1:
        raise ValueError(f"{key} has {len(values)} values, expected one")
    if not isinstance(values[0], kind):
        raise ValueError(f"{key} is of type {_WORDS[type(values[0])]}, expected {_WORDS[kind]}")
    return values[0]


def _text(key: str, found: dict[str, list[bytes] | list[int] | None]) -> str:
    """A text that nothing depends on; line ends in it become blanks."""
    values = found.get(key) or []
    text = values[0].decode("utf-8", "replace") if len(values) == 1 and isinstance(values[0], bytes) else ""
    return " ".join(text.split())


def picture_kind(encoded: bytes, stated: bytes = b"") -> str:
    """`jpeg`, `png` or `gif`.

    Args:
      encoded: the picture.
      stated: `image/format`, for the error, and for `raw`, which has no first bytes of its own.

    Raises:
      ValueError: another kind.
    """
    if stated.lower() == b"raw":
        raise ValueError("image/format is raw: pixels without a file around them are not read")
    if not encoded:
        raise ValueError("image/encoded is empty")
    kind = next((name for head, name in _HEADS if encoded.startswith(head)), None)
    if kind is None:
        other = next((f", but a {name}" for head, name in _OTHERS if encoded.startswith(head)), "")
        said = f" (image/format says {stated.decode('utf-8', 'backslashreplace')})" if stated else ""
        raise ValueError(f"image/encoded is no JPEG, PNG or GIF{other}{said}")
    return kind
