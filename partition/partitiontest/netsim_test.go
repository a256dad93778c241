package partitiontest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/partition/partitiontest"
)

// A cut holds one direction back and loses nothing; mending lets it through; deadlines, Close and a dial's context end waiting.
func TestNetworkCutsOneWay(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	n := partitiontest.NewNetwork()
	n.Place("2", ln.Addr().String())
	dial := n.Dial("1")
	a, err := dial(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	buf := make([]byte, 1)
	n.Cut("1", "2")
	write(t, b, "x") // the other way works
	if _, err := io.ReadFull(a, buf); err != nil || buf[0] != 'x' {
		t.Fatalf("%q, %v", buf, err)
	}
	_ = a.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := a.Write([]byte("y")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write over a cut link: %v", err)
	}
	_ = a.SetWriteDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := dial(ctx, "tcp", ln.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a dial over a cut link: %v", err)
	}
	n.Mend("1", "2")
	write(t, a, "z")
	if _, err := io.ReadFull(b, buf); err != nil || buf[0] != 'z' {
		t.Fatalf("%q, %v", buf, err)
	}
	n.Cut("2", "1")
	write(t, b, "w")
	got := make(chan error, 1)
	go func() { _, err := a.Read(make([]byte, 1)); got <- err }()
	a.Close()
	if err := <-got; err == nil {
		t.Error("something came over a cut link")
	}
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}
