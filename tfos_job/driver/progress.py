"""The progress of a training on stderr."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from tqdm import tqdm

from tfos_job.protocol import messages

log = logging.getLogger(__name__)

_LOG_EVERY_S = 10.0


class ProgressLine:
    """A bar with rate and time left on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, start_step: int, total_steps: int, batch_size: int) -> None:
        self._total = total_steps
        self._batch_size = batch_size
        self._bar = tqdm(
            total=total_steps, initial=start_step, unit="step", desc="train", file=sys.stderr, disable=None
        )
        self._last_line = time.monotonic()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def on_message(self, message: messages.ToDriver) -> None:
        match message:
            case messages.Progress():
                self._on_progress(message)
            case messages.CheckpointPublished():
                self._say(f"step {message.step}: checkpoint {message.path}")
            case messages.Evaluated():
                metrics = dict(message.metrics)
                num_examples = metrics.pop("num_examples")
                text = ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())
                self._say(f"step {message.step}: {message.split_name}: {text} ({num_examples} images)")
            case messages.Finished(bound=bound) if bound and bound.shares:
                shares = ", ".join(f"{name} {share:.1%}" for name, share in bound.shares.items())
                self._say(f"bound by {bound.by}: of {bound.step_s:.3f} s a step {shares}")

    def _on_progress(self, message: messages.Progress) -> None:
        rate = f"{message.images_per_second:.0f} images/s"
        if not self._bar.disable:
            self._bar.set_postfix_str(f"loss {message.loss:.3f}, top-1 {message.top_1:.3f}, {rate}", refresh=False)
            self._bar.update(message.step - self._bar.n)
        elif time.monotonic() - self._last_line >= _LOG_EVERY_S or message.step == self._total:
            self._last_line = time.monotonic()
            left_s = (self._total - message.step) * self._batch_size / message.images_per_second
            self._say(
                f"step {message.step} of {self._total}: loss {message.loss:.4f}, top-1 {message.top_1:.4f}, {rate}, "
                f"input wait {message.input_wait_fraction:.1%}, {left_s:.0f} s left"
            )

    def _say(self, text: str) -> None:
        if self._bar.disable:
            log.info("%s", text)
        else:
            self._bar.write(text, file=sys.stderr)
