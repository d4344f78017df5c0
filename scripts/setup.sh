#!/usr/bin/env bash
# Prepares what every other script needs, and is quick when nothing has changed:
#   - a virtual environment with this package in it, editable: .venv, or $TFOS_JOB_VENV
#   - a Java for Spark: 17 or 21, with the module jdk.incubator.vector (Spark 4 starts its JVM with it)
# and, for scripts/test.sh alone, a Chromium, if it can be installed.
# The other scripts source it; then `tfos-job` and `python` are on PATH and JAVA_HOME is set. Run by itself it prepares
# and says what it found.
#
# TFOS_JOB_VENV         where the virtual environment lies or shall lie
# TFOS_JOB_EXTRAS       the extras of pyproject.toml to install (default dev,infer,serve,tflite,onnx; empty: none)
# TFOS_JOB_CONSTRAINTS  the exact versions to install (default constraints.txt; scripts/constraints.sh makes it)
# pip's own variables (PIP_INDEX_URL, PIP_RETRIES, ...) work as ever. Exit 69: something is missing and cannot be
# installed from here; the message says what to install.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${TFOS_JOB_VENV:-$ROOT/.venv}
EXTRAS=${TFOS_JOB_EXTRAS-dev,infer,serve,tflite,onnx}
CONSTRAINTS=${TFOS_JOB_CONSTRAINTS:-$ROOT/constraints.txt}

say() { printf '%s\n' "$*" >&2; }

fail() {
    local code=$1
    shift
    say "setup.sh: $*"
    exit "$code"
}

# --- packages of the system ------------------------------------------------------------------------------------------

can_apt() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

apt_updated=
# Installs the first available one of the given Debian packages.
apt_install() {
    local package log
    log=$(mktemp)
    if [[ -z $apt_updated ]]; then
        say "apt-get update"
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 update >"$log" 2>&1 || { tail -n 5 "$log" >&2; }
        apt_updated=1
    fi
    for package in "$@"; do
        say "apt-get install $package"
        # shellcheck disable=SC2086  # one argument may name packages that belong together
        if DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends \
            $package >"$log" 2>&1; then
            rm -f "$log"
            return 0
        fi
    done
    tail -n 5 "$log" >&2
    rm -f "$log"
    return 1
}

# --- Python ----------------------------------------------------------------------------------------------------------

# A name on PATH proves nothing (pyenv puts names there that do not run): ask the interpreter itself.
is_python() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3 python; do
        if is_python "$candidate" && "$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# What the environment was made from: another checkout, requirement, version or interpreter makes another digest. The
# settings of tools, at the end of pyproject.toml, are no part of it.
requirements_digest() {
    {
        printf '%s\n' "$ROOT" && "$VENV/bin/python" -V && sed '/^\[tool\.ruff\]$/Q' "$ROOT/pyproject.toml" &&
            cat "$ROOT/setup.py" "$ROOT/tfos_job/__init__.py" "$CONSTRAINTS"
    } | sha256sum | cut -d ' ' -f 1
}

# The stamp is one line: DIGEST EXTRAS. An environment with more extras than asked for will do.
is_installed() {
    local digest extras extra
    [[ -x $VENV/bin/python && -f $VENV/tfos-job.stamp ]] || return 1
    read -r digest extras <"$VENV/tfos-job.stamp" || return 1
    [[ $digest == "$(requirements_digest)" ]] || return 1
    for extra in ${EXTRAS//,/ }; do
        [[ ",$extras," == *",$extra,"* ]] || return 1
    done
}

make_venv() {
    local python
    if [[ ! -f $VENV/pyvenv.cfg ]] && compgen -G "$VENV/*" >/dev/null; then
        fail 78 "$VENV is there and is no virtual environment. Give another folder in TFOS_JOB_VENV"
    fi
    if [[ -x $VENV/bin/python ]] && is_python "$VENV/bin/python"; then
        return 0
    fi
    python=$(find_python) || {
        if can_apt; then apt_install "python3 python3-venv" || true; fi
        python=$(find_python) || fail 69 "no Python 3.11, 3.12 or 3.13 with venv. Install one: on Debian 12 and later," \
            "or Ubuntu 24.04 and later, 'apt-get install python3 python3-venv'"
    }
    say "virtual environment $VENV with $("$python" -V)"
    rm -f "$VENV/tfos-job.stamp"
    "$python" -m venv --clear "$VENV"
}

# pip's log goes to a file; of its lines only the large downloads and the last phase are shown, each as it comes.
install_package() {
    local log=$VENV/setup.log
    say "installing tfos_job${EXTRAS:+[$EXTRAS]} (some 1.2 GB of downloads where pip's cache is empty; log: $log)"
    rm -f "$VENV/tfos-job.stamp"
    "$VENV/bin/python" -m pip install --progress-bar off --disable-pip-version-check \
        --constraint "$CONSTRAINTS" --editable "$ROOT${EXTRAS:+[$EXTRAS]}" 2>&1 |
        tee "$log" |
        awk '/^ *Downloading .*\([0-9.]+ (MB|GB)\)/ { size = $(NF - 1); sub(/\(/, "", size);
                 if (size + 0 >= 5 || /GB\)/) { sub(/-cp3.*\.whl|-py[23].*\.whl/, ""); print "  " $1, $2, $(NF - 1), $NF; fflush() } }
             /^Installing collected packages/ { print "  Installing " NF - 3 " packages (a minute or two)"; fflush() }
             /^ *ERROR|^ *error:/ { print "  " $0; fflush() }' >&2 ||
        fail 69 "pip could not install the requirements; the whole log is $log. Run the script again to go on from there"
    printf '%s %s\n' "$(requirements_digest)" "$EXTRAS" >"$VENV/tfos-job.stamp"
}

