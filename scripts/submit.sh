#!/usr/bin/env bash
# `tfos-job submit` of this checkout: submits a command to YARN (or Kubernetes) in cluster mode, waits, and ends with the
# job's own exit code:
#   scripts/submit.sh train --dataset_dir hdfs:///… --train_dir hdfs:///… [--queue gpu] [-- flags of spark-submit]
#   scripts/submit.sh --help
# HADOOP_CONF_DIR   names the cluster
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

exec python -m tfos_job submit "$@"
