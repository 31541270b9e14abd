#!/usr/bin/env bash
# Guards four network namespaces with weir-agent: what is allowed passes, what is denied
# does not, what is no longer allowed stops, and what was recorded is replayed. `make
# demo-node` builds the programs first. It wants root, and leaves dist/demo-node behind.
set -euo pipefail
cd "$(dirname -- "$0")/../.."

bold= plain=
if [ -t 1 ] && [ -z "${NO_COLOR-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
[ "$(id -u)" = 0 ] || { echo "it makes network namespaces, so it wants root" >&2; exit 2; }
command -v ip >/dev/null || { echo "it wants the command ip; as root: apt-get install iproute2" >&2; exit 2; }

home=dist/demo-node
rm -rf "$home"
mkdir -p "$home/world"
cp examples/node/world/*.yaml "$home/world"
go build -o "$home/talk" ./examples/node/talk

pods=(web db backup cron)
running=()
end() {
	for process in "${running[@]}"; do kill "$process" 2>/dev/null || true; done
	wait || true
	for name in node "${pods[@]}"; do ip netns delete "weir-demo-$name" 2>/dev/null || true; done
}
trap end EXIT

say "A node, and behind it the pods ${pods[*]}"
at() { ip netns exec "weir-demo-$1" "${@:2}"; }
ip netns add weir-demo-node
at node ip link set lo up
at node sysctl -qw net.ipv4.ip_forward=1
for i in "${!pods[@]}"; do
	pod=${pods[$i]} address=10.99.0.$((i + 1))
	ip netns add "weir-demo-$pod"
	ip -n weir-demo-node link add "to-$pod" type veth peer name eth0 netns "weir-demo-$pod"
	ip -n weir-demo-node link set "to-$pod" up
	ip -n weir-demo-node route add "$address/32" dev "to-$pod"
	at node sysctl -qw "net.ipv4.conf.to-$pod.proxy_arp=1" "net.ipv4.neigh.to-$pod.proxy_delay=0"
	ip -n "weir-demo-$pod" link set lo up
	ip -n "weir-demo-$pod" address add "$address/32" dev eth0
	ip -n "weir-demo-$pod" link set eth0 up
	ip -n "weir-demo-$pod" route add default dev eth0
	echo "$pod has $address"
done
ip netns exec weir-demo-db "$home/talk" serve 5432 9000 &
running+=($!)

say "The policy: web and backup reach the database's port 5432, nobody else does"
cat "$home/world/db.yaml"
ip netns exec weir-demo-node bin/weir-agent --world "$home/world" --flows "$home/flows" --flows-window 1s 2>"$home/agent.log" &
agent=$!
until at node curl -fs http://127.0.0.1:9441/readyz >/dev/null 2>&1; do sleep 0.1; done
at node curl -s http://127.0.0.1:9441/status

try() {
	if at "$1" "$home/talk" connect "10.99.0.2:$2" >/dev/null; then answer=answered; else answer="no answer"; fi
	printf '%-7s -> db %-5s %s\n' "$1" "$2" "$answer"
}
say "Real connections"
try web 5432
try backup 5432
try cron 5432
try web 9000

say "The same, asked of the policies"
bin/weir explain -f "$home/world" shop/web shop/db 5432 | head -1
bin/weir explain -f "$home/world" shop/cron shop/db 5432 | head -1 || true

say "backup holds a connection, and web another one; then backup is taken out of the policy"
ip netns exec weir-demo-backup "$home/talk" hold 10.99.0.2:5432 >"$home/backup.txt" &
holds=$!
ip netns exec weir-demo-web "$home/talk" hold 10.99.0.2:5432 >"$home/web.txt" &
running+=($!)
sleep 1
sed '/app: backup/d' examples/node/world/db.yaml >"$home/db.yaml"
mv "$home/db.yaml" "$home/world/db.yaml"
wait "$holds"
printf 'backup: '
cat "$home/backup.txt"
at node curl -s http://127.0.0.1:9442/metrics | grep -E '^weir_agent_connections_(revoked|restored)_total'
[ ! -s "$home/web.txt" ] && echo "web: its connection goes on"
grep -o 'msg="connections were looked at".*' "$home/agent.log" || true

say "What was recorded"
sleep 2
kill "$agent"
wait "$agent" || true
bin/weir flows list --flows "$home/flows/*.jsonl.zst" | head -20

say "Replayed under the policies before and after: what the change breaks of what was seen"
bin/weir replay --flows "$home/flows/*.jsonl.zst" examples/node/world "$home/world"
