#!/usr/bin/env bash
# Makes the folders that a pod's image needs beside its Python; Dockerfile calls it, and so does a test.
#   layout.sh ROOT PYTHON     ROOT is / in an image; PYTHON has this package and pyspark installed
# /opt/tfos_job/spark       the programs of spark-submit, its settings, the GPUs' discovery: what submit's line names
# /opt/spark                Spark, of PYTHON's pyspark: SPARK_HOME; Spark mounts its settings in conf/
# /opt/spark/work-dir       where pods begin
# /opt/entrypoint.sh        what Spark's pods call
set -euo pipefail
root=${1:?layout.sh ROOT PYTHON} python=${2:?layout.sh ROOT PYTHON}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${root%/}

spark=$("$python" -c 'import importlib.util as u, pathlib; print(pathlib.Path(u.find_spec("pyspark").origin).parent)')
install -d "$root/opt/tfos_job" "$root/opt/spark/conf" "$root/opt/spark/work-dir"
cp -r "${here%/kubernetes}" "$root/opt/tfos_job/"
for part in bin jars python; do ln -sfn "$spark/$part" "$root/opt/spark/$part"; done
install -m 755 "$here/entrypoint.sh" "$root/opt/entrypoint.sh"
