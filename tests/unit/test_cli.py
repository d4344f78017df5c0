from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flags import parse_config
from tfos_job import __main__ as program
from tfos_job import __version__, cli
from tfos_job.config.flags import by_subject


@pytest.mark.parametrize("columns", [80, 120])
def test_help_lists_every_flag_with_its_default_in_its_group(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, command in cli.COMMANDS.items():
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"usage: tfos-job {name} ")
        assert max(map(len, lines)) < columns
        text = " ".join(" ".join(lines).split())
        for subject, items in by_subject(command.config).items():
            assert f"{subject.value}:" in lines
            for item in items:
                assert item.name in text
                if isinstance(item.default, int | float) and not isinstance(item.default, bool):
                    is_off = item.default == item.metadata.get("off")
                    assert f"default: {'off' if is_off else f'{item.default:g}'})" in text


def test_help_of_train_marks_what_a_resumed_run_does_with_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "-h"])
    text = " ".join(capsys.readouterr().out.split())
    assert "of them, on one worker (1 or more; default: 128) [recipe]" in text
    assert "(up to 0.9 or off; default: off) [recipe]" in text
    assert "[extent] where and how much: inherited from the run, and free to change" in text


TRAIN = ["train", "--train_dir", "t"]
CONVERT = ["convert", "--dataset_dir", "d"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["trian"], "tfos-job: error: there is no command 'trian'. Did you mean train? `tfos-job --help` lists"),
        (["--debug", "train"], "tfos-job: error: --debug stands before the command. A command's flags follow its name"),
        (["train"], "tfos-job train: error: --train_dir is needed. `tfos-job train --help` lists the flags"),
        (["evaluate"], "tfos-job evaluate: error: --dataset_dir and --train_dir are needed. "),
        (["predict", "--train_dir", "t"], "tfos-job predict: error: IMAGE is needed. "),
        (
            [*TRAIN, "--batchsize", "3"],
            "there is no flag --batchsize. Did you mean --batch_size? `tfos-job train --help`",
        ),
        ([*TRAIN, "--batch-size=3"], "there is no flag --batch-size. Did you mean --batch_size? "),
        ([*TRAIN, "--batch", "3"], "there is no flag --batch. Did you mean --batch_size? "),  # no abbreviations
        (
            [*TRAIN, "--qqqqq"],
            "tfos-job train: error: there is no flag --qqqqq. `tfos-job train --help` lists the flags",
        ),
        ([*TRAIN, "epoch", "3"], "'epoch' is no flag. Did you mean --epoch? "),
        ([*CONVERT, "--num_ps_tasks", "1"], "--num_ps_tasks is no flag of convert. It is a flag of train. "),
        ([*TRAIN, "--epoch"], "--epoch: its value is missing. "),
        ([*TRAIN, "--overwrite=yes"], "--overwrite: it takes no value, and has 'yes'. "),
        ([*TRAIN, "--epoch", "0"], "tfos-job train: error: --epoch: 0 is less than 1"),
        ([*TRAIN, "--epoch", "x"], "--epoch: 'x' is not a whole number"),
        ([*TRAIN, "--num_executors", "0"], "--num_executors: 0 is less than 1"),
        ([*TRAIN, "--learning_rate", "off"], "--learning_rate: 'off' is not a number"),
        ([*TRAIN, "--learning_rate", "-1"], "--learning_rate: -1.0 is not a positive, finite number"),
        ([*TRAIN, "--allow_cpu", "yes"], "--allow_cpu: 'yes' is not true or false"),
        ([*TRAIN, "--model_name", "hanzinet"], "there is no network 'hanzinet'. Did you mean hanzi_net? Known: "),
        ([*TRAIN, "--input_mode", "file"], "--input_mode: 'file' is not auto, preloaded or files. Did you mean files?"),
        ([*TRAIN, "--port_range", "9-8"], "--port_range: '9-8' is not two ports from 1024 to 65535"),
        ([*TRAIN, "--dataset_split_name", "a/b"], "--dataset_split_name: 'a/b' is not a split name"),
        (CONVERT, "tfos-job convert: error: --gnt_dir, --image_dir or --tfrecord_dir: one of them is needed"),
    ],
)
def test_a_wrong_command_flag_or_value_is_2_and_one_line_with_the_nearest(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (found,) = said.err.splitlines()
    assert line in found
    assert found.startswith("tfos-job")


def test_flags_that_contradict_each_other_are_78(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*CONVERT, "--gnt_dir", "g", "--image_dir", "i"]) == 78
    assert "--image_dir: given together with --gnt_dir. Give one of them" in capsys.readouterr().err
    assert cli.main([*TRAIN, "-q", "-v"]) == 78


def test_a_flag_that_can_be_turned_off_takes_the_word() -> None:
    flags = [
        "--dataset_dir",
        "d",
        "--train_dir",
        "t",
        "--random_hue=off",
        "--keep_prob",
        "off",
        "--warmup_steps",
        "off",
    ]
    config = parse_config("train", flags)
    assert (config.random_hue, config.keep_prob, config.warmup_steps) == (0.0, 1.0, 0)


