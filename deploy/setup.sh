#!/usr/bin/env bash
# Installs what InfraSight needs on this machine and is missing, and nothing else: Debian packages, tracefs, a virtual
# environment in .venv.
# Usage: deploy/setup.sh run|test
#   run    what `infrasight up` needs
#   test   that, and what the tests, the linters and the benchmarks need
# With nothing missing it changes nothing and is done in well under a second.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
LOG=$ROOT/.venv.log                                  # what apt and pip said last
PYTHON=${PYTHON:-/usr/bin/python3}                   # never `python3` from PATH: that may be a version manager's
BTF=${INFRASIGHT_BTF:-/sys/kernel/btf/vmlinux}       # these three are settable for the tests
TRACEFS=${INFRASIGHT_TRACEFS:-/sys/kernel/tracing}
UNITS=${INFRASIGHT_UNITS:-/etc/systemd/system}

RUN_PACKAGES=(python3 python3-venv python3-bpfcc ca-certificates)
TEST_PACKAGES=(gcc libc6-dev libbpf-tools bpftrace strace busybox-static iproute2 containerd runc podman openssl clickhouse-server)

say() { printf 'infrasight: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

show_log() {
    printf '    the last lines of %s:\n' "$LOG" >&2
    grep -vE '^ *$|^ *(note|hint):' "$LOG" | tail -n 10 | sed 's/^/    | /' >&2 || true
}

check_machine() {
    [ "$(uname -s)" = Linux ] || die "make needs Linux: events come from the Linux kernel."
    [ "$(id -u)" -eq 0 ] ||
        die "make needs root: it installs packages and loads eBPF programs into the kernel. Run it with sudo or as root."
    [ -r "$BTF" ] || die "make needs a kernel with type information: $BTF is missing." \
        "Boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of Debian 12 are."
}

take_lock() {
    exec 9>"$ROOT/.venv.lock"
    flock -n 9 && return
    say "another make is setting up here; waiting for it."
    flock 9
}

mount_tracefs() {
    [ -d "$TRACEFS/events" ] && return
    local why
    why=$(mount -t tracefs tracefs "$TRACEFS" 2>&1) || die "make needs tracefs at $TRACEFS and could not mount it (${why//$'\n'/ })." \
        "In a container, start it privileged or bind-mount the host's $TRACEFS."
    [ -d "$TRACEFS/events" ] || die "make needs tracepoints: tracefs is mounted at $TRACEFS but has no events directory" \
        "(kernel option CONFIG_EVENT_TRACING)."
}

missing_packages() {
    local -A installed=()
    local name state
    while read -r name state; do
        [ "$state" = installed ] && installed[$name]=1
    done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null)
    for name in "$@"; do
        [ -n "${installed[$name]:-}" ] || printf '%s\n' "$name"
    done
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$LOG" 2>&1 9>&-
}

# Debian starts a server when it installs it and at every boot. The tests start theirs themselves, so here nothing is started, and the
# unit of the one that is installed only for them is masked.
without_services() {
    local quiet status=0
    quiet=$(mktemp -d)
    ln -s /bin/true "$quiet/invoke-rc.d"
    ln -s /bin/true "$quiet/deb-systemd-invoke"
    case " $* " in
        *" clickhouse-server "*) [ ! -d "$UNITS" ] || ln -s /dev/null "$UNITS/clickhouse-server.service" 2>/dev/null || true ;;
    esac
    PATH=$quiet:$PATH "$@" || status=$?
    rm -rf "$quiet"
    return "$status"
}

install_packages() {
    command -v apt-get >/dev/null ||
        die "make needs Debian 12 or a later relative of it: apt-get is not here. Install by hand: $*"
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -eq 0 ] && return
    say "installing Debian packages: ${missing[*]}"
    : >"$LOG"
    if ! apt update; then
        show_log
        die "make needs the network: apt-get update failed. Check the network and /etc/apt/sources.list, then run make again."
    fi
    if ! without_services apt install --no-install-recommends "${missing[@]}"; then
        show_log
        die "apt-get could not install ${missing[*]}. Mend what it says above (network, disk space, package sources), then run make again."
    fi
}

