# shellcheck shell=bash
# Shared by the scripts in this folder: messages, privileges, packages, the virtual environment.
# Sourced, not run.  Every function may be called again at no cost.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"
# What pip installs, to the version.
constraints="$root/build-aux/constraints.txt"
changed=()

# Mesa below this has no Venus driver that is worth using.
venus_minimum=24.0

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi

step() { printf '%s==> %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '    %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
did() { changed+=("$*"); }

# What this run has changed on the machine.
summary() {
    step "changed by this run"
    if [ ${#changed[@]} -eq 0 ]; then note "nothing"; return; fi
    printf '    %s\n' "${changed[@]}"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "root is needed for: $* (run as root, or install sudo)"
    fi
}

# Run a command with its output in a log file; shown only when it fails.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        fail "failed: $*"
    fi
    rm -f "$log"
}

is_macos() { [ "$(uname -s)" = Darwin ]; }
is_apt() { command -v apt-get >/dev/null; }

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 "$@"
}

apt_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

apt_candidate() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p'; }

# apt_ensure [-t RELEASE] PACKAGE...: install those that are missing.
apt_ensure() {
    local release=() missing=() package
    if [ "$1" = -t ]; then release=(-t "$2"); shift 2; fi
    for package in "$@"; do
        apt_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    for package in "${missing[@]}"; do
        case $(apt_candidate "$package") in
            ''|'(none)') note "refreshing apt's lists"; quietly apt_get update; break ;;
        esac
    done
    note "apt: installing ${missing[*]}"
    quietly apt_get install -y --no-install-recommends "${release[@]}" "${missing[@]}"
    did "installed with apt: ${missing[*]}"
}

# The archive and release this machine takes Debian's main packages from.
apt_archive() {
    local codename=$1
    apt-get indextargets --format '$(CREATED_BY) $(RELEASE) $(COMPONENT)|$(REPO_URI)' \
        | awk -F'|' -v "wanted=Packages $codename main" '$1 == wanted && !n++ { print $2 }'
}

# Make RELEASE-backports known to apt.
apt_backports() {
    local codename=$1 archive file=/etc/apt/sources.list.d/hesper-backports.list
    if apt-get indextargets --format '$(RELEASE)' | grep -x "$codename-backports" >/dev/null
    then return; fi
    archive=$(apt_archive "$codename")
    [ -n "$archive" ] || fail "apt has no source for $codename; add $codename-backports by hand"
    as_root sh -c "echo 'deb $archive $codename-backports main' >$file"
    did "added $file ($codename-backports)"
    quietly apt_get update
}

# A Mesa with Venus, and the Vulkan loader.
ensure_mesa() {
    apt_ensure libvulkan1
    local version
    version=$(dpkg-query -W -f='${Version}' mesa-vulkan-drivers 2>/dev/null || true)
    if [ -n "$version" ] && dpkg --compare-versions "$version" ge "$venus_minimum"; then
        note "Mesa $version is there"
        return
    fi
    version=$(apt_candidate mesa-vulkan-drivers)
    if [ -z "$version" ] || [ "$version" = '(none)' ]; then
        quietly apt_get update
        version=$(apt_candidate mesa-vulkan-drivers)
    fi
    if dpkg --compare-versions "$version" ge "$venus_minimum"; then
        apt_ensure mesa-vulkan-drivers
        return
    fi
    # shellcheck disable=SC1091
    local id codename
    id=$(. /etc/os-release && echo "$ID") codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    [ "$id" = debian ] || fail \
        "Mesa $version of this release is too old for Venus (need $venus_minimum); use a newer release"
    note "Mesa $version of $codename is too old for Venus; taking it from $codename-backports"
    apt_backports "$codename"
    quietly apt_get install -y --no-install-recommends -t "$codename-backports" mesa-vulkan-drivers
    did "installed with apt: mesa-vulkan-drivers from $codename-backports"
}

# Where `scripts/client-root SUITE` puts its root.
client_root() { printf '%s/roots/%s' "${HESPER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hesper}" "$1"; }

