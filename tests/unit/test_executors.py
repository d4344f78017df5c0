"""The wait for executors, what is replaced and which hosts are left out; Spark and YARN are stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import SimpleNamespace

import pytest

from tfos_job.doctor.resource_manager import ResourceManager
from tfos_job.driver.executors import Executors, is_enough, safe_to_leave_out
from tfos_job.driver.reachability import reachable
from tfos_job.driver.scheduler_backend import Executor
from tfos_job.errors import InterruptedJobError, NodeDiedError, ResourceError
from tfos_job.host import ports


class Cluster:
    """Spark with a YARN, whose hosts have room for some executors each; time passes only while somebody sleeps."""

    def __init__(self, rooms: dict[str, int], wanted: int, *, num_hosts: int | None = None) -> None:
        self.rooms, self.wanted = rooms, wanted
        self.now_s = 0.0
        self.there: list[Executor] = []
        self.left_out: list[frozenset[str]] = []
        self.replaced: list[str] = []
        self.cut: set[str] = set()
        self.error: Exception | None = None
        self._num = 0
        self._nodes = None if num_hosts is None else frozenset([*rooms, *map(str, range(num_hosts - len(rooms)))])
        self.on_sleep: Callable[[], None] = lambda: None

    def executors(self) -> tuple[Executor, ...]:
        if self.error is not None:
            raise self.error
        return tuple(self.there)

    def replace(self, executors: Collection[Executor]) -> None:
        if self.error is not None:
            raise self.error
        self.replaced += [each.id for each in executors]
        self.there = [each for each in self.there if each not in executors]

    def leave_out(self, hosts: Collection[str]) -> None:
        self.left_out.append(frozenset(hosts))

    def running_hosts(self) -> frozenset[str] | None:
        return self._nodes

    def lack(self, application: str) -> str:
        return f"queue gpu has 0 of 1 yarn.io/gpu free for {application}"

    def sleep(self, seconds: float) -> None:
        """YARN gives one container a second, on the first host that has room."""
        before, self.now_s = int(self.now_s), self.now_s + seconds
        self.on_sleep()
        if int(self.now_s) > before and len(self.there) < self.wanted:
            refused = self.left_out[-1] if self.left_out else frozenset()
            for host, room in self.rooms.items():
                if host not in refused and sum(each.host == host for each in self.there) < room:
                    self._num += 1
                    name = str(self._num)
                    self.there.append(
                        Executor(id=name, host=host, container=f"container_{name}", address=f"{host}:{name}")
                    )
                    return

    def reach(self, addresses: Collection[str]) -> Collection[str]:
        return {address for address in addresses if address.partition(":")[0] not in self.cut}

    def manager(self) -> ResourceManager:
        manager: ResourceManager = self  # type: ignore[assignment]
        return manager


def executors_of(cluster: Cluster, *, master: str = "yarn", is_local: bool = False) -> Executors:
    sc = SimpleNamespace(applicationId="application_1_0001", master=master)
    return Executors(
        sc,  # type: ignore[arg-type]
        is_local=is_local,
        backend=None if master == "local[2]" else cluster,
        manager=cluster.manager(),
        reach=cluster.reach,
        clock=lambda: cluster.now_s,
        sleep=cluster.sleep,
    )


def test_all_executors_come() -> None:
    cluster = Cluster({"a": 1, "b": 2}, wanted=3)
    executors = executors_of(cluster)
    assert executors.wait(3, 3, 60.0) == 3
    assert executors.hosts() == {"a", "b"}
    assert cluster.now_s == pytest.approx(3.0, abs=0.5)
    assert cluster.left_out == []  # nothing to tell YARN


def test_too_few_come_and_the_error_has_their_places_and_what_the_queue_lacks() -> None:
    cluster = Cluster({"a": 2}, wanted=3)
    with pytest.raises(ResourceError) as caught:
        executors_of(cluster).wait(3, 3, 60.0)
    assert caught.value.exit_code == 69
    assert caught.value.fact == (
        "2 of 3 executors have come (2 on a) within 60 s; queue gpu has 0 of 1 yarn.io/gpu free for application_1_0001"
    )
    assert caught.value.place == "application_1_0001"
    assert cluster.now_s == pytest.approx(60.0, abs=0.5)


def test_fewer_executors_suffice_after_half_of_the_time() -> None:
    cluster = Cluster({"a": 2}, wanted=3)
    assert executors_of(cluster).wait(3, 2, 60.0) == 2
    assert cluster.now_s == pytest.approx(30.0, abs=0.5)


@pytest.mark.parametrize(
    ("there", "least", "waited", "expected"),
    [(3, 3, 0.0, True), (2, 3, 1.0, False), (2, 2, 0.49, False), (2, 2, 0.5, True), (4, 2, 0.0, True)],
)
def test_when_there_are_enough(there: int, least: int, waited: float, expected: bool) -> None:
    assert is_enough(there, 3, least, waited) is expected


def test_an_executor_on_an_avoided_host_is_replaced_and_yarn_told() -> None:
    cluster = Cluster({"bad": 3, "good": 3}, wanted=3, num_hosts=3)
    executors = executors_of(cluster)
    executors.wait(3, 3, 60.0)
    assert executors.hosts() == {"bad"}
    executors.avoid({"bad": 600.0})
    assert executors.wait(3, 3, 60.0) == 3
    assert {each.host for each in cluster.there} == {"good"}
    assert cluster.replaced == ["1", "2", "3"]
    # Only during the wait: YARN would end the application if its other nodes went.
    assert cluster.left_out == [frozenset({"bad"}), frozenset()]


def test_an_avoided_host_is_welcome_again_after_its_time() -> None:
    cluster = Cluster({"bad": 3}, wanted=3, num_hosts=3)
    executors = executors_of(cluster)
    executors.avoid({"bad": 20.0})
    assert executors.wait(3, 3, 60.0) == 3
    assert cluster.now_s == pytest.approx(23.0, abs=1.0)
    executors.avoid({"bad": 600.0})
    with pytest.raises(ResourceError, match="bad left out after failures there"):
        executors.wait(3, 3, 60.0)


def test_a_host_that_yarn_is_not_told_of_is_left_all_the_same() -> None:
    cluster = Cluster({"bad": 1, "good": 3}, wanted=3, num_hosts=2)  # two nodes: leaving out one could end it all
    executors = executors_of(cluster)
    executors.avoid({"bad": 600.0})
    cluster.on_sleep = lambda: cluster.rooms.update(bad=0) if cluster.now_s > 10 else None
    assert executors.wait(3, 3, 60.0) == 3
    assert {each.host for each in cluster.there} == {"good"}
    assert cluster.left_out == []


@pytest.mark.parametrize(
    ("avoided", "nodes", "told"),
    [
        ({"a"}, {"a", "b", "c"}, {"a"}),
        ({"a"}, {"a", "b"}, set()),
        ({"a", "b"}, {"a", "b", "c", "d"}, set()),
        ({"a", "gone"}, {"a", "b", "c"}, {"a"}),
        ({"gone"}, {"a"}, set()),
        (set(), {"a"}, set()),
    ],
)
def test_which_hosts_yarn_may_be_told_of(avoided: set[str], nodes: set[str], told: set[str]) -> None:
    assert safe_to_leave_out(frozenset(avoided), nodes) == told


def test_executors_are_replaced_by_host_and_by_container() -> None:
    cluster = Cluster({"a": 1, "b": 2}, wanted=3)
    executors = executors_of(cluster)
    executors.wait(3, 3, 60.0)
    executors.replace(hosts=["a"])
    assert cluster.replaced == ["1"]
    executors.replace(containers=["container_3"])
    assert cluster.replaced == ["1", "3"]
    executors.replace(hosts=[""], containers=[""])  # of a failure whose place is not known
    assert cluster.replaced == ["1", "3"]


def test_executors_on_a_host_that_was_cut_off_are_replaced() -> None:
    cluster = Cluster({"a": 2, "b": 3}, wanted=3)
    executors = executors_of(cluster)
    executors.wait(3, 3, 60.0)
    cluster.cut, cluster.rooms["a"] = {"a"}, 0
    assert executors.wait(3, 3, 60.0) == 3
    assert cluster.replaced == ["1", "2"]
    assert executors.hosts() == {"b"}


def test_hosts_behind_a_firewall_are_not_taken_for_cut_off() -> None:
    cluster = Cluster({"a": 2, "b": 3}, wanted=3)
    cluster.cut = {"a", "b"}
    executors = executors_of(cluster)
    assert executors.wait(3, 3, 60.0) == 3
    assert executors.wait(3, 3, 60.0) == 3
    assert cluster.replaced == []


def test_what_takes_a_connection_is_reachable() -> None:
    with ports.listen("127.0.0.1") as listener, ports.listen("127.0.0.1") as other:
        there, gone = (f"127.0.0.1:{each.getsockname()[1]}" for each in (listener, other))
        other.close()
        assert reachable([there, gone, "127.0.0.1"]) == {there}
    assert reachable([]) == frozenset()


def test_one_host_alone_is_not_avoided() -> None:
    cluster = Cluster({"here": 3}, wanted=3)
    executors = executors_of(cluster, master="local-cluster[3,1,1024]", is_local=True)
    executors.avoid({"here": 600.0})
    assert executors.wait(3, 3, 60.0) == 3
    assert cluster.replaced == []


def test_without_executors_there_is_nothing_to_do() -> None:
    executors = executors_of(Cluster({}, wanted=0), master="local[2]", is_local=True)
    executors.replace(hosts=["here"])
    executors.avoid({"here": 600.0})
    assert executors.wait(2, 2, 60.0) == 2
    assert executors.hosts() == set()


@pytest.mark.parametrize(
    ("error", "kind", "words", "at_s"),
    [
        (TimeoutError("no answer"), ResourceError, "0 of 3 executors have come within 60 s", 63.0),
        (ConnectionRefusedError("gone"), NodeDiedError, "Spark's JVM does not answer: gone", 3.0),
    ],
)
def test_a_jvm_that_does_not_answer(error: Exception, kind: type[Exception], words: str, at_s: float) -> None:
    cluster = Cluster({"a": 3}, wanted=3)
    executors = executors_of(cluster)
    executors.wait(3, 3, 60.0)
    cluster.error = error
    executors.replace(hosts=["a"])
    assert executors.hosts() == set()
    with pytest.raises(kind, match=words):
        executors.wait(3, 3, 60.0)
    assert cluster.now_s == pytest.approx(at_s, abs=0.5)


def test_a_signal_ends_the_wait() -> None:
    cluster = Cluster({}, wanted=3)

    def stop() -> None:
        if cluster.now_s > 5.0:
            raise InterruptedJobError("stopped", signum=15)

    with pytest.raises(InterruptedJobError):
        executors_of(cluster).wait(3, 3, 60.0, stop)
    assert cluster.now_s == pytest.approx(5.0, abs=0.5)
