"""What a request asks about: pictures and drawings in the body of an HTTP request. Nothing else is opened for it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from flask import Request

from tfos_job.serve.bodies import Share
from tfos_job.serve.refusals import BadRequest, TooLarge, WrongType

_OCTETS = "application/octet-stream"
_TYPES = f"Send image/*, {_OCTETS}, multipart/form-data or application/json"
_MOST_VALUES = 2_000_000
_KEYS = '"images": [{"b64": …}, …], "strokes" with "size", or "drawings": [{"strokes": …, "size": …}, …]'
_MAX_NAME = 200


@dataclass(frozen=True)
class Drawing:
    """Strokes of a pen, not looked at yet, and the size of their canvas."""

    strokes: Sequence[Any]
    size: Sequence[Any]


@dataclass(frozen=True)
class Asked:
    """A picture, the bytes of its file, or a drawing; `name` stands in the answer."""

    name: str
    source: bytes | Drawing


@dataclass(frozen=True)
class Options:
    """What else is asked for.

    Attributes:
      top_k: number of classes.
      raw_image: not to look for the ink.
      seen: to show what the network saw.
    """

    top_k: int = 3
    raw_image: bool = False
    seen: bool = False


def read_options(arguments: Mapping[str, str]) -> Options:
    """The options in the query of a URL.

    Raises:
      BadRequest: a value that is none.
    """
    text = arguments.get("top_k", "3")
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1 and len(text) < 9):
        raise BadRequest(f"top_k={_shown(text)} is not a whole number of 1 or more")
    return Options(int(text), _switch(arguments, "raw_image"), _switch(arguments, "seen"))


def read_body(request: Request, max_images: int, share: Share) -> list[Asked]:
    """The pictures and drawings of a request, at least one; `share` takes the memory for them.

    Raises:
      BadRequest: there is none, or the body is not what its type says.
      Full: there is no memory for it now.
      TooLarge: there are more than are taken.
      WrongType: the body is of another type, or compressed.
    """
    kind = request.mimetype
    share.take_request(request)
    if kind.startswith("image/") or kind == _OCTETS:
        found = [Asked("picture", request.get_data(cache=False))]
    elif kind == "multipart/form-data":
        found = _parts(request)
    elif kind == "application/json":
        found = of_json(request.get_data(cache=False), share)
    else:
        raise WrongType(
            f"a body of type {_shown(kind)} is not read. {_TYPES}" if kind else f"no Content-Type. {_TYPES}"
        )
    if not found:
        raise BadRequest("no picture in the request")
    if len(found) > max_images:
        raise TooLarge(f"{len(found)} pictures in one request are more than {max_images}")
    return found


def _parts(request: Request) -> list[Asked]:
    """The files of a form, whatever its fields are called."""
    files = [file for _, files in request.files.lists() for file in files]
    if not files:
        fact = "no file in the form, or the form is cut short or has a name that is not UTF-8"
        raise BadRequest(f'{fact}. Send each picture as a file in a part named "image"')
    return [Asked((file.filename or f"image[{at}]")[:_MAX_NAME], file.read()) for at, file in enumerate(files)]


def of_json(body: bytes, share: Share) -> list[Asked]:
    """The pictures and drawings of a JSON object.

    Raises:
      BadRequest: it is none, or has something else in it.
      Full: there is no memory for it now.
      TooLarge: it has too many values.
    """
    values = json_object(body, share)
    if unknown := values.keys() - {"images", "strokes", "size", "drawings"}:
        raise BadRequest(f"unknown: {_shown(min(unknown))}. Expected {_KEYS}")
    images = _list(values, "images")
    drawings = _list(values, "drawings")
    if "strokes" in values:
        drawings = [{"strokes": values["strokes"], "size": values.get("size")}, *drawings]
    asked = [Asked(f"images[{at}]", decoded(image, f"images[{at}]")) for at, image in enumerate(images)]
    asked += [Asked(f"drawings[{at}]", _drawing(drawing, f"drawings[{at}]")) for at, drawing in enumerate(drawings)]
    if not asked:
        raise BadRequest(f"no picture in the request. Expected {_KEYS}")
    return asked


def json_object(body: bytes, share: Share) -> dict[str, Any]:
    """A body as a JSON object; `share` takes the memory for it.

    Raises:
      BadRequest: it is none.
      Full: there is no memory for it now.
      TooLarge: it has more values than any request needs.
    """
    num_values = sum(map(body.count, b"[{,"))
    if num_values > _MOST_VALUES:
        raise TooLarge(f"a JSON of more than {_MOST_VALUES} values")
    share.take_json(body, num_values)
    try:
        values = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        raise BadRequest(f"no JSON: {_shown(str(error))}") from error
    if not isinstance(values, dict):
        raise BadRequest(f"the JSON is not an object. Expected {_KEYS}")
    return values


def decoded(image: Any, place: str) -> bytes:
    """The bytes of `{"b64": …}`.

    Raises:
      BadRequest: it is something else, such as the name of a file.
    """
    text = image.get("b64") if isinstance(image, dict) and len(image) == 1 else None
    if not isinstance(text, str):
        raise BadRequest(f'{place} is not {{"b64": "…"}}, a file in base64')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{place} is not in base64: {_shown(str(error))}") from error


def _drawing(value: Any, place: str) -> Drawing:
    if not isinstance(value, dict) or not isinstance(value.get("strokes"), list):
        raise BadRequest(f'{place} has no "strokes": [[[x, y], …], …]')
    if not isinstance(value.get("size"), list):
        raise BadRequest(f'{place} has no "size": [width, height], of the canvas')
    return Drawing(value["strokes"], value["size"])


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    found = values.get(key, [])
    if not isinstance(found, list):
        raise BadRequest(f'"{key}" is not a list')
    return found


def _switch(arguments: Mapping[str, str], name: str) -> bool:
    text = arguments.get(name, "0").lower()
    if text not in ("0", "1", "false", "true"):
        raise BadRequest(f"{name}={_shown(text)} is not 0 or 1")
    return text in ("1", "true")


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _shown(text: str) -> str:
    """A caller's words, for the answer."""
    return repr(text if len(text) <= 80 else f"{text[:80]}…")