# make_debian_root SUITE FOLDER: a minimal Debian or Ubuntu; Debian's packages come from where this
# machine takes its own if it is Debian too.  Nothing that is installed there starts services.
make_debian_root() {
    local suite=$1 folder=$2 mirror='' keyring=debian-archive-keyring more=()
    command -v debootstrap >/dev/null || apt_ensure debootstrap
    case $suite in
        # An Ubuntu that this debootstrap need not know: all are made alike.
        resolute)
            keyring=ubuntu-archive-keyring
            apt_ensure ubuntu-keyring
            more=('' gutsy) ;;
        *)
            # shellcheck disable=SC1091
            if [ "$(. /etc/os-release && echo "$ID")" = debian ]; then
                mirror=$(apt_archive "$(. /etc/os-release && echo "$VERSION_CODENAME")")
                more=(${mirror:+"$mirror"})
            else
                apt_ensure debian-archive-keyring
            fi ;;
    esac
    note "debootstrap $suite into $folder (a minute or two)"
    as_root rm -rf "$folder"
    mkdir -p "$(dirname "$folder")"
    as_root mkdir -p "$folder"
    quietly as_root debootstrap --variant=minbase --components="$(root_components "$suite")" \
        --keyring="/usr/share/keyrings/$keyring.gpg" "$suite" "$folder" "${more[@]}"
    # A mirror that stands still, as a machine for tests may use, is valid for longer than it says.
    printf '%s\n' 'APT::Install-Recommends "false";' 'Acquire::Check-Valid-Until "false";' \
        | as_root tee "$folder/etc/apt/apt.conf.d/90hesper" >/dev/null
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$folder/usr/sbin/policy-rc.d" >/dev/null
    as_root chmod +x "$folder/usr/sbin/policy-rc.d"
}

# What an installer would have switched on.
root_components() { case $1 in resolute) echo main,universe ;; *) echo main ;; esac; }

# A program that may have come by another way than the package of that name.
apt_ensure_command() { command -v "$1" >/dev/null || apt_ensure "${2:-$1}"; }

# The backports release that a package came from; empty when it came from the release itself.
apt_backports_of() {
    case $(dpkg-query -W -f='${Version}' "$1" 2>/dev/null || true) in
        *~bpo*) (. /etc/os-release && echo "$VERSION_CODENAME-backports") ;;
    esac
}

brew_ensure() {
    command -v brew >/dev/null || fail "Homebrew is needed; see its site for the one-line install"
    local package
    for package in "$@"; do
        brew list --formula "$package" >/dev/null 2>&1 && continue
        note "brew: installing $package"
        quietly brew install "$package"
        did "installed with Homebrew: $package"
    done
}

# Vulkan driver and loader of this machine; in $python an interpreter that can build Hesper.
ensure_system() {
    step "drivers and compiler"
    if is_macos; then
        brew_ensure vulkan-loader molten-vk python@3.13
        python=$(brew --prefix python@3.13)/bin/python3.13
        xcode-select -p >/dev/null 2>&1 || fail "a C compiler is needed: xcode-select --install"
    elif is_apt; then
        ensure_mesa
        python=${PYTHON:-$(command -v python3 || true)}
        if ! python_ready; then
            apt_ensure python3 python3-dev python3-venv
            python=/usr/bin/python3
            python_ready || fail "Python 3.11 or newer is needed; $("$python" --version) is here"
        fi
        command -v cc >/dev/null || apt_ensure gcc libc6-dev
    else
        fail "this script knows apt and Homebrew; elsewhere see docs/installing.md"
    fi
}

python_ready() {
    [ -n "$python" ] && "$python" - 2>/dev/null <<'PYTHON'
import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
sys.exit(not (sys.version_info >= (3, 11) and os.path.exists(header)))
PYTHON
}

# dependencies EXTRA,...: what pyproject.toml says that Hesper with those extras depends on, a line each.
dependencies() {
    "$venv/bin/python" - "$root/pyproject.toml" "$1" <<'PYTHON'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
lines, found = [*project["dependencies"], f"hesper[{sys.argv[2]}]"], []
for line in lines:
    if line.startswith("hesper["):
        # An extra may have others of Hesper in it.
        for extra in filter(None, line[len("hesper["):-1].split(",")):
            lines += project["optional-dependencies"][extra]
    elif line not in found:
        found.append(line)
print(*found, sep="\n")
PYTHON
}

