package flowrow

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is read is written as a text that reads as the same.
func FuzzLabels(f *testing.F) {
	for _, text := range []string{"", "app=web", "app=web,tier=", "a%2Cb=c%3D", "=", "app", "a=%", "a=b=c", "a=1,a=2", "%25=%zz"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		labels, err := ParseLabels(text)
		if err != nil {
			return
		}
		written := FormatLabels(labels)
		again, err := ParseLabels(written)
		if err != nil {
			t.Fatalf("%q: %v", written, err)
		}
		if diff := cmp.Diff(labels, again); diff != "" && len(labels) > 0 {
			t.Errorf("%q, written as %q:\n%s", text, written, diff)
		}
	})
}

// So is an end, whose identity has fewer texts and stays what it is.
func FuzzPeer(f *testing.F) {
	f.Add("shop", "Deployment", "web", "web-7d9c8b6f5-x2x4z", "", "", "app=web", "partial", "10.0.0.1", "pod", "", "")
	f.Add("shop", "", "", "", "web-", "Job/shop/a,CronJob/shop/b", "", "partial none", "::ffff:10.0.0.1", "", "", "")
	f.Add("", "", "", "", "", "", "", "none", "*", "outside private", "NetworkSet/shop/a%2Fb", "a.example,b%2Cc")
	f.Add("", "a/b", "%2", "", "", "//", "=", "full", "10.0.0.1/8", "node own-node", "x", ",")
	f.Fuzz(func(t *testing.T, namespace, kind, name, pod, prefix, owners, labels, state, ip, network, set, names string) {
		e := End{
			Namespace: namespace, Kind: kind, Name: name, Pod: pod, PodPrefix: prefix, Owners: owners,
			Labels: labels, LabelsState: state, IP: ip, Network: network, Set: set, Names: names,
		}
		p, err := e.Peer()
		if err != nil {
			return
		}
		written := EndOf(&p)
		again, err := written.Peer()
		if err != nil {
			t.Fatalf("%q: %v", written, err)
		}
		if diff := cmp.Diff(EndOf(&again), written); diff != "" {
			t.Errorf("%q:\n%s", e, diff)
		}
		if own := written.Identity(); own.Identity() != own {
			t.Errorf("%q: the identity of its identity is another", written)
		}
	})
}
