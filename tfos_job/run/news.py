"""The news of a run, in lines: what its report says that it did not say before. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfos_job.run.quantities import duration, is_number, number, share
from tfos_job.run.summary import attempts_of


class News:
    """What is new each time that a run's report is read; the first time, where the run stands."""

    def __init__(self) -> None:
        self._num_attempts = 0
        self._checkpoint: Any = None
        self._evaluated_step: Any = None
        self._step: Any = None

    def of(self, report: Mapping[str, Any], *, with_step: bool = True) -> list[str]:
        """Returns the lines; `with_step` is False to leave the step, which is new every time, for later."""
        lines = [*self._attempt(report), *self._evaluation(report)]
        checkpoint = report.get("checkpoint")
        if checkpoint != self._checkpoint:
            self._checkpoint = checkpoint
            lines += [f"checkpoint {checkpoint}"] if checkpoint else []
        if with_step and report.get("step") != self._step:
            self._step = report.get("step")
            lines.append(progress(report))
        return lines

    def _attempt(self, report: Mapping[str, Any]) -> list[str]:
        attempts = attempts_of(report)
        if len(attempts) == self._num_attempts:
            return []
        self._num_attempts = len(attempts)
        if not attempts:
            return []
        host = f" on {attempts[-1]['host']}" if attempts[-1].get("host") else ""
        began = attempts[-1].get("start_step")
        return [f"attempt {len(attempts)}{host}, began {attempts[-1].get('started')} at step {began}"]

    def _evaluation(self, report: Mapping[str, Any]) -> list[str]:
        evaluations = [point for point in report.get("validation") or [] if isinstance(point, Mapping)]
        if not evaluations or evaluations[-1].get("step") == self._evaluated_step:
            return []
        last = evaluations[-1]
        self._evaluated_step = last.get("step")
        return [f"step {last.get('step')}: validation: {metrics(last)}"]


def progress(report: Mapping[str, Any]) -> str:
    """Step, loss, images/s and the time left, as far as they are known."""
    step, total = report.get("step"), report.get("total_steps")
    known = report.get("metrics")
    loss = known.get("train_loss") if isinstance(known, Mapping) else None
    rate, batch_size = report.get("images_per_second"), report.get("batch_size")
    parts = [f"loss {number(float(loss))}"] if is_number(loss) else []
    if is_number(loss) and is_number(rate) and rate > 0:
        parts.append(f"{number(float(rate))} images/s")
        first = _first_step(report)
        # The first step has built the graph: its rate is not the run's.
        if is_number(step) and is_number(total) and is_number(batch_size) and first < step < total:
            parts.append(f"{duration((total - step) * batch_size / rate)} left")
    return f"step {step} of {total}" + (f": {', '.join(parts)}" if parts else "")


def _first_step(report: Mapping[str, Any]) -> float:
    """The step that the last attempt made first."""
    attempts = attempts_of(report)
    began = attempts[-1].get("start_step") if attempts else 0
    return began + 1 if is_number(began) else 1


def metrics(values: Mapping[str, Any]) -> str:
    """The shares and the loss of an evaluation, in a line."""
    num_records = values.get("num_examples")
    of = int(num_records) if is_number(num_records) else None
    shares = [
        f"{name.replace('_', '-')} {share(value, of)}"
        for name, value in values.items()
        if name.startswith("top_") and is_number(value)
    ]
    loss = values.get("loss")
    return ", ".join([*shares, *([f"loss {number(float(loss))}"] if is_number(loss) else [])])