# A digest of everything that Hesper is built from.
source_digest() {
    "$venv/bin/python" - "$root" <<'PYTHON'
import hashlib, pathlib, sys
root, digest = pathlib.Path(sys.argv[1]), hashlib.sha256()
files = [file for part in ("src", "build-aux") for file in (root / part).rglob("*")]
for file in sorted([*files, *root.glob("meson*"), root / "pyproject.toml"]):
    if file.is_file() and not file.is_symlink() and file.suffix != ".so" and "__pycache__" not in file.parts:
        digest.update(f"{file.relative_to(root)} {file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
print(digest.hexdigest())
PYTHON
}

# ensure_venv 'hesper[EXTRA]' GROUP...: the virtual environment with what Hesper with that extra
# depends on, and those groups.
ensure_venv() {
    step "virtual environment"
    if [ ! -x "$venv/bin/python" ]; then
        "$python" -m venv "$venv"
        did "made the virtual environment $venv"
    fi
    # The stamp: checksum of what is asked for, then the extras and groups that are there.
    local wanted group extras='' arguments=(-c "$constraints") stamp="$venv/.hesper-packages" there known
    wanted=$(cat "$root/pyproject.toml" "$constraints" | cksum)
    there=$(cat "$stamp" 2>/dev/null || true)
    case $there in
        "$wanted"*) there=${there#"$wanted"} ;;
        *) there='' ;;
    esac
    known=$there
    for group in "$@"; do
        case "$there " in
            *" $group "*) continue ;;
        esac
        there="$there $group"
        case $group in
            hesper*) group=${group#hesper?} extras="$extras,${group%?}" ;;
            *) arguments+=(--group "$root/pyproject.toml:$group") ;;
        esac
    done
    if [ "$there" != "$known" ]; then
        note "pip: installing what Hesper needs"
        # A pip that knows dependency groups first.
        quietly "$venv/bin/python" -m pip install --upgrade -c "$constraints" pip
        dependencies "$extras" >"$venv/.hesper-requirements"
        quietly "$venv/bin/python" -m pip install "${arguments[@]}" -r "$venv/.hesper-requirements"
        printf '%s%s' "$wanted" "$there" >"$stamp"
        did "installed into $venv with pip: what Hesper depends on, and$there"
    fi
    note "$("$venv/bin/python" --version) in $venv"
}

# fresh_build FOLDER: remove what was built with other versions of what builds it, and the registry
# above all; ninja knows of neither.
fresh_build() { if [ "$constraints" -nt "$1/build.ninja" ]; then rm -rf "$1"; fi; }

# configure FOLDER MESON-OPTIONS: anew, or once more, or modules that are new would be left out.
configure() {
    fresh_build "$1"
    if [ -f "$1/build.ninja" ]; then quietly meson setup --reconfigure "$1"; else quietly meson setup "$@"; fi
}

# Hesper itself, built from this tree.
ensure_hesper() {
    step "Hesper"
    # The stamp: the digest, and whether the web page is in it, which the build leaves out where
    # there is no npm.
    local wanted page='without the web page' stamp="$venv/.hesper-build" there
    wanted=$(source_digest)
    there=$(cat "$stamp" 2>/dev/null || true)
    if command -v npm >/dev/null; then page='with the web page'; fi
    case $there in
        "$wanted $page"|"$wanted with the web page") note "up to date"; return ;;
    esac
    note "building $page (a minute or so)"
    fresh_build "$root/build/install"
    quietly env PATH="$venv/bin:$PATH" "$venv/bin/python" -m pip install --no-build-isolation \
        --no-deps --force-reinstall -Cbuild-dir="$root/build/install" "$root"
    printf '%s %s' "$wanted" "$page" >"$stamp"
    did "installed Hesper into $venv, $page"
}
