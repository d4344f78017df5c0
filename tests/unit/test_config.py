from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfos_job import config, errors
from tfos_job.commands.registry import COMMANDS
from tfos_job.config import ConvertConfig, DoctorConfig, EvaluateConfig, PredictConfig, SynthConfig, TrainConfig
from tfos_job.config.defaults import STDIN
from tfos_job.errors import FlagError, SettingsError

IMAGES = {"gnt_dir": None, "image_dir": "i"}
ADOPTED = {"gnt_dir": None, "tfrecord_dir": "t"}
TRAIN = {"dataset_dir": "d", "train_dir": "t"}


@pytest.mark.parametrize(
    ("kind", "values", "place"),
    [
        (TrainConfig, {"epoch": 1, "max_number_of_steps": 2}, "--epoch"),
        (TrainConfig, {"num_executors": 1}, "--num_executors"),
        (TrainConfig, {"num_ps_tasks": -1}, "--num_ps_tasks"),
        (TrainConfig, {"num_executors": 3, "num_ps_tasks": 0, "min_executors": 2}, "--min_executors"),
        (TrainConfig, {"num_gpus": 2}, "--num_gpus"),
        (TrainConfig, {"num_executors": 2, "num_ps_tasks": 2}, "--num_executors"),
        (TrainConfig, {"num_executors": 3, "min_executors": 4}, "--min_executors"),
        (TrainConfig, {"num_executors": 4, "num_ps_tasks": 2, "min_executors": 2}, "--min_executors"),
        (TrainConfig, {"image_size": 20}, "--image_size"),
        (TrainConfig, {"batch_size": 0}, "--batch_size"),
        (TrainConfig, {"input_mode": "memory"}, "--input_mode"),
        (TrainConfig, {"keep_prob": 0.0}, "--keep_prob"),
        (TrainConfig, {"learning_rate": -1.0}, "--learning_rate"),
        (TrainConfig, {"learning_rate": float("nan")}, "--learning_rate"),
        (TrainConfig, {"overwrite": True, "restore": "none"}, "--overwrite"),
        (TrainConfig, {"dataset_split_name": "a/b"}, "--dataset_split_name"),
        (TrainConfig, {"validation_split_name": "../x"}, "--validation_split_name"),
        (TrainConfig, {"random_rotation": -1.0}, "--random_rotation"),
        (TrainConfig, {"random_zoom": 1.0}, "--random_zoom"),
        (TrainConfig, {"random_gamma": float("nan")}, "--random_gamma"),
        (TrainConfig, {"elastic_sigma": 0.0}, "--elastic_sigma"),
        (ConvertConfig, {"charset": "auto", "charset_size": 5}, "--charset"),
        (ConvertConfig, {"charset_size": 3756}, "--charset_size"),
        (ConvertConfig, {"max_bad_fraction": 1.5}, "--max_bad_fraction"),
        (ConvertConfig, {"dataset_split_name": "_hidden"}, "--dataset_split_name"),
        (ConvertConfig, {"image_dir": "i"}, "--image_dir"),
        (ConvertConfig, {"gnt_dir": None}, "--gnt_dir, --image_dir or --tfrecord_dir"),
        (ConvertConfig, {"dataset_dir": None}, "--dataset_dir"),
        (ConvertConfig, {**ADOPTED, "dataset_dir": ""}, "--dataset_dir"),
        (ConvertConfig, {"labels": "l"}, "--labels"),
        (ConvertConfig, {**ADOPTED, "labels_csv": "l"}, "--labels_csv"),
        (ConvertConfig, {**ADOPTED, "image_format": "png"}, "--image_format"),
        (ConvertConfig, {**ADOPTED, "charset": "auto"}, "--charset"),
        (ConvertConfig, {**ADOPTED, "charset_size": 5}, "--charset_size"),
        (ConvertConfig, {**ADOPTED, "shuffle_at_write": True}, "--shuffle_at_write"),
        (ConvertConfig, {**ADOPTED, "compact": True}, "--compact"),
        (ConvertConfig, {**ADOPTED, "on_bad_record": "quarantine"}, "--on_bad_record"),
        (ConvertConfig, {"labels_csv": "l"}, "--labels_csv"),
        (ConvertConfig, {"num_channels": 3}, "--num_channels"),
        (ConvertConfig, {"image_format": "keep"}, "--image_format"),
        (ConvertConfig, {**IMAGES, "image_format": "raw"}, "--image_format"),
        (ConvertConfig, {**IMAGES, "num_channels": 2}, "--num_channels"),
        (ConvertConfig, {**IMAGES, "prune": True}, "--prune"),
        (ConvertConfig, {**IMAGES, "compact": True}, "--compact"),
        (TrainConfig, {"dataset_name": "flowers"}, "--dataset_name"),
        (EvaluateConfig, {"top_k": "1,x"}, "--top_k"),
        (EvaluateConfig, {"top_k": "0"}, "--top_k"),
        (SynthConfig, {"num_writers": 0}, "--num_writers"),
        (DoctorConfig, {"num_executors": 0}, "--num_executors"),
        (DoctorConfig, {"num_gpus": -1}, "--num_gpus"),
        (DoctorConfig, {"expected_hours": float("nan")}, "--expected_hours"),
        (DoctorConfig, {"min_free_gb": -0.1}, "--min_free_gb"),
        (DoctorConfig, {"port_range": "40000"}, "--port_range"),
        (TrainConfig, {"random_brightness": True}, "--random_brightness"),
        (TrainConfig, {"decay_steps": 0.5}, "--decay_steps"),
        (TrainConfig, {"batch_size": True}, "--batch_size"),
        (TrainConfig, {"batch_size": "128"}, "--batch_size"),
        (TrainConfig, {"learning_rate": "1e-3"}, "--learning_rate"),
        (TrainConfig, {"overwrite": 1}, "--overwrite"),
        (DoctorConfig, {"port_range": "40001-40000"}, "--port_range"),
        (DoctorConfig, {"port_range": "1-65536"}, "--port_range"),
    ],
)
def test_bad_values_and_combinations_name_their_flag(kind: Any, values: dict[str, Any], place: str) -> None:
    required = {
        TrainConfig: TRAIN,
        ConvertConfig: {"gnt_dir": "g", "dataset_dir": "d"},
        EvaluateConfig: TRAIN,
        SynthConfig: {"gnt_dir": "g"},
        DoctorConfig: {},
    }
    with pytest.raises(SettingsError) as caught:
        kind(**{**required[kind], **values})
    assert caught.value.place == place


