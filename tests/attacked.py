"""A training on local Spark that is attacked on every port that its processes have open, and what came of it."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import math
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import psutil

from tests import attack_table, leaks
from tests.attacker import CONNECT_S, CONNECTION, NO_CONNECTION, OPEN, Attacker, Outcome, Siege, can_reach
from tests.command import Command
from tests.listeners import HELD, LINE, NAMES, RENDEZVOUS, TENSORFLOW, Listener, listeners
from tests.recordings import recordings

ROOT = Path(__file__).resolve().parents[1]
HERE, ELSEWHERE, ELSEWHERE_6 = "127.0.0.1", "127.0.0.2", "::1"
"""The job's own host, and two addresses that are not of the job."""
ANOTHER_USER = "another user"
SOURCES = {HERE: attack_table.OWN_HOST, ELSEWHERE: attack_table.ELSEWHERE, ELSEWHERE_6: attack_table.ELSEWHERE}
NAMES_OF_SOURCES = SOURCES | {ANOTHER_USER: "another user of the host"}
NUM_STEPS = 300
NETWORK = """
import keras
import tensorflow as tf

class Told(keras.layers.Layer):
    def call(self, x):
        # It depends on the images: else it would be written as the graph is made. A full pipe holds the step.
        with tf.control_dependencies([tf.print("step", {padding}, x[0, 0], output_stream="file://" + {pipe!r})]):
            return tf.identity(x)

def build(*, num_classes, image_size, num_channels, keep_prob, seed):
    images = keras.Input((image_size, image_size, num_channels), name="images")
    x = Told(name="told")(keras.layers.Flatten()(images))
    return keras.Model(images, keras.layers.Dense(num_classes, name="fc")(x), name="paced")
"""
PAGE = 4096
_POLL_S = 0.1


def is_own(source: str) -> bool:
    """Whether this host has the address: a kernel may be without IPv6."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET) as sock:
        sock.bind((source, 0))
        return True
    return False


def may_try(source: str, listener: Listener) -> bool:
    """A host of the job may use TensorFlow's ports: that is what they are for."""
    return source != HERE or listener.port_name not in (TENSORFLOW, HELD)


class Pace:
    """A training's network writes a page into a pipe at each step, and this reads one now and then.

    At first it reads a third of them, so that no machine is done before it was attacked.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "pipe"
        os.mkfifo(self.path)
        (folder / "paced.py").write_text(NETWORK.format(pipe=str(self.path), padding=repr("." * (PAGE - 64))))
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        # So that its end is never read, and a step finds a reader.
        self._writer = os.open(self.path, os.O_WRONLY)
        fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, PAGE)
        self.num_steps = 0
        self.limit: float = NUM_STEPS // 3
        self.pause_s = 0.1
        self._is_closed = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while not self._is_closed:
                if self.num_steps < self.limit and selector.select(_POLL_S):
                    with contextlib.suppress(BlockingIOError):
                        self.num_steps += os.read(self._descriptor, PAGE).count(b"step")
                time.sleep(max(self.pause_s, 0 if self.num_steps < self.limit else _POLL_S))

    def go_on(self) -> None:
        """A second third of the steps."""
        self.limit = NUM_STEPS * 2 // 3

    def let_go(self) -> None:
        self.pause_s, self.limit = 0.0, math.inf

    def close(self) -> None:
        self._is_closed = True
        self._thread.join()
        os.close(self._writer)
        os.close(self._descriptor)


@contextlib.contextmanager
def forwarder(source: str, to: tuple[str, int]) -> Iterator[str]:
    """`host:port` of a door whose callers come from another address to a listener; for programs that choose none."""

    def relay(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve_one(caller: socket.socket) -> None:
        call = functools.partial(socket.create_connection, to, timeout=CONNECT_S, source_address=(source, 0))
        with contextlib.suppress(OSError), caller, call() as onward:
            onward.settimeout(None)
            answers = threading.Thread(target=relay, args=(onward, caller), daemon=True)
            answers.start()
            relay(caller, onward)
            answers.join()

    def serve(door: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve_one, args=(door.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=serve, args=(door,), daemon=True).start()
        try:
            yield "{}:{}".format(*door.getsockname())
        finally:
            door.shutdown(socket.SHUT_RDWR)


@dataclass
class Found:
    """What an attack on a training has shown.

    Attributes:
      outcomes: of all attacks on all ports.
      listeners: all that there were.
      intrusions: what TensorFlow's servers have answered who was asked to write a file: source, process, answer.
      descriptors: of the driver, before and after.
      steps: of the training when the attack on it began and ended.
      leaks: places that have a secret of the job, in words.
      secrets: those that were looked for.
      exit_code: of the training.
      said: on its standard error.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    intrusions: list[tuple[str, str, str]] = field(default_factory=list)
    descriptors: tuple[int, int] = (0, 0)
    steps: tuple[int, int] = (0, 0)
    leaks: set[str] = field(default_factory=set)
    secrets: dict[str, bytes] = field(default_factory=dict)
    exit_code: int = -1
    said: str = ""

    @property
    def table(self) -> str:
        return attack_table.table(self.outcomes, NAMES_OF_SOURCES)


def is_private(path: str) -> bool:
    """Whether only its owner can reach a Unix socket: its folder is closed to others."""
    return not path.startswith("@") and not Path(path).parent.stat().st_mode & 0o077  # the abstract have no folder


