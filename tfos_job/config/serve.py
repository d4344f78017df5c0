"""The flags of `serve`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from tfos_job.config.defaults import NAMED_CHECKPOINTS, STDIN
from tfos_job.config.flags import Flags, flag, path, require
from tfos_job.config.own_network import own_network
from tfos_job.config.values import TextForm

DEFAULT_MODEL = "default"
"""The name of a model that is given none."""
_MODEL = "model"
_NAMED_FOLDER = TextForm(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*=.+").fullmatch,
    "{!r} is not a name and a folder",
    "Write it as digits=exports/digits",
)


@dataclass(frozen=True, kw_only=True)
class ServeConfig(Flags):
    """`serve`: a network that answers by HTTP."""

    train_dir: str | None = path("folder of the run whose checkpoint answers", None, one_of=_MODEL)
    export_dir: str | None = path("folder of an export: its newest version answers", None, one_of=_MODEL)
    model: tuple[str, ...] | None = flag(
        "a model under a name of its own, of a run or an export; several may be given, the first one is that of "
        "/predict",
        None,
        metavar="NAME=FOLDER",
        form=_NAMED_FOLDER,
        one_of=_MODEL,
    )
    checkpoint: str = path(
        "`last`, `best` or the path of a checkpoint of --train_dir",
        "last",
        metavar="last|best|PATH",
        words=NAMED_CHECKPOINTS,
    )
    model_name: str | None = own_network("a run")
    host: str = flag(
        "address to listen on; another than this host's own needs --api_key_file or --insecure", "127.0.0.1"
    )
    port: int = flag("port to listen on; 0 for any free port", 8501, minimum=0, maximum=65_535)
    api_key_file: str | None = path(
        "file of keys, one a line, of which every caller must send one", None, metavar="FILE"
    )
    insecure: bool = flag("answer whoever reaches --host, without a key", False)
    max_batch_size: int = flag("pictures that the network is given at once", 32, minimum=1, maximum=4096)
    max_latency_ms: float = flag(
        "milliseconds that a batch waits at most for pictures that are on their way, from its first request's arrival",
        10.0,
        minimum=0,
    )
    max_queue: int = flag(
        "pictures that wait for the network; a request for which there is no room is refused (429)", 128, minimum=1
    )
    max_images: int = flag("pictures in a request, no more than --max_queue", 32, minimum=1)
    max_body_mb: int = flag("megabytes (2^20 bytes) of a request's body", 16, minimum=1, maximum=1024)
    max_megapixels: float = flag("size of a picture, in millions of pixels, before it is decoded", 16.0, above=0)
    max_connections: int = flag("connections that are open at once", 512, minimum=1)
    reload_seconds: float = flag(
        "seconds between looks for a newer version of an export, which is then taken up without a pause",
        10.0,
        minimum=0,
        off=0.0,
    )
    request_timeout: float = flag(
        "seconds within which a request must have come, and within which it is answered or refused (503)", 30.0, above=0
    )
    stop_timeout: float = flag(
        "seconds after a signal in which requests that were accepted are answered", 30.0, minimum=0
    )
    access_log: str = path(
        "file that gets a line of JSON for each request; `-` is stdout", STDIN, metavar="FILE", words=(STDIN,)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        is_guarded = self.is_loopback or self.api_key_file is not None or self.insecure
        next_step = "Give --api_key_file FILE, or --insecure if all who reach it may ask"
        require(is_guarded, "host", f"{self.host} is open to other hosts, and no key is asked for", next_step)
        is_free = self.export_dir is None or self.checkpoint == "last"
        require(is_free, "checkpoint", "an export holds one checkpoint", "Leave it out, or give --train_dir")
        names = [name for name, _ in self.models]
        twice = next((name for name in names if names.count(name) > 1), "")
        require(not twice, "model", f"two models are called {twice}", "Give each a name of its own")

    @property
    def models(self) -> list[tuple[str, str]]:
        """Names and folders; a model that is not named is called `default`."""
        if self.model is not None:
            return [(name, folder) for name, _, folder in (text.partition("=") for text in self.model)]
        return [(DEFAULT_MODEL, str(self.train_dir if self.export_dir is None else self.export_dir))]

    @property
    def is_loopback(self) -> bool:
        """True if `host` is reached from this host alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name, of which nobody knows where it leads tomorrow
            return False
