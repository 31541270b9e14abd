package flowlog

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/weir-policy/weir/policies"
)

// aggregated is a record of web to db, of 1,444 bytes as Calico Enterprise has
// them with all that it can collect.
const aggregated = `{"start_time":1772359200,"end_time":1772359500,"source_ip":null,"source_name":"-","source_name_aggr":"web-7c9f8d5b6-*","source_namespace":"shop","nat_outgoing_ports":null,"source_port":null,"source_type":"wep","source_labels":{"labels":["app=web","pod-template-hash=7c9f8d5b6","team=shop"]},"dest_ip":null,"dest_name":"-","dest_name_aggr":"db-*","dest_namespace":"shop","dest_port":5432,"dest_type":"wep","dest_labels":{"labels":["app=db","apps.kubernetes.io/pod-index=0","team=shop"]},"dest_service_namespace":"shop","dest_service_name":"db","dest_service_port":"postgres","dest_service_port_num":5432,"dest_domains":null,"proto":"tcp","action":"allow","reporter":"src","policies":{"all_policies":["0|security|security.tenant-shop|pass|1","1|default|shop/knp.default.web-egress|allow|0"],"enforced_policies":["0|security|security.tenant-shop|pass|1","1|default|shop/knp.default.web-egress|allow|0"]},"bytes_in":48120,"bytes_out":19233,"num_flows":7,"num_flows_started":5,"num_flows_completed":4,"packets_in":151,"packets_out":163,"http_requests_allowed_in":0,"http_requests_denied_in":0,"process_name":"-","num_process_names":0,"process_id":"-","num_process_ids":0,"process_args":["-"],"num_process_args":0,"original_source_ips":null,"num_original_source_ips":0,"tcp_mean_send_congestion_window":10,"tcp_min_send_congestion_window":10,"tcp_mean_smooth_rtt":412,"tcp_max_smooth_rtt":873,"tcp_mean_min_rtt":120,"tcp_max_min_rtt":144,"host":"n1"}`

// pushed is such a record as Goldmane pushes it.
const pushed = `{"Key":{"source_name":"web-7c9f8d5b6-*","source_namespace":"shop","source_type":1,"dest_name":"db-*","dest_namespace":"shop","dest_type":1,"dest_port":5432,"dest_service_name":"db","dest_service_namespace":"shop","dest_service_port_name":"postgres","dest_service_port":5432,"proto":"tcp","reporter":1,"action":1,"policies":{"enforced_policies":[{"kind":2,"name":"tenant-shop","tier":"security","action":3,"rule_index":1},{"kind":6,"namespace":"shop","name":"web-egress","tier":"default","action":1,"policy_index":1}]}},"start_time":1772359200,"end_time":1772359500,"source_labels":["app=web","pod-template-hash=7c9f8d5b6"],"dest_labels":["app=db"],"packets_in":151,"packets_out":163,"bytes_in":48120,"bytes_out":19233,"num_connections_started":5,"num_connections_completed":4,"num_connections_live":7}`

// textLine is such a record as Calico wrote it before.
const textLine = `1772359200 1772359500 wep shop web-7c9f8d5b6-* [app=web] wep shop db-* [app=db] - - tcp - 5432 7 5 4 src 151 163 48120 19233 allow`

const ownLine = `{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","first":"2026-03-01T10:00:00Z","last":"2026-03-01T10:05:00Z","from":{"namespace":"shop","pod":"web-7c9f8d5b6-abcde","workload":{"kind":"Deployment","name":"web"},"labels":{"app":"web"},"address":"10.0.1.5"},"to":{"namespace":"shop","pod":"db-0","workload":{"kind":"StatefulSet","name":"db"},"labels":{"app":"db"},"address":"10.0.2.7"},"protocol":"TCP","port":5432,"verdict":"allow","count":12,"bytes":34567,"packets":99,"replyBytes":12,"replyPackets":3,"policies":[{"tier":"security","group":"projectcalico.org","kind":"GlobalNetworkPolicy","name":"security.tenant-shop","action":"pass","rule":1}],"origin":{"format":"calico","reporter":"source","window":300}}`

// benchmarkRead reads records of 400 pods, every one with an own time and own
// counters.
func benchmarkRead(b *testing.B, record string) {
	var text strings.Builder
	const records = 4000
	for i := range records {
		pod := fmt.Sprintf("web-%05d", i%400)
		edits := strings.NewReplacer(
			"web-7c9f8d5b6-abcde", pod+"-abcde", "web-7c9f8d5b6-*", pod+"-*", "10.0.1.5", fmt.Sprintf("10.0.%d.%d", i/256%256, i%256),
			"5a1b", fmt.Sprintf("%08x-5d2f-4a6e-9c0b-7f1e2d3c4b5a", i), "48120", fmt.Sprint(48120+i), "1772359200", fmt.Sprint(1772359200+i/100),
		)
		text.WriteString(edits.Replace(record) + "\n")
	}
	input := []byte(text.String())
	flows := 0
	b.SetBytes(int64(len(input)))
	b.ReportAllocs()
	for b.Loop() {
		stats, err := Read(context.Background(), bytes.NewReader(input), "f", Options{Strict: true}, func(policies.Flow) error { flows++; return nil })
		if err != nil || stats.Flows != records {
			b.Fatalf("%+v, error %v", stats, err)
		}
	}
	b.ReportMetric(float64(flows)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkReadHubble(b *testing.B)     { benchmarkRead(b, forwarded) }
func BenchmarkReadCalico(b *testing.B)     { benchmarkRead(b, aggregated) }
func BenchmarkReadCalicoText(b *testing.B) { benchmarkRead(b, textLine) }
func BenchmarkReadGoldmane(b *testing.B)   { benchmarkRead(b, pushed) }
func BenchmarkReadWeir(b *testing.B)       { benchmarkRead(b, ownLine) }