def kinds() -> list[Any]:
    return [kind for name, kind in vars(config).items() if name.endswith("Config")]


def outside(metadata: Any) -> list[float]:
    """Numbers that a flag's metadata leaves out."""
    bounds = [metadata[name] for name in ("above", "below") if name in metadata]
    bounds += [metadata["minimum"] - 1] if "minimum" in metadata else []
    bounds += [metadata["maximum"] + 1] if "maximum" in metadata else []
    return bounds + ([float("nan"), float("inf")] if bounds else [])


def test_no_flag_accepts_what_its_metadata_leaves_out() -> None:
    required = {"gnt_dir": "g", "dataset_dir": "d", "train_dir": "t", "export_dir": "e", "images": ("i",)}
    required |= {"input": "i", "output_dir": "o", "registry_dir": "r", "predictions": "p", "reason": "why"}
    required |= {"eval_gnt_dir": "f", "work_dir": "w"}
    counts = {"numbers": 0, "choices": 0, "forms": 0}
    for kind in kinds():
        fields = dataclasses.fields(kind)
        needed = {f.name: required[f.name] for f in fields if f.default is dataclasses.MISSING}
        for item in fields:
            refused: list[Any] = outside(item.metadata)
            counts["numbers"] += bool(refused)
            for key in ("choices", "form"):
                if key in item.metadata:
                    refused.append("../x")
                    counts["choices" if key == "choices" else "forms"] += 1
            for value in refused:
                with pytest.raises(FlagError) as caught:
                    kind(**needed | {item.name: value})
                assert caught.value.exit_code == 2
                assert caught.value.place == f"--{item.name}"
    assert min(counts.values()) >= 8, counts


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "--batch_size: 0 is less than 1"),
        ({"num_gpus": -1}, "--num_gpus: -1 is less than 0"),
        ({"num_ps_tasks": -1}, "--num_ps_tasks: -1 is less than 0"),
        ({"random_zoom": 1.0}, "--random_zoom: 1.0 is not in 0 to 0.9"),
        ({"keep_prob": 0.0}, "--keep_prob: 0.0 is not in (0, 1]"),
        ({"label_smoothing": 1.0}, "--label_smoothing: 1.0 is not in [0, 1)"),
        ({"learning_rate": 0.0}, "--learning_rate: 0.0 is not a positive, finite number"),
        ({"ps_placement": "x"}, "--ps_placement: 'x' is not round_robin, greedy or partitioned"),
        ({"link_gbit": 0.0}, "--link_gbit: 0.0 is not a positive, finite number"),
        ({"ps_place": "x"}, "--ps_place: 'x' is not auto, executor or driver"),
        ({"max_restarts": -1}, "--max_restarts: -1 is less than 0"),
        ({"max_preemptions": -2}, "--max_preemptions: -2 is less than -1"),
        (
            {"deadlines": "stall=120, bulid=30"},
            "--deadlines: 'stall=120, bulid=30' is not PHASE=SECONDS with commas between, each phase once and whole "
            "seconds from 1. Did you mean build? The phases are application, containers,",
        ),
        ({"deadlines": "stall=0"}, "--deadlines: 'stall=0' is not PHASE=SECONDS"),
        ({"deadlines": "stall=1.5"}, "whole seconds from 1. The phases are"),
        ({"deadlines": "stall=1,stall=2"}, "each phase once"),
        ({"deadlines": "stall"}, "write it as containers=300,stall=120"),
        ({"model_name": "x"}, "--model_name: there is no network 'x'. Known: chinese_rec, hanzi_net, inception_v3"),
        ({"dataset_split_name": "a/b"}, "--dataset_split_name: 'a/b' is not a split name: it becomes a folder. Use"),
        ({"port_range": "9-8"}, "--port_range: '9-8' is not two ports from 1024 to 65535"),
    ],
)
def test_the_message_about_a_value_follows_from_its_flags_metadata(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        TrainConfig(**TRAIN, **values)


def test_a_configuration_survives_json_and_unknown_keys_do_not() -> None:
    original = TrainConfig(**TRAIN, epoch=3)
    assert config.from_dict(TrainConfig, config.to_dict(original)) == original
    with pytest.raises(SettingsError, match="unknown setting lerning_rate"):
        config.from_dict(TrainConfig, {**TRAIN, "lerning_rate": 1})


def test_a_bad_value_is_2_where_it_is_given_and_78_in_a_file_or_beside_another_one() -> None:
    with pytest.raises(FlagError, match="--epoch: 0 is less than 1") as given:
        TrainConfig(**TRAIN, epoch=0)
    with pytest.raises(SettingsError, match="--epoch: 0 is less than 1") as stored:
        config.from_dict(TrainConfig, {**TRAIN, "epoch": 0})
    with pytest.raises(SettingsError, match="leave no worker") as contradictory:
        TrainConfig(**TRAIN, num_executors=2, num_ps_tasks=2)
    with pytest.raises(FlagError, match="--gnt_dir, --image_dir or --tfrecord_dir: one of them is needed") as missing:
        ConvertConfig(dataset_dir="d")
    codes = [caught.value.exit_code for caught in (given, stored, contradictory, missing)]
    assert codes == [2, 78, 78, 2]
    assert errors.exit_code_class(2) is FlagError


def test_texts_are_text_and_paths_may_be_pathlibs() -> None:
    assert TrainConfig(dataset_dir=Path("d"), train_dir="t").dataset_dir == "d"  # type: ignore[arg-type]
    for value, fact in ((7, "7 is not a text"), ("", "its value is empty"), ("\udcc1", "its value is not UTF-8")):
        with pytest.raises(FlagError, match=f"--dataset_dir: {fact}"):
            TrainConfig(dataset_dir=value, train_dir="t")  # type: ignore[arg-type]


def test_each_flag_of_a_command_with_groups_has_its_subject() -> None:
    shared = {item.name for item in dataclasses.fields(config.AugmentationConfig)}
    for name, command in COMMANDS.items():
        items = dataclasses.fields(command.config)
        subjects = [item.metadata.get("subject") for item in items if item.name not in shared]
        assert len({subject is None for subject in subjects}) < 2, name


def test_deadlines_of_phases_follow_from_the_time_limits_and_are_stronger() -> None:
    limits: dict[str, Any] = {"start_timeout": 5, "stall_timeout": 6, "stop_timeout": 7}
    plain = dataclasses.asdict(TrainConfig(**TRAIN, **limits).phase_deadlines)
    assert plain == {
        **dict.fromkeys(("containers", "registration", "build"), 5),
        **dict.fromkeys(("first_step", "stall", "checkpoint"), 6),
        "drain": 7,
        "shutdown": 30,
    }
    given = TrainConfig(**TRAIN, **limits, deadlines="build=20, stall = 30,application=8").phase_deadlines
    assert dataclasses.asdict(given) == {**plain, "build": 20, "stall": 30}


@pytest.mark.parametrize(("text", "start_s"), [("", 5), ("containers=7", 5), ("application=7,stall=1", 7)])
def test_the_start_of_a_driver_outside_the_cluster_is_no_longer_than_before(text: str, start_s: int) -> None:
    config = TrainConfig(dataset_dir="data", train_dir="run", start_timeout=5, deadlines=text)
    assert config.driver_start_s == start_s


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({}, 16_002),
        ({"max_number_of_steps": 7}, 7),
        ({"epoch": 1, "batch_size": 10}, 11),  # 101 records: the last batch reaches into the next epoch
        ({"epoch": 3, "batch_size": 101}, 3),
        ({"epoch": 3, "batch_size": 10, "push_every": 4}, 8),
    ],
)
def test_steps_of_a_run(values: dict[str, int], steps: int) -> None:
    assert TrainConfig(**TRAIN, **values).total_steps(101) == steps


