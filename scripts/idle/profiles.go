package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/scripts/procs"
)

// heaps writes what each broker's memory and goroutines are made of, if that was asked for.
func heaps(ctx context.Context, o options, cluster *procs.Cluster) error {
	if o.profiles == "" {
		return nil
	}
	for i := range brokers {
		for _, what := range []string{"heap?gc=1", "goroutine"} {
			if err := profile(ctx, o, cluster, i, what); err != nil {
				return err
			}
		}
	}
	return nil
}

// profile fetches one of a broker's profiles into a file.
func profile(ctx context.Context, o options, cluster *procs.Cluster, i int, what string) error {
	name, _, _ := strings.Cut(what, "?")
	body, err := get(ctx, "http://"+cluster.MetricsAddr(i)+"/debug/pprof/"+what)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	f, err := os.Create(filepath.Join(o.profiles, fmt.Sprintf("%s-%d.pprof", name, i+1)))
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, body); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// runtimeMetrics are those that the Go runtime of a broker gives of itself; they have no labels.
func runtimeMetrics(ctx context.Context, addr string) (map[string]float64, error) {
	body, err := get(ctx, "http://"+addr+"/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	m := map[string]float64{}
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil && strings.HasPrefix(name, "go_") {
			m[name] = v
		}
	}
	return m, lines.Err()
}

func get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return resp.Body, nil
}