class LocalTraining:
    """A training on local Spark that is attacked while its nodes register and while it trains.

    Args:
      dataset: it trains on its split `train`.
      folder: empty; of this training.
    """

    def __init__(self, dataset: Path, folder: Path) -> None:
        self._folder = folder
        self.marker = folder / "marker"
        self.run_dir = folder / "run"
        self._told = folder / "told"
        self.pace = Pace(folder)
        (folder / "tmp").mkdir()
        told = str(self._told)

        class Attacked(Command):
            program = (sys.executable, "-m", "tests.cluster.attacked_training", told)

        spark = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": f"file://{folder / 'events'}"}
        spark |= {"spark.eventLog.compress": "false", "spark.local.dir": str(folder / "spark")}
        (folder / "events").mkdir()
        confs = " ".join(f"--conf {key}={value}" for key, value in spark.items())
        values = {"TMPDIR": str(folder / "tmp"), "PYSPARK_SUBMIT_ARGS": f"{confs} pyspark-shell"}
        values["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
        with changed(values):
            self.command = Attacked(
                *("train", "--dataset_dir", dataset, "--train_dir", self.run_dir, "--model_name", "paced:build"),
                *("--image_size", 16, "--batch_size", 16, "--max_number_of_steps", NUM_STEPS, "--max_restarts", 0),
                *("--num_executors", 3, "--num_ps_tasks", 1, "--master", "local[3]"),
            )

    def _told_of(self, name: str) -> list[list[str]]:
        path = self._told / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def secrets(self) -> dict[str, bytes]:
        return {name: bytes.fromhex(value) for name, value in self._told_of("secrets")}

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(self.command.pid), *self.command.descendants()]

    def listeners(self) -> list[Listener]:
        known = {int(port): name for port, name in self._told_of("ports")}
        return listeners(self.processes(), known)

    def run(self) -> Found:
        """Attacks it before its nodes come, while they do, and while it trains; returns at its end."""
        found = Found()
        self.command.wait_until((self._told / "ready").exists)
        driver = psutil.Process(self.command.pid)
        before = driver.num_fds()
        found.secrets = self.secrets
        self._recorded = recordings(found.secrets["the job's key"], 1)
        self._attack(found, (LINE, RENDEZVOUS, HELD))  # Spark's are there later, too
        doors = [each for each in self.listeners() if each.port_name in (LINE, RENDEZVOUS)]
        with Siege(HERE, doors):
            (self._told / "go").touch()
            self.command.wait_until(lambda: self.pace.num_steps)
        self.command.wait_for_step()
        begun = self.pace.num_steps
        self.pace.go_on()
        self._attack(found)
        found.descriptors = before, driver.num_fds()
        found.steps = begun, self.pace.num_steps
        found.leaks |= set(leaks.in_files(found.secrets, *self._places()))
        self.pace.let_go()
        found.exit_code = self.command.wait()
        found.said = self.command.stderr
        found.leaks |= set(leaks.in_files(found.secrets, *self._places()))
        found.leaks |= set(leaks.in_text(found.secrets, stderr=self.command.stderr, stdout=self.command.stdout))
        return found

    def _places(self) -> list[Path]:
        return [self._folder / name for name in ("run", "events", "spark", "tmp")]

    def _attack(self, found: Found, port_names: Sequence[str] = NAMES) -> None:
        targets = [each for each in self.listeners() if each.port_name in port_names]
        found.listeners += targets
        for each in [target for target in targets if target.kind == "unix"]:
            end = NO_CONNECTION if is_private(each.address) else OPEN
            found.outcomes.append(Outcome(each, ANOTHER_USER, CONNECTION, end, 0.0))
        found.leaks |= set(leaks.in_processes(found.secrets, self.processes()))
        attacker = Attacker(self.marker, host=HERE, recorded=self._recorded)
        sources = [source for source in SOURCES if is_own(source)]
        aims = [aim for source in sources for aim in zip(repeat(source), targets) if can_reach(aim) and may_try(*aim)]
        found.outcomes += attacker.flood(aims)
        with self._intrusion(targets) as intrusion:
            found.outcomes += attacker.attack(aims)
            found.intrusions += intrusion()

    @contextlib.contextmanager
    def _intrusion(self, targets: Sequence[Listener]) -> Iterator[Callable[[], list[tuple[str, str, str]]]]:
        """By TensorFlow itself, from elsewhere, and from this host as well, where it succeeds: so it is an attack."""
        asked: dict[str, tuple[str, str, Path]] = {}
        with contextlib.ExitStack() as doors:
            for each in [target for target in targets if target.port_name == TENSORFLOW]:
                for source in (ELSEWHERE, HERE):
                    door = doors.enter_context(forwarder(source, (HERE, each.port)))
                    path = self.marker if source == ELSEWHERE else self._folder / f"control-{each.port}"
                    asked[door] = source, each.process, path
            words = [f"{door}={path}" for door, (_, _, path) in asked.items()]
            program = [sys.executable, "-m", "tests.intruder", *words]
            running = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

            def answers() -> list[tuple[str, str, str]]:
                said, errors = running.communicate()
                assert running.returncode == 0, errors
                found = []
                for line in said.splitlines():
                    door, answer = json.loads(line)
                    source, process, path = asked[door]
                    found.append((source, process, answer if path.exists() else f"no file: {answer}"))
                return found

            with running:
                try:
                    yield answers
                finally:
                    running.kill()

    def close(self) -> None:
        self.command.end()
        self.pace.close()


@contextlib.contextmanager
def changed(values: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment, for what is started in the `with`."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
