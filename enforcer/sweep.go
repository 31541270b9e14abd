package enforcer

import (
	"context"
	"net/netip"
	"time"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/policies/netset"
)

// between is the least time between two looks at all connections.
const between = 100 * time.Millisecond

// sweepAlways looks at all connections whenever that is asked for.
func (a *Agent) sweepAlways(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.sweeps:
		}
		if err := a.sweep(); err != nil {
			a.options.Log.Error("not all connections could be revoked", "error", err)
			a.metrics.failed("revoke")
			signal(a.sweeps)
		}
		if !sleep(ctx, between) {
			return
		}
	}
}

// sweep revokes the connections that the ruleset in force would not let in, and takes
// back what was revoked and would be let in now.
func (a *Agent) sweep() error {
	begin := time.Now()
	a.mutex.Lock()
	ruleset := a.loaded
	a.mutex.Unlock()
	if ruleset == nil {
		return nil
	}
	own, err := a.kernel.Addresses()
	if err != nil {
		return err
	}
	isOwn := map[netip.Addr]bool{}
	for _, at := range own {
		isOwn[at] = true
	}
	var revoke, restore []conntrack.Connection
	total := 0
	err = a.kernel.Connections(func(c *conntrack.Connection) bool {
		total++
		p, ok := packetOf(c)
		if !ok || isOwn[p.Source] {
			return true
		}
		switch passes, revoked := ruleset.Fate(p).Passes, nft.Bits(c.Label).Has(nft.RevokedBit); {
		case !passes && !revoked:
			revoke = append(revoke, *c)
		case passes && revoked:
			restore = append(restore, *c)
		}
		return true
	})
	if err != nil {
		return err
	}
	revoked, err := a.kernel.Revoke(revoke)
	a.metrics.revoked.Add(float64(revoked))
	restored, failed := a.kernel.Restore(restore)
	a.metrics.restored.Add(float64(restored))
	a.metrics.swept(total, time.Since(begin))
	if revoked+restored > 0 {
		a.options.Log.Info("connections were looked at", "all", total, "revoked", revoked, "restored", restored)
	}
	if err != nil {
		return err
	}
	return failed
}

// packetOf returns the first packet of a connection as it was forwarded: what it was for
// is what answers. It is not ok for what another connection announced, which passes as
// long as that does.
func packetOf(c *conntrack.Connection) (nft.Packet, bool) {
	p := nft.Packet{Source: c.Original.Source, Destination: c.Reply.Source, Protocol: c.Original.Protocol, Port: c.Reply.SourcePort}
	switch {
	case c.Status&conntrack.Expected != 0:
		return nft.Packet{}, false
	case p.Protocol == netset.ICMP || p.Protocol == netset.ICMPv6:
		p.Port = c.Original.DestinationPort
	case !p.Protocol.HasPorts():
		p.Port = 0
	}
	return p, true
}
