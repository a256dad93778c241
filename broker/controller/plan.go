package controller

import (
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// View is all that the planner looks at.
type View struct {
	State *metadata.State
	Alive map[api.BrokerID]bool // by gossip
	Now   time.Time
}

// Place chooses brokers for count new partitions of a topic that has the partitions of existing already (nil: a new topic): alive, not draining,
// in distinct racks as far as there are racks, balanced in replicas and in preferred leaders. CodeInvalidReplicationFactor if there are too few brokers.
// The result is for CreateTopic.Assignment or GrowTopic.Assignment.
func Place(v View, existing *metadata.Topic, count int32, rf int16) ([][]api.BrokerID, error) {
	return nil, nil
}

// PlanRebalance says what metadata.SetRebalance{On: true} would lead to.
func PlanRebalance(v View) api.RebalancePlan { return api.RebalancePlan{} }

// ReplicasOn counts the replicas, desired or voting, that a broker has.
func ReplicasOn(s *metadata.State, id api.BrokerID) int { return 0 }

// BrokerState derives what Status shows.
func BrokerState(v View, id api.BrokerID) api.BrokerState { return api.BrokerAlive }

// Problems lists in plain words what is wrong with partitions.
func Problems(v View) []api.PartitionProblem { return nil }
