import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.utils.AppInfoParser;

/** The official client: the verbs of ../README.md. */
public class Conformance {
    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "version" -> System.out.println("java " + AppInfoParser.getVersion());
            case "produce" -> produce(args[1], args[2], args[3]);
            case "consume" -> consume(args[1], args[2], args[3]);
            case "seek" -> seek(args[1], args[2], Integer.parseInt(args[3]), args[4], Long.parseLong(args[5]));
            case "admin" -> System.exit(new Operations(args[1], args[2], args[3], args[4]).perform(args[5].split(",")));
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    static Properties with(String brokers, Object... more) {
        Properties p = new Properties();
        p.put("bootstrap.servers", brokers);
        for (String side : List.of("key", "value")) {
            p.put(side + ".serializer", "org.apache.kafka.common.serialization.StringSerializer");
            p.put(side + ".deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        }
        for (int i = 0; i < more.length; i += 2) p.put(more[i], more[i + 1]);
        return p;
    }

    static void require(boolean ok, Object found) {
        if (!ok) throw new IllegalStateException("found " + found);
    }

    static void produce(String brokers, String topic, String codec) throws Exception {
        var failed = new ConcurrentLinkedQueue<Exception>();
        try (var producer = new KafkaProducer<String, String>(with(brokers, "compression.type", codec, "enable.idempotence", "true", "delivery.timeout.ms", "150000"))) {
            var in = new BufferedReader(new InputStreamReader(System.in));
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                String[] r = line.split(":", 2);
                producer.send(new ProducerRecord<>(topic, r[0], r[1]), (m, e) -> {
                    if (e != null) failed.add(e);
                    else System.out.println("acked " + r[1]);
                });
            }
        }
        if (!failed.isEmpty()) throw failed.peek();
    }

    static void show(ConsumerRecord<String, String> r) {
        System.out.println(r.partition() + " " + r.offset() + " " + r.key() + " " + r.value());
    }

    static void consume(String brokers, String group, String topic) throws Exception {
        var ended = new AtomicBoolean();
        var input = new Thread(() -> {
            try {
                System.in.readAllBytes();
            } catch (java.io.IOException e) {
                e.printStackTrace();
            }
            ended.set(true);
        });
        input.start();
        try (var c = new KafkaConsumer<String, String>(with(brokers, "group.id", group, "auto.offset.reset", "earliest",
                "heartbeat.interval.ms", "300", "auto.commit.interval.ms", "300"))) {
            c.subscribe(List.of(topic));
            while (!ended.get()) c.poll(Duration.ofMillis(100)).forEach(Conformance::show);
        }
        input.join();
    }

    static void seek(String brokers, String topic, int partition, String by, long at) {
        var tp = new TopicPartition(topic, partition);
        try (var c = new KafkaConsumer<String, String>(with(brokers))) {
            c.assign(List.of(tp));
            c.seek(tp, by.equals("time") ? c.offsetsForTimes(Map.of(tp, at)).get(tp).offset() : at);
            for (long end = System.currentTimeMillis() + 60000; ; require(System.currentTimeMillis() < end, "nothing in time")) {
                var got = c.poll(Duration.ofSeconds(1)).iterator();
                if (got.hasNext()) {
                    show(got.next());
                    return;
                }
            }
        }
    }

    interface Operation {
        void run() throws Exception;
    }

    /** The admin operations on what the test has prepared. */
    static class Operations {
        final Admin a;
        final String topic, data, group;
        final TopicPartition first, made;
        final ConfigResource resource;
        final Map<String, Operation> how = new HashMap<>();

        Operations(String brokers, String topic, String data, String group) {
            a = Admin.create(with(brokers));
            this.topic = topic;
            this.data = data;
            this.group = group;
            first = new TopicPartition(data, 0);
            made = new TopicPartition(topic, 0);
            resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            topics();
            offsets();
            groups();
            replicas();
        }

        int perform(String[] operations) {
            int failed = 0;
            for (String operation : operations) {
                try {
                    how.get(operation).run();
                    System.out.println("did " + operation);
                } catch (Exception e) {
                    failed = 1;
                    System.err.println(operation + " failed:");
                    e.printStackTrace();
                }
            }
            a.close();
            return failed;
        }

        static void awaitTrue(String what, Callable<Boolean> ok) throws Exception {
            for (long end = System.currentTimeMillis() + 60000; !ok.call(); Thread.sleep(100)) require(System.currentTimeMillis() < end, "not in time: " + what);
        }

        List<TopicPartitionInfo> described() throws Exception {
            return a.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions();
        }

        void awaitPartitions(int n) throws Exception {
            awaitTrue("the topic is described", () -> described().size() == n && described().get(0).replicas().size() == 3);
        }

        void topics() {
            how.put("create topic", () -> a.createTopics(List.of(new NewTopic(topic, 2, (short) 3).configs(Map.of("retention.ms", "86400000")))).all().get());
            how.put("describe topic", () -> awaitPartitions(2));
            how.put("describe cluster", () -> {
                var found = a.describeCluster();
                require(found.nodes().get().size() == 3 && found.controller().get().id() > 0 && !found.clusterId().get().isEmpty(), found.nodes().get());
            });
            how.put("grow partitions", () -> {
                a.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
                awaitPartitions(4);
            });
            how.put("alter configs", () -> a.incrementalAlterConfigs(Map.of(resource,
                List.of(new AlterConfigOp(new ConfigEntry("max.message.bytes", "2097152"), AlterConfigOp.OpType.SET)))).all().get());
            how.put("describe configs", () -> awaitTrue("the settings are seen", () -> {
                Config found = a.describeConfigs(List.of(resource)).all().get().get(resource);
                return found.get("max.message.bytes").value().equals("2097152") && found.get("retention.ms").value().equals("86400000")
                    && found.get("retention.ms").source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG;
            }));
            how.put("delete topic", () -> a.deleteTopics(List.of(topic)).all().get());
        }

        long offsetOf(OffsetSpec spec) throws Exception {
            return a.listOffsets(Map.of(first, spec)).all().get().get(first).offset();
        }

        void offsets() {
            how.put("offsets by time", () -> {
                require(offsetOf(OffsetSpec.forTimestamp(1_700_000_000_000L + 20_000)) == 20, "the wrong offset of a time");
                require(offsetOf(OffsetSpec.maxTimestamp()) == 59, "the wrong offset of the newest");
                require(offsetOf(OffsetSpec.latest()) == 60, "the wrong end");
            });
            how.put("delete records", () -> {
                long low = a.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(10))).lowWatermarks().get(first).get().lowWatermark();
                require(low == 10 && offsetOf(OffsetSpec.earliest()) == 10, low);
            });
        }

