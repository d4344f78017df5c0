#!/usr/bin/env bash
# The whole job on synthetic handwriting, with the commands that you would type yourself:
#   scripts/quickstart.sh [FOLDER]      (default: quickstart)
# Each command is shown before it runs; its results, JSON, are in FOLDER/results.jsonl. A second run reuses the files in
# FOLDER; remove it to start from the beginning. Two slow cores take some six minutes, after the downloads of the first run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=${1:-quickstart}
export TFOS_JOB_EXTRAS=serve # what runs a job and serves its model, without the tools of the tests
# shellcheck source=scripts/setup.sh
source scripts/setup.sh

charset_size=30
train_writers=40
test_writers=10 # numbered after those of training: hands that the network never saw

results=$work/results.jsonl
mkdir -p "$work"
: >"$results"

# Shows a command as it would be typed, then runs it. What matters of its results it says on stderr, too.
run() {
    printf '\n$ %s\n' "$*" >&2
    "$@" >>"$results"
}

explain_failure() {
    local code=$?
    if ((code != 0)); then
        printf '\nquickstart.sh: ended with exit code %d (docs/reference.md has the table). What is done so far lies in %s;\n' \
            "$code" "$work" >&2
        printf 'run it again to go on from there, or remove that folder to start from the beginning.\n' >&2
    fi
}
trap explain_failure EXIT

# synth writes the same bytes again for the same seed; there is no need to.
synth() {
    local gnt_dir=$1 writers=$2 first=$3
    if [[ $(find "$gnt_dir" -name '*.gnt' 2>/dev/null | wc -l) == "$writers" ]]; then
        printf '\n%s: there already\n' "$gnt_dir" >&2
        return
    fi
    run tfos-job synth --gnt_dir "$gnt_dir" --charset_size "$charset_size" --num_writers "$writers" --first_writer "$first"
}

synth "$work/gnt/train" "$train_writers" 1
synth "$work/gnt/test" "$test_writers" "$((train_writers + 1))"

run tfos-job convert --gnt_dir "$work/gnt/train" --dataset_dir "$work/dataset" --dataset_split_name train \
    --charset_size "$charset_size"
# The second split takes the first one's charset.
run tfos-job convert --gnt_dir "$work/gnt/test" --dataset_dir "$work/dataset" --dataset_split_name test

run tfos-job train --dataset_dir "$work/dataset" --train_dir "$work/run" --epoch 3 --batch_size 64 --image_size 64 \
    --num_executors 2 --num_ps_tasks 1

run tfos-job evaluate --dataset_dir "$work/dataset" --train_dir "$work/run" --dataset_split_name test

run tfos-job inspect --dataset_dir "$work/dataset" --output_dir "$work/inspect" --random_brightness --random_contrast

# One character of a writer that training never saw, as a picture.
image=$work/character.png
python - "$work/gnt/test" "$image" <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image

from tfos_job.formats.gnt import decode_tag
from tfos_job.formats.gnt_reader import read_records

folder, image = sys.argv[1:]
path = min(Path(folder).rglob("*.gnt"))
with path.open("rb") as file:
    record = next(read_records(file, str(path)))
Image.frombytes("L", (record.width, record.height), record.pixels).save(image)
print(f"\n{image}: {decode_tag(record.tag)}, the first character of {path}", file=sys.stderr)
PYTHON
run tfos-job predict --train_dir "$work/run" "$image"
python - "$results" <<'PYTHON'
import json
import sys
from pathlib import Path

prediction = json.loads(Path(sys.argv[1]).read_text("utf-8").splitlines()[-1])
guesses = [f"{guess['character']} {guess['probability']:.1%}" for guess in prediction["top"]]
print(f"{prediction['image']} is {', '.join(guesses)}", file=sys.stderr)
PYTHON

run tfos-job report --train_dir "$work/run" --html "$work/run.html"

python - "$work" <<'PYTHON'
import json
import sys
from pathlib import Path

work = Path(sys.argv[1])
page = (work / "run.html").resolve().as_uri()
report = json.loads((work / "run" / "report.json").read_text("utf-8"))
evaluations = sorted((work / "run" / "evaluation").glob("step-*-test.json"))
evaluation = json.loads(evaluations[-1].read_text("utf-8"))
rate = report.get("images_per_second")
rows = [
    ("training records", f"{report['num_records']:,}"),
    ("steps", f"{report['step']:,}"),
    ("images/s", f"{rate:.0f}" if rate else "-"),
    ("test records", f"{evaluation['num_examples']:,} (of writers that training never saw)"),
    ("top-1", f"{evaluation['top_1']:.4f}"),
    ("top-3", f"{evaluation['top_3']:.4f}"),
]
print()
for name, value in rows:
    print(f"{name:<18}{value}")
print(f"""
GNT shards        {work}/gnt/train, {work}/gnt/test
dataset           {work}/dataset
pictures          {work}/inspect: of the data
run               {work}/run: report.json, loss.png, checkpoints/, evaluation/
all of the run    {page}: open it in a browser

What to type next:

  source <(scripts/setup.sh)    # `tfos-job` and `python` in this shell
  tfos-job serve --train_dir {work}/run    # a page to draw on, and answers by HTTP
  tfos-job tensorboard --train_dir {work}/run    # the curves
  tfos-job train --dataset_dir {work}/dataset --train_dir {work}/hanzi --recipe hanzi    # another network

Your own files: put GNT files, or CASIA's ZIP archives of them, into one folder for training and one for test. Then:

  tfos-job convert --gnt_dir FOLDER/train --dataset_dir dataset --dataset_split_name train
  tfos-job convert --gnt_dir FOLDER/test --dataset_dir dataset --dataset_split_name test

README.md, "Your own files", goes on from there, also with folders of pictures.""")
PYTHON
