"""Withdrawal from YARN of an application whose SparkContext did not start: YARN would still give it containers."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator

from pyspark import SparkConf, SparkContext

from tfos_job.host.limits import within

log = logging.getLogger(__name__)

_WITHDRAW_S = 10.0


@contextlib.contextmanager
def withdrawn(settings: dict[str, str], *, is_needed: bool) -> Iterator[None]:
    """Withdraws the application from YARN if the `with` block, which starts the SparkContext, fails.

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
    except BaseException:
        try:
            within(_WITHDRAW_S, lambda: _withdraw(tag), "withdraw")
        except Exception as e:  # noqa: BLE001 - must not hide the error of the start
            log.warning("What waits at YARN could not be withdrawn (yarn application -list -appTags %s): %s", tag, e)
        raise


def _withdraw(tag: str) -> None:
    """Kills the applications with a tag; on a thread of its own, since the main thread's JVM connection is in use."""
    java = SparkContext._jvm
    client = java.org.apache.hadoop.yarn.client.api.YarnClient.createYarnClient()
    client.init(java.org.apache.hadoop.yarn.conf.YarnConfiguration())
    client.start()
    tags = java.java.util.HashSet()
    tags.add(tag)
    request = java.org.apache.hadoop.yarn.api.protocolrecords.GetApplicationsRequest.newInstance()
    request.setApplicationTags(tags)
    for report in client.getApplications(request):
        log.warning("withdrawing %s", report.getApplicationId().toString())
        client.killApplication(report.getApplicationId())
