#!/usr/bin/env bash
# A real Hadoop on this machine alone: HDFS with two DataNodes, and YARN with the queues default and gpu.
#   scripts/hadoop.sh up|down|status|env [FOLDER]      (default: .hadoop)
#   scripts/hadoop.sh up --hosts 3 [FOLDER]            as root: three hosts with addresses of their own
#   scripts/hadoop.sh cut HOST [FOLDER]                cuts host1, host2, … off; heal HOST connects it again
#   scripts/hadoop.sh rate HOST 1gbit|off [FOLDER]     limits both directions of its cable
#   up      starts what is not running there, and waits until all of it is ready
#   down    ends it, and removes FOLDER
#   status  a table; exit code 0 where all of it is ready, else 69
#   env     what to set: eval "$(scripts/hadoop.sh env)"
# TFOS_JOB_CACHE          where its jars are kept (default: tfos_job in XDG_CACHE_HOME or ~/.cache)
# TFOS_JOB_IVY_SETTINGS   an ivysettings.xml, where the jars come from a mirror
# TFOS_JOB_HADOOP_HIDE    files and folders (PATH:PATH) that YARN's containers shall not see (as root)
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

exec python "$ROOT/scripts/hadoop.py" "$@"
