"""Nights whose stages take no time: files in the forms that the pipeline reads, and a registry that is a real one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.unit import small_registry
from tests.unit.manifests import example, source
from tfos_job import storage
from tfos_job.errors import JobError
from tfos_job.formats import manifest as manifests
from tfos_job.formats.manifest_parts import Shard, SourceRange
from tfos_job.layout import DatasetLayout
from tfos_job.pipeline import night
from tfos_job.pipeline.names import PipelineLayout
from tfos_job.pipeline.stage_runner import StageEnd
from tfos_job.pipeline.stages import Settings, digest
from tfos_job.run import kept_predictions

NUM_WRONG = 9
"""Records that a trained model is wrong about, of `small_registry.NUM_RECORDS`."""


class Killed(BaseException):
    """SIGKILL: nothing that belongs to the run is done behind it."""


class FakeStages:
    """Does stages at once, in the forms of the commands.

    Args:
      root: folder of what they make beside the pipeline's own.
      kill: called with the name of a stage that has done its work, which nobody knows yet; may raise `Killed`.
      ends: exit codes of stages that fail, by name.
    """

    def __init__(
        self,
        root: Path,
        kill: Callable[[str], None] = lambda stage: None,
        ends: Mapping[str, int] | None = None,
    ) -> None:
        self._root, self._kill, self._ends = root, kill, dict(ends or {})
        self.done: list[str] = []
        self.settled: list[Mapping[str, Any]] = []
        self.commands: list[list[str]] = []
        self.work_ids: list[str] = []

    def settle(self, at_work: Mapping[str, Any]) -> None:
        self.settled.append(at_work)

    def run(self, command: Sequence[str], work_id: str, begun: Callable[[dict[str, Any]], None]) -> StageEnd:
        words = dict(word.removeprefix("--").partition("=")[::2] for word in command[1:])
        stage = "freeze" if words.get("dataset_split_name") == "frozen" and command[0] == "convert" else command[0]
        begun({"stage": stage})
        self.commands.append(list(command))
        self.work_ids.append(work_id)
        if stage in self._ends:
            return StageEnd(
                exit_code=self._ends[stage], results=(), last_line=f"tfos-job {command[0]}: error: so it is"
            )
        try:
            result = getattr(self, f"_{command[0]}")(words)
        except JobError as error:
            return StageEnd(exit_code=error.exit_code, results=(), last_line=f"tfos-job {command[0]}: error: {error}")
        self.done.append(stage)
        self._kill(stage)
        return StageEnd(exit_code=0, results=({"n": 1}, result), last_line="done")

    def _convert(self, words: Mapping[str, str]) -> dict[str, Any]:
        layout, folder = DatasetLayout(words["dataset_dir"]), Path(words["gnt_dir"])
        found = sorted(folder.rglob("*.gnt"))
        split = layout.split(words["dataset_split_name"])
        sha256 = digest(*(file.read_text() for file in found))
        shard = Shard(file="gen-00000/part-0", size_bytes=5, sha256=sha256, num_records=3 * len(found), sources=())
        sources = tuple(
            source(
                name=str(file.relative_to(folder)),
                size_bytes=file.stat().st_size,
                num_records=3,
                filtered={},
                quarantined_bytes=0,
                ranges=(SourceRange(start=0, end=file.stat().st_size, sha256="aa"),),
            )
            for file in found
        )
        manifest = example(
            split_name=words["dataset_split_name"],
            shards=(shard,),
            sources=sources,
            class_counts=(3 * len(found), 0, 0),
            charset_digest=small_registry.CHARSET.digest,
        )
        storage.make_dirs(split.root)
        storage.write_json(layout.charset, small_registry.CHARSET.to_json())
        storage.write_json(split.manifest, manifest.to_json())
        return {"num_records": manifest.num_records}

    def _verify(self, words: Mapping[str, str]) -> dict[str, Any]:
        return {}

    def _train(self, words: Mapping[str, str]) -> dict[str, Any]:
        checkpoint = Path(words["train_dir"]) / "checkpoints" / "step-00000020"
        checkpoint.mkdir(parents=True, exist_ok=True)
        return {"state": "finished", "checkpoint": str(checkpoint)}

    def _evaluate(self, words: Mapping[str, str]) -> dict[str, Any]:
        train_dir = Path(words["train_dir"])
        made = self._root / "models-made" / train_dir.name
        if not made.exists():
            made.mkdir(parents=True)
            model = small_registry.model(made, f"model-{train_dir.name}", NUM_WRONG)
            kept, _ = kept_predictions.read(model.predictions)
            frozen = manifests.load(DatasetLayout(words["dataset_dir"]).split("frozen"))
            header = msgspec.structs.replace(kept.header, dataset_digest=frozen.digest)
            storage.write_bytes(model.predictions, kept_predictions.to_bytes(dataclasses.replace(kept, header=header)))
        checkpoint = str(train_dir / "checkpoints" / "step-00000020")
        return {"checkpoint": checkpoint, "predictions": str(made / f"model-{train_dir.name}.npz")}

    def _export(self, words: Mapping[str, str]) -> dict[str, Any]:
        name = Path(words["train_dir"]).name
        made = self._root / "models-made" / name / f"model-{name}"
        return {"path": str(made / "1"), "digest": small_registry.digest_of(f"model-{name}")}

    def _promote(self, words: Mapping[str, str]) -> dict[str, Any]:
        name = Path(words["predictions"]).stem
        candidate = small_registry.SmallModel(words["export_dir"], words["predictions"], name)
        flags = {"min_top_1": float(words["min_top_1"])} if "min_top_1" in words else {}
        return small_registry.offer(words["registry_dir"], candidate, **flags)


class SmallNights:
    """Folders of GNT files, a work folder and a registry below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = PipelineLayout(str(root / "work"))
        self.registry = str(root / "models")
        self.add("gnt", "a")
        self.add("frozen", "frozen one")

    def add(self, folder: str, text: str) -> None:
        """Adds a file; its text is its name, too."""
        (self.root / folder).mkdir(exist_ok=True)
        (self.root / folder / f"{text}.gnt").write_text(text)

    def settings(self, run_id: str, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "layout": self.layout,
            "gnt_dir": str(self.root / "gnt"),
            "eval_gnt_dir": str(self.root / "frozen"),
            "registry_dir": self.registry,
            "flags": {"promote": ("--min_top_1=0.5",)},
        }
        return Settings(run_id=run_id, **values | changes)

    def stages(self, **settings: Any) -> FakeStages:
        return FakeStages(self.root, **settings)

    def run(self, run_id: str, stages: FakeStages | None = None, **changes: Any) -> dict[str, Any]:
        return night.run(self.settings(run_id, **changes), {}, stages or self.stages())

    def record(self, run_id: str) -> dict[str, Any]:
        return dict(storage.read_json(self.layout.record(run_id)))
