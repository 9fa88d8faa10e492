// Apache Kafka's own client as a program for the tests: what it writes we must read, and what we write it must read.
// It knows nothing of our code. Run from source: java -classpath 'LIBS/*' JavaClient.java COMMAND BROKERS TOPIC …

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.StringJoiner;
import javax.management.ObjectName;
import javax.management.remote.JMXConnectorFactory;
import javax.management.remote.JMXServiceURL;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class JavaClient {
    public static void main(String[] arguments) throws Exception {
        String brokers = arguments[1];
        String topic = arguments.length > 2 ? arguments[2] : "";
        switch (arguments[0]) {
            case "read" -> read(brokers, topic, Integer.parseInt(arguments[3]));
            case "compressed" -> compressed(brokers, topic, List.of(arguments).subList(3, arguments.length));
            case "figures" -> figures(brokers);
            case "transactions" -> transactions(brokers, topic);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    /** Prints partition, offset, time, kind of time, key, value and headers (NAME=VALUE,… or none) of each committed
        record, until there are COUNT. */
    static void read(String brokers, String topic, int count) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", brokers);
        settings.put("auto.offset.reset", "earliest");
        settings.put("isolation.level", "read_committed");
        settings.put("enable.auto.commit", "false");
        settings.put("check.crcs", "true");
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
            var partitions = new ArrayList<TopicPartition>();
            consumer.partitionsFor(topic).forEach(p -> partitions.add(new TopicPartition(topic, p.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            for (int read = 0; read < count; ) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    var headers = new StringJoiner(",").setEmptyValue("none");
                    r.headers().forEach(header -> headers.add(header.key() + "=" + hex(header.value())));
                    System.out.printf("%d %d %d %s %s %s %s%n", r.partition(), r.offset(), r.timestamp(),
                        r.timestampType(), hex(r.key()), hex(r.value()), headers);
                    read++;
                }
            }
        }
    }

    /** For each line on stdin: each counter of the broker whose JMX port is at ADDRESS that counts an error, as NAME
        VALUE, and a line "end". A broker that has just started is loading its coordinator: that is no error. */
    static void figures(String address) throws Exception {
        var url = new JMXServiceURL("service:jmx:rmi:///jndi/rmi://" + address + "/jmxrmi");
        try (var connector = JMXConnectorFactory.connect(url)) {
            var beans = connector.getMBeanServerConnection();
            while (System.in.read() == '\n') {
                for (ObjectName name : beans.queryNames(new ObjectName("kafka.*:*"), null)) {
                    String property = name.getKeyProperty("name");
                    boolean counts = switch (String.valueOf(name.getKeyProperty("type"))) {
                        case "BrokerTopicMetrics" -> property.matches("(Failed|Invalid|NoKey|BytesRejected).*");
                        case "RequestMetrics" ->
                            "ErrorsPerSec".equals(property) && !Set.of("NONE", "COORDINATOR_LOAD_IN_PROGRESS").contains(name.getKeyProperty("error"));
                        default -> false;
                    };
                    if (counts && name.getKeyProperty("topic") == null) {
                        System.out.println(name.toString().replace(' ', '_') + " " + beans.getAttribute(name, "Count"));
                    }
                }
                System.out.println("end");
            }
        }
    }

    static String hex(byte[] bytes) {
        return bytes == null ? "null" : "x" + HexFormat.of().formatHex(bytes);
    }

    /** For each of CODECS one batch of ten records with keys, headers, and times that are a second apart. */
    static void compressed(String brokers, String topic, List<String> codecs) throws Exception {
        long time = 1_700_000_000_000L;
        for (String codec : codecs) {
            Properties settings = producer(brokers);
            settings.put("compression.type", codec.split("-")[0]);
            settings.put("linger.ms", "60000");
            settings.put("batch.size", "500000");
            if (codec.contains("-")) {
                settings.put("compression.zstd.level", codec.split("-")[1]);
            }
            var bytes = new ByteArraySerializer();
            try (var producer = new KafkaProducer<>(settings, bytes, bytes)) {
                for (int number = 0; number < 10; number++) {
                    // Long enough for several blocks of snappy.
                    byte[] value = (codec + " " + number + " " + "z".repeat(10_000)).getBytes(StandardCharsets.UTF_8);
                    var record = new ProducerRecord<>(topic, 0, time, codec.getBytes(StandardCharsets.UTF_8), value);
                    record.headers().add("trace", new byte[] {1, 2, 3});
                    producer.send(record);
                    time += 1000;
                }
                producer.flush();
            }
        }
    }

    static Properties producer(String brokers) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", brokers);
        settings.put("acks", "all");
        return settings;
    }

    static KafkaProducer<byte[], byte[]> transactional(String brokers, String id) {
        Properties settings = producer(brokers);
        settings.put("transactional.id", id);
        var bytes = new ByteArraySerializer();
        var producer = new KafkaProducer<>(settings, bytes, bytes);
        producer.initTransactions();
        return producer;
    }

    static void write(KafkaProducer<byte[], byte[]> producer, String topic, String prefix) {
        for (int number = 0; number < 3; number++) {
            producer.send(new ProducerRecord<>(topic, 0, null, (prefix + number).getBytes(StandardCharsets.UTF_8)));
        }
        producer.flush();
    }

    /** Two transactional producers and a plain one, interleaved in partition 0. The last transaction stays open until
        a line comes on stdin, and is then committed. */
    static void transactions(String brokers, String topic) throws IOException {
        var bytes = new ByteArraySerializer();
        var one = transactional(brokers, topic + "-one");
        var two = transactional(brokers, topic + "-two");
        var plain = new KafkaProducer<>(producer(brokers), bytes, bytes);
        write(plain, topic, "plain a");
        one.beginTransaction();
        write(one, topic, "aborted a");
        write(plain, topic, "plain b");
        two.beginTransaction();
        write(two, topic, "committed a");
        write(one, topic, "aborted b");
        one.abortTransaction();
        write(two, topic, "committed b");
        one.beginTransaction();
        write(one, topic, "committed c");
        two.commitTransaction();
        one.commitTransaction();
        two.beginTransaction();
        write(two, topic, "aborted c");
        two.abortTransaction();
        one.beginTransaction();
        write(one, topic, "open a");
        write(plain, topic, "plain c");
        System.out.println("open");
        System.in.read();
        one.commitTransaction();
        System.out.println("committed");
        one.close();
        two.close();
        plain.close();
    }
}
