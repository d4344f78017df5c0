"""The progress of a training on stderr."""

from __future__ import annotations

import logging
import time
from typing import Any

from tfos_job.host.bar import LOG_EVERY_S, Bar
from tfos_job.protocol import messages
from tfos_job.run.quantities import duration

log = logging.getLogger(__name__)


class ProgressLine:
    """A bar with rate and time left on a terminal, a line every ten seconds elsewhere.

    The first block of steps gives no rate: workers make their graphs meanwhile, which takes longer than the steps.
    """

    def __init__(self, start_step: int, total_steps: int, *, attempt: int = 1) -> None:
        """Shows nothing yet.

        Args:
          start_step: of the attempt.
          total_steps: of the run.
          attempt: its number in the run, which is shown from the second one on.
        """
        self._attempt = f"attempt {attempt}, " if attempt > 1 else ""
        self._start_step = start_step
        self._total = total_steps
        self._bar: Bar | None = None
        self._first: tuple[int, float] | None = None  # step and time of the first news
        self._last_line_s = 0.0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_message(self, message: messages.ToDriver) -> None:
        match message:
            case messages.Built():
                log.info("The network has %s. The first step takes longer than others", _trained(message))
                self._bar = Bar(f"{self._attempt}train", total=self._total, unit="step", initial=self._start_step)
            case messages.Progress():
                self._on_progress(message)
            case messages.CheckpointPublished():
                log.info("step %d: checkpoint %s; steps waited %.2f s", message.step, message.path, message.held_s)
            case messages.Evaluating() if self._is_due():
                log.info("step %d: evaluating, %d images so far", message.step, message.num_examples)
            case messages.Searching(shard=shard) if self._is_due():
                log.info("looking for the damaged record in %s", shard)
            case messages.Evaluated():
                metrics = dict(message.metrics)
                num_examples = metrics.pop("num_examples")
                text = ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())
                log.info("step %d: %s: %s (%d images)", message.step, message.split_name, text, num_examples)
            case messages.Finished(bound=bound) if bound and bound.shares:
                shares = ", ".join(f"{name} {share:.1%}" for name, share in bound.shares.items())
                log.info("bound by %s: of %.3f s a step %s", bound.by, bound.step_s, shares)

    def _on_progress(self, message: messages.Progress) -> None:
        now_s = time.monotonic()
        rate = f"{message.images_per_second:.0f} images/s"
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix_str(f"loss {message.loss:.3f}, top-1 {message.top_1:.3f}, {rate}", refresh=False)
            move = self._bar.start_clock if self._first is None else self._bar.show
            move(message.step)
        elif self._first is None or message.step == self._total or self._is_due():
            self._last_line_s = now_s
            log.info(
                "%sstep %d of %d: loss %.4f, top-1 %.4f, %s, input wait %.1f%%%s",
                self._attempt,
                message.step,
                self._total,
                message.loss,
                message.top_1,
                rate,
                100 * message.input_wait_fraction,
                self._time_left(message.step, now_s),
            )
        self._first = self._first or (message.step, now_s)

    def _time_left(self, step: int, now_s: float) -> str:
        """The end of a line, from all that has passed since the first news, evaluations included."""
        if self._first is None or step in (self._first[0], self._total):
            return ""
        first_step, first_s = self._first
        left_s = (now_s - first_s) / (step - first_step) * (self._total - step)
        return f", {duration(left_s)} left"

    def _is_due(self) -> bool:
        """True every ten seconds where there is no bar."""
        if self._bar is not None and not self._bar.disable:
            return False
        is_due = time.monotonic() - self._last_line_s >= LOG_EVERY_S
        if is_due:
            self._last_line_s = time.monotonic()
        return is_due


def _trained(built: messages.Built) -> str:
    if built.num_trained == built.num_parameters:
        return f"{built.num_parameters:,} parameters"
    return f"{built.num_parameters:,} parameters, of which {built.num_trained:,} are trained"
