"""The loop around attempts: ends in, which attempts begin, with what, and how the command ends. Nothing is started."""

from __future__ import annotations

import dataclasses
import signal
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest

from tests.unit.dataset import config, data, folder
from tfos_job.driver import cluster_run
from tfos_job.driver.restarts import Held, Launch, Restarts
from tfos_job.driver.scheduler_backend import Executor
from tfos_job.driver.stop_signal import StopSignal
from tfos_job.errors import (
    BadDataError,
    BusyError,
    InterruptedJobError,
    JobError,
    NodeDiedError,
    ResourceError,
    StorageError,
)
from tfos_job.protocol import failures
from tfos_job.protocol.attempt_end import AttemptEnd, NodeRecord
from tfos_job.protocol.failures import Failure, Kind, Process, Reason
from tfos_job.protocol.messages import Finished
from tfos_job.protocol.restart_policy import COOLDOWN_S, RestartPolicy
from tfos_job.protocol.topology import CHIEF, PS, WORKER, Task, Topology
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.run.preparation import Preparation, resumed
from tfos_job.run.start import Start

FINISHED = Finished(20, False, 1.0, 32, [32])
NODES = {"ps": Task(PS, 0), "worker": Task(WORKER, 0), "chief": Task(CHIEF, 0)}


def prepared(**flags: Any) -> Preparation:
    """One parameter server and two workers, unless flags say otherwise."""
    settings = config(**flags)
    start = Start(checkpoint=None, step=0, positions=(0,) * settings.num_workers, records=None)
    return Preparation(config=settings, folder=folder(), data=data(settings), changes=[], is_built=True, start=start)


def checkpoint(step: int) -> CheckpointInfo:
    made = data()
    document = {
        "step": step,
        "model": dataclasses.asdict(made.model),
        "charset_digest": made.charset.digest,
        "dataset_digest": made.train.manifest.digest,
        "input_position": {"records_read": [step, step], "order": made.order},
    }
    return CheckpointInfo(f"/run/checkpoints/step-{step:08d}", document)


def killed(name: str = "worker", host: str = "a", **other: Any) -> Failure:
    process = Process(NODES[name], host, container=f"container_{host}", on_driver_host=name == "chief")
    return Failure(Kind.KILLED, "was killed by SIGKILL", process=process, **other)


def silent(host: str) -> Failure:
    return killed(host=host, reason=Reason.SILENT)


