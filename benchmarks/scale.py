r"""Predicts images/s and the load of the links for 1 to 64 workers and 1 to 8 parameter servers, by one step's figures.

    python benchmarks/scale.py --network chinese_rec --batch_size 32 --compute_ms 40 --link_gbit 10
    python benchmarks/scale.py --network hanzi_net --compute_ms 12 --link_gbit 1 --wire_dtype bfloat16 --push_every 4
    python benchmarks/scale.py --check wire.jsonl     how far predictions are from lines that benchmarks/wire.py printed

`--compute_ms` is one batch on one worker, forward and backward: `compute_s` in a run's report.json, there for all of
`--push_every`. The model is that of steps/scaling.py. Nothing is measured: it needs no rights, cluster or TensorFlow.

`--check` takes the figures of a network's step from the lines with one worker, one parameter server and no limit of the
links, one that computes and one that does not. It predicts all other lines of the same network, batch size and type on
the wire. These print what it needs, as root on a quiet machine in about ten minutes:

    python benchmarks/wire.py --batch_sizes 32 --rounds 2 --block_s 4 --networks hanzi_net --gbit 0.3 1 off \
        -- --num_ps_tasks 1 --num_executors 2 -- --num_ps_tasks 1 --num_executors 5 \
        -- --num_ps_tasks 2 --num_executors 6 -- --num_ps_tasks 0 --num_executors 2
    python benchmarks/wire.py --batch_sizes 32 --rounds 2 --block_s 4 --networks chinese_rec --gbit 1 off \
        -- --num_ps_tasks 1 --num_executors 2 -- --num_ps_tasks 2 --num_executors 4 \
        -- --num_ps_tasks 0 --num_executors 2

Tables and sentences go to stderr; the last line of stdout is one JSON object. benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tfos_job

from steps.cases import Case
from steps.figures import SERVER_CPU_SHARE, server_bytes, software_seconds, variables_of
from steps.scaling import ALL_REDUCE, PAYING_GAIN, Hosts, Prediction, Step, all_reduce, parameter_server, pays_up_to

from tfos_job.config import TrainConfig
from tfos_job.config.defaults import (
    BFLOAT16,
    DEFAULT_CHARSET_SIZE,
    DEFAULT_IMAGE_SIZE,
    FLOAT32,
    NETWORKS,
    PARTITIONED,
    PS_PLACEMENTS,
    WIRE_BYTES,
)
from tfos_job.errors import BadDataError, JobError, MissingInputError

Number = TypeVar("Number", int, float)
NUM_WORKERS = [1, 2, 4, 8, 16, 32, 64]
NUM_PS_TASKS = [1, 2, 4, 8]


# --- predictions ------------------------------------------------------------------------------------------------------


def predicted(args: argparse.Namespace) -> Iterator[tuple[int, Prediction]]:
    """Each number of servers, 0 for an all-reduce, with the prediction for each number of workers."""
    variables = variables_of(args.network, args.image_size, args.num_classes, args.wire_dtype)
    software_s = software_seconds(variables) if args.software_ms is None else args.software_ms / 1e3
    there = Hosts(link_gbit=args.link_gbit, server_cores=args.server_cores)
    for num_ps_tasks in [*NUM_PS_TASKS, 0]:
        step = Step(
            images=args.batch_size * args.push_every,
            num_batches=args.push_every,
            compute_s=args.compute_ms / 1e3 * args.push_every,
            server_bytes=server_bytes(variables, num_ps_tasks or 1, args.ps_placement),
            software_s=software_s,
            server_cpu_s=SERVER_CPU_SHARE * software_s,
        )
        if num_ps_tasks:
            every = parameter_server(step, there, max(NUM_WORKERS))
            yield from ((num_ps_tasks, every[number - 1]) for number in NUM_WORKERS)
        else:
            yield from ((0, all_reduce(step, there, number)) for number in NUM_WORKERS)


def predict(args: argparse.Namespace) -> dict[str, Any]:
    """The predictions, which are also said in a table and a sentence for each number of servers."""
    perfect = args.batch_size / args.compute_ms * 1e3  # images/s of a worker that computes and does nothing else
    rows: dict[int, list[Prediction]] = {}
    for num_ps_tasks, prediction in predicted(args):
        rows.setdefault(num_ps_tasks, []).append(prediction)
    say(f"{'':12}{'workers':>8}{'images/s':>10}{'of perfect':>12}{'Gbit/s':>8}  bottleneck")
    answers = {}
    for num_ps_tasks, found in rows.items():
        name = f"{num_ps_tasks} PS" if num_ps_tasks else ALL_REDUCE
        for each in found:
            share = each.images_per_s / each.num_workers / perfect
            say(
                f"{name:12}{each.num_workers:8}{each.images_per_s:10,.0f}{share:12.0%}{each.busiest_gbit:8.2f}"
                f"  {each.bottleneck}"
            )
        answers[name] = pays_up_to({each.num_workers: each.images_per_s for each in found})
    said = ", ".join(
        f"{count}{' or more' if count == max(NUM_WORKERS) else ''} with {name}" for name, count in answers.items()
    )
    say(f"More workers pay up to {said}: twice as many of them train less than {PAYING_GAIN:g} times as many images/s.")
    given = {name: value for name, value in vars(args).items() if name != "check"}
    return {
        "benchmark": "scale",
        **given,
        "pays_up_to": answers,
        "rows": [
            {"num_ps_tasks": num_ps_tasks, **_rounded(each)} for num_ps_tasks, found in rows.items() for each in found
        ],
    }


def _rounded(prediction: Prediction) -> dict[str, Any]:
    values = dataclasses.asdict(prediction)
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in values.items()}


# --- check ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of wire.py, and the flags that it was measured with."""

    line: dict[str, Any]
    config: TrainConfig

    @property
    def kind(self) -> tuple[str, int, str, int]:
        """What lines share that are steps of the same kind, whether or not they compute."""
        return self.line["network"], self.config.batch_size, self.config.wire_dtype, self.config.push_every

    @property
    def is_figure(self) -> bool:
        """The figures of a step may be taken from it."""
        return self.line["gbit"] is None and (self.config.num_workers, self.config.num_ps_tasks) == (1, 1)

    def __str__(self) -> str:
        doing = "computing" if self.line["computes"] else "wire alone"
        gbit = "no limit" if self.line["gbit"] is None else f"{self.line['gbit']:g} Gbit/s"
        tasks = f"{self.config.num_workers} workers, {self.config.num_ps_tasks} PS"
        return f"{self.line['network']:12} {doing:11} batch {self.config.batch_size:<4} {gbit:11} {tasks}"


