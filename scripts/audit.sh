#!/usr/bin/env bash
# Looks for known vulnerabilities in the versions of constraints.txt, which are what an install gets. To run before a
# release, and now and then.
#   scripts/audit.sh                    asks PyPI by pip-audit, in an environment of its own (.venv-audit, or
#                                       $TFOS_JOB_AUDIT_VENV)
#   scripts/audit.sh --advisories DIR   compares with a checkout of https://github.com/pypa/advisory-database instead, and
#                                       asks nobody
# scripts/audit-ignored.txt has what is accepted, with date and reason. Exit 1 and a table: something was found; 2: it
# could not be looked at; 69: no pip-audit, or no Python that can compare.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PIP_AUDIT=2.10.1

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
}

compare() {
    local python
    for python in "${TFOS_JOB_VENV:-.venv}/bin/python" python3; do
        if "$python" -c 'import packaging, yaml' 2>/dev/null; then
            exec "$python" scripts/audit.py --advisories "$1"
        fi
    done
    printf 'audit.sh: no Python here has packaging and PyYAML; scripts/setup.sh makes one that has\n' >&2
    exit 69
}

ask() {
    local venv=${TFOS_JOB_AUDIT_VENV:-$PWD/.venv-audit} id
    local -a options=()
    if [[ ! -x $venv/bin/pip-audit || $("$venv/bin/pip-audit" --version) != "pip-audit $PIP_AUDIT" ]]; then
        mkdir -p "$(dirname "$venv")"
        python3 -m venv --clear "$venv"
        # audit.py, which reads what is accepted, needs the other two.
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "pip-audit==$PIP_AUDIT" packaging pyyaml ||
            {
                printf 'audit.sh: pip-audit cannot be installed; --advisories DIR needs no network\n' >&2
                exit 69
            }
    fi
    while read -r id; do
        options+=(--ignore-vuln "$id")
    done < <("$venv/bin/python" scripts/audit.py --print-ignored)
    exec "$venv/bin/pip-audit" --requirement constraints.txt --no-deps --disable-pip --strict "${options[@]}"
}

case ${1:-} in
--advisories)
    [[ $# == 2 ]] || usage
    compare "$2"
    ;;
'') ask ;;
*) usage ;;
esac
