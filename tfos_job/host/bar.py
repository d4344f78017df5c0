"""Progress of counted work on stderr: a bar on a terminal, a line of the log now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from tqdm import tqdm

from tfos_job.host import logs

LOG_EVERY_S = 10.0

_WITHOUT_RATE = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
_log = logging.getLogger(__name__)


class Bar(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
    """Like tqdm's, but it shows neither a rate nor the time left before there is a rate.

    Attributes:
      disable: there is no bar (`logs.shows_bars`).
    """

    def __init__(self, name: str, *, total: int, unit: str, initial: int = 0) -> None:
        self._words = f"{name}: %d of {total} {unit.strip()}s"
        self._logged_s = time.monotonic()
        self._has_logged = False
        super().__init__(
            desc=name, total=total, unit=unit, initial=initial, file=sys.stderr, disable=not logs.shows_bars()
        )

    @property
    def format_dict(self) -> dict[str, Any]:
        found = dict(super().format_dict)
        return found if self.n > self.initial else found | {"bar_format": _WITHOUT_RATE}

    def show(self, done: int) -> None:
        """So many units of the total are done. Without a bar there is a line every ten seconds, and a last one."""
        if not self.disable:
            self.update(done - self.n)
            return
        is_due = time.monotonic() - self._logged_s >= LOG_EVERY_S
        if done > self.n and (is_due or (self._has_logged and done == self.total)):
            self._logged_s, self._has_logged = time.monotonic(), True
            _log.info(self._words, done)
        self.n = done

    def start_clock(self, done: int) -> None:
        """Moves the bar, and lets its rate count from here: what came before is of another speed."""
        self.n = self.initial = self.last_print_n = done
        self.start_t = self.last_print_t = time.time()
        self.refresh()
