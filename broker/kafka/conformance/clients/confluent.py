"""confluent-kafka (librdkafka): the verbs of ../README.md."""
import confluent_kafka as ck
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions as GroupOffsets, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec
from common import await_true, ended, main, perform, records_in, require, show, staged_at


def version():
    return f"confluent-kafka {ck.__version__} (librdkafka {ck.libversion()[0]})"


def produce(brokers, topic, codec):
    failed = []

    def delivered(error, message):
        if error:
            failed.append(error)
        else:
            print("acked", message.value().decode(), flush=True)

    p = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "compression.type": codec})
    for key, value in records_in():
        p.produce(topic, key=key, value=value, on_delivery=delivered)
        p.poll(0)
    require(p.flush(150) == 0 and not failed, failed)


def display(m):
    show(m.partition(), m.offset(), m.key().decode(), m.value().decode())


def consume(brokers, group, topic):
    c = Consumer({"bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest",
                  "heartbeat.interval.ms": 300, "auto.commit.interval.ms": 300})
    c.subscribe([topic])
    while not ended.is_set():
        m = c.poll(0.1)
        if m is not None and m.error():
            raise ck.KafkaException(m.error())
        if m is not None:
            display(m)
    c.close()


def seek(brokers, topic, partition, by, at):
    c = Consumer({"bootstrap.servers": brokers, "group.id": "confluent-seek", "auto.offset.reset": "error"})
    p = TopicPartition(topic, int(partition), int(at))
    if by == "time":
        p = c.offsets_for_times([p], timeout=30)[0]
    c.assign([p])
    m = c.poll(60)
    require(m is not None and not m.error(), m and m.error())
    display(m)
    c.close()


def admin(brokers, topic, data, group, *operations):
    a = AdminClient({"bootstrap.servers": brokers})
    first = TopicPartition(data, 0)
    resource = ConfigResource("topic", topic)

    def only(futures):
        return [f.result(60) for f in futures.values()][0]

    def described():
        return only(a.describe_topics(TopicCollection([topic])))

    def offset():
        return only(a.list_consumer_group_offsets([GroupOffsets(group)])).topic_partitions[0].offset

    def create():
        only(a.create_topics([NewTopic(topic, 2, 3, config={"retention.ms": "86400000"})]))

    def describe(partitions=2):
        await_true("the topic is described", lambda: len(described().partitions) == partitions and len(described().partitions[0].replicas) == 3)

    def cluster():
        found = a.describe_cluster().result(60)
        require(len(found.nodes) == 3 and found.controller is not None, found)

    def grow():
        only(a.create_partitions([NewPartitions(topic, 4)]))
        describe(4)

    def alter():
        change = ConfigResource("topic", topic, incremental_configs=[ConfigEntry("max.message.bytes", "2097152", incremental_operation=AlterConfigOpType.SET)])
        only(a.incremental_alter_configs([change]))

    def configs():
        def seen():
            found = only(a.describe_configs([resource]))
            return (found["max.message.bytes"].value, found["retention.ms"].value) == ("2097152", "86400000")
        await_true("the settings are seen", seen)

    def by_time():
        found = only(a.list_offsets({first: OffsetSpec.for_timestamp(staged_at(20))})).offset
        require(found == 20, found)

    def delete_records():
        found = only(a.delete_records([TopicPartition(data, 0, 10)])).low_watermark
        require(found == 10, found)

    def groups():
        found = a.list_consumer_groups().result(60)
        require(not found.errors and group in [g.group_id for g in found.valid], found.errors)

    def describe_group():
        found = only(a.describe_consumer_groups([group]))
        require(found.state == ck.ConsumerGroupState.EMPTY, found.state)

    def offsets():
        require(offset() == 7, offset())

    def set_offsets():
        only(a.alter_consumer_group_offsets([GroupOffsets(group, [TopicPartition(data, 0, 30)])]))
        require(offset() == 30, offset())

    def delete_group():
        only(a.delete_consumer_groups([group]))

    def elect():
        found = a.elect_leaders(ck.ElectionType.PREFERRED, [TopicPartition(topic, 0), TopicPartition(topic, 1)]).result(60)
        wrong = [e for e in found.values() if e is not None and e.code() != ck.KafkaError.ELECTION_NOT_NEEDED]
        require(len(found) == 2 and not wrong, found)

    def delete():
        only(a.delete_topics([topic]))

    perform(operations, {
        "create topic": create, "describe topic": describe, "describe cluster": cluster, "grow partitions": grow, "alter configs": alter,
        "describe configs": configs, "offsets by time": by_time, "delete records": delete_records, "list groups": groups, "describe group": describe_group,
        "list group offsets": offsets, "alter group offsets": set_offsets, "delete group": delete_group, "elect leaders": elect, "delete topic": delete,
    })


main(version=version, produce=produce, consume=consume, seek=seek, admin=admin)
