"""Rows about files, made by a network, without Spark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit import small_runs
from tfos_job.formats import gnt
from tfos_job.inference.answering import Answering
from tfos_job.inference.predictor import Predictor
from tfos_job.scoring import inputs


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(small_runs.make(tmp_path_factory.mktemp("run"), 3).train_dir)


def test_each_input_is_progress_however_few_of_them_the_network_sees(predictor: Predictor, tmp_path: Path) -> None:
    """Large photographs take seconds each, and those without a character fill no batch."""
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(small_runs.png(np.full((9, 9), 255, np.uint8)))
    num_steps = 0

    def got_on() -> None:
        nonlocal num_steps
        num_steps += 1

    rows = list(Answering(predictor, top_k=1, batch_size=128).rows(inputs.find(str(tmp_path)).files, got_on))
    assert [row.doubtful for row in rows] == ["blank"] * 5
    assert num_steps >= 5


def test_a_network_that_answers_with_no_numbers_gives_no_class(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "a.gnt").open("wb") as stream:
        for character in "一丁":
            gnt.write(stream, gnt.encode_tag(character), np.full((9, 9), 9, np.uint8))
    answers = np.full((2, len(predictor.classes)), 0.1, np.float32)
    answers[0] = np.nan
    monkeypatch.setattr(predictor, "probabilities", lambda images: answers)
    bad, good = Answering(predictor, top_k=2, batch_size=128).rows(inputs.find(str(tmp_path)).files)
    assert "not finite" in bad.error
    assert (bad.label, bad.classes, bad.probabilities) == ("一", (), ())
    assert (good.error, good.classes, good.class_ids) == ("", ["一", "丁"], [0, 1])
