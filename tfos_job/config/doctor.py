"""The flags of `doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.flags import Flags, flag, path
from tfos_job.config.values import PORT_RANGE, port_range


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Flags):
    """`doctor`: the requirements of a job, to check the cluster for."""

    dataset_dir: str | None = path("folder of the dataset; its file system is tested unless --train_dir is given", None)
    train_dir: str | None = path("folder of the run; its file system is tested", None)
    num_executors: int = flag("executors that the job needs, one for each node", 1, minimum=1)
    num_gpus: int = flag("GPUs that each executor needs", 0, minimum=0)
    port_range: str | None = flag(
        "ports that the job may listen on (default: any free port)", None, metavar="LOW-HIGH", form=PORT_RANGE
    )
    require_isolation: bool = flag(
        "fail, instead of warning, where the kernel cannot keep other hosts from a TensorFlow server", False
    )
    expected_hours: float = flag("hours that the job will run; delegation tokens must live that long", 24.0, minimum=0)
    min_free_gb: float = flag("GiB that each node needs on its local disk, for shards", 1.0, minimum=0)
    start_timeout: int = flag("seconds to wait for the executors", 600, minimum=1)
    deep: bool = flag("also import TensorFlow on each executor and list the GPUs that it sees", False)

    @property
    def ports(self) -> tuple[int, int] | None:
        """First and last port of `--port_range`."""
        return None if self.port_range is None else port_range(self.port_range)