prepare_python() {
    is_installed && return 0
    mkdir -p "$(dirname "$VENV")"
    # Two scripts started at once: the second one waits here, and finds all done.
    (
        flock 9
        is_installed && exit 0
        make_venv
        install_package
    ) 9>"$VENV.lock"
}

# --- Java ------------------------------------------------------------------------------------------------------------

# Prints the home of the Java in the given folder where Spark can use it.
usable_jdk() {
    local home=$1 version modules
    [[ -n $home && -x $home/bin/java ]] || return 1
    version=$("$home/bin/java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
    [[ $version == 17 || $version == 21 ]] || return 1
    modules=$("$home/bin/java" --list-modules 2>/dev/null) || return 1
    [[ $modules == *jdk.incubator.vector@* ]] || return 1
    printf '%s\n' "$home"
}

find_jdk() {
    local on_path home
    usable_jdk "${JAVA_HOME:-}" && return 0
    on_path=$(command -v java) || on_path=
    if [[ -n $on_path ]]; then
        on_path=$(readlink -f "$on_path")
        usable_jdk "${on_path%/bin/java}" && return 0
    fi
    for home in /usr/lib/jvm/*; do
        usable_jdk "$(readlink -f "$home")" && return 0
    done
    return 1
}

prepare_java() {
    local found
    found=$(find_jdk) || {
        say "no Java 17 or 21 with the module jdk.incubator.vector in JAVA_HOME, on PATH or in /usr/lib/jvm"
        if can_apt; then apt_install openjdk-17-jre-headless openjdk-21-jre-headless || true; fi
        found=$(find_jdk) || fail 69 "Spark needs a Java 17 or 21 with the module jdk.incubator.vector. Install one" \
            "('apt-get install openjdk-17-jre-headless' on Debian and Ubuntu, 'dnf install java-17-openjdk-headless' on" \
            "Red Hat) or set JAVA_HOME to one"
    }
    if [[ -n ${JAVA_HOME:-} && $JAVA_HOME != "$found" ]]; then
        say "JAVA_HOME=$JAVA_HOME is not a Java 17 or 21 that Spark can use: taking $found"
    fi
    export JAVA_HOME=$found
}

# --- Chromium --------------------------------------------------------------------------------------------------------

# A name proves nothing here either: Ubuntu's package of that name is a word about snap.
has_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium-headless-shell chromium chromium-browser google-chrome; do
        [[ -n $name ]] && command -v "$name" >/dev/null && "$name" --version >/dev/null 2>&1 && return 0
    done
    return 1
}

# Only the page in tests/cluster/test_page.py needs it, so scripts/test.sh alone calls this; without it that is skipped.
prepare_chromium() {
    has_chromium && return 0
    if can_apt; then apt_install chromium-headless-shell chromium || true; fi
    has_chromium || say "no Chromium: most of tests/cluster/test_page.py is skipped. Install one ('apt-get install chromium' on" \
        "Debian) or set CHROMIUM to its path"
}

prepare_python
prepare_java
export PATH="$VENV/bin:$JAVA_HOME/bin:$PATH"

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    printf 'export JAVA_HOME=%q\nexport PATH=%q:%q:"%s"\n' "$JAVA_HOME" "$VENV/bin" "$JAVA_HOME/bin" "\$PATH"
fi
