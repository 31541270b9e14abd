#!/usr/bin/env bash
# Sees to it that tshark is there, which reads what captures keep. It fails where it
# cannot be had.
set -euo pipefail

command -v tshark >/dev/null && exit
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "tshark is not installed; as root, on Debian: apt-get install tshark" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -y --no-install-recommends tshark >&2 ||
	{ apt-get update && apt-get install -y --no-install-recommends tshark; } >&2