class Clock:
    """Goes on when somebody sleeps; then `on_sleep` is called."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.on_sleep: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.on_sleep()


class Job:
    """A training whose attempts end as they are told; what it does is in `done`, in order."""

    def __init__(self, *ends: Failure | JobError | Finished, executors: Cluster | None = None, **flags: Any) -> None:
        self.done: list[Any] = []
        self.launches: list[Launch] = []
        self.ends = list(ends)
        self.newest: CheckpointInfo | JobError | None = None
        self.clock = Clock()
        self.stop = StopSignal()
        self.loss: BusyError | None = None
        self.gone = ""
        self.during: Callable[[str], None] = lambda _: None
        self.first = Launch(number=1, prepared=prepared(**flags))
        settings = self.first.prepared.config
        held: Any = Held(stop=self.stop, lease=self)  # type: ignore[arg-type]
        report: Any = self
        self.restarts = Restarts(
            self,
            policy=RestartPolicy(
                max_restarts=settings.max_restarts, max_preemptions=settings.max_preemptions, random=lambda: 1.0
            ),
            report=report,
            held=held,
            executors=executors or Cluster(),  # type: ignore[arg-type]
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def begin_all(self) -> Finished | None:
        return self.restarts.run(self.first)

    # The trainer.

    def topology(self, prepared: Preparation) -> Topology:
        return Topology(prepared.config.num_ps_tasks, prepared.config.num_workers)

    def run(self, launch: Launch) -> AttemptEnd:
        self.done.append(f"attempt {launch.number}")
        self.launches.append(launch)
        self.during("attempt")
        how = self.ends.pop(0)
        first = how if isinstance(how, Failure) else None
        start = launch.prepared.start
        newest = self.newest.step if isinstance(self.newest, CheckpointInfo) else None
        return AttemptEnd(
            number=launch.number,
            outcome=failures.to_error([how]) if isinstance(how, Failure) else how,
            phase="training",
            first=first,
            start_step=start.step,
            step=start.step + 1,
            checkpoint_step=newest,
            nodes=tuple(
                NodeRecord(process=Process(Task(WORKER, i), host, f"container_{host}")) for i, host in enumerate("abc")
            ),
        )

    def why_spark_is_gone(self) -> str:
        return self.gone

    def resume(self, prepared: Preparation, number: int, num_executors: int) -> Preparation:
        self.done.append(f"take over for {number}")
        self.during("resume")
        if isinstance(self.newest, JobError):
            raise self.newest
        return resumed(prepared, self.newest, num_executors)

    # The lease.

    def check_quickly(self) -> None:
        if self.loss is not None:
            raise self.loss

    # The report.

    def begin(self, *, number: int, start_step: int, checkpoint: str | None, records: Mapping[str, int] | None) -> None:
        self.done.append(f"begin {number} at {start_step}")

    def end_attempt(
        self, end: AttemptEnd, decision: str, *, excluded: Mapping[str, str] | None = None, gave_up: bool = False
    ) -> None:
        left_out = f", without {', '.join(excluded)}" if excluded else ""
        self.done.append(f"end {end.number}: {decision}{left_out}{', given up' if gave_up else ''}")

    def on_phase(self, name: str) -> None:
        self.done.append(name)
        self.during(name)


class Cluster:
    """Executors on hosts; `come` is how many there are when they are waited for.

    Host `a` of the nodes is `a.example` to Spark, and so on.
    """

    def __init__(self, *hosts: str, come: int | ResourceError = 3) -> None:
        self.known = set(hosts)
        self.come = come
        self.left_out: dict[str, float] = {}
        self.replaced: list[tuple[str, ...]] = []
        self.asked: list[tuple[int, int, float]] = []

    def hosts(self) -> set[str]:
        return {each.host for each in self.there()}

    def there(self) -> tuple[Executor, ...]:
        hosts = enumerate(sorted(self.known))
        return tuple(Executor(id=str(i), host=f"{host}.example", container=f"container_{host}") for i, host in hosts)

    def avoid(self, hosts: Mapping[str, float]) -> None:
        self.left_out = dict(hosts)

    def replace(self, *, containers: Collection[str] = ()) -> None:
        self.replaced.append(tuple(containers))

    def wait(self, num: int, least: int, deadline_s: float, on_wait: Callable[[], None]) -> int:
        self.asked.append((num, least, deadline_s))
        on_wait()
        if isinstance(self.come, ResourceError):
            raise self.come
        return self.come


def test_each_death_is_followed_by_an_attempt_from_the_newest_checkpoint() -> None:
    job = Job(killed("worker"), killed("ps"), killed("chief"), FINISHED)
    steps = iter((3, 7, 7))

    def publish(when: str) -> None:
        if when == "resume":
            job.newest = checkpoint(next(steps))

    job.during = publish
    assert job.begin_all() == FINISHED
    assert [(launch.number, launch.prepared.start.step) for launch in job.launches] == [(1, 0), (2, 3), (3, 7), (4, 7)]
    assert job.launches[3].prepared.start.positions == (7, 7)
    assert job.done == [
        "attempt 1",
        "end 1: restarted after 0.0 s: restart 1 of 3 without a newer checkpoint (--max_restarts)",
        "backoff", "containers", "take over for 2", "begin 2 at 3", "attempt 2",
        "end 2: restarted after 0.0 s: restart 1 of 3 without a newer checkpoint (--max_restarts)",
        "backoff", "containers", "take over for 3", "begin 3 at 7", "attempt 3",
        "end 3: restarted after 0.0 s: restart 1 of 3 without a newer checkpoint (--max_restarts)",
        "backoff", "containers", "take over for 4", "begin 4 at 7", "attempt 4",
        "end 4: ended: all is done",
    ]  # fmt: skip


def test_an_attempt_without_a_checkpoint_begins_anew() -> None:
    job = Job(killed(), FINISHED)
    job.begin_all()
    assert job.launches[1].prepared.start == Start(
        checkpoint=None, step=0, positions=(0, 0), records={"seen_twice": 0, "skipped": 0}
    )


@pytest.mark.parametrize(
    ("how", "kind", "flags", "words"),
    [
        (killed(), NodeDiedError, {"max_restarts": 0}, "--max_restarts 0"),
        (BadDataError("a damaged shard"), BadDataError, {}, "an end with exit code 65 is not retried"),
        (BusyError("lost its lock"), BusyError, {}, "an end with exit code 75 is not retried"),
        (InterruptedJobError("stopped", signum=15), InterruptedJobError, {}, "exit code 143 is not retried"),
    ],
)
def test_what_is_not_retried_ends_the_job_as_the_attempt_has_ended(
    how: Any, kind: type[JobError], flags: dict[str, Any], words: str
) -> None:
    job = Job(how, **flags)
    with pytest.raises(kind) as caught:
        job.begin_all()
    expected = failures.to_error([how]) if isinstance(how, Failure) else how
    assert (str(caught.value), caught.value.exit_code) == (str(expected), expected.exit_code)
    assert job.done[0] == "attempt 1"
    assert job.done[1].startswith("end 1: ended: ")
    assert words in job.done[1]
    assert len(job.done) == 2


@pytest.mark.parametrize("when", ["attempt", "backoff", "sleep", "containers", "resume"])
@pytest.mark.parametrize("what", ["signal", "lock"])
def test_nothing_begins_after_a_signal_or_the_loss_of_the_lock(when: str, what: str) -> None:
    job = Job(killed("worker"), killed("ps"))
    num_seen = 0

    def come() -> None:
        if what == "signal":
            job.stop.signum = signal.SIGTERM
        else:
            job.loss = BusyError("tfos-job train lost its lock")

    def watch(now: str) -> None:
        nonlocal num_seen
        num_seen += now == when
        if num_seen == 2:  # the second restart, which waits
            come()

    job.during = watch
    if when == "sleep":
        job.clock.on_sleep = come
    with pytest.raises(InterruptedJobError if what == "signal" else NodeDiedError) as caught:
        job.begin_all()
    assert caught.value.exit_code == (143 if what == "signal" else 71)
    assert "ps:0 on host a, container container_a: was killed by SIGKILL" in str(caught.value)
    if what == "lock":
        assert "(then tfos-job train lost its lock)" in caught.value.fact
    assert [launch.number for launch in job.launches] == [1, 2]
    assert "begin 3 at 0" not in job.done


@pytest.mark.parametrize(
    ("how", "fact"),
    [
        (killed(), "was killed by SIGKILL (then Spark's JVM has ended)"),
        (Failure(Kind.SPARK, "Spark's JVM has ended"), "Spark's JVM has ended"),
    ],
)
def test_nothing_begins_without_spark(how: Failure, fact: str) -> None:
    job = Job(how)
    job.gone = "Spark's JVM has ended"
    with pytest.raises(NodeDiedError) as caught:
        job.begin_all()
    assert caught.value.fact == fact
    assert job.done == ["attempt 1", "end 1: ended: Spark's JVM has ended"]


def test_later_restarts_wait() -> None:
    job = Job(killed("worker"), killed("ps"), FINISHED)
    began_s = job.clock.now_s
    job.begin_all()
    assert job.clock.now_s - began_s == pytest.approx(4.0)
    assert "end 2: restarted after 4.0 s: restart 2 of 3 without a newer checkpoint (--max_restarts)" in job.done


@pytest.mark.parametrize("error", [BadDataError("none of the 2 checkpoints verifies"), StorageError("no NameNode")])
def test_a_run_without_a_checkpoint_that_verifies_ends_and_says_what_began_it(error: JobError) -> None:
    job = Job(killed())
    job.newest = error
    with pytest.raises(type(error)) as caught:
        job.begin_all()
    assert caught.value.fact == f"{error.fact}; attempt 1 had ended: worker:0 on host a, container container_a: " + (
        "was killed by SIGKILL"
    )
    assert len(job.launches) == 1


def test_steps_that_are_all_done_are_not_begun_again() -> None:
    """The coordinator has died after the last checkpoint, before its last word."""
    job = Job(killed("chief"))
    job.newest = checkpoint(20)
    assert job.begin_all() is None
    assert job.done[-1] == "begin 2 at 20"


def test_a_host_that_was_cut_off_is_left_out_and_its_executors_are_replaced() -> None:
    cluster = Cluster("a", "b", "c", come=3)
    job = Job(silent("b"), FINISHED, executors=cluster)
    job.begin_all()
    assert cluster.left_out == {"b.example": COOLDOWN_S}
    assert cluster.replaced == [("container_b",)]
    assert cluster.asked == [(3, 3, 600.0)]
    assert job.launches[1].avoided_hosts == {"b"}
    assert [launch.executor_hosts for launch in job.launches] == [(), ("a", "b", "c")]
    assert job.done[1].endswith(", without b")


@pytest.mark.parametrize(("waited_s", "avoided"), [(10.0, {"b"}), (60.0, set())])
def test_a_host_is_taken_back_before_the_wait_for_others_ends(waited_s: float, avoided: set[str]) -> None:
    """Where nobody else has room, a doubtful host is better than none."""
    cluster = Cluster("a", "b", "c")
    job = Job(silent("b"), FINISHED, executors=cluster, deadlines="containers=100")
    job.during = lambda when: job.clock.sleep(waited_s if when == "resume" else 0)
    job.begin_all()
    assert cluster.left_out == {"b.example": 50.0}
    assert job.launches[1].avoided_hosts == avoided


def test_a_host_that_spark_cannot_leave_out_is_not_refused_either() -> None:
    """Outside of YARN nothing tells that Spark's `b.example` is the host that calls from `b`."""

    class Unnamed(Cluster):
        def there(self) -> tuple[Executor, ...]:
            return tuple(dataclasses.replace(each, container="") for each in super().there())

    job = Job(silent("b"), FINISHED, executors=Unnamed("a", "b", "c"))
    job.begin_all()
    assert job.launches[1].avoided_hosts == frozenset()


