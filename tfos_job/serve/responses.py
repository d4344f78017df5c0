"""Answers in JSON."""

from __future__ import annotations

import json
from typing import Any

from flask import Response

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # a new one for each answer takes as long


def as_json(value: Any, status: int = 200) -> Response:
    """A JSON value as an answer; characters are not escaped."""
    text = _ENCODER.encode(value)
    # File names in multipart may hold half a character, which UTF-8 has no bytes for.
    return Response(text.encode("utf-8", "backslashreplace"), status, content_type="application/json")
