"""The text of a file of settings as a tree whose nodes know their lines: YAML, or the JSON of a run.

Scalars are those of YAML 1.2: `2e-4` is a number, and `no`, `on` and `2026-11-29` are texts.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from tfos_job.errors import BadDataError, FlagError, JobError

Tree = dict[str, "Node"]

_FORM = "Write a line `NAME: VALUE` for each flag"


@dataclass(frozen=True)
class Node:
    """A value: None, a bool, a number, a text, a list of anything, or a `Tree`; with its line, 0 if that is unknown."""

    value: Any
    line: int


def place(path: str, line: int) -> str:
    return f"{path}:{line}" if line else path


def parse(text: str, path: str) -> Tree:
    """The settings in a text; `path` is where it comes from.

    Raises:
      BadDataError: it is neither YAML nor JSON.
      FlagError: it is no list of settings, or has a key twice.
    """
    try:
        if text.lstrip().startswith("{"):
            with contextlib.suppress(json.JSONDecodeError):  # YAML has braces, too
                return _json_tree(text, path)
        return _yaml_tree(text, path)
    except RecursionError as error:
        raise BadDataError("nested too deeply", place=path, next_step=_FORM) from error


# --- JSON: not as YAML, which allows no tabs and has other escapes ---------------------------------------------------


def _json_tree(text: str, path: str) -> Tree:
    def tree(pairs: Iterable[tuple[str, Any]]) -> Tree:
        found: Tree = {}
        for key, value in pairs:
            _add(found, key, Node(value, _line_of(key, text)), path)
        return found

    found: Tree = json.loads(text, object_pairs_hook=tree)
    return found


def _line_of(key: str, text: str) -> int:
    """The line of a key that occurs once; else 0."""
    found = list(re.finditer(rf"{re.escape(json.dumps(key))}\s*:", text))
    return text.count("\n", 0, found[0].start()) + 1 if len(found) == 1 else 0


# --- YAML ------------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Composes nodes; builds no object."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own: a class's, not an instance's


_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+", list("-+0123456789")),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


def _yaml_tree(text: str, path: str) -> Tree:
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _not_yaml(error, path) from error
    if root is None or (root.tag == _NULL and not root.value):  # nothing, or comments alone
        return {}
    return _tree(root, path, (), {})


def _not_yaml(error: yaml.YAMLError, path: str) -> JobError:
    mark = getattr(error, "problem_mark", None)
    fact = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return BadDataError(
        f"not YAML: {fact}",
        place=place(path, mark.line + 1 if mark is not None else 0),
        next_step=_FORM,
    )


def _tree(node: yaml.Node, path: str, above: tuple[int, ...], made: dict[int, Tree]) -> Tree:
    """The settings of a node; those of `made`, by the node's identity, are not made again, however often named."""
    if not isinstance(node, yaml.MappingNode):
        raise FlagError(
            "no list of settings",
            place=place(path, node.start_mark.line + 1),
            next_step=_FORM,
        )
    if id(node) in above:
        raise FlagError("an alias of what it stands in", place=place(path, node.start_mark.line + 1))
    if id(node) in made:
        return made[id(node)]
    found: Tree = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        _add(found, key.value, Node(_value(value, path, (*above, id(node)), made), line), path)
    made[id(node)] = found
    return found


def _value(node: yaml.Node, path: str, above: tuple[int, ...], made: dict[int, Tree]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _tree(node, path, above, made)
    if isinstance(node, yaml.SequenceNode):
        # Texts, of a flag that may be given several times; of all other settings it matters only that it is a list.
        return [each.value if isinstance(each, yaml.ScalarNode) else None for each in node.value]
    text = str(node.value)
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    kind = {_INT: int, _FLOAT: float}.get(node.tag, str)
    try:
        return kind(text)
    except ValueError:  # `!!int x`, or more digits than Python reads: the flag refuses the text
        return text


# --- both ------------------------------------------------------------------------------------------------------------


def _add(tree: Tree, key: Any, node: Node, path: str) -> None:
    if not isinstance(key, str):
        raise FlagError("a key that is no name", place=place(path, node.line), next_step="Keys are the flags' names")
    if key in tree:
        first = f", first in line {tree[key].line}" if tree[key].line else ""
        raise FlagError(f"{key} is there twice{first}", place=place(path, node.line), next_step="Remove one of them")
    tree[key] = node
