package broker

import (
	"cmp"
	"context"
	"net"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/kafka"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// clientGroupsMax bounds what one broker tells of its clients.
const clientGroupsMax = 1000

// ListClients implements api.Clients.
func (b *Broker) ListClients(ctx context.Context) (api.ClientList, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timing.CallTimeout)
	defer cancel()
	v := b.view()
	var mu sync.Mutex
	var out api.ClientList
	var g errgroup.Group
	g.SetLimit(16)
	for id := range v.State.Brokers {
		if !v.Alive[id] {
			continue
		}
		g.Go(func() error {
			list, err := call[struct{}, api.ClientList](ctx, b, metadata.ServerAddress(id), methodClients, struct{}{})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Missing = append(out.Missing, id)
				return nil
			}
			out.Clients, out.Omitted = append(out.Clients, list.Clients...), out.Omitted+list.Omitted
			return nil
		})
	}
	_ = g.Wait()
	slices.Sort(out.Missing)
	slices.SortFunc(out.Clients, func(x, y api.ClientGroup) int {
		return cmp.Or(cmp.Compare(x.Broker, y.Broker), cmp.Compare(x.Host, y.Host), cmp.Compare(x.ClientID, y.ClientID), cmp.Compare(x.Listener, y.Listener),
			cmp.Compare(x.Software, y.Software), cmp.Compare(x.SoftwareVersion, y.SoftwareVersion))
	})
	return out, nil
}

// onClients lists the clients of this broker.
func (b *Broker) onClients(context.Context, struct{}) (api.ClientList, error) {
	if err := b.started(); err != nil || b.kafka == nil {
		return api.ClientList{}, err
	}
	return groupClients(b.cfg.ID, b.kafka.Clients()), nil
}

// groupClients puts together the connections that differ only in their ports.
func groupClients(id api.BrokerID, conns []kafka.Client) api.ClientList {
	var out api.ClientList
	at := map[api.ClientGroup]int{}
	for _, c := range conns {
		g := api.ClientGroup{Broker: id, Listener: c.Listener, Host: c.Addr, ClientID: c.ID, Software: c.Software, SoftwareVersion: c.Version}
		if host, _, err := net.SplitHostPort(c.Addr); err == nil {
			g.Host = host
		}
		i, known := at[g]
		if !known {
			if len(out.Clients) == clientGroupsMax {
				out.Omitted++
				continue
			}
			i = len(out.Clients)
			at[g] = i
			g.SinceMs = c.Since.UnixMilli()
			out.Clients = append(out.Clients, g)
		}
		out.Clients[i].Connections++
		out.Clients[i].SinceMs = min(out.Clients[i].SinceMs, c.Since.UnixMilli())
	}
	return out
}