def test_a_host_without_executors_still_counts_as_one_of_the_application() -> None:
    cluster = Cluster("a", "b", "c")
    job = Job(silent("b"), silent("c"), FINISHED, executors=cluster)

    def lose(when: str) -> None:
        if when == "containers":
            cluster.known -= {"b"}

    job.during = lose
    job.newest = checkpoint(7)
    job.begin_all()
    assert job.launches[2].avoided_hosts == {"b", "c"}


def test_the_last_host_is_not_left_out_for_one_that_never_came_back() -> None:
    cluster = Cluster("a", "b")
    job = Job(silent("a"), killed(host="b"), killed("ps", host="b"), FINISHED, executors=cluster)

    def lose(when: str) -> None:
        if when == "containers" and len(job.launches) == 1:
            cluster.known -= {"a"}
            job.clock.sleep(COOLDOWN_S)

    job.during = lose
    job.begin_all()
    assert [launch.avoided_hosts for launch in job.launches] == [set()] * 4


def test_whether_restarts_have_been_tried_is_told_with_the_last_attempt() -> None:
    for flags, last in (
        ({"max_restarts": 0}, "end 1: ended: --max_restarts 0"),
        ({"max_restarts": 1}, "end 2: ended: --max_restarts 1, given up"),
    ):
        job = Job(killed("worker"), killed("ps"), **flags)
        with pytest.raises(NodeDiedError):
            job.begin_all()
        assert job.done[-1] == last
    job = Job(killed("worker"), killed("ps"))
    job.during = lambda when: setattr(job, "gone", "Spark's JVM has ended" if len(job.launches) == 2 else "")
    with pytest.raises(NodeDiedError):
        job.begin_all()
    assert job.done[-1] == "end 2: ended: Spark's JVM has ended"  # YARN's next driver has another one


