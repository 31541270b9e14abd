#!/usr/bin/env bash
# Runs a command that asks the kernel what it lets through: as root, or in a user
# namespace of its own. It fails where neither can be had, or nft is missing.
#
#   run.sh COMMAND...
set -euo pipefail

fail() {
	printf '%s\n' "$*" >&2
	exit 1
}

if ! PATH=$PATH:/usr/sbin command -v nft >/dev/null; then
	command -v apt-get >/dev/null || fail "nft is not installed, and this is no Debian that could install it"
	[ "$(id -u)" = 0 ] || fail "nft is not installed; as root: apt-get install nftables"
	{ apt-get install -y --no-install-recommends nftables ||
		{ apt-get update && apt-get install -y --no-install-recommends nftables; }; } >&2 ||
		fail "apt-get cannot install nftables"
fi
export PATH=$PATH:/usr/sbin WEIR_KERNEL=1
[ "$(id -u)" != 0 ] || exec "$@"
unshare -Urnm true 2>/dev/null || fail "this needs root, or the right to make user and mount namespaces"
exec unshare -Urnm "$@"
