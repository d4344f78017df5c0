"""YARN's ResourceManager, asked by its REST: its nodes, and what a queue lacks. Best effort, within seconds.

With Kerberos, or where it does not answer, there is no answer: nothing of a job depends on one.
"""

from __future__ import annotations

import functools
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfos_job import hadoop_conf
from tfos_job.doctor import yarn_queue
from tfos_job.errors import JobError
from tfos_job.host.limits import within

log = logging.getLogger(__name__)

_LIMIT_S = 3.0
_MOST_BYTES = 16 << 20
_PREFIX = "yarn.resourcemanager"
_PORTS = {"http": 8088, "https": 8090}


def addresses(settings: Mapping[str, str]) -> list[str]:
    """The URLs of the ResourceManagers' web applications by Hadoop's settings; with HA there are several. Pure."""
    scheme = "https" if settings.get("yarn.http.policy") == "HTTPS_ONLY" else "http"
    key = f"{_PREFIX}.webapp.{'https.' if scheme == 'https' else ''}address"
    ids = [""]
    if settings.get(f"{_PREFIX}.ha.enabled") == "true":
        ids = [f".{each.strip()}" for each in settings.get(f"{_PREFIX}.ha.rm-ids", "").split(",") if each.strip()]
    found = []
    for suffix in ids:
        host = settings.get(f"{_PREFIX}.hostname{suffix}")
        address = settings.get(key + suffix) or (f"{host}:{_PORTS[scheme]}" if host else "")
        if address and "${" not in address:
            found.append(f"{scheme}://{address}")
    return found


class ResourceManager:
    """The ResourceManagers of a cluster. No method raises or takes more than some seconds."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls

    @staticmethod
    def of_conf(folder: str | Path | None) -> ResourceManager:
        """The ones that a folder with Hadoop's configuration names; none without a folder or if it is damaged."""
        if folder is None:
            return ResourceManager([])
        try:
            settings = hadoop_conf.read_settings(Path(folder, "core-site.xml"), Path(folder, "yarn-site.xml"))
        except JobError as e:
            log.debug("no address of the ResourceManager: %s", e)
            return ResourceManager([])
        return ResourceManager(addresses(settings))

    def running_hosts(self) -> frozenset[str] | None:
        """The hosts whose NodeManagers run, by YARN's names; None if it does not answer."""
        answer = self._ask("nodes")
        try:
            return None if answer is None else yarn_queue.running_hosts(answer[0])
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            log.debug("the ResourceManager's nodes cannot be understood: %r", e)
            return None

    def lack(self, application: str) -> str:
        """What the application waits for and its queue lacks (`yarn_queue.lack`); empty if that is not known."""
        answer = self._ask(f"apps/{application}", "scheduler", "nodes")
        try:
            return "" if answer is None else yarn_queue.lack(*answer)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            log.debug("the ResourceManager's account of the queue cannot be understood: %r", e)
            return ""

    def _ask(self, *paths: str) -> list[Any] | None:
        """The documents of these paths from the first ResourceManager that has them all; None if there is none."""
        for url in self._urls:
            try:
                return within(_LIMIT_S / len(self._urls), functools.partial(_get_all, url, paths), "resource manager")
            except (OSError, ValueError) as e:  # with HTTP's errors, TimeoutError, and no JSON
                log.debug("%s: %s", url, e)
                if isinstance(e, urllib.error.HTTPError):
                    e.close()
        return None


def _get_all(url: str, paths: Sequence[str]) -> list[Any]:
    # A proxy of the shell's is for the world outside.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    documents = []
    for path in paths:
        request = urllib.request.Request(f"{url}/ws/v1/cluster/{path}", headers={"Accept": "application/json"})
        with opener.open(request, timeout=_LIMIT_S) as answer:
            documents.append(json.loads(answer.read(_MOST_BYTES)))
    return documents
