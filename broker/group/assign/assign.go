// Package assign divides topics' partitions among the members of a consumer group, as Kafka's four assignors do.
package assign
