import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;

/** The official client: prints "ok FEATURE" for what works. Usage: java -cp LIB/* Conformance.java BROKERS */
public class Conformance {
    static String brokers;

    static Properties with(Object... more) {
        Properties p = new Properties();
        p.put("bootstrap.servers", brokers);
        for (String side : List.of("key", "value")) {
            p.put(side + ".serializer", "org.apache.kafka.common.serialization.StringSerializer");
            p.put(side + ".deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        }
        for (int i = 0; i < more.length; i += 2) p.put(more[i], more[i + 1]);
        return p;
    }

    static void send(int first, int last, String codec) throws Exception {
        try (var producer = new KafkaProducer<String, String>(with("compression.type", codec))) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = first; i < last; i++) sent.add(producer.send(new ProducerRecord<>("java", "key-" + i, "" + i)));
            for (var f : sent) f.get(30, TimeUnit.SECONDS);
        }
    }

    static final Set<String> values = ConcurrentHashMap.newKeySet();

    /** A member of the group that reads until it is told to stop. */
    static class Member extends Thread {
        volatile boolean stop;

        public void run() {
            try (var c = new KafkaConsumer<String, String>(with("group.id", "java", "auto.offset.reset", "earliest", "heartbeat.interval.ms", "300"))) {
                c.subscribe(List.of("java"));
                while (!stop) c.poll(Duration.ofMillis(100)).forEach(r -> values.add(r.value()));
            }
        }

        static Member begin() {
            Member m = new Member();
            m.start();
            return m;
        }

        void end() throws Exception {
            stop = true;
            join();
        }
    }

    static void await(String what, int n) throws Exception {
        for (long end = System.currentTimeMillis() + 40000; values.size() < n; Thread.sleep(50)) {
            if (System.currentTimeMillis() > end) throw new Exception("not in time: " + what + ", " + values.size() + " were read");
        }
    }

    static void require(boolean ok, Object what) throws Exception {
        if (!ok) throw new Exception("" + what);
    }

    public static void main(String[] args) throws Exception {
        brokers = args[0];
        try (Admin admin = Admin.create(with())) {
            admin.createTopics(List.of(new NewTopic("java", 3, (short) 3))).all().get();
            int n = 0;
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) send(n, n += 100, codec);
            List<Member> members = List.of(Member.begin(), Member.begin(), Member.begin());
            await("all is read", 500);
            System.out.println("ok compression");
            members.get(0).end();
            send(500, 600, "none");
            await("all is read after a rebalance", 600);
            members.get(1).end();
            members.get(2).end();
            System.out.println("ok group");
            send(600, 650, "none");
            values.clear();
            Member last = Member.begin();
            await("the rest is read", 50);
            last.end();
            require(values.size() == 50, values.size() + " were read after the restart instead of 50");
            System.out.println("ok resume");
            var tp = new TopicPartition("java", 0);
            try (var c = new KafkaConsumer<String, String>(with("group.id", "java-seek"))) {
                require(c.offsetsForTimes(Map.of(tp, 1000L)).get(tp).offset() == 0, "offset of a time");
                c.assign(List.of(tp));
                c.seek(tp, 7);
                ConsumerRecords<String, String> got;
                do got = c.poll(Duration.ofSeconds(1)); while (got.isEmpty());
                require(got.iterator().next().offset() == 7, "the record at offset 7");
            }
            System.out.println("ok seek");
            require(admin.describeCluster().nodes().get().size() == 3, "three brokers");
            require(admin.describeTopics(List.of("java")).allTopicNames().get().get("java").partitions().size() == 3, "three partitions");
            var topic = new ConfigResource(ConfigResource.Type.TOPIC, "java");
            admin.incrementalAlterConfigs(Map.of(topic, List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "1000000"), AlterConfigOp.OpType.SET)))).all().get();
            admin.describeConfigs(List.of(topic)).all().get();
            admin.listOffsets(Map.of(tp, OffsetSpec.maxTimestamp())).all().get();
            admin.createPartitions(Map.of("java", NewPartitions.increaseTo(4))).all().get();
            admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(2))).all().get();
            require(!admin.listGroups().all().get().isEmpty(), "groups");
            admin.deleteConsumerGroupOffsets("java", Set.of(tp)).all().get();
            admin.deleteConsumerGroups(List.of("java")).all().get();
            admin.deleteTopics(List.of("java")).all().get();
            System.out.println("ok admin");
        }
    }
}
