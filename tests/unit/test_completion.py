"""Completion in a real bash; of the other shells, that there is a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tfos_job import __main__ as program
from tfos_job.commands.registry import SUBMISSIONS

ASK = """
source "$1"
cd "$2"
complete -p tfos-job >&2
while IFS= read -r line; do
  IFS=' ' read -r -a COMP_WORDS <<<"$line"
  [[ $line == *' ' ]] && COMP_WORDS+=('')
  COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
  COMPREPLY=()
  _shtab_tfos_job
  echo "${COMPREPLY[*]}"
done
"""


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert program.main(["--print_completion", shell]) == 0
    return capsys.readouterr().out


def test_bash_completes_commands_flags_words_and_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "completion.bash"
    found.write_text(script("bash", capsys))
    (tmp_path / "there" / "run-1").mkdir(parents=True)
    (tmp_path / "there" / "read.me").touch()
    expected = {
        "tfos-job tr": "train",
        "tfos-job submit ": " ".join(SUBMISSIONS),
        "tfos-job train --num_": "--num_executors --num_ps_tasks --num_gpus",
        "tfos-job train --model_name ": "chinese_rec hanzi_net inception_v3",
        "tfos-job train --recipe h": "hanzi hwdb",
        "tfos-job train --epoch ": "",
        "tfos-job convert --dataset_dir there/r": "there/run-1",
        "tfos-job convert --labels_csv there/re": "there/read.me",
        "tfos-job predict --train_dir there there/re": "there/read.me",
        "tfos-job submit convert --que": "--queue",
        "tfos-job submit convert --gnt": "--gnt_dir",
        "tfos-job --print_completion z": "zsh",
    }
    bash = ["bash", "--norc", "-c", ASK, "bash", str(found), str(tmp_path)]
    done = subprocess.run(bash, input="\n".join([*expected, ""]), capture_output=True, text=True, check=True)
    assert dict(zip(expected, done.stdout.split("\n")[:-1], strict=True)) == expected
    assert done.stderr.startswith("complete -o bashdefault -F _shtab_tfos_job tfos-job")


@pytest.mark.parametrize(("shell", "words"), [("zsh", "--num_executors["), ("tcsh", "c/--model_name=/(chinese_rec ")])
def test_other_shells_have_a_script(shell: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in script(shell, capsys)


def test_another_shell_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--print_completion", "ksh"], ["--print_completion"], ["--print_completion=ksh"]):
        assert program.main(words) == 2
        assert "--print_completion: " in capsys.readouterr().err


def test_nothing_imports_shtab_unless_completion_is_asked_for() -> None:
    code = "import sys, tfos_job.__main__ as p; p.main(['help']); sys.exit('shtab' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
