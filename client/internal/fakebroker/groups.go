package fakebroker

import pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"

type group struct{}

type groupsServer struct {
	pb.UnimplementedGroupsServer
	b *Broker
}
