package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseTargets(t *testing.T) {
	got, err := parseTargets([]string{"orders/3=4,5, 6", "a.b-c/0=cancel"})
	var said []string
	for _, target := range got {
		said = append(said, fmt.Sprint(target.Topic, " ", target.Partition, " ", target.Replicas, " ", target.Cancel))
	}
	if err != nil || strings.Join(said, "; ") != "orders 3 [4 5 6] false; a.b-c 0 [] true" {
		t.Errorf("%v, %v", said, err)
	}
	for _, bad := range []string{"orders", "orders=1", "orders/3", "orders/x=1", "orders/-1=1", "/3=1", "orders/3=", "orders/3=1,,2", "orders/3=-1", "orders/3=one"} {
		if got, err := parseTargets([]string{bad}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

func TestWriteMoves(t *testing.T) {
	var b strings.Builder
	writeMoves(&b, nil)
	writeMoves(&b, []reassignmentJSON{{Topic: "orders", Partition: 3, Replicas: []int32{4, 1}, Adding: []int32{4}, Removing: []int32{1}}})
	if want := "no partition is being reassigned\norders/3: replicas on [4 1], to come on [4], to go from [1]\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}