def read_rows(path: Path) -> list[Row]:
    """Raises:
    MissingInputError, BadDataError: there is no such file, or it has other lines.
    """
    rows: list[Row] = []
    try:
        for text in path.read_text("utf-8").splitlines():
            line = json.loads(text)
            flags = tuple(line["flags"].split())
            if "--wire_dtype" not in flags:  # of lines that do not name it the default was another one
                flags += ("--wire_dtype", line.get("wire_dtype", FLOAT32))
            case = Case(line["network"], line["computes"], line["batch_size"], flags)
            rows.append(Row(line, case.config(path.parent)))
    except OSError as error:
        raise MissingInputError(f"it cannot be read ({error})", place=str(path)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataError(f"line {len(rows) + 1} is none of wire.py's ({error!r})", place=str(path)) from error
    return rows


def checked(rows: Sequence[Row], num_classes: int) -> Iterator[tuple[Row, float]]:
    """Each line that is no figure, with the milliseconds that are predicted for a worker's step."""
    figures = {(row.kind, row.line["computes"]): row.line for row in rows if row.is_figure and "cpu_ms" in row.line}
    for row in rows:
        alone, whole = figures.get((row.kind, False)), figures.get((row.kind, row.line["computes"]))
        if row.is_figure or alone is None or whole is None:
            continue
        config, gbit = row.config, row.line["gbit"]
        side = config.image_size or DEFAULT_IMAGE_SIZE
        variables = variables_of(row.line["network"], side, num_classes, config.wire_dtype)
        step = Step(
            images=config.batch_size * config.push_every,
            num_batches=config.push_every,
            compute_s=max(whole["cluster_ms"] - alone["cluster_ms"], 0) / 1e3,
            server_bytes=server_bytes(variables, config.num_ps_tasks or 1, config.ps_placement),
            software_s=alone["cluster_ms"] / 1e3,
            cpu_s=whole["cpu_ms"] / 1e3,
        )
        there = Hosts(link_gbit=math.inf if gbit is None else gbit, shared_cores=row.line["cores"])
        block_steps = row.line["block_steps"] / config.num_workers
        if config.num_ps_tasks:
            found = parameter_server(step, there, config.num_workers, block_steps)[-1]
        else:
            found = all_reduce(step, there, config.num_workers)
        yield row, found.step_s * 1e3


def check(args: argparse.Namespace) -> dict[str, Any]:
    """The errors of the predictions, also said line by line."""
    rows = [row for path in args.check for row in read_rows(path) if row.config.batch_size == args.batch_size]
    found = [
        {
            "row": str(row),
            "num_workers": row.config.num_workers,
            "measured_ms": row.line["cluster_ms"],
            "predicted_ms": round(predicted_ms, 1),
        }
        for row, predicted_ms in checked(rows, args.num_classes)
    ]
    if not found:
        raise BadDataError(
            "nothing can be predicted: a step's figures are missing",
            place=", ".join(map(str, args.check)),
            next_step="It needs lines of one worker and one server without a limit, and others",
        )
    for each in found:
        each["error"] = round(each["predicted_ms"] / each["measured_ms"] - 1, 3)
        say(f"{each['row']:78}{each['measured_ms']:9.1f} ms{each['predicted_ms']:9.1f} predicted{each['error']:+8.1%}")
    errors = [abs(each["error"]) for each in found]
    median, worst = statistics.median(errors), max(errors)
    say(f"{len(found)} predicted: median error {median:.1%}, worst {worst:.1%}")
    crowded = [abs(each["error"]) for each in found if each["num_workers"] > 1]
    if crowded:
        say(f"{len(crowded)} of them with several workers: median error {statistics.median(crowded):.1%}")
    return {"benchmark": "scale", "median_error": round(median, 3), "worst_error": worst, "rows": found}


def say(text: str) -> None:
    print(text, file=sys.stderr)


def parse_args(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="+", type=Path, metavar="FILE", help="lines of wire.py to compare with")
    parser.add_argument(
        "--network", choices=list(NETWORKS), default="chinese_rec", help="its variables travel; %(default)s"
    )
    parser.add_argument(
        "--batch_size", type=_positive(int), default=32, help="images of a batch; which lines to check; %(default)s"
    )
    parser.add_argument(
        "--compute_ms", type=_positive(float), help="a batch's passes on one worker; required without --check"
    )
    parser.add_argument(
        "--link_gbit",
        type=_positive(float),
        default=10.0,
        help="Gbit/s of each host's link, each direction; %(default)s",
    )
    parser.add_argument("--wire_dtype", choices=list(WIRE_BYTES), default=BFLOAT16, help="as of train")
    parser.add_argument("--push_every", type=_positive(int), default=1, help="as of train")
    parser.add_argument("--ps_placement", choices=PS_PLACEMENTS, default=PARTITIONED, help="as of train")
    parser.add_argument("--num_classes", type=_positive(int), default=DEFAULT_CHARSET_SIZE, help="%(default)s")
    parser.add_argument("--image_size", type=_positive(int), help="as of train (default: what the network is made for)")
    parser.add_argument(
        "--server_cores", type=_positive(float), default=8, help="of each parameter server's host; %(default)s"
    )
    parser.add_argument(
        "--software_ms", type=_positive(float), help="reading and updating without a limit (default: by the variables)"
    )
    args = parser.parse_args(words)
    args.image_size = args.image_size or NETWORKS[args.network]
    if not args.check and args.compute_ms is None:
        parser.error("--compute_ms is needed")
    return args


def _positive(kind: type[Number]) -> Callable[[str], Number]:
    def parse(word: str) -> Number:
        if not 0 < (value := kind(word)) < math.inf:
            raise argparse.ArgumentTypeError(f"{word} is not above 0")
        return value

    return parse


def main() -> int:
    args = parse_args(sys.argv[1:])
    try:
        found = check(args) if args.check else predict(args)
    except JobError as error:
        print(f"scale: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
