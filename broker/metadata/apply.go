package metadata

// change collects what one command does to a State.
type change struct{}

func (c *InitCluster) apply(ch *change) (Result, error)         { return Result{}, nil }
func (c *RegisterBroker) apply(ch *change) (Result, error)      { return Result{}, nil }
func (c *MarkAway) apply(ch *change) (Result, error)            { return Result{}, nil }
func (c *SetDraining) apply(ch *change) (Result, error)         { return Result{}, nil }
func (c *RemoveBroker) apply(ch *change) (Result, error)        { return Result{}, nil }
func (c *SetRebalance) apply(ch *change) (Result, error)        { return Result{}, nil }
func (c *CreateTopic) apply(ch *change) (Result, error)         { return Result{}, nil }
func (c *AlterTopic) apply(ch *change) (Result, error)          { return Result{}, nil }
func (c *GrowTopic) apply(ch *change) (Result, error)           { return Result{}, nil }
func (c *DeleteTopic) apply(ch *change) (Result, error)         { return Result{}, nil }
func (c *SetReplicas) apply(ch *change) (Result, error)         { return Result{}, nil }
func (c *Report) apply(ch *change) (Result, error)              { return Result{}, nil }
func (c *QuarantineReplica) apply(ch *change) (Result, error)   { return Result{}, nil }
func (c *AllocateProducerIDs) apply(ch *change) (Result, error) { return Result{}, nil }
