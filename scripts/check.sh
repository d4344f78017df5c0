#!/usr/bin/env bash
# Lint, format, types, the import contract, the reference of the flags and the scripts' own syntax. Runs all, and fails where one did.
# scripts/check.sh --fix first repairs what ruff can repair.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/setup.sh
source scripts/setup.sh

if [[ ${1:-} == --fix ]]; then
    ruff check --quiet --fix . || true
    ruff format .
fi

failed=()
step() {
    local name=$1
    shift
    printf '%s\n' "--- $name" >&2
    timeout 600 "$@" || failed+=("$name")
}

bash_syntax() {
    local script status=0
    for script in scripts/*.sh .ci/run; do
        bash -n "$script" || status=1
    done
    return "$status"
}

step "ruff check" ruff check --quiet .
step "ruff format" ruff format --check --quiet --diff .
step "mypy" mypy
step "import contract" lint-imports --no-logo
step "docs/reference.md" python scripts/reference.py --check
step "bash -n" bash -c "$(declare -f bash_syntax); bash_syntax"
if command -v shellcheck >/dev/null; then
    step "shellcheck" shellcheck -x scripts/*.sh spark/kubernetes/*.sh .ci/run
fi

if ((${#failed[@]})); then
    printf 'check.sh: failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
printf 'check.sh: all good\n' >&2