        long committed() throws Exception {
            var found = a.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(first);
            return found == null ? -1 : found.offset();
        }

        void groups() {
            how.put("list groups", () -> require(a.listGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group)), "no such group"));
            how.put("describe group", () -> {
                var found = a.describeConsumerGroups(List.of(group)).all().get().get(group);
                require(found.groupState() == GroupState.EMPTY, found);
            });
            how.put("list group offsets", () -> require(committed() == 7, committed()));
            how.put("delete group offsets", () -> {
                a.deleteConsumerGroupOffsets(group, Set.of(first)).all().get();
                require(committed() == -1, committed());
            });
            how.put("alter group offsets", () -> {
                a.alterConsumerGroupOffsets(group, Map.of(first, new OffsetAndMetadata(30))).all().get();
                require(committed() == 30, committed());
            });
            how.put("delete group", () -> a.deleteConsumerGroups(List.of(group)).all().get());
        }

        void replicas() {
            how.put("describe log dirs", () -> {
                long n = a.describeLogDirs(List.of(1, 2, 3)).allDescriptions().get().values().stream()
                    .flatMap(dirs -> dirs.values().stream()).filter(d -> d.replicaInfos().containsKey(first) && d.replicaInfos().get(first).size() > 0).count();
                require(n == 3, n);
            });
            how.put("describe producers", () -> {
                var found = a.describeProducers(List.of(first)).all().get().get(first).activeProducers();
                require(found.size() == 1, found);
            });
            how.put("elect leaders", () -> {
                var found = a.electLeaders(ElectionType.PREFERRED, Set.of(made, new TopicPartition(topic, 1))).partitions().get();
                require(found.size() == 2, found);
                for (var e : found.values()) require(e.isEmpty() || e.get() instanceof org.apache.kafka.common.errors.ElectionNotNeededException, found);
            });
            how.put("reassign partitions", () -> {
                var want = new ArrayList<>(described().get(0).replicas().stream().map(Node::id).toList());
                Collections.reverse(want);
                a.alterPartitionReassignments(Map.of(made, Optional.of(new NewPartitionReassignment(want)))).all().get();
                awaitTrue("the replicas are as assigned", () -> a.listPartitionReassignments(Set.of(made)).reassignments().get().isEmpty()
                    && described().get(0).replicas().stream().map(Node::id).toList().equals(want));
            });
        }
    }
}
