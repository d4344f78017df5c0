"""What a network and a recipe learn, over the time that it takes; and what each part of the recipe is worth.

Plain Keras in this process, with the job's own input pipeline, augmentation, loss, schedule and optimizer: what differs
between two rows is the recipe. Time is that of training steps alone, input included: without tracing, the first step,
and evaluation. One JSON object a run on stdout, appended to `--results`; runs that are there already are not run again.

  accuracy.py casia --gnt_dir casia-small/train                            the seed's recipe and ours, on held-out files
  accuracy.py casia --gnt_dir casia-small/train --recipes levers           ours without each of its parts
  accuracy.py casia --gnt_dir casia-small/train --recipes wire             both with --wire_dtype bfloat16
  accuracy.py casia --gnt_dir casia-small/train --test_gnt_dir …/test      both, on the test split: once, at the end
  accuracy.py --picture accuracy.png                                       accuracy against minutes, of all results

Whoever tunes looks at held-out files of the training split (`--hold_out`), never at the test split.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfos_job.config import PRELOADED, RECIPES, TrainConfig
from tfos_job.conversion.gnt_shard import GroupTask, convert_group
from tfos_job.conversion.shard_plan import Piece, SourceFile
from tfos_job.formats import gnt, gnt_reader
from tfos_job.formats.charset import Charset, from_characters
from tfos_job.formats.form import Form

Flags = dict[str, Any]

# What every recipe of a row has in common is the job's default.
SEED: Flags = {"model_name": "chinese_rec", "batch_size": 64, "wire_dtype": "float32"}
# The recipe of `train --recipe hanzi`, with as many steps as the data asks for.
HANZI: Flags = {
    **{name: value for name, value in RECIPES["hanzi"].settings.items() if name not in ("epoch", "warmup_steps")},
    "warmup_fraction": 0.1,
    "wire_dtype": "float32",
}
ELASTIC: Flags = {"elastic_distortion": HANZI["elastic_distortion"]}
AUGMENTATION: Flags = {name: value for name, value in HANZI.items() if name.startswith("random_")}
KNOWN: dict[str, Flags] = {"seed": SEED, "hanzi": HANZI}
LEVERS: dict[str, Flags] = {
    "hanzi": HANZI,
    "no augmentation": {k: v for k, v in HANZI.items() if k not in AUGMENTATION | ELASTIC},
    "no elastic distortion": {k: v for k, v in HANZI.items() if k not in ELASTIC},
    "no label smoothing": HANZI | {"label_smoothing": 0.0},
    "fixed learning rate": HANZI | {"learning_rate_decay_type": "fixed", "learning_rate": 1e-3},
    "no warm-up": HANZI | {"warmup_fraction": 0.0},
    "moving average": HANZI | {"moving_average": 0.998},
}
# What is rounded on the way to a worker and back is rounded here, too.
WIRE: dict[str, Flags] = {
    f"{name} with bfloat16 on the wire": flags | {"wire_dtype": "bfloat16"} for name, flags in KNOWN.items()
}


@dataclasses.dataclass(frozen=True)
class Data:
    """Shards of the two sides, and how many records they hold."""

    charset: Charset
    train: tuple[str, ...]
    num_train: int
    test: tuple[str, ...]


# --- the data ---------------------------------------------------------------------------------------------------------


def load(train: Sequence[Path], test: Sequence[Path], folder: Path) -> Data:
    """Converts GNT files to shards, one a file, for the characters that the training files hold."""
    charset = from_characters({character for path in train for character in _characters(path)})
    counts = {}
    for side, paths in (("train", train), ("test", test)):
        (folder / side).mkdir()
        for path in paths:
            source = SourceFile(path.name, str(path), path.stat().st_size, 0.0)
            task = GroupTask(
                shard_file=path.name,
                pieces=(Piece(source, 0, source.size_bytes),),
                building_dir=str(folder / side),
                characters=charset.characters,
                image_format="raw",
                quarantine=False,
            )
            result = convert_group(task)
            counts[result.written_file] = result.shard.num_records
    shards = {side: tuple(sorted(str(p) for p in (folder / side).iterdir())) for side in ("train", "test")}
    return Data(charset, shards["train"], sum(counts[path] for path in shards["train"]), shards["test"])


def _characters(path: Path) -> set[str]:
    with open(path, "rb") as stream:
        return {str(gnt.decode_tag(record.tag)) for record in gnt_reader.read_records(stream, path.name)}


# --- one run ----------------------------------------------------------------------------------------------------------


def run(data: Data, flags: Flags, *, seed: int, epochs: float, num_looks: int) -> dict[str, Any]:
    """Trains once.

    Returns:
      `top_1` at the end, `seconds` of training, `images_per_second`, and the `curve`: seconds and top-1.
    """
    import keras
    import tensorflow as tf

    from tfos_job.input.pipeline import training_dataset
    from tfos_job.networks import registry
    from tfos_job.run.plan import learning_rate_of
    from tfos_job.training.exchange import Wire
    from tfos_job.training.optimizer import build_optimizer
    from tfos_job.training.step import MoreBatches, train_step

    flags = dict(flags)
    decay, warmup = flags.pop("moving_average", 0.0), flags.pop("warmup_fraction", 0.0)
    steps = int(epochs * data.num_train / (flags["batch_size"] * flags.get("push_every", 1)))
    config = TrainConfig(
        dataset_dir="data",
        train_dir="run",
        seed=seed,
        max_number_of_steps=steps,
        warmup_steps=int(warmup * steps),
        **flags,
    )
    network = registry.build(
        config.model_name, num_classes=len(data.charset), image_size=config.side, keep_prob=config.keep_prob, seed=seed
    )
    form = Form(image_size=config.side)
    optimizer = build_optimizer(learning_rate_of(config, steps))
    optimizer.build(network.trainable_variables)
    batches = iter(
        training_dataset(
            data.train,
            mode=PRELOADED,
            num_records=data.num_train,
            batch_size=config.batch_size,
            form=form,
            seed=seed,
            shuffle_buffer=config.shuffle_buffer,
            augmentation=config.augmentation,
        )
    )
    average = [tf.Variable(v.value) for v in network.trainable_variables] if decay else []

    def take_more(_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images, labels, _ = next(batches)
        return images, labels, tf.constant(0.0, tf.float64)

    @tf.function
    def step() -> tf.Tensor:
        images, labels, _ = next(batches)
        settings = config.label_smoothing, Wire(config.wire_dtype), MoreBatches(config.push_every - 1, take_more)
        loss, correct, *_ = train_step(network, optimizer, images, labels, *settings)
        for mean, variable in zip(average, network.trainable_variables, strict=False):
            mean.assign_sub((1 - decay) * (mean - variable.value))
        return tf.stack([loss, tf.cast(correct, tf.float32)])

    count = _counter(network, data, form)
    looks = {round(steps * (i + 1) / num_looks) for i in range(num_looks)}
    curve: list[tuple[float, float]] = []
    seconds, began = 0.0, time.perf_counter()
    for number in range(1, steps + 1):
        last = step()
        if number == 1 or number in looks:
            last.numpy()
            # The first step is mostly tracing: it counts as much as the others do on average.
            seconds += 0.0 if number == 1 else time.perf_counter() - began
            if number in looks:
                curve.append((round(seconds * steps / (steps - 1), 2), count()))
            began = time.perf_counter()
    if decay:
        for mean, variable in zip(average, network.trainable_variables, strict=True):
            variable.assign(mean)
        curve.append((curve[-1][0], count()))
    keras.backend.clear_session()
    return {
        "top_1": curve[-1][1],
        "seconds": curve[-1][0],
        "images_per_second": round(steps * config.images_per_step / curve[-1][0]),
        "steps": steps,
        "parameters": network.count_params(),
        "curve": curve,
    }


def _counter(network: Any, data: Data, form: Form) -> Callable[[], float]:
    from tfos_job.inference.evaluation import evaluate_shards

    def count() -> float:
        counts, _ = evaluate_shards(network, data.test, num_records=0, batch_size=256, form=form, ks=(1,))
        return round(counts.metrics()["top_1"], 5)

    return count


# --- the results ------------------------------------------------------------------------------------------------------


def summarize(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each data set and recipe: mean ± σ of top-1 over the seeds, seconds, images/s."""
    lines = []
    for key in dict.fromkeys((row["data"], row["on"], row["recipe"]) for row in rows):
        own = [row for row in rows if (row["data"], row["on"], row["recipe"]) == key]
        top_1 = [row["top_1"] for row in own]
        sigma = statistics.stdev(top_1) if len(top_1) > 1 else float("nan")
        seconds = statistics.mean(row["seconds"] for row in own)
        each = ", ".join(f"{x:.4f}" for x in top_1)
        lines.append(f"{' '.join(key):<48} {statistics.mean(top_1):.4f} ± {sigma:.4f}  {seconds:7.1f} s  ({each})")
    return lines


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy against minutes: one axes for each data set, one line a run."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["recipe"] in KNOWN and row["on"] == "test"]
    names = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(5.2 * len(names), 4.2), layout="constrained")
    colours = {"seed": "tab:gray", "hanzi": "tab:blue"}
    labels = {"seed": "chinese_rec, the seed's recipe", "hanzi": "hanzi_net, our recipe"}
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for recipe, colour in colours.items():
            own = [row for row in rows if (row["data"], row["recipe"]) == (name, recipe)]
            for number, row in enumerate(own):
                minutes, top_1 = zip(*((s / 60, a) for s, a in row["curve"]), strict=True)
                label = f"{labels[recipe]} ({len(own)} seeds)" if number == 0 else None
                axes.plot(minutes, top_1, color=colour, linewidth=1.5, alpha=0.8, label=label)
        axes.set(title=name, xlabel="minutes of training", ylabel="top-1 on the test split")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("data", nargs="?", default="", help="a name for the data, for the results")
    add("--gnt_dir", type=Path, help="GNT files to train on")
    add("--test_gnt_dir", type=Path, help="GNT files to test on; without it, those that --hold_out names are held out")
    add(
        "--hold_out",
        default="*5.gnt",
        metavar="GLOB",
        help="of --gnt_dir, not trained on (default: *5.gnt)",
    )
    add(
        "--recipes",
        default="seed,hanzi",
        help="comma-separated names; `levers`: hanzi without each of its parts; `wire`: both with bfloat16 there",
    )
    add("--seeds", default="0,1,2", help="comma-separated (default: 0,1,2)")
    add("--epochs", type=float, default=40.0, help="of all recipes but the seed's (default: 40)")
    add("--seed_epochs", type=float, default=12.0, help="of the seed's recipe (default: 12)")
    add("--looks", type=int, default=12, help="evaluations on the way (default: 12)")
    add("--results", type=Path, default=Path("accuracy.jsonl"), help="file of all results (default: accuracy.jsonl)")
    add("--picture", type=Path, help="draw all results on test splits to this PNG, and run nothing")
    return parser


