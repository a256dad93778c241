"""confluent-kafka (librdkafka): prints "ok FEATURE" for what works. Usage: confluent.py BROKERS"""
import sys
import time
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

brokers = sys.argv[1]
admin = AdminClient({"bootstrap.servers": brokers})


def create(topic, partitions=3):
    for f in admin.create_topics([NewTopic(topic, partitions, 3, config={"retention.ms": "-1"})]).values():
        f.result()


def produce(topic, first, last, **config):
    failed = []
    p = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, **config})
    for i in range(first, last):
        p.produce(topic, key=f"key-{i}", value=str(i), on_delivery=lambda e, m: failed.append(e) if e else None)
    assert p.flush(30) == 0 and not failed, failed


def member(group, topic):
    c = Consumer({"bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    c.subscribe([topic])
    return c


def read(consumers, wanted, patience=40):
    got, end = [], time.time() + patience
    while len(set(got)) < wanted and time.time() < end:
        for c in consumers:
            for m in c.consume(500, 0.1):
                if not m.error():
                    got.append(int(m.value()))
    assert len(set(got)) >= wanted, f"{len(set(got))} of {wanted} were read"
    return got


def committed(c):
    if c.assignment() and any(p.offset >= 0 for p in c.position(c.assignment())):
        c.commit(asynchronous=False)


create("confluent")
for i, codec in enumerate(["none", "gzip", "snappy", "lz4", "zstd"]):
    produce("confluent", 100 * i, 100 * i + 100, **{"compression.type": codec})
members = [member("confluent", "confluent") for _ in range(3)]
read(members, 500)
print("ok compression")
for c in members:
    committed(c)
members[0].close()
produce("confluent", 500, 600)
read(members[1:], 100)
for c in members[1:]:
    committed(c)
    c.close()
print("ok group")
produce("confluent", 600, 650)
last = member("confluent", "confluent")
got = read([last], 50)
assert set(range(600, 650)) <= set(got)
last.close()
print("ok resume")
create("confluent-seek", 1)
p = Producer({"bootstrap.servers": brokers})
for i in range(20):
    p.produce("confluent-seek", value=str(i), timestamp=1_700_000_000_000 + 1000 * i)
p.flush(10)
at = Consumer({"bootstrap.servers": brokers, "group.id": "seek"})
found = at.offsets_for_times([TopicPartition("confluent-seek", 0, 1_700_000_012_000)], timeout=10)
assert found[0].offset == 12, found
at.assign([TopicPartition("confluent-seek", 0, 12)])
assert read([at], 1)[0] == 12
at.close()
print("ok seek")
resource = ConfigResource("topic", "confluent")
for f in admin.describe_configs([resource]).values():
    assert f.result()["retention.ms"].value == "-1"
for f in admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("confluent")]).values():
    assert f.result().topic_partitions
for f in admin.delete_consumer_groups(["confluent"]).values():
    f.result()
for f in admin.delete_topics(["confluent", "confluent-seek"]).values():
    f.result()
print("ok admin")
