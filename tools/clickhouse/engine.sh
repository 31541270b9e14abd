#!/usr/bin/env bash
# Prints the library of chDB, the engine of a current ClickHouse in one file. The
# first time npm fetches it, which takes half a minute and 570 MB of the user's
# cache folder. Exit status 3: it cannot be had here.
set -euo pipefail

version=26.7.3-stable.1

missing() {
	printf '%s\n' "$*" >&2
	exit 3
}

case $(uname -s)-$(uname -m) in
Linux-x86_64) platform=linux-x64-gnu ;;
Linux-aarch64) platform=linux-arm64-gnu ;;
Darwin-arm64) platform=darwin-arm64 ;;
*) missing "there is no chDB for $(uname -s) on $(uname -m)" ;;
esac
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/chdb
dest=$cache/$version-$platform
if [ ! -e "$dest/libchdb.so" ]; then
	command -v npm >/dev/null || missing "chDB is not there, and without npm it cannot be fetched"
	mkdir -p "$cache"
	# Under its own name until it is whole, so that two at once do no harm.
	temp=$(mktemp -d "$cache/.fetch.XXXXXX")
	trap 'rm -rf "$temp"' EXIT
	npm install --prefix "$temp" --no-audit --no-fund --no-save --ignore-scripts "@chdb/lib-$platform@$version" >&2 ||
		missing "npm cannot fetch chDB"
	mv -T "$temp/node_modules/@chdb/lib-$platform" "$dest" 2>/dev/null || [ -e "$dest/libchdb.so" ]
fi
echo "$dest/libchdb.so"