def main() -> None:
    args = make_parser().parse_args()
    rows = _read(args.results)
    if args.picture:
        draw(rows, args.picture)
    elif args.gnt_dir is None:
        sys.exit("accuracy.py: give --gnt_dir")
    else:
        for row in _run_all(args, rows):
            rows.append(row)
            with args.results.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(json.dumps({k: v for k, v in row.items() if k != "curve"}), flush=True)
    for line in summarize(rows):
        print(line, file=sys.stderr)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _run_all(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    known = KNOWN | LEVERS | WIRE
    groups = {"levers": LEVERS, "wire": WIRE}
    names = list(groups[args.recipes]) if args.recipes in groups else args.recipes.split(",")
    held_out = [] if args.test_gnt_dir else sorted(args.gnt_dir.glob(args.hold_out))
    train = [path for path in sorted(args.gnt_dir.glob("*.gnt")) if path not in held_out]
    test = sorted(args.test_gnt_dir.glob("*.gnt")) if args.test_gnt_dir else held_out
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tfos_job-accuracy-"))
        data = load(train, test, Path(folder))
        for seed in (int(seed) for seed in args.seeds.split(",")):
            for name in names:
                epochs = args.seed_epochs if known[name]["model_name"] == SEED["model_name"] else args.epochs
                row = {
                    "data": args.data,
                    "on": "test" if args.test_gnt_dir else "held-out files",
                    "recipe": name,
                    "seed": seed,
                    "epochs": epochs,
                }
                if any(row.items() <= other.items() for other in rows):
                    continue
                yield (
                    row
                    | {"flags": known[name]}
                    | run(data, known[name], seed=seed, epochs=epochs, num_looks=args.looks)
                )


if __name__ == "__main__":
    main()
