#!/usr/bin/env bash
# The unit tests with the oldest versions that pyproject.toml allows, of all extras too, in an environment of their own
# (.venv-oldest, or $TFOS_JOB_OLDEST_VENV). To run after a change of a requirement and before a release; what follows
# goes to pytest: scripts/test_oldest.sh tests/unit/test_png.py
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export TFOS_JOB_VENV=${TFOS_JOB_OLDEST_VENV:-$PWD/.venv-oldest}
export TFOS_JOB_CONSTRAINTS=$TFOS_JOB_VENV.txt
mkdir -p "$(dirname "$TFOS_JOB_VENV")"
scripts/constraints.sh --oldest "$TFOS_JOB_CONSTRAINTS"
scripts/test.sh "${@:-tests/unit}"
