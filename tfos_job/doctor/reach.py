"""Checks of connections: between the processes, and to the file system with its clock and its tokens."""

from __future__ import annotations

from collections import defaultdict

from tfos_job.doctor.case import Case, by_fact
from tfos_job.doctor.diagnosis import NOT_TRIED, OK, WARNING, Check, failed, name_some
from tfos_job.doctor.tokens import Token
from tfos_job.errors import ResourceError, SettingsError, exit_code_class

CLOCK_WARNING_S, CLOCK_FAILURE_S = 2.0, 60.0  # Kerberos rejects an offset above 300 s
SLOW_STORAGE_S = 10.0
RENEWAL_HOURS = 24.0  # lifetime of a token without renewal, by HDFS's default


def check_executors(case: Case) -> list[Check]:
    wanted, cluster = case.expected.num_executors, case.cluster
    here = name_some([result.name for result in case.executors])
    if not cluster.spark_version:
        return []  # Spark has not started; `problems` has the reason
    if cluster.num_slots is not None and cluster.num_slots < wanted:
        return [
            failed(
                "executors",
                SettingsError,
                f"{cluster.num_slots} slot{'s' if cluster.num_slots != 1 else ''} for {wanted} nodes",
                where=[f"--master {cluster.master}"],
                next_step="Give a --master with more, or fewer --num_executors",
            )
        ]
    if cluster.missing:
        return [
            failed(
                "executors",
                ResourceError,
                cluster.missing,
                next_step="Check what the queue or the cluster has free, or give fewer --num_executors",
            )
        ]
    if len(case.executors) < min(wanted, cluster.num_registered):
        return [
            failed(
                "executors",
                ResourceError,
                f"{cluster.num_registered} came, {len(case.executors)} answered" + (f": {here}" if here else ""),
                next_step="Look into the logs of the others",
            )
        ]
    if cluster.in_driver:
        return [Check(name="executors", state=OK, fact=f"{wanted} nodes in the driver's JVM, {cluster.master}")]
    return [Check(name="executors", state=OK, fact=f"{cluster.num_registered} for {wanted} nodes: {here}")]


def check_network(case: Case) -> list[Check]:
    checks = by_fact(
        case.executors,
        lambda result: result.driver_error and f"cannot reach the driver at {result.driver_error}",
        lambda fact, where: failed(
            "network",
            ResourceError,
            fact,
            where=where,
            next_step="Let the firewall pass the ports of --port_range to the driver's host, or set spark.driver.host",
        ),
    )
    asked = [result for result in case.executors if result.clock_offset_s is not None]
    if checks or not asked:
        return checks
    return [Check(name="network", state=OK, fact=f"the driver can be reached from {len(asked)} of {len(asked)}")]


def check_clock(case: Case) -> list[Check]:
    offsets = [(s.name, "the driver's", s.clock_offset_s) for s in case.executors if s.clock_offset_s is not None]
    for result in case.all:
        if result.trial and result.trial.clock_offset_s is not None:
            offsets.append((result.name, "the file system's", -result.trial.clock_offset_s))
    if not offsets:
        return [Check(name="clock", state=NOT_TRIED, fact="there was no other clock to compare with")]
    checks = []
    for name, other, offset_s in offsets:
        if abs(offset_s) <= CLOCK_WARNING_S:
            continue
        fact = f"{abs(offset_s):.1f} s {'ahead of' if offset_s > 0 else 'behind'} {other} clock"
        step = "Let NTP set the clock of this host"
        if abs(offset_s) > CLOCK_FAILURE_S:
            checks.append(failed("clock", SettingsError, fact, where=[name], next_step=step))
        else:
            checks.append(Check(name="clock", state=WARNING, fact=fact, where=(name,), next_step=step))
    worst_s = max(abs(offset_s) for _, _, offset_s in offsets)
    return checks or [Check(name="clock", state=OK, fact=f"at most {worst_s:.2f} s apart")]


def check_storage(case: Case) -> list[Check]:
    trials = [(result, result.trial) for result in case.all if result.trial]
    if not trials:
        if any(check.name == "storage" for check in case.cluster.problems):
            return []
        return [Check(name="storage", state=NOT_TRIED, fact="neither --train_dir nor --dataset_dir is given")]
    causes = {trial.error: trial for _, trial in trials}
    checks = by_fact(
        [result for result, _ in trials],
        lambda result: result.trial.error if result.trial else "",
        lambda fact, where: failed(
            "storage",
            exit_code_class(causes[fact].exit_code),
            fact,
            where=where,
            next_step=causes[fact].next_step,
        ),
    )
    if checks:
        return checks
    slowest, trial = max(trials, key=lambda pair: pair[1].seconds)
    state = WARNING if trial.seconds > SLOW_STORAGE_S else OK
    fact = f"{trial.place}: {len(trials)} processes wrote, renamed and read back; the slowest in {trial.seconds:.2f} s"
    return [Check(name="storage", state=state, fact=fact, where=(slowest.name,) if state == WARNING else ())]


def check_tokens(case: Case) -> list[Check]:
    checks = by_fact(
        case.all,
        lambda result: result.tokens_error,
        lambda fact, where: failed("tokens", SettingsError, fact, where=where),
    )
    lives: list[float] = []
    too_short: dict[str, list[str]] = defaultdict(list)
    unrenewed: dict[str, list[str]] = defaultdict(list)
    hours = case.expected.expected_hours
    for result in case.all:
        for token in result.tokens:
            if token.max_date_s is None:
                continue
            life_h = (token.max_date_s - result.time_s) / 3600
            lives.append(life_h)
            if life_h < hours:
                too_short[_describe(token, life_h)].append(result.name)
            elif not token.renewer and hours > RENEWAL_HOURS:
                unrenewed[_describe(token, life_h)].append(result.name)
    step = "Submit with --principal and --keytab, so that Spark gets new ones, or fetch a new one"
    for what, where in too_short.items():
        fact = f"{what}, and the job runs for {hours:g}"
        checks.append(failed("tokens", SettingsError, fact, where=where, next_step=step))
    for what, where in unrenewed.items():
        fact = f"{what}, but names no renewer, without which HDFS ends it {RENEWAL_HOURS:g} hours after it was issued"
        checks.append(Check(name="tokens", state=WARNING, fact=fact, where=tuple(where), next_step=step))
    if checks:
        return checks
    if not lives:
        return [Check(name="tokens", state=OK, fact="no process has delegation tokens that end")]
    return [Check(name="tokens", state=OK, fact=f"they live for {min(lives):.1f} hours or more")]


def _describe(token: Token, life_h: float) -> str:
    life = f"lives for {life_h:.1f} hours more" if life_h > 0 else f"ended {-life_h:.1f} hours ago"
    return f"{token.kind} for {token.service or 'an unnamed service'} {life}"
