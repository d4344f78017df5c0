"""The frozen set: never trained on, and always the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from tfos_job.conversion.shard_plan import SourceFile
from tfos_job.errors import SettingsError
from tfos_job.formats import archives
from tfos_job.formats.manifest_parts import Source
from tfos_job.pipeline.stages import CONVERT, FREEZE, Found, Settings

_CHUNK_BYTES = 1 << 20
_APART = "Models are judged by files that none has seen: move them apart"
_MOST_NAMED = 3


def require_apart(gnt_dir: str, eval_gnt_dir: str) -> None:
    """Raises SettingsError if one of the folders is the other one, or in it. Both are absolute. Pure."""
    one, other = f"{gnt_dir.rstrip('/')}/", f"{eval_gnt_dir.rstrip('/')}/"
    if one == other or one.startswith(other) or other.startswith(one):
        relation = "is --gnt_dir" if one == other else f"and --gnt_dir {gnt_dir} share files"
        raise SettingsError(relation, place=f"--eval_gnt_dir {eval_gnt_dir}", next_step=_APART)


def suspects(
    trained: Sequence[SourceFile], frozen: Sequence[SourceFile]
) -> list[tuple[list[SourceFile], list[SourceFile]]]:
    """Files of both sets that have one size, and so may have the same bytes. Pure."""
    sizes = {file.size_bytes for file in trained} & {file.size_bytes for file in frozen} - {0}
    return [
        (
            [file for file in trained if file.size_bytes == size],
            [file for file in frozen if file.size_bytes == size],
        )
        for size in sorted(sizes)
    ]


def require_unseen(trained: Sequence[SourceFile], frozen: Sequence[SourceFile]) -> None:
    """Reads the files of both sets that have one size.

    Raises:
      SettingsError: a file of the frozen set has the bytes of one that is trained on.
      JobError: one cannot be read.
    """
    for of_training, of_frozen in suspects(trained, frozen):
        known = {_sha256(file): file for file in of_training}
        for file in of_frozen:
            same = known.get(_sha256(file))
            if same is not None:
                fact = f"the same bytes as {same.place}, which is trained on"
                raise SettingsError(fact, place=f"--eval_gnt_dir: {file.place}", next_step=_APART)


def _sha256(file: SourceFile) -> str:
    found = hashlib.sha256()
    with archives.open_source(file.path, file.member) as stream:
        while data := stream.read(_CHUNK_BYTES):
            found.update(data)
    return found.hexdigest()


def changes(frozen: Sequence[SourceFile], converted: Iterable[Source]) -> list[str]:
    """The files of the frozen set that are not those that were converted, in words. Pure."""
    now = {file.name: file.size_bytes for file in frozen}
    then = {source.name: source.size_bytes for source in converted}
    words = [f"{name} is new" for name in sorted(now.keys() - then.keys())]
    words += [f"{name} is gone" for name in sorted(then.keys() - now.keys())]
    return words + [f"{name} has another size" for name in sorted(now.keys() & then.keys()) if now[name] != then[name]]


def require_same(settings: Settings, frozen: Sequence[SourceFile], converted: Iterable[Source]) -> None:
    """Raises SettingsError for a frozen set with other files than were converted, unless that is accepted. Pure."""
    words = [] if settings.accept_frozen_set else changes(frozen, converted)
    if words:
        more = f", and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
        raise SettingsError(
            f"the frozen set has changed: {', '.join(words[:_MOST_NAMED])}{more}",
            place=f"--eval_gnt_dir {settings.eval_gnt_dir}",
            next_step="Restore it, or accept the new one by `accept_frozen_set: true` of the gate, for one run: "
            "its floor alone decides then",
        )


def require_comparable(settings: Settings, found: Found) -> None:
    """Raises SettingsError where the gate would refuse the candidate, before it is trained. Pure.

    That is for another charset or another frozen set than the promoted model's.
    """
    promoted = found.promoted
    if promoted is None or CONVERT not in found.datasets or FREEZE not in found.datasets:
        return
    place = f"version {promoted.version} of {settings.registry_dir}"
    if found.charset != promoted.charset:
        if settings.accept_charset:
            return
        raise SettingsError(
            f"charset {promoted.charset}, and that of {settings.layout.dataset.root} is {found.charset}",
            place=place,
            next_step="Take the --work_dir of the promoted model, or accept the new charset by `accept_charset: true` "
            "of the gate, for one run",
        )
    if found.datasets[FREEZE] != promoted.frozen and not settings.accept_frozen_set:
        raise SettingsError(
            f"judged by the frozen set {promoted.frozen}, and that of {settings.layout.dataset.root} is "
            f"{found.datasets[FREEZE]}",
            place=place,
            next_step="Restore its files, or accept the new one by `accept_frozen_set: true` of the gate, for one run",
        )
