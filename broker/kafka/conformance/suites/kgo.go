package main

import (
	"fmt"
	"time"
)

// kgoParts are the tests of franz-go's package kgo. Those without a cluster run too: they are part of the package.
func kgoParts(records int) []part {
	env := func(seeds string) []string {
		return []string{"KGO_SEEDS=" + seeds, "KGO_TEST_RF=3", "KGO_TEST_MAX_TOPIC_PARTS=7", fmt.Sprint("KGO_TEST_RECORDS=", records)}
	}
	const module, pkg = "github.com/twmb/franz-go", "./pkg/kgo"
	// TestTxnEtl never ends without transactions: its consumers wait for what no producer can write.
	const transactions, large = "TestTxnEtl", "TestGroupETL|TestShareGroupETL"
	return []part{
		{name: "kgo", module: module, pkg: pkg, run: ".", skip: transactions + "|" + large, timeout: 8 * time.Minute, env: env, must: kgoExpected},
		{name: "kgo, extract, transform and load", module: module, pkg: pkg, run: large, timeout: 15 * time.Minute, env: env, must: kgoExpected},
	}
}

// kgoExpected are tests that must fail, and why.
var kgoExpected = expected{
	"TestConsumeRegex": "it looks for __consumer_offsets in the list of all topics, which leaves internal topics out",
}