@pytest.mark.parametrize(
    ("asked", "num_records", "mode"),
    [
        ("auto", 2**19, "preloaded"),  # 2 GiB of 64 × 64 pixels
        ("auto", 2**19 + 1, "files"),
        ("files", 1, "files"),
        ("preloaded", 2**30, "preloaded"),
    ],
)
def test_input_mode_follows_from_the_largest_part(asked: str, num_records: int, mode: str) -> None:
    assert TrainConfig(**TRAIN, input_mode=asked).resolved_input_mode(num_records) == mode


def test_colour_and_photographs_take_more_memory() -> None:
    train = TrainConfig(**TRAIN)
    assert train.preloaded_bytes(10, num_channels=3) == 3 * train.preloaded_bytes(10)
    assert train.resolved_input_mode(2**19, num_channels=3) == "files"
    glyphs = TrainConfig(**TRAIN, shuffle_buffer=1_000_000)
    assert glyphs.buffered_records(3_500) == glyphs.buffered_records(0) == 1_000_000  # all that is asked for
    assert train.buffered_records(1 << 20) == 512
    assert train.buffered_records(1 << 40) == 1


def test_images_stay_as_they_are_by_default_and_glyphs_are_raw() -> None:
    of_images = ConvertConfig(image_dir="i", dataset_dir="d")
    assert (of_images.stored_format, of_images.input_dir) == ("keep", "i")
    adopted = ConvertConfig(tfrecord_dir="t")
    assert (adopted.stored_format, adopted.input_dir, adopted.dataset_dir) == ("keep", "t", "t")
    assert ConvertConfig(tfrecord_dir="t", dataset_dir="d").dataset_dir == "d"
    of_gnt = ConvertConfig(gnt_dir="g", dataset_dir="d")
    assert (of_gnt.stored_format, of_gnt.input_dir) == ("raw", "g")


