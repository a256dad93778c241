"""kafka-python: the verbs of ../README.md."""
import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.structs import OffsetAndMetadata
from common import await_true, ended, main, perform, records_in, require, show, staged_at


def version():
    return f"kafka-python {kafka.__version__}"


def produce(brokers, topic, codec):
    failed = []
    p = KafkaProducer(bootstrap_servers=brokers.split(","), compression_type=None if codec == "none" else codec, acks="all",
                      enable_idempotence=True, delivery_timeout_ms=150000, linger_ms=5)
    for key, value in records_in():
        f = p.send(topic, key=key.encode(), value=value.encode())
        f.add_callback(lambda _, value=value: print("acked", value, flush=True))
        f.add_errback(failed.append)
    p.flush(150)
    p.close()
    require(not failed, failed[:3])


def display(r):
    show(r.partition, r.offset, r.key.decode(), r.value.decode())


def consume(brokers, group, topic):
    c = KafkaConsumer(topic, bootstrap_servers=brokers.split(","), group_id=group, auto_offset_reset="earliest", heartbeat_interval_ms=300,
                      enable_auto_commit=True, auto_commit_interval_ms=300)
    while not ended.is_set():
        for records in c.poll(timeout_ms=100).values():
            for r in records:
                display(r)
    c.close()


def seek(brokers, topic, partition, by, at):
    c = KafkaConsumer(bootstrap_servers=brokers.split(","), consumer_timeout_ms=60000)
    p, at = TopicPartition(topic, int(partition)), int(at)
    c.assign([p])
    if by == "time":
        at = c.offsets_for_times({p: at})[p].offset
    c.seek(p, at)
    display(next(c))
    c.close()


def admin(brokers, topic, data, group, *operations):
    a = KafkaAdminClient(bootstrap_servers=brokers.split(","))
    first = TopicPartition(data, 0)

    def described():
        return sorted(a.describe_topics([topic])[0]["partitions"], key=lambda p: p["partition_index"])

    def offset():
        found = a.list_group_offsets({group: [first]})[group].get(first)
        return -1 if found is None else found.offset

    def create():
        a.create_topics({topic: {"num_partitions": 2, "replication_factor": 3, "configs": {"retention.ms": "86400000"}}})

    def describe(partitions=2):
        await_true("the topic is described", lambda: len(described()) == partitions and len(described()[0]["replica_nodes"]) == 3)

    def cluster():
        found = a.describe_cluster()
        require(len(found["brokers"]) == 3 and found["controller_id"] > 0 and found["cluster_id"], found)

    def grow():
        a.create_partitions({topic: 4})
        describe(4)

    def alter():
        a.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "2097152"})])

    def configs():
        def seen():
            found = a.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")["topic"][topic]
            return (found["max.message.bytes"]["value"], found["retention.ms"]["value"]) == ("2097152", "86400000")
        await_true("the settings are seen", seen)

    def by_time():
        found = a.list_partition_offsets({first: staged_at(20)})[first].offset
        newest = a.list_partition_offsets({first: OffsetSpec.MAX_TIMESTAMP})[first].offset
        require((found, newest) == (20, 59), (found, newest))

    def delete_records():
        found = a.delete_records({first: 10})[first]["low_watermark"]
        require(found == 10, found)

    def groups():
        found = [g["group_id"] for g in a.list_groups()]
        require(group in found, found)

    def describe_group():
        found = a.describe_groups([group])[group]
        require(found["group_state"] == "Empty", found)

    def offsets():
        require(offset() == 7, offset())

    def delete_offsets():
        a.delete_group_offsets(group, [first])
        require(offset() == -1, offset())

    def set_offsets():
        a.alter_group_offsets(group, {first: OffsetAndMetadata(30, "", -1)})
        require(offset() == 30, offset())

    def delete_group():
        found = a.delete_groups([group])
        require("OK" in str(found) or "NoError" in str(found), found)

    def log_dirs():
        found = a.describe_log_dirs({data: [0]})
        require(str(found).count(f"'{data}'") == 3, found)

    def producers():
        found = a.describe_producers([first])[first]
        require(len(found.active_producers) == 1, found)

    def elect():
        a.elect_leaders(0, {topic: [0, 1]})  # it raises what is not ELECTION_NOT_NEEDED

    def reassign():
        p = TopicPartition(topic, 0)
        want = described()[0]["replica_nodes"][::-1]
        found = a.alter_partition_reassignments({p: want})
        require(found[p] is None, found)
        await_true("the replicas are as assigned", lambda: not a.list_partition_reassignments([p]) and described()[0]["replica_nodes"] == want)

    def delete():
        a.delete_topics([topic])

    perform(operations, {
        "create topic": create, "describe topic": describe, "describe cluster": cluster, "grow partitions": grow, "alter configs": alter,
        "describe configs": configs, "offsets by time": by_time, "delete records": delete_records, "list groups": groups, "describe group": describe_group,
        "list group offsets": offsets, "delete group offsets": delete_offsets, "alter group offsets": set_offsets, "delete group": delete_group,
        "describe log dirs": log_dirs, "describe producers": producers, "elect leaders": elect, "reassign partitions": reassign, "delete topic": delete,
    })


main(version=version, produce=produce, consume=consume, seek=seek, admin=admin)
