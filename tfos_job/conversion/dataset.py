"""The checks that all conversions share, before the work: folders, charset, and whether what is live still fits."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from tfos_job import storage
from tfos_job.config import ConvertConfig
from tfos_job.errors import BadDataError, JobError, MissingInputError, SettingsError
from tfos_job.formats import charset as charsets
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import DatasetLayout, SplitLayout

_PATTERN = re.compile(r"[^/]*[*?\[]")  # the first part of a path that a shell would expand
_NUM_NAMED = 10  # items of a long list that a message names; it counts the rest

_log = logging.getLogger(__name__)


def require_folders(config: ConvertConfig) -> None:
    """Checks the two folders of a conversion before anything is started.

    Raises:
      MissingInputError: the input is no folder.
      SettingsError: the dataset's folder cannot be one.
    """
    refuse_non_folder(config.input_dir, config.input_flag)
    refuse_non_folder(config.dataset_dir, "--dataset_dir", SettingsError)
    if not _is_folder(config.input_dir):
        raise MissingInputError("no such folder", place=config.input_dir, next_step=f"Check {config.input_flag}")


def refuse_non_folder(path: str, flag: str, kind: type[JobError] = MissingInputError) -> None:
    """Raises `kind` if the path is a file or a pattern; the message says what the flag needs."""
    pattern = _PATTERN.search(path)
    if _is_folder(path):
        return
    if storage.exists(storage.absolute(path)):
        next_step = f"Give a folder, such as the one that it is in: {path.rstrip('/').rpartition('/')[0] or '.'}"
        raise kind(f"a file, and {flag} is a folder", place=path, next_step=next_step)
    if pattern:
        next_step = f"Give the folder alone: {path[: pattern.start()].rstrip('/') or '.'}"
        raise kind(f"{flag} is a folder, and patterns are not expanded", place=path, next_step=next_step)


def _is_folder(path: str) -> bool:
    path = storage.absolute(path)
    if storage.is_dir(path):
        return True
    try:
        storage.list_dir(path)  # the only test on some file systems
    except MissingInputError:
        return False
    return True


def requested_charset(config: ConvertConfig) -> Charset | None:
    """The charset that the flags spell out; None for `auto`, and if they say nothing.

    Raises:
      SettingsError: a file that does not hold one.
    """
    if config.charset_size is not None:
        return charsets.level1(config.charset_size)
    if config.charset in (None, "auto"):
        return None
    path = str(config.charset)
    parse = charsets.from_file if config.image_dir is None else charsets.from_lines
    return parse(read_text(path, "Save the characters as UTF-8"), path)


def read_text(path: str, next_step: str) -> str:
    """Raises SettingsError for a file that is not UTF-8."""
    try:
        return storage.read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        fact = f"not UTF-8: {error.reason} at byte {error.start}"
        raise SettingsError(fact, place=path, next_step=next_step) from error


def require_charset(dataset: DatasetLayout, charset: Charset | None, live: Manifest) -> None:
    """Raises BadDataError if the dataset's charset is not the one that a split was made with."""
    if charset is None or charset.digest != live.charset_digest:
        raise BadDataError(
            f"split {live.split_name} was made with the charset {live.charset_digest[:12]}, which is not there",
            place=dataset.charset,
            next_step="Restore it, or convert into a new folder",
        )


def setting_changes(config: ConvertConfig, live: Manifest) -> list[str]:
    """The settings that differ from those the split was made with, in words."""
    changes = []
    if config.stored_format != live.image_format:
        changes.append(f"--image_format is {config.stored_format}, was {live.image_format}")
    if config.shuffle_at_write != live.settings.get("shuffle_at_write", False):
        changes.append(f"--shuffle_at_write is {config.shuffle_at_write}, was {not config.shuffle_at_write}")
    if config.overwrite:  # the split is valid without these, so only --overwrite applies them
        for name in ("target_shard_mb", *(["seed"] if config.shuffle_at_write else [])):
            if getattr(config, name) != live.settings.get(name):
                changes.append(f"--{name} is {getattr(config, name)}, was {live.settings.get(name)}")
    if config.on_bad_record == "fail" and live.quarantined:
        changes.append(f"--on_bad_record is fail, but {len(live.quarantined)} file(s) have bytes in quarantine")
    return changes


def must_be_rebuilt(split: SplitLayout, reasons: Sequence[str], *, overwrite: bool) -> bool:
    """True if there are reasons to build the split again as a whole.

    Raises:
      SettingsError: there are, and `overwrite` is off.
    """
    if reasons and not overwrite:
        raise SettingsError(
            f"it is there, and not the same any more: {some(reasons)}",
            place=split.root,
            next_step="Give --overwrite to rebuild it, or another --dataset_split_name",
        )
    if reasons:
        _log.warning("%s is rebuilt: %s", split.root, some(reasons))
    return bool(reasons)


def require_few_bad(config: ConvertConfig, what: str, num_bad: int, num_all: int, first: str) -> None:
    """Raises BadDataError if more than `--max_bad_fraction` of the input is unreadable.

    Args:
      config: the command's.
      what: is counted: bytes, images.
      num_bad: of them that are unreadable.
      num_all: of them.
      first: the first unreadable one and the reason.
    """
    if num_bad > config.max_bad_fraction * num_all:
        raise BadDataError(
            f"{num_bad} of {num_all} {what} are unreadable ({num_bad / num_all:.2%}), more than "
            f"--max_bad_fraction {config.max_bad_fraction:g}; the first: {first}",
            place=config.input_dir,
            next_step="Repair the files, or allow for more",
        )


def some(items: Sequence[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = len(items) - _NUM_NAMED
    return ", ".join(items[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
