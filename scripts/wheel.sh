#!/usr/bin/env bash
# Builds the sdist and the wheel into dist/ (or the folder that follows), and proves them: their contents, the wheel's
# commands in an environment of its own, its types. tests/cluster/test_wheel.py does the same.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

exec python "$ROOT/scripts/wheel.py" "$@"
