#!/usr/bin/env bash
# Starts ClickHouse servers on loopback for tests, and stops them. All they write
# goes into one folder; their ports are free ones.
#
#   servers.sh install                      install Debian's servers, where they are missing
#   servers.sh start DIR [SHARDS REPLICAS]  start a server, or a cluster "weir" with ZooKeeper; print its URL
#   servers.sh node DIR N                   start node N (from 1) again
#   servers.sh stop DIR                     stop all of them
#
# The process of node N is in DIR/nodeN/pid. Exit status 3: they cannot be had here.
set -euo pipefail

server=$(PATH=$PATH:/usr/sbin command -v clickhouse-server || true)

missing() {
	printf '%s\n' "$*" >&2
	exit 3
}

install() {
	[ -n "$server" ] && [ -e /usr/share/java/zookeeper.jar ] && return
	command -v apt-get >/dev/null || missing "clickhouse-server is not installed, and this is no Debian that could install it"
	[ "$(id -u)" = 0 ] || missing "clickhouse-server is not installed; as root: apt-get install clickhouse-server zookeeper"
	{ apt-get install -y --no-install-recommends clickhouse-server zookeeper ||
		{ apt-get update && apt-get install -y --no-install-recommends clickhouse-server zookeeper; }; } >&2 ||
		missing "apt-get cannot install clickhouse-server and zookeeper"
}

# ports N prints N free ports.
ports() {
	python3 - "$1" <<'END'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held:
    s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in held])
END
}

# listening PORT PID waits until the port answers.
listening() {
	for _ in $(seq 300); do
		(: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
		kill -0 "$2" 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}

start_zookeeper() {
	local dir=$1 port=$2
	mkdir -p "$dir/data"
	printf 'tickTime=500\ndataDir=%s/data\nclientPort=%s\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n' "$dir" "$port" >"$dir/zoo.cfg"
	java -Xmx128m -Dzookeeper.admin.enableServer=false -cp '/usr/share/java/*' \
		org.apache.zookeeper.server.quorum.QuorumPeerMain "$dir/zoo.cfg" >"$dir/log" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	listening "$port" "$(cat "$dir/pid")" || { tail -20 "$dir/log" >&2; exit 1; }
}

# node_config DIR SHARD REPLICA TCP HTTP INTERSERVER reads the cluster from the
# variables zookeeper and remote.
node_config() {
	mkdir -p "$1/data" "$1/tmp"
	cat >"$1/users.xml" <<END
<yandex>
  <profiles><default><max_memory_usage>2000000000</max_memory_usage></default></profiles>
  <users><default><password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users>
  <quotas><default/></quotas>
</yandex>
END
	cat >"$1/config.xml" <<END
<yandex>
  <logger><level>warning</level><log>$1/log</log><errorlog>$1/errors</errorlog></logger>
  <listen_host>127.0.0.1</listen_host>
  <tcp_port>$4</tcp_port>
  <http_port>$5</http_port>
  <interserver_http_port>$6</interserver_http_port>
  <interserver_http_host>127.0.0.1</interserver_http_host>
  <path>$1/data/</path>
  <tmp_path>$1/tmp/</tmp_path>
  <users_config>$1/users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <mark_cache_size>67108864</mark_cache_size>
  <timezone>UTC</timezone>
  $zookeeper
  <remote_servers>$remote</remote_servers>
  <macros><cluster>weir</cluster><shard>$2</shard><replica>$3</replica></macros>
  <distributed_ddl><path>/clickhouse/ddl</path></distributed_ddl>
</yandex>
END
	echo "$4" >"$1/port"
}

start_node() {
	local dir=$1
	"$server" --config-file="$dir/config.xml" >"$dir/out" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	listening "$(cat "$dir/port")" "$(cat "$dir/pid")" || { tail -20 "$dir/out" "$dir/errors" >&2; exit 1; }
}

start() {
	local dir=$1 shards=$2 replicas=$3
	local nodes=$((shards * replicas)) free hosts='' zookeeper='' remote='' n=0
	[ -n "$server" ] || missing "clickhouse-server is not installed; run: tools/clickhouse/servers.sh install"
	mkdir -p "$dir"
	dir=$(cd "$dir" && pwd)
	read -ra free <<<"$(ports $((3 * nodes + 1)))"
	if [ "$nodes" -gt 1 ]; then
		[ -e /usr/share/java/zookeeper.jar ] || missing "zookeeper is not installed; run: tools/clickhouse/servers.sh install"
		start_zookeeper "$dir/zookeeper" "${free[3 * nodes]}"
		zookeeper="<zookeeper><node><host>127.0.0.1</host><port>${free[3 * nodes]}</port></node><session_timeout_ms>6000</session_timeout_ms></zookeeper>"
		for ((s = 0; s < shards; s++)); do
			remote+='<shard><internal_replication>true</internal_replication>'
			for ((r = 0; r < replicas; r++, n++)); do
				remote+="<replica><host>127.0.0.1</host><port>${free[3 * n]}</port></replica>"
			done
			remote+='</shard>'
		done
		remote="<weir>$remote</weir>"
	fi
	for ((n = 0; n < nodes; n++)); do
		node_config "$dir/node$((n + 1))" "$((n / replicas + 1))" "$((n % replicas + 1))" "${free[3 * n]}" "${free[3 * n + 1]}" "${free[3 * n + 2]}"
		start_node "$dir/node$((n + 1))"
		hosts+=",127.0.0.1:${free[3 * n]}"
	done
	echo "clickhouse://${hosts#,}/default$([ "$nodes" = 1 ] || echo '?cluster=weir')"
}

stop() {
	local file
	for file in "$1"/*/pid; do
		[ -e "$file" ] || continue
		kill "$(cat "$file")" 2>/dev/null || true
	done
	for file in "$1"/*/pid; do
		[ -e "$file" ] || continue
		for _ in $(seq 100); do
			kill -0 "$(cat "$file")" 2>/dev/null || break
			sleep 0.1
		done
		kill -9 "$(cat "$file")" 2>/dev/null || true
		rm "$file"
	done
}

case ${1-} in
install) install ;;
start) start "$2" "${3-1}" "${4-1}" ;;
node) start_node "$2/node$3" ;;
stop) stop "$2" ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
