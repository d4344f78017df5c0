"""Two nights on local Spark: the first one is killed in training and run again, the second one has nothing to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import StartCommand, run, tally, wait_until_gone
from tfos_job.config import SynthConfig
from tfos_job.layout import RegistryLayout, RunLayout
from tfos_job.local_jobs.synth import synthesize
from tfos_job.pipeline.stages import STAGES
from tfos_job.run import model_registry

pytestmark = pytest.mark.cluster

BATCH_SIZE, NUM_STEPS = 8, 300
FILE = """
gnt_dir: {root}/gnt
eval_gnt_dir: {root}/frozen
work_dir: {root}/work
registry_dir: {root}/models
convert: {{charset_size: 4}}
train:
  max_number_of_steps: {num_steps}
  batch_size: {batch_size}
  save_steps: 20
  image_size: 16
  learning_rate: 1.0e-3
evaluate: {{numbers_only: true}}
gate: {{min_top_1: 0.3}}
"""


def test_a_night_that_is_killed_in_training_promotes_once_and_the_next_one_keeps_its_model(
    start: StartCommand, tmp_path: Path
) -> None:
    for name, num_writers, first in (("gnt", 6, 1), ("frozen", 3, 20)):
        synthesize(
            SynthConfig(gnt_dir=str(tmp_path / name), charset_size=4, num_writers=num_writers, first_writer=first)
        )
    file = tmp_path / "nightly.yaml"
    file.write_text(FILE.format(root=tmp_path, num_steps=NUM_STEPS, batch_size=BATCH_SIZE))
    night = ("pipeline", "--config", file, "--master", "local[2]", "--run_id")

    killed = start(*night, "2026-11-30")
    killed.wait_for_line(": loss ")
    processes = killed.descendants()
    killed.send_signal(9)
    assert killed.wait() == -9
    record = json.loads((tmp_path / "work" / "pipeline" / "2026-11-30.json").read_text())
    assert (record["end"], record["stages"]["train"]["state"]) == (None, "begun")
    assert not (tmp_path / "models").exists()

    again = run(*night, "2026-11-30")
    assert not wait_until_gone(processes, 0.0)  # it has waited for the training that was left
    result = again.result()
    assert (result["decision"], result["version"]) == ("promoted", 1), again.stderr
    assert again.stderr.splitlines()[-1] == f"run 2026-11-30 promoted 1: {result['reason']}"
    for stage in ("convert", "freeze", "verify"):
        assert f"{stage} ({STAGES.index(stage) + 1} of 7) is skipped: " in again.stderr
    report = json.loads(Path(RunLayout(str(tmp_path / "work" / "runs" / "2026-11-30")).report).read_text())
    assert (report["state"], report["step"], len(report["attempts"])) == ("finished", NUM_STEPS, 2)
    tally["trainings"] += 2
    tally["images"] += NUM_STEPS * BATCH_SIZE
    registry = RegistryLayout(str(tmp_path / "models"))
    (entry,) = model_registry.history(registry)
    assert (entry.version, entry.frozen_set.split) == (1, "frozen")

    nothing = run(*night, "2026-12-01")
    assert nothing.result()["decision"] == "kept"
    assert nothing.result()["version"] == 1
    assert set(nothing.result()["stages"].values()) == {"skipped"}
    assert len(model_registry.history(registry)) == 1
