#!/usr/bin/env bash
# Writes constraints.txt: the exact version of everything that this package and its tests require, for Python 3.11 to
# 3.13 on Linux. scripts/setup.sh installs them, so CI tests them.
#   scripts/constraints.sh                    adds what is missing and drops what is no longer required, and keeps the rest
#   scripts/constraints.sh --upgrade          takes the newest versions that pyproject.toml allows
#   scripts/constraints.sh --oldest FILE      writes the oldest ones to FILE instead (scripts/test_oldest.sh)
# It needs uv, which resolves for several Pythons at once; where there is none, pip installs one for this run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

file=constraints.txt
options=()
case ${1:-} in
--upgrade) options=(--upgrade) ;;
--oldest)
    file=${2:?--oldest needs a FILE}
    options=(--upgrade --resolution lowest-direct)
    ;;
'') ;;
*)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

aside=
trap '[[ -z $aside ]] || rm -rf "$aside"' EXIT
uv=$(command -v uv) || {
    aside=$(mktemp -d)
    python3 -m pip install --quiet --disable-pip-version-check --target "$aside" uv
    uv=$aside/bin/uv
}
"$uv" pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-annotate --quiet \
    --custom-compile-command scripts/constraints.sh "${options[@]}" --output-file "$file" >/dev/null
