#!/usr/bin/env bash
# The tests on a real HDFS and YARN, which they start and end themselves (scripts/hadoop.sh). What follows goes to
# pytest: scripts/test_hadoop.sh -k quota
# TFOS_JOB_TEST_WORKERS    how many groups of them run at a time, each on a Hadoop of its own (default 2; 0: in one process)
# TFOS_JOB_TEST_TIMEOUT_S  seconds for the whole run (default 7200: against a hang, not against a slow machine)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh

# SIGINT first, so that the daemons are ended: see scripts/test.sh.
exec timeout --foreground --signal=INT --kill-after=60 "${TFOS_JOB_TEST_TIMEOUT_S:-7200}" \
    python -m pytest tests/hadoop --numprocesses "${TFOS_JOB_TEST_WORKERS:-2}" "$@"
