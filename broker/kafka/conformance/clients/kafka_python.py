"""kafka-python: prints "ok FEATURE" for what works. Usage: kafka_python.py BROKERS"""
import sys
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

brokers = sys.argv[1].split(",")
admin = KafkaAdminClient(bootstrap_servers=brokers)
admin.create_topics([NewTopic("kafka-python", 3, 3, topic_configs={"retention.ms": "-1"})])
sent = 0
for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
    p = KafkaProducer(bootstrap_servers=brokers, compression_type=codec, acks="all")
    for f in [p.send("kafka-python", key=b"key-%d" % i, value=b"%d" % i, timestamp_ms=1_700_000_000_000 + i) for i in range(100)]:
        f.get(20)
    sent += 100
    p.close()


def consume(wanted, patience_ms):
    c = KafkaConsumer("kafka-python", bootstrap_servers=brokers, group_id="kafka-python", auto_offset_reset="earliest",
                      enable_auto_commit=False, consumer_timeout_ms=patience_ms)
    n = 0
    for _ in c:
        n += 1
        if n == wanted:
            break
    c.commit()
    return c, n


c, n = consume(sent, 20000)
assert n == sent, n
print("ok compression")
tp = TopicPartition("kafka-python", 0)
assert c.beginning_offsets([tp])[tp] == 0 and c.end_offsets([tp])[tp] > 0
assert c.offsets_for_times({tp: 1_700_000_000_000})[tp].offset == 0
c.seek(tp, 1)
print("ok seek")
c.close()
c, n = consume(1, 3000)
assert n == 0, f"{n} were read again"
c.close()
print("ok resume")
admin.delete_topics(["kafka-python"])
print("ok admin")
