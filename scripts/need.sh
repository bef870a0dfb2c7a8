#!/usr/bin/env bash
# Installs what "make run", "make test", "make bench" or "make deb" needs and this machine lacks; says what and why before it does.
# Silent, and asks for no privilege, when nothing is missing.
#
# usage: scripts/need.sh run|test|bench|deb
set -euo pipefail

purpose=${1:?usage: scripts/need.sh run|test|bench|deb}
packages=()

say() { printf '%s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
fail() { say "$@"; exit 1; }

# want PACKAGE REASON: remembers a package to install.
want() {
    packages+=("$1")
    say "missing: $1 ($2)"
}

is_macos() { [ "$(uname -s)" = Darwin ]; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif have sudo; then sudo "$@"; else
        fail "this needs root, and there is no sudo; as root run: $*"
    fi
}

node_major() { node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p'; }
venv_works() { python3 -c 'import ensurepip, venv' >/dev/null 2>&1; }
# has_candidate PACKAGE: whether apt could install it, as far as its lists tell.
has_candidate() { have apt-cache && apt-cache policy "$1" | grep -q 'Candidate: [0-9]'; }
redis_works() { have redis-server || have valkey-server; }

check_cargo() {
    have cargo && return
    say "missing: cargo, the Rust compiler and build tool (1.90 or newer). Get it with"
    say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    fail "then open a new shell, or run: . \"\$HOME/.cargo/env\""
}

list_missing() {
    if is_macos; then
        have cc || fail "missing: a linker (builds anyworker); run: xcode-select --install"
        redis_works || want redis "stores the sessions; anyworker starts a private one"
        [ "$purpose" = test ] || return 0
        have node && have npm || want node "runs the stock JavaScript client in the tests"
        venv_works || want python "runs the stock Python client in the tests"
        have nginx || want nginx "stands in front of anyworker in the tests"
        have haproxy || want haproxy "the same"
        have caddy || want caddy "the same"
        return 0
    fi
    # The name that a linker driver has for cargo.
    have cc || want gcc "links anyworker"
    have cc || want libc6-dev "links anyworker"
    if [ "$purpose" = deb ]; then
        have dpkg-shlibdeps || want dpkg-dev "tells which libraries the package depends on"
        return 0
    fi
    # The package of the server would start a service on port 6379; this one has the program alone.
    redis_works || want redis-tools "sessions are kept in Redis; anyworker starts its own, private one"
    [ "$purpose" != bench ] || have python3 || want python3 "runs the scenarios of the benchmark"
    [ "$purpose" = test ] || return 0
    have curl || want curl "asks as the documents say, in their tests"
    have node || want nodejs "runs the stock JavaScript client in the tests"
    have npm || want npm "installs that client"
    have python3 || want python3 "runs the stock Python client in the tests"
    venv_works || want python3-venv "installs that client"
    # Their services are neither started nor enabled: install_packages.
    have nginx || want nginx "stands in front of anyworker in the tests"
    have haproxy || want haproxy "the same"
    # Not every release has it; the tests do without.
    have caddy || ! has_candidate caddy || want caddy "the same"
    # Nothing of it is started; where no box can be made those tests are skipped.
    if [ "$(id -u)" = 0 ] && unshare -fpmnC --uts --ipc true 2>/dev/null; then
        [ -x /lib/systemd/systemd ] || want systemd "runs the unit of the package in a private box in the tests"
        have ip || want iproute2 "the same"
    fi
}

install_packages() {
    if is_macos; then
        have brew || fail "Homebrew would install it: https://brew.sh, or install it yourself"
        say "installing with Homebrew: ${packages[*]}"
        brew install "${packages[@]}"
        return
    fi
    have apt-get || fail "only apt-get and Homebrew are known here; install these yourself: ${packages[*]}"
    say "installing with apt-get: ${packages[*]}"
    as_root apt-get update -qq
    local policy=/usr/sbin/policy-rc.d made=no package
    # What maintainer scripts ask before they start a service: they are told not to.
    if [ ! -e "$policy" ]; then
        made=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
    fi
    local code=0
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >&2 || code=$?
    [ "$made" = no ] || as_root rm -f "$policy"
    [ "$code" = 0 ] || exit "$code"
    # Nor at the next boot.
    for package in nginx haproxy caddy; do
        case " ${packages[*]} " in
            *" $package "*) ! have systemctl || as_root systemctl --quiet disable "$package" >&2 || true ;;
        esac
    done
}

# Debian's redis-server is a link to redis-check-rdb, which decides by its name what it is. The link is all
# that is needed of that package.
link_redis() {
    redis_works && return
    local program
    program=$(command -v redis-check-rdb) || fail "redis-tools has no redis-check-rdb; install a redis-server yourself"
    say "linking /usr/local/bin/redis-server to $program (no service is installed or started)"
    as_root ln -sf "$program" /usr/local/bin/redis-server
    hash -r
    case "$(redis-server --version 2>/dev/null)" in
        *server*) ;;
        *)
            as_root rm -f /usr/local/bin/redis-server
            fail "that program is no server here; install a redis-server yourself"
            ;;
    esac
}

install_cargo_deb() {
    [ "$purpose" = deb ] || return 0
    cargo deb --version >/dev/null 2>&1 && return
    say "missing: cargo-deb (makes the package); installing it with cargo, which takes some minutes"
    cargo install --locked --quiet cargo-deb
}

check_versions() {
    [ "$purpose" = test ] || return 0
    local major
    major=$(node_major)
    [ "${major:-0}" -ge 18 ] || fail "node 18 or newer runs the tests; this is $(node --version); see https://nodejs.org"
    venv_works || fail "this python3 ($(command -v python3)) cannot make virtual environments"
}

PATH="$PATH:$HOME/.cargo/bin"
check_cargo
list_missing
if [ "${#packages[@]}" -gt 0 ]; then
    install_packages
    hash -r
    is_macos || [ "$purpose" = deb ] || link_redis
fi
install_cargo_deb
check_versions
