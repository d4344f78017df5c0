#!/usr/bin/env bash
# Every test that needs no Hadoop (those are scripts/test_hadoop.sh's). What follows goes to pytest:
# scripts/test.sh tests/unit -k charset
# TFOS_JOB_TEST_TIMEOUT_S  seconds for the whole run (default 3600)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh

# Each test has a timeout of its own (pyproject.toml); this one is for what would hang outside of them. pytest gets
# SIGINT first, so that its fixtures still end what the tests started.
exec timeout --foreground --signal=INT --kill-after=60 "${TFOS_JOB_TEST_TIMEOUT_S:-3600}" python -m pytest --ignore=tests/hadoop "$@"
