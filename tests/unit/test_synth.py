from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tfos_job import fonts
from tfos_job.config import SynthConfig
from tfos_job.errors import MissingInputError, SettingsError
from tfos_job.formats import charset as charsets
from tfos_job.formats import gnt, gnt_reader
from tfos_job.local_jobs import synth


def config(folder: Path, **changes: int) -> SynthConfig:
    return SynthConfig(gnt_dir=str(folder), **{"charset_size": 5, "num_writers": 3} | changes)


def read(path: str) -> list[gnt.Record]:
    with open(path, "rb") as stream:
        return list(gnt_reader.read_records(stream, path))


def test_each_writer_writes_each_character_once_in_a_hand_of_their_own(tmp_path: Path) -> None:
    paths = synth.synthesize(config(tmp_path))
    assert [Path(path).name for path in paths] == ["0001-s.gnt", "0002-s.gnt", "0003-s.gnt"]
    writers = [read(path) for path in paths]
    for glyphs in writers:
        assert tuple(gnt.decode_tag(glyph.tag) for glyph in glyphs) == charsets.level1(5).characters
        for glyph in glyphs:
            pixels = np.frombuffer(glyph.pixels, np.uint8).reshape(glyph.height, glyph.width)
            assert 25 <= glyph.width <= 140
            assert 25 <= glyph.height <= 140
            assert pixels.max() == 255
            assert 0.05 < (pixels < 200).mean() < 0.7
            ink = pixels < 230
            assert all(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1])), "not cropped to the ink"
    assert len({glyph.pixels for glyphs in writers for glyph in glyphs}) == 15


def test_the_same_seed_gives_the_same_bytes_whoever_else_is_written(tmp_path: Path) -> None:
    whole = [Path(path).read_bytes() for path in synth.synthesize(config(tmp_path / "whole"))]
    (last,) = synth.synthesize(config(tmp_path / "last", first_writer=3, num_writers=1))
    assert Path(last).read_bytes() == whole[2]
    (fewer,) = synth.synthesize(config(tmp_path / "fewer", charset_size=2, num_writers=1))
    assert whole[0].startswith(Path(fewer).read_bytes())
    (other,) = synth.synthesize(config(tmp_path / "other", seed=1, num_writers=1))
    assert Path(other).read_bytes() != whole[0]


def test_what_is_there_is_kept_and_what_is_missing_is_added(tmp_path: Path) -> None:
    paths = [Path(path) for path in synth.synthesize(config(tmp_path))]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    synth.synthesize(config(tmp_path))
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths} == before
    paths[1].unlink()
    synth.synthesize(config(tmp_path))
    assert paths[1].read_bytes() == before[paths[1]][0]
    assert paths[0].stat().st_mtime_ns == before[paths[0]][1]


def test_other_settings_and_other_peoples_files_are_refused(tmp_path: Path) -> None:
    synth.synthesize(config(tmp_path / "a"))
    with pytest.raises(SettingsError, match="seed 0, now 1"):
        synth.synthesize(config(tmp_path / "a", seed=1))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1001-c.gnt").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"has no synth\.json"):
        synth.synthesize(config(tmp_path / "b"))


def test_without_the_font_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "cvttf_NotoSansCJK_Regular", raising=False)
    with pytest.raises(MissingInputError, match="pip install tfos_job"):
        fonts.find_font()
