"""Withdrawal from YARN of an application whose SparkContext did not start: YARN would still give it containers."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator

from pyspark import SparkConf, SparkContext

from tfos_job.doctor.host_memory import conf_dir
from tfos_job.doctor.resource_manager import ResourceManager
from tfos_job.host.limits import within

log = logging.getLogger(__name__)

_WITHDRAW_S = 10.0


@contextlib.contextmanager
def withdrawn(settings: dict[str, str], *, is_needed: bool) -> Iterator[None]:
    """Withdraws the application from YARN if the `with` block, which starts the SparkContext, fails.

    Its exception gets a note that has the application's queue and what that lacks.

    Args:
      settings: of the session; a tag that identifies the application is added.
      is_needed: False if there is no application to withdraw, as in local mode.
    """
    master = settings.get("spark.master") or SparkConf().get("spark.master") or ""
    if not is_needed or not master.startswith("yarn"):
        yield
        return
    tag = f"tfos_job-{uuid.uuid4().hex}"
    settings["spark.yarn.tags"] = ",".join(filter(None, [SparkConf().get("spark.yarn.tags"), tag]))
    try:
        yield
    except BaseException as error:
        explain = isinstance(error, Exception)  # a signal needs no reason
        try:
            for note in within(_WITHDRAW_S, lambda: _withdraw(tag, explain=explain), "withdraw"):
                error.add_note(note)
        except Exception as e:  # noqa: BLE001 - must not hide the error of the start
            log.warning("What waits at YARN could not be withdrawn (yarn application -list -appTags %s): %s", tag, e)
        raise


def _withdraw(tag: str, *, explain: bool) -> list[str]:
    """Kills the applications with a tag; on a thread of its own, since the main thread's JVM connection is in use.

    Returns:
      For each of them, if `explain`, where it waited and for what.
    """
    java = SparkContext._jvm
    client = java.org.apache.hadoop.yarn.client.api.YarnClient.createYarnClient()
    client.init(java.org.apache.hadoop.yarn.conf.YarnConfiguration())
    client.start()
    tags = java.java.util.HashSet()
    tags.add(tag)
    request = java.org.apache.hadoop.yarn.api.protocolrecords.GetApplicationsRequest.newInstance()
    request.setApplicationTags(tags)
    manager, notes = ResourceManager.of_conf(conf_dir()), []
    for report in client.getApplications(request):
        name = report.getApplicationId().toString()
        if explain:
            queue, state = str(report.getQueue()).rpartition(".")[2], report.getYarnApplicationState().toString()
            notes.append(manager.lack(name) or f"{name} is {state} in queue {queue}")
        log.warning("withdrawing %s", name)
        client.killApplication(report.getApplicationId())
    return notes
