"""The original's consumer: kafka-python and logging. Usage: `consumer.py BROKER TOPIC LOG_FILE`."""

import json
import logging
import sys

from kafka import KafkaConsumer

broker, topic, log_file = sys.argv[1:4]
logging.basicConfig(filename=log_file, level=logging.INFO, format="%(asctime)s - %(message)s")
# The original's file did not contain kafka-python's own log messages.
logging.getLogger("kafka").setLevel(logging.ERROR)
consumer = KafkaConsumer(
    topic,
    bootstrap_servers=broker,
    auto_offset_reset="earliest",
    group_id="event-logger",
    value_deserializer=lambda value: json.loads(value.decode()),
)
for message in consumer:
    print(f"📥 Received event: {message.value}")
    logging.info(json.dumps(message.value))
