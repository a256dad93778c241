// Package metrics tells operators how a broker does: Prometheus' text format over HTTP, and profiles if they are asked for.
//
//	set.go       what is counted where it happens (counters, histograms)
//	topics.go    what is counted by topic, and the bound on that
//	observed.go  an api.Broker that counts operations and errors
//	state.go     what is looked at when somebody scrapes (gauges)
//	server.go    the listener
//
// README.md lists the names. Counting costs an atomic add or two per batch, request or fsync, and nothing per record. What takes a look around is done at
// scrape time only, and not twice at a time.
package metrics