def test_top_k_is_sorted_and_without_repetition() -> None:
    assert EvaluateConfig(**TRAIN, top_k="5,1,3,1").ks == (1, 3, 5)
    assert EvaluateConfig(**TRAIN, top_k="3,5").ks == (1, 3, 5)  # what `best` goes by is in every evaluation


def test_a_number_is_pythons_own_of_its_flags_type() -> None:
    """What is written and compared must not depend on how a caller in Python has come by a number."""
    found = TrainConfig(**TRAIN, learning_rate=np.float64(1e-3), keep_prob=1, decay_steps=2e3, batch_size=np.int64(64))
    values = (found.learning_rate, found.keep_prob, found.decay_steps, found.batch_size)
    assert [type(value) for value in values] == [float, float, int, int]
    assert values == (1e-3, 1.0, 2000, 64)
    for seed in (2**60 + 1, np.int64(2**60 + 1)):
        assert TrainConfig(**TRAIN, seed=seed).seed == 2**60 + 1


def test_grey_images_have_no_hue() -> None:
    for name in ("random_hue", "random_saturation"):
        coloured = TrainConfig(**TRAIN, **{name: 0.1})
        coloured.require_channels(3)
        with pytest.raises(SettingsError, match=f"--{name}: given for grey images"):
            coloured.require_channels(1)
    TrainConfig(**TRAIN, random_contrast=0.1).require_channels(1)


def test_every_flag_that_is_a_path_is_declared_as_one() -> None:
    fields = {(kind.__name__, item.name): item.metadata for kind in kinds() for item in dataclasses.fields(kind)}
    for (kind, name), metadata in fields.items():
        words = set(re.findall(r"\w+", metadata.get("metavar", "")))
        looks_like_one = name.endswith(("_dir", "_path", "_csv")) or words & {"FILE", "DIR", "PATH", "IMAGE", "RUN"}
        assert bool(looks_like_one) == ("path" in metadata), (kind, name)
        if looks_like_one:
            named = {word for word in metadata["path"] if word != STDIN}
            assert named == {word for word in words if word.islower()}, (kind, name)


def test_words_with_a_meaning_of_their_own_are_no_paths() -> None:
    assert config.paths(EvaluateConfig(**TRAIN)) == [("--dataset_dir", "d"), ("--train_dir", "t")]
    assert ("--checkpoint", "c") in config.paths(EvaluateConfig(**TRAIN, checkpoint="c"))
    assert "--restore" not in dict(config.paths(TrainConfig(**TRAIN)))
    assert ("--charset", "c.txt") in config.paths(ConvertConfig(gnt_dir="g", dataset_dir="d", charset="c.txt"))
    assert config.paths(PredictConfig(train_dir="t", images=("a", "-", "b")))[-2:] == [("IMAGE", "a"), ("IMAGE", "b")]
