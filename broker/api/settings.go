package api

import "context"

// Configs is what brokers are told at run time. It is kept in the cluster's metadata, for all brokers or for one, under Kafka's names. Settings that are the defaults of
// topics' settings have effect on all topics that do not set their own.
type Configs interface {
	// BrokerSettings lists all settings of this broker, or, with NoBroker, those that are set for all brokers. Other brokers are not answered for
	// (CodeInvalidRequest).
	BrokerSettings(ctx context.Context, id BrokerID) ([]BrokerSetting, error)
	// AlterBroker changes what was set at run time. CodeInvalidConfig, CodeUnknownBroker, CodeInvalidRequest.
	AlterBroker(ctx context.Context, req AlterBrokerRequest) error
	// AutoCreateTopics says whether asking for a topic creates it.
	AutoCreateTopics() bool
}

// AlterBrokerRequest sets and unsets settings of one broker, or, with NoBroker, of all that have none of their own.
type AlterBrokerRequest struct {
	Broker BrokerID
	Set    map[string]string
	// Unset may name what is not set, or not known at all: nothing happens then, as in Kafka.
	Unset []string
	// Replace unsets everything that Set does not name.
	Replace      bool
	ValidateOnly bool
}

// ConfigSource says where the value of a setting comes from. Later ones go before earlier ones.
type ConfigSource int8

// The sources.
const (
	SourceDefault        ConfigSource = iota + 1 // of the program
	SourceStaticBroker                           // the broker's flags and files
	SourceDynamicDefault                         // set at run time for all brokers
	SourceDynamicBroker                          // set at run time for this broker
	SourceTopic                                  // set on the topic
)

// ConfigType is what values of a setting look like, numbered as in Kafka.
type ConfigType int8

// The types.
const (
	ConfigBool   ConfigType = 1
	ConfigString ConfigType = 2
	ConfigInt    ConfigType = 3
	ConfigLong   ConfigType = 5
	ConfigList   ConfigType = 7
)

// ConfigValue is one of the values that a setting has, under the name that it has there.
type ConfigValue struct {
	Key, Value string
	Source     ConfigSource
}

// BrokerSetting is one setting of a broker in effect.
type BrokerSetting struct {
	ConfigValue
	Type          ConfigType
	ReadOnly      bool // fixed when the broker starts
	Documentation string
	// Synonyms are all values that there are, the one in effect first.
	Synonyms []ConfigValue
}
