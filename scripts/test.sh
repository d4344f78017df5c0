#!/usr/bin/env bash
# Every test that needs no Hadoop (those are scripts/test_hadoop.sh's). What follows goes to pytest:
# scripts/test.sh tests/unit -k charset
# TFOS_JOB_TEST_WORKERS    how many run at a time, file by file (default 2; 0: in one process, as --pdb and -s need it)
# TFOS_JOB_TEST_TIMEOUT_S  seconds for the whole run (default 7200: it guards against a hang, not against a slow machine)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh
if [[ $# == 0 || $* == *tests/cluster* ]]; then prepare_chromium; fi

# Each test has a timeout of its own (pyproject.toml); this one is for what would hang outside of them. pytest gets
# SIGINT first, so that its fixtures still end what the tests started. Files are taken in their order, the long ones of
# tests/cluster first, so that no worker ends long after the other.
exec timeout --foreground --signal=INT --kill-after=60 "${TFOS_JOB_TEST_TIMEOUT_S:-7200}" \
    python -m pytest --ignore=tests/hadoop --numprocesses "${TFOS_JOB_TEST_WORKERS:-2}" --dist loadfile \
    --no-loadscope-reorder "$@"
