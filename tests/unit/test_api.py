"""The names that Python programs import from the package itself."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import tfos_job


def test_the_package_imports_nothing_until_a_name_is_used() -> None:
    code = (
        "import sys, tfos_job\n"
        "assert not [name for name in sys.modules if name.startswith('tfos_job.')]\n"
        "from tfos_job import TrainConfig, convert, train\n"
        "assert not {'tensorflow', 'pyspark', 'numpy', 'PIL'} & set(sys.modules)\n"
        "from tfos_job import predict\n"  # which finds out what is missing before it loads TensorFlow
        "assert not {'tensorflow', 'keras', 'pyspark', 'fsspec', 'hdfs_native'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("name", tfos_job.__all__)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(tfos_job, name)
    assert found.__name__ == name
    assert inspect.getdoc(found)
    assert name in dir(tfos_job)


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="'tfos_job' has no attribute 'exports'"):
        _ = tfos_job.exports
