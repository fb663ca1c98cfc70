package collector

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// handler answers /healthz, /metrics and /status.
func (p *parts) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &metrics{p})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", p.serveHealth)
	mux.HandleFunc("GET /status", p.serveStatus)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "swarming-collector: /status /metrics /healthz\n")
	})
	return limited(mux)
}

// maxRequests is how many requests are answered at once: with 20,000 agents
// each costs tens of megabytes.
const maxRequests = 4

// limited answers 503 to what comes while maxRequests others are answered.
func limited(next http.Handler) http.Handler {
	busy := make(chan struct{}, maxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case busy <- struct{}{}:
			defer func() { <-busy }()
			next.ServeHTTP(w, r)
		default:
			http.Error(w, fmt.Sprintf("%d requests are being answered: try again", maxRequests), http.StatusServiceUnavailable)
		}
	})
}

// serveHealth answers 200 when nothing needs a person, else 503 and what does.
func (p *parts) serveHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	problems := p.status(r.Context()).Problems
	if len(problems) == 0 {
		fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	for _, problem := range problems {
		fmt.Fprintln(w, problem)
	}
}

func (p *parts) serveStatus(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(p.status(r.Context())) // a client that went away needs no answer
}