def test_words_after_two_dashes_are_no_flags() -> None:
    for words, images in (
        (["--", "-a.png"], ("-a.png",)),
        (["b.png", "--top_k", "2", "--", "--debug", "-"], ("b.png", "--debug", "-")),
        (["--", "a.png", "--"], ("a.png", "--")),
    ):
        assert parse_config("predict", ["--train_dir", "t", *words]).images == images


def test_without_a_command_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    listed = capsys.readouterr().err
    assert all(f"\n  {name} " in listed and command.help in listed for name, command in cli.COMMANDS.items())
    for argv in (["help"], ["--help"], ["-h"]):
        assert cli.main(argv) == 0
        assert capsys.readouterr().out == listed
    with pytest.raises(SystemExit) as ended:
        program.main(["help", "train"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: tfos-job train ")
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tfos_job {__version__}\n"


def test_submit_is_a_command_of_the_same_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--help"]) == 0
    assert "\n  submit " in capsys.readouterr().out
    for words in (["submit", "--help"], ["help", "submit"]):
        with pytest.raises(SystemExit) as ended:
            program.main(words)
        assert ended.value.code == 0
        assert "usage: tfos-job submit COMMAND " in capsys.readouterr().out
    for words, line in (
        (["submit", "trian"], "tfos-job submit: error: there is no command 'trian'. Did you mean train? "),
        (["submit", "inspect"], "tfos-job submit: error: inspect runs on this host alone. Call `tfos-job inspect`; "),
        (
            ["submit", "doctor", "--queu", "x"],
            "tfos-job submit doctor: error: there is no flag --queu. Did you mean --q",
        ),
        (
            ["submit", "doctor", "--dryrun"],
            "tfos-job submit doctor: error: there is no flag --dryrun. Did you mean --",
        ),
        (["submit", "doctor", "--num_gpus", "-1"], "tfos-job submit doctor: error: --num_gpus: -1 is less than 0"),
        (["submit", "doctor", "--submit_timeout", "x"], "tfos-job submit: error: --submit_timeout: 'x' is not a whole"),
        (["submit"], "tfos-job submit: error: COMMAND is needed. `tfos-job submit --help` lists the flags"),
    ):
        assert program.main(words) == 2
        said = capsys.readouterr().err
        assert said.startswith(line)
        assert len(said.splitlines()) == 1
    assert program.main(["submit", "convert", "--gnt_dir", "/disk", "--dataset_dir", "d", "--hdfs_dir", "/d"]) == 78
    assert capsys.readouterr().err.startswith("tfos-job submit convert: error: --")


def text_flags() -> list[tuple[str, str]]:
    """Each command and each of its flags that takes a path, a name or another text, but for those that may be empty."""
    return [
        (name, field.name)
        for name, command in cli.COMMANDS.items()
        for field in dataclasses.fields(command.config)
        if field.type in ("str", "str | None", "tuple[str, ...]") and field.default != ""
    ]


@pytest.mark.parametrize(
    ("value", "fact"), [("", "its value is empty"), ("/d/\udcc1\udcb7", r"not UTF-8: b'/d/\xc1\xb7'")]
)
def test_no_path_is_empty_and_each_is_text(value: str, fact: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert {("convert", "dataset_dir"), ("train", "train_dir"), ("predict", "images")} <= set(text_flags())
    for command, flag in text_flags():
        argv = [command, value] if flag == "images" else [command, f"--{flag}", value]
        assert cli.main(argv) == 2
        assert fact in capsys.readouterr().err, flag


@pytest.mark.parametrize(
    ("flags", "strengths"),
    [
        ([], (0.0, 0.0)),
        (["--random_brightness", "--random_contrast"], (0.3, 0.2)),  # the seed job's
        (["--random_contrast", "0.1", "--random_brightness"], (0.3, 0.1)),
    ],
)
def test_a_strength_may_be_left_out(flags: list[str], strengths: tuple[float, float]) -> None:
    config = parse_config("train", ["--dataset_dir", "d", "--train_dir", "t", *flags])
    assert (config.random_brightness, config.random_contrast) == strengths


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tfos_job", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_stdout_on_a_full_disk_is_told_and_leaves_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tfos_job", "synth", "--gnt_dir", tmp_path, "--charset_size", "2"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*map(str, command), "--num_writers", "1"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 74
    fact = "standard output: cannot write the results: No space left on device"
    assert done.stderr.splitlines()[-1] == f"tfos-job synth: error: {fact}. Free some space, run again"


def test_an_error_is_one_line_and_a_traceback_only_on_demand(tmp_path: Path) -> None:
    plain = run("predict", "--train_dir", tmp_path, "x.png")
    assert plain.returncode == 66
    assert plain.stdout == ""
    (line,) = plain.stderr.splitlines()
    assert line.startswith("tfos-job predict: error: ")
    assert str(tmp_path) in line
    debug = run("report", "--train_dir", tmp_path, "--debug")
    assert "Traceback" in debug.stderr
    assert debug.stderr.splitlines()[-1].startswith(f"tfos-job report: error: {tmp_path}")


def test_help_answers_without_heavy_libraries() -> None:
    code = (
        "import sys, tfos_job.cli as cli\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'pyspark', 'numpy', 'PIL'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 0, completed.stderr
