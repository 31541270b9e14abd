package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weir-policy/weir/enforcer"
)

// listen returns a part for each address that something is served at. It listens at
// once, so that an address which is taken is told before anything is done.
func listen(o *options, agent *enforcer.Agent, captures *captures) ([]part, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(agent, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if captures != nil {
		registry.MustRegister(captures)
	}
	metrics := http.NewServeMux()
	metrics.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	health := http.NewServeMux()
	health.HandleFunc("/readyz", check(agent.Ready))
	health.HandleFunc("/livez", check(agent.Alive))
	health.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) { writeStatus(w, agent.Status()) })
	profile := http.NewServeMux()
	profile.HandleFunc("/debug/pprof/", pprof.Index)
	profile.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	profile.HandleFunc("/debug/pprof/profile", pprof.Profile)
	profile.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	profile.HandleFunc("/debug/pprof/trace", pprof.Trace)

	var parts []part
	for _, x := range []struct {
		name, address string
		handler       http.Handler
	}{{"metrics", o.metricsAddr, metrics}, {"health", o.healthAddr, health}, {"pprof", o.pprofAddr, profile}} {
		if x.address == "0" {
			continue
		}
		l, err := net.Listen("tcp", x.address)
		if err != nil {
			return nil, fmt.Errorf("--%s-addr: %w", x.name, err)
		}
		server := &http.Server{Handler: x.handler, ReadHeaderTimeout: 10 * time.Second}
		parts = append(parts, part{x.name, func(ctx context.Context) error {
			stop := context.AfterFunc(ctx, func() { _ = server.Close() })
			defer stop()
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return ctx.Err()
		}})
	}
	return parts, nil
}

func check(ask func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := ask(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// writeStatus prints how things stand, for people.
func writeStatus(w http.ResponseWriter, s enforcer.Status) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if s.Generation == 0 {
		fmt.Fprintln(w, "nothing is in force yet")
	} else {
		fmt.Fprintf(w, "generation %d is in force since %s; policies: %d, rules: %d, pods: %d, elements: %d\n",
			s.Generation, s.Since.UTC().Format(time.RFC3339), s.Policies, s.Rules, s.Pods, s.Elements)
	}
	if s.Failed != nil {
		fmt.Fprintf(w, "failed: %s\n", s.Failed)
	}
	var lines []string
	for source, err := range s.Problems {
		so := source
		if enforcer.IsWorld(source) {
			so = "the last good " + source + " stays in force"
		}
		lines = append(lines, fmt.Sprintf("problem: %s: %s", so, err))
	}
	slices.Sort(lines)
	for _, r := range s.Refusals {
		lines = append(lines, "refused: "+r.String())
	}
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
}
