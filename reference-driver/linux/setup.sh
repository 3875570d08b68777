#!/bin/bash
# Prepares a Debian 12 (or later) machine to build fencepost.ko and its kernel: packages, bindgen,
# the `core` sources of the rustc in use, and the Linux source. Safe to run again: it does only what
# is missing. Leaves the system's apt configuration alone; what comes from other Debian suites is
# fetched through a private configuration and unpacked below the cache folder.
#
# usage: setup.sh [--check] [--kasan]
#   --check   changes nothing: says what is missing and fails if anything is
#   --kasan   also what the kasan flavour needs (clang)
#
# Results, below ${FENCEPOST_CACHE:-${XDG_CACHE_HOME:-~/.cache}/fencepost}:
#   tools/bin/bindgen   src/rust-VERSION/library   src/linux-VERSION   setup.env (where they are)
set -euo pipefail

# What kernel and module builds, and the VM, need; one line a purpose.
PACKAGES=(
	build-essential flex bison bc                # kernel build
	libelf-dev libssl-dev                        # objtool, module tools
	rsync xz-utils zstd kmod                     # headers, source package, modules
	ccache                                       # second builds
	libclang1-19                                 # bindgen
	qemu-system-x86                              # the VM
	debian-archive-keyring curl ca-certificates  # fetching
)
PACKAGES_KASAN=(clang-19 lld-19 llvm-19)     # KASAN with Rust needs clang
BINDGEN=0.72.1
LINUX_SERIES=7.2
LINUX_PINNED=7.2.13-1                        # tried first; else the newest of the series there is
MIRROR=${FENCEPOST_DEBIAN_MIRROR:-}           # default: the one that this machine uses
SUITES=(sid trixie-backports)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

CACHE=${FENCEPOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fencepost}
CHECK=false
for arg; do
	case $arg in
	--check) CHECK=true ;;
	--kasan) PACKAGES+=("${PACKAGES_KASAN[@]}") ;;
	*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; [ "$arg" = --help ]; exit ;;
	esac
done

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

# ---- packages ----------------------------------------------------------------------------------

missing_packages() {
	local name
	for name in "${PACKAGES[@]}"; do
		dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || echo "$name"
	done
}

packages() {
	local missing
	missing=$(missing_packages | tr '\n' ' ')
	[ -z "$missing" ] && return
	if $CHECK || [ "$(id -u)" != 0 ]; then
		die "packages are missing; install them with: sudo apt-get install $missing"
	fi
	say "installing $missing"
	apt-get -q update >&2
	# shellcheck disable=SC2086 # a list of names
	DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 install -y \
		--no-install-recommends $missing >&2 ||
		die "apt-get could not install: $missing"
}

# ---- packages of other suites, without touching the system's configuration ---------------------

private_apt() {
	export APT_CONFIG=$CACHE/apt/apt.conf
	[ -n "${PRIVATE_APT_READY:-}" ] && return
	if [ -z "$MIRROR" ]; then
		MIRROR=$(APT_CONFIG='' apt-get indextargets --format '$(REPO_URI)' | awk '/\/debian\/?$/ && !n++')
		[ -n "$MIRROR" ] || die "no Debian mirror is known: name one in FENCEPOST_DEBIAN_MIRROR"
	fi
	mkdir -p "$CACHE"/apt/{lists/partial,cache/archives/partial}
	local suite
	for suite in "${SUITES[@]}"; do
		echo "deb [signed-by=$KEYRING] $MIRROR $suite main"
	done >"$CACHE/apt/sources.list"
	cat >"$APT_CONFIG" <<-END
		Dir::State::lists "$CACHE/apt/lists";
		Dir::State::status "/dev/null";
		Dir::Cache "$CACHE/apt/cache";
		Dir::Etc::sourcelist "$CACHE/apt/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Acquire::Languages "none";
		// What is taken is pinned and signed: a mirror that lags behind serves as well.
		Acquire::Check-Valid-Until "false";
		Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
		APT::Sandbox::User "";
	END
	say "reading the package lists of ${SUITES[*]}"
	apt-get -q update >&2 || die "cannot read the package lists at $MIRROR"
	PRIVATE_APT_READY=1
}

# The versions of a package, newest first.
versions() { apt-cache madison "$1" | awk -F'|' '{ gsub(/ /, "", $2); print $2 }'; }

