package sim

// scenarios are schedules with a name: each showed a bug once, here or in other tests, and has to stay.
var scenarios = []Plan{
	{Name: "wipe-leader", Founders: 3, Pace: 10 * milli, Window: 5 * second, Steps: []Step{
		{At: 500 * milli, Fault: "wipe", Victim: "leader:2", For: 100 * milli},
	}},
}
