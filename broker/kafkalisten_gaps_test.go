package broker

import (
	"slices"
	"testing"

	"github.com/flotilla-log/flotilla/broker/api"
)

func TestListenerGaps(t *testing.T) {
	one := api.Endpoint{ID: 1, Kafka: "a:9092", KafkaListeners: "OUTSIDE=x:1,SIDE=x:2"}
	two := api.Endpoint{ID: 2, Kafka: "b:9092", KafkaListeners: "OUTSIDE=y:1"}
	three := api.Endpoint{ID: 3}
	for _, c := range []struct {
		brokers []api.Endpoint
		want    []string
	}{
		{nil, nil},
		{[]api.Endpoint{one}, nil},
		{[]api.Endpoint{three, three}, nil},
		{[]api.Endpoint{one, two}, []string{"broker 2 has no Kafka listener SIDE"}},
		{[]api.Endpoint{two, three}, []string{"broker 3 has no Kafka listener OUTSIDE", "broker 3 has no Kafka listener PLAINTEXT"}},
	} {
		if got := listenerGaps(c.brokers); !slices.Equal(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