# Unpacks package $1 of version $2 into folder $3.
unpack() {
	local scratch
	scratch=$(mktemp -d -p "$CACHE")
	(cd "$scratch" && apt-get -q download "$1=$2" >&2) || die "cannot download $1 $2"
	mkdir -p "$3"
	dpkg -x "$scratch"/*.deb "$3"
	rm -r "$scratch"
}

# ---- the parts ---------------------------------------------------------------------------------

bindgen() {
	local bin=$CACHE/tools/bin/bindgen
	[ "$("$bin" --version 2>/dev/null)" = "bindgen $BINDGEN" ] && return
	$CHECK && die "bindgen $BINDGEN is missing; run $0"
	say "building bindgen $BINDGEN (2 minutes)"
	cargo install -q bindgen-cli --version "$BINDGEN" --locked --force --root "$CACHE/tools" >&2 ||
		die "cargo could not install bindgen-cli $BINDGEN"
}

# The sources of `core`: the toolchain's own (rustup's rust-src component) or Debian's of exactly
# the same release.
rust_src() {
	local release version own
	release=$(rustc --version | cut -d' ' -f2)
	own=$(rustc --print sysroot)/lib/rustlib/src/rust/library
	RUST_LIB_SRC=$CACHE/src/rust-$release/library
	if [ -f "$own/core/src/lib.rs" ]; then RUST_LIB_SRC=$own; fi
	[ -f "$RUST_LIB_SRC/core/src/lib.rs" ] && return
	$CHECK && die "the library sources of rustc $release are missing; run $0"
	private_apt
	version=$(versions rust-src | grep -m1 "^${release//./\\.}[+~-]" || true)
	[ -n "$version" ] || die "Debian has no rust-src $release (it has: $(versions rust-src | xargs));" \
		"run 'rustup component add rust-src', or use one of those toolchains"
	say "fetching the library sources of rustc $release"
	unpack rust-src "$version" "$CACHE/src/rust-src.tmp"
	mkdir -p "$CACHE/src/rust-$release"
	mv "$CACHE/src/rust-src.tmp/usr/src/rustc-$release/library" "$RUST_LIB_SRC"
	rm -r "$CACHE/src/rust-src.tmp"
}

# Unpacked trees of the series, best first: the pinned one, then the newest.
linux_trees() {
	ls -d "$CACHE/src/linux-$LINUX_PINNED" 2>/dev/null || true
	ls -dvr "$CACHE/src/linux-$LINUX_SERIES".*[0-9] 2>/dev/null || true
}

linux_source() {
	LINUX=$(linux_trees | head -n1)
	[ -n "$LINUX" ] && return
	$CHECK && die "the Linux $LINUX_SERIES source is missing; run $0"
	private_apt
	local all version
	all=$(versions "linux-source-$LINUX_SERIES")
	[ -n "$all" ] || die "no package linux-source-$LINUX_SERIES in ${SUITES[*]}"
	version=$(grep -xF "$LINUX_PINNED" <<<"$all" || head -n1 <<<"$all")
	[ "$version" = "$LINUX_PINNED" ] || say "Linux $LINUX_PINNED is gone from Debian, taking $version"
	LINUX=$CACHE/src/linux-$version
	say "fetching the Linux $version source (160 MB)"
	unpack "linux-source-$LINUX_SERIES" "$version" "$CACHE/src/linux.deb.tmp"
	rm -rf "$CACHE/src/linux.tmp"
	mkdir "$CACHE/src/linux.tmp"
	tar -C "$CACHE/src/linux.tmp" --strip-components=1 \
		-xf "$CACHE/src/linux.deb.tmp/usr/src/linux-source-$LINUX_SERIES.tar.xz"
	mv "$CACHE/src/linux.tmp" "$LINUX"
	rm -r "$CACHE/src/linux.deb.tmp"
}

command -v cargo >/dev/null && command -v rustc >/dev/null ||
	die "cargo and rustc are missing; install a stable toolchain (https://rustup.rs)"
[ "$(uname -m)" = x86_64 ] || die "only x86_64 is supported"
command -v dpkg >/dev/null || die "this is no Debian: install the packages named in $0 by hand"
mkdir -p "$CACHE/src"
# Two at a time would install and fetch the same.
exec 9>"$CACHE/setup.lock"
flock 9
packages
bindgen
rust_src
linux_source
cat >"$CACHE/setup.env.tmp" <<END
LINUX=$LINUX
RUST_LIB_SRC=$RUST_LIB_SRC
BINDGEN=$CACHE/tools/bin/bindgen
LIBCLANG_PATH=/usr/lib/llvm-19/lib
END
mv "$CACHE/setup.env.tmp" "$CACHE/setup.env"
say "ready: $(sed -n 's/^LINUX=.*linux-/Linux /p' "$CACHE/setup.env"), rustc $(rustc --version | cut -d' ' -f2), bindgen $BINDGEN"
