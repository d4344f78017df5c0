"""The news of a run, in lines: what its report says that it did not say before. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfos_job.run import attempt_words
from tfos_job.run.attempts import attempts_of
from tfos_job.run.quantities import duration, is_number, number, share


class News:
    """What is new each time that a run's report is read; the first time, where the run stands."""

    def __init__(self) -> None:
        self._begun: Any = None  # the number of the last attempt that was told
        self._restarted: Any = None  # and of the last one whose end was
        self._checkpoint: Any = None
        self._evaluated_step: Any = None
        self._step: Any = None

    def of(self, report: Mapping[str, Any], *, with_step: bool = True) -> list[str]:
        """Returns the lines; `with_step` is False to leave the step, which is new every time, for later."""
        lines = [*self._attempts(report), *self._evaluation(report)]
        checkpoint = report.get("checkpoint")
        if checkpoint != self._checkpoint:
            self._checkpoint = checkpoint
            lines += [f"checkpoint {checkpoint}"] if checkpoint else []
        if with_step and report.get("step") != self._step:
            self._step = report.get("step")
            lines.append(progress(report))
        return lines

    def _attempts(self, report: Mapping[str, Any]) -> list[str]:
        """The beginning of the last attempt, and before it the end of the one that it follows."""
        attempts = attempts_of(report)
        lines = []
        for index, attempt in [*enumerate(attempts)][-2:]:
            told = attempt_words.number_of(attempt, index)
            before = attempts[index - 1] if index else {}
            if attempt is attempts[-1] and told != self._begun:
                self._begun = told
                lines.append(_beginning(told, attempt, before))
            if attempt_words.is_restarted(attempt) and told != self._restarted:
                self._restarted = told
                lines.append(f"attempt {told} {attempt_words.end(attempt)}; another one follows")
        return lines

    def _evaluation(self, report: Mapping[str, Any]) -> list[str]:
        evaluations = [point for point in report.get("validation") or [] if isinstance(point, Mapping)]
        if not evaluations or evaluations[-1].get("step") == self._evaluated_step:
            return []
        last = evaluations[-1]
        self._evaluated_step = last.get("step")
        return [f"step {last.get('step')}: validation: {metrics(last)}"]


def _beginning(told: int, attempt: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    host = f" on {attempt['host']}" if attempt.get("host") else ""
    step = attempt.get("start_step")
    if reason := attempt_words.restart_reason(before):
        return f"restarted from step {step}: attempt {told}{host}, {reason}"
    return f"attempt {told}{host}, began {attempt.get('started')} at step {step}"


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
            images = (total - step) * batch_size * report.get("push_every", 1) * report.get("replicas", 1)
            parts.append(f"{duration(images / rate)} left")
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
