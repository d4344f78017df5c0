"""Newer versions and several models, without TensorFlow; tests/cluster has an export that is replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.serving import Network, Served, png
from tfos_job.errors import BadDataError, JobError, StorageError
from tfos_job.inference import strokes
from tfos_job.serve.model import Loaded
from tfos_job.serve.reloading import Loader, Reloading


@dataclass
class Source:
    """Versions that a test publishes."""

    name: str = "default"
    newest: Callable[[], str] = lambda: "1"
    networks: dict[str, Network] = field(default_factory=dict)
    num_loads: int = 0

    def load(self, folder: str) -> Loaded:
        self.num_loads += 1
        if folder not in self.networks:
            raise BadDataError("damaged", place=folder)
        return Loaded(self.networks[folder], strokes.draw, int(folder), 2)


def loader_of(served: Served) -> Loader:
    def make(name: str, loaded: Loaded) -> object:
        assert isinstance(loaded.network, Network)
        return served.model_of(name, loaded.network)

    return Loader(served.models, make, served.metrics, timeout_s=600.0)  # type: ignore[arg-type]


def digest(served: Served, name: str = "") -> str:
    status, answer = served.predict(png(100), query=f"?model={name}" if name else "")
    assert status == 200
    return str(answer["digest"])


def test_the_newest_version_answers_also_if_it_is_an_older_one() -> None:
    served, source = Served(), Source(networks={number: Network(digest=number) for number in "12"})
    loader = loader_of(served)
    old = loader.load(source)
    served.lifecycle.begin()
    assert digest(served) == "1"
    assert not loader.refresh(source)
    source.newest = lambda: "2"
    assert loader.refresh(source)
    assert digest(served) == "2"
    source.newest = lambda: "1"  # the other one was withdrawn
    assert loader.refresh(source)
    assert (digest(served), source.num_loads) == ("1", 3)
    text = served.client.get("/metrics").text
    assert 'reloads_total{model="default",outcome="loaded"} 2.0' in text
    assert text.count("tfos_job_serve_model_info{") == 1
    assert not old.batcher.is_alive


def test_a_version_that_does_not_answer_is_left_and_the_old_one_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    broken = Network(digest="2", fault=ValueError("no"))
    served, source = Served(), Source(networks={"1": Network(digest="1"), "2": broken})
    loader = loader_of(served)
    loader.load(source)
    served.lifecycle.begin()
    for version in ("2", "3"):
        source.newest = lambda version=version: version  # type: ignore[misc]
        num_loads = source.num_loads
        assert not loader.refresh(source)
        assert not loader.refresh(source)  # not again, until there is another one
        assert source.num_loads == num_loads + 1
        assert digest(served) == "1"
    assert "default goes on with 1" in caplog.text

    def gone() -> str:
        raise StorageError("the NameNode is away")

    source.newest = gone
    assert not loader.refresh(source)
    assert digest(served) == "1"
    with pytest.raises(JobError):
        loader_of(served).load(Source(newest=lambda: "2", networks={"2": broken}))


def test_a_version_that_a_file_system_did_not_give_is_asked_for_again() -> None:
    served, source = Served(), Source(networks={number: Network(digest=number) for number in "12"})
    loader = loader_of(served)
    loader.load(source)
    served.lifecycle.begin()
    source.newest, load = (lambda: "2"), source.load

    def broken(folder: str) -> Loaded:
        raise StorageError("a DataNode is away", place=folder)

    source.load = broken  # type: ignore[method-assign]
    assert not loader.refresh(source)
    source.load = load  # type: ignore[method-assign]
    assert loader.refresh(source)
    assert digest(served) == "2"


class Held(Network):
    def __init__(self) -> None:
        super().__init__(digest="1")
        self.warm = True
        self.began, self.go = threading.Event(), threading.Event()

    def probabilities_of(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        if not self.warm:
            self.began.set()
            self.go.wait()
        return super().probabilities_of(pictures)


def test_requests_that_are_with_the_old_one_are_answered_by_it() -> None:
    held = Held()
    served, source = Served(), Source(networks={"1": held, "2": Network(digest="2")})
    loader = loader_of(served)
    old = loader.load(source)
    held.warm = False
    served.lifecycle.begin()
    source.newest = lambda: "2"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(digest, served)
        held.began.wait()
        reloading = pool.submit(loader.refresh, source)
        while digest_now(served) != "2":
            pass
        assert not first.done()
        held.go.set()
        assert first.result() == "1"
        assert reloading.result()
    assert not old.batcher.is_alive


def digest_now(served: Served) -> str:
    with served.models.used() as model:
        return model.loaded.network.digest


def test_a_thread_looks_for_versions_until_the_end() -> None:
    served, source = Served(), Source(networks={number: Network(digest=number) for number in "12"})
    loader = loader_of(served)
    loader.load(source)
    source.newest = lambda: "2"
    with Reloading(loader, [source], 0.001):
        while digest_now(served) != "2":
            pass
    assert "reloading" not in [thread.name for thread in threading.enumerate()]


def test_several_models_answer_by_their_names() -> None:
    served = Served()
    loader = loader_of(served)
    for name in ("first", "second"):
        loader.load(Source(name, networks={"1": Network(digest=name)}))
    served.lifecycle.begin()
    assert [digest(served), digest(served, "first"), digest(served, "second")] == ["first", "first", "second"]
    status, answer = served.predict(png(100), query="?model=third")
    assert (status, answer) == (404, {"error": "no model 'third'. There is first, second"})
    assert [model["model"] for model in served.client.get("/readyz").json["models"]] == ["first", "second"]  # type: ignore[index]
    assert served.client.get("/v1/models/second").status_code == 200


def test_metrics_are_by_model_from_its_first_moment_and_named_as_prometheus_would() -> None:
    served = Served()
    loader = loader_of(served)
    for name in ("a", "b"):
        loader.load(Source(name, networks={"1": Network(digest=name)}))
    served.lifecycle.begin()
    digest(served, "b")
    families = {one.name: one for one in text_string_to_metric_families(served.client.get("/metrics").text)}
    kinds = {
        "requests": "counter",
        "request_seconds": "histogram",
        "pictures": "counter",
        "batch_pictures": "histogram",
        "queue_seconds": "histogram",
        "network_seconds": "histogram",
        "queue_pictures": "gauge",
        "model_info": "gauge",
        "reloads": "counter",
        "ready": "gauge",
    }
    assert {name.removeprefix("tfos_job_serve_"): one.type for name, one in families.items()} == kinds
    found = {(each.name, *each.labels.values()): each.value for one in families.values() for each in one.samples}
    for name, number in (("a", 0), ("b", 1)):
        assert found["tfos_job_serve_pictures_total", name, "answered"] >= number
        assert found["tfos_job_serve_pictures_total", name, "unreadable"] == 0
        assert found["tfos_job_serve_reloads_total", name, "failed"] == 0
        assert found["tfos_job_serve_queue_pictures", name] == 0
    batches = [found["tfos_job_serve_batch_pictures_count", name] for name in "ab"]
    assert batches[1] == batches[0] + 1
