# shellcheck shell=bash
# What bin/demo and bin/test both do first: find a Python, install what is missing, make a virtual environment.
# Sourced by them, with the checkout as the current directory.

unset PYTHONHOME PYTHONPATH

program=bin/$(basename "$0")
say() { printf '%s: %s\n' "$program" "$*"; }
fail() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}

scratch=$(mktemp -d) || exit
trap 'rm -rf "$scratch"' EXIT

version_of() { # INTERPRETER: its version, if it runs and will do; a shim without a Python behind it does not run
    "$1" -c 'import sys; v = sys.version_info; v >= (3, 11) and print("%d.%d.%d" % v[:3])' 2>/dev/null </dev/null
}

default_python() {
    local name path
    if [ -n "${PYTHON:-}" ]; then
        [ -n "$(version_of "$PYTHON")" ] || fail "PYTHON=$PYTHON is not a Python 3.11 or later that runs"
        command -v "$PYTHON"
        return
    fi
    for name in python3 python3.13 python3.12 python3.11; do
        while IFS= read -r path; do
            if [ -n "$(version_of "$path")" ]; then
                printf '%s\n' "$path"
                return
            fi
        done < <(type -aPf "$name")
    done
    fail "Python 3.11 or later is needed, and there is none on the PATH"
}

has() { PATH="$PATH:/usr/sbin:/usr/local/sbin:/sbin" command -v "$1" >/dev/null; }

missing_packages() { # INTERPRETER...: what is not there of the system, by its names on Debian
    has rsync || echo rsync
    has sshd || echo openssh-server
    { has ssh && has ssh-keygen; } || echo openssh-client
    has ps || echo procps
    missing_venvs "$@"
}

missing_venvs() { # INTERPRETER...: the same, of what makes a virtual environment
    local python
    for python in "$@"; do
        # Debian keeps a part of venv in a package of its own.
        "$python" -c 'import ensurepip, venv' 2>/dev/null || "$python" -c \
            'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    done
}

small_packages() { # what single tests need besides, and is soon installed
    has ip || echo iproute2
    has logrotate || echo logrotate
    has zsh || echo zsh
    has groff || echo groff-base
    { has setpriv && has unshare && has nsenter; } || echo util-linux
}

large_packages() { # what single tests need besides, and takes long, or starts a service of its own
    { has chromium || has chromium-browser || has google-chrome; } || echo chromium
    has promtool || echo prometheus
    { has redis-server || has valkey-server; } || echo redis-server
    has systemd-analyze || echo systemd
    has dh || echo debhelper
    has pybuild || printf '%s\n' dh-python pybuild-plugin-pyproject python3-all python3-setuptools
    has lintian || echo lintian
}

install_packages() { # PACKAGE...: by apt-get if root calls, else say how
    [ $# -eq 0 ] && return
    local install="apt-get install -y --no-install-recommends $*"
    command -v apt-get >/dev/null || fail "these are missing, by their names on Debian: $*"
    [ "$(id -u)" -eq 0 ] || fail "these are missing; run: sudo $install"
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # words
    if ! { apt-get update -q ${apt_options:-} && $install ${apt_options:-}; } </dev/null >"$scratch/apt" 2>&1; then
        no_network "$scratch/apt" && fail "no network: apt-get could not fetch $*"
        tail -n 20 "$scratch/apt" >&2
        fail "this failed: $install"
    fi
}

no_network() { # LOG: whether it reads like that
    grep -qiE 'temporary failure (in name resolution|resolving)|name or service not known|could not resolve|unreachable|NewConnectionError|failed to establish a new connection|could not connect|connection (refused|failed)|connect ?timeout|max retries exceeded' "$1"
}

set_up() { # INTERPRETER VERSION [EXTRA]: the virtual environment .venv-VERSION, with inosync and what it needs
    local venv=.venv-$2 state had
    # The installation behind it, as one Python is called by many paths.
    state="$("$1" -c 'import sys; print(sys.base_prefix)') $PWD $(cat setup.cfg pyproject.toml | cksum)"
    had=$(cat "$venv/state" 2>/dev/null)
    # What has an extra will do for those who need none.
    [ -z "${3:-}" ] && had=${had% with *}
    if [ "$had" = "$state${3:+ with $3}" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        say "Python $2: using $venv"
        return
    fi
    say "Python $2: setting up $venv"
    rm -f "$venv/state"
    "$1" -m venv --clear "$venv" >"$scratch/pip" 2>&1 &&
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input -e ".${3:+[$3]}" \
            </dev/null >>"$scratch/pip" 2>&1
    local code=$?
    if [ $code -ne 0 ]; then
        no_network "$scratch/pip" && fail "no network: pip could not fetch what is needed"
        tail -n 20 "$scratch/pip" >&2
        printf '%s: %s\n' "$program" "setting up $venv failed" >&2
        exit $code
    fi
    printf '%s\n' "$state${3:+ with $3}" >"$venv/state"
}
