from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tfos_job import __main__ as program
from tfos_job import cli


def test_help_lists_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in cli.COMMANDS.items():
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        for field in dataclasses.fields(command.config):
            assert field.name in text
            if isinstance(field.default, int | float) and not isinstance(field.default, bool):
                assert f"(default: {field.default})" in text


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        ([], 2),
        (["train"], 2),
        (["train", "--dataset_dir", "d", "--train_dir", "t", "--no_such_flag"], 2),
        (["train", "--dataset_dir", "d", "--train_dir", "t", "--batch", "3"], 2),  # no abbreviations: --batch_size
        (["train", "--dataset_dir", "d", "--train_dir", "t", "--input_mode", "x"], 2),
    ],
)
def test_a_wrong_flag_ends_with_2(argv: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == code


def test_submit_is_a_command_of_the_same_program(capsys: pytest.CaptureFixture[str]) -> None:
    for words, text in ((["--help"], "\n    submit "), (["submit", "--help"], "usage: tfos-job submit COMMAND ")):
        with pytest.raises(SystemExit) as ended:
            program.main(words)
        assert ended.value.code == 0
        assert text in capsys.readouterr().out
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
        with pytest.raises(SystemExit) as ended:
            cli.main(argv)
        assert ended.value.code == 2
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
    config = cli.parse_config("train", ["--dataset_dir", "d", "--train_dir", "t", *flags])
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