check_python() {
    PYTHON_VERSION=$("$PYTHON" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) ||
        die "make needs Python 3.11 to 3.13: $PYTHON does not run. Set PYTHON to one that does."
    case $PYTHON_VERSION in
        3.11.* | 3.12.* | 3.13.*) ;;
        *)
            die "make needs Python 3.11 to 3.13: $PYTHON is $PYTHON_VERSION." \
                "Set PYTHON to another one, as in: make run PYTHON=/usr/bin/python3.12"
            ;;
    esac
}

# One line for everything the virtual environment's base depends on; another line here means another environment.
base_key() { printf '%s %s %s\n' "$ROOT" "$PYTHON" "$PYTHON_VERSION"; }

# One line for everything an installation depends on.
install_key() {
    { base_key; printf '%s\n' "$1"; cat "$ROOT/pyproject.toml" "$ROOT/infrasight/__init__.py" "$ROOT/deploy/setup.sh"; } | sha256sum
}

base_is_good() {
    [ "$(cat "$VENV/.infrasight-base" 2>/dev/null)" = "$(base_key)" ] &&
        [ ! -e "$VENV/.infrasight-installing" ] &&
        "$VENV/bin/python" -c '' 2>/dev/null
}

make_base() {
    base_is_good && return
    if [ -e "$VENV" ] || [ -L "$VENV" ]; then
        say "making .venv anew: it was left unfinished, or is of another Python or another place."
        rm -rf "$VENV"
    fi
    if ! "$PYTHON" -m venv "$VENV" </dev/null >"$LOG" 2>&1 9>&-; then
        show_log
        die "$PYTHON -m venv could not make $VENV. Mend what it says above, then run make again."
    fi
    base_key >"$VENV/.infrasight-base"
}

# BCC is the distribution's and plain Python over libbcc, so a link to that one package is all the environment takes from the system:
# no other system package, and no pytest plugin among them, can get in the way. (`pip install bcc` is an unrelated package.)
link_bcc() {
    local found site
    found=$(/usr/bin/python3 -c 'import importlib.util as u; print(u.find_spec("bcc").submodule_search_locations[0])' 2>/dev/null) ||
        die "make needs BCC's Python package: /usr/bin/python3 cannot find bcc although python3-bpfcc is installed." \
            "Try: apt-get install --reinstall python3-bpfcc"
    site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    ln -sfn "$found" "$site/bcc"
    "$VENV/bin/python" -c 'import bcc' >"$LOG" 2>&1 && return
    show_log
    die "BCC does not work with $PYTHON. Use the distribution's own Python: unset PYTHON and run make again."
}

install_project() {
    local profile=$1 extras=$2 stamp=$VENV/.infrasight-$1
    [ "$(cat "$stamp" 2>/dev/null)" = "$(install_key "$profile")" ] && return
    say "installing Python packages into .venv (infrasight[$extras])"
    link_bcc
    touch "$VENV/.infrasight-installing"
    if ! "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input -e "${ROOT}[$extras]" </dev/null >"$LOG" 2>&1 9>&-; then
        rm -f "$VENV/.infrasight-installing"
        show_log
        die "pip could not install the Python packages. Check that this machine reaches its package index (network, proxy, pip.conf)" \
            "and has 2 GB of free disk space, then run make again."
    fi
    rm -f "$VENV/.infrasight-installing"
    install_key "$profile" >"$stamp"
    [ "$profile" = run ] || install_key run >"$VENV/.infrasight-run"    # whoever can test can run
}

main() {
    local profile=${1:-} packages extras
    case $profile in
        run) packages=("${RUN_PACKAGES[@]}") extras=server ;;
        test) packages=("${RUN_PACKAGES[@]}" "${TEST_PACKAGES[@]}") extras=server,dev ;;
        *) printf 'usage: %s run|test\n' "$0" >&2; exit 2 ;;
    esac
    trap 'say "interrupted; run make again to go on."; exit 130' INT TERM
    check_machine
    take_lock
    mount_tracefs
    install_packages "${packages[@]}"
    check_python
    make_base
    install_project "$profile" "$extras"
}

main "$@"
