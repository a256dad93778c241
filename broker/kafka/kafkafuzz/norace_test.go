//go:build !race

package kafkafuzz_test

const raceDetector = false