def test_executors_that_live_are_used_again() -> None:
    cluster = Cluster("a", "b", "c", come=3)
    Job(killed(host="b"), FINISHED, executors=cluster).begin_all()
    assert (cluster.left_out, cluster.replaced) == ({}, [()])


def test_fewer_executors_begin_with_fewer_workers_and_their_own_positions() -> None:
    cluster = Cluster("a", "b", come=2)
    job = Job(killed(), killed("ps"), FINISHED, executors=cluster, min_executors=2)
    job.newest = checkpoint(7)

    def recover(when: str) -> None:
        cluster.come = 2 if len(job.launches) == 1 else 3

    job.during = recover
    job.begin_all()
    assert cluster.asked == [(3, 2, 600.0)] * 2
    smaller, whole = (launch.prepared for launch in job.launches[1:])
    assert (smaller.config.num_executors, len(smaller.data.parts), smaller.start.positions) == (2, 1, (0,))
    assert smaller.start.records == {"seen_twice": 14, "skipped": 0}
    # Once there are enough again, all take part.
    assert (whole.config.num_executors, len(whole.data.parts), whole.start.positions) == (3, 2, (7, 7))


def test_the_report_has_the_workers_of_the_attempt_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """By them the passes over the data are counted."""
    monkeypatch.setattr(cluster_run.handover, "take_over", lambda *_: checkpoint(7))
    report: Any = types.SimpleNamespace(values={"num_workers": 2, "records_per_worker": [50, 50]})
    held: Any = types.SimpleNamespace(lease=None)
    trainer = cluster_run._Trainer(None, None, report, held)  # type: ignore[arg-type]
    assert trainer.resume(prepared(), 2, 2).config.num_workers == 1
    assert report.values == {"num_workers": 1, "records_per_worker": [100]}


def test_executors_that_never_come_end_the_job_with_what_began_it() -> None:
    cluster = Cluster("a", come=ResourceError("2 of 3 executors have come", next_step="See the queue"))
    job = Job(killed(), executors=cluster)
    with pytest.raises(ResourceError) as caught:
        job.begin_all()
    assert caught.value.fact.startswith("2 of 3 executors have come; attempt 1 had ended: worker:0 on host a")
    assert (caught.value.exit_code, caught.value.next_step) == (69, "See the queue")
