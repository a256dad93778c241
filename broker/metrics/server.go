package metrics

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options of the listener.
type Options struct {
	// Profiles serves /debug/pprof as well. A CPU profile costs the broker some percent while it is taken.
	Profiles bool
	Logger   hclog.Logger
}

const (
	readTimeout = 10 * time.Second
	// writeTimeout bounds a response; profiles take as long as their caller says, and have a bound of their own.
	writeTimeout  = 30 * time.Second
	scrapeTimeout = 10 * time.Second
	// scrapesAtOnce are answered at a time; more are told to come again.
	scrapesAtOnce = 4
	headerBytes   = 64 << 10
)

// Server serves a Set over HTTP. Serve runs it, Stop ends it; each is called once.
type Server struct {
	http *http.Server
}

// NewServer makes the server.
func NewServer(s *Set, opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	errorLog := opts.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog: errorLog, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: scrapesAtOnce, Timeout: scrapeTimeout,
	}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "Flotilla: metrics are at /metrics")
	})
	if opts.Profiles {
		addProfiles(mux)
	}
	return &Server{http: newHTTPServer(mux, errorLog, opts.Profiles)}
}

func newHTTPServer(h http.Handler, l *log.Logger, profiles bool) *http.Server {
	srv := &http.Server{
		Handler: h, ErrorLog: l, ReadTimeout: readTimeout, ReadHeaderTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: headerBytes,
	}
	if profiles {
		srv.WriteTimeout = 5 * time.Minute
	}
	return srv
}

func addProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

// Serve answers until Stop. It returns nil after Stop.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// Stop lets requests finish until ctx is done, and closes all connections.
func (s *Server) Stop(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}
