"""The original's producer: Flask's development server and kafka-python. Usage: `app.py PORT BROKER TOPIC`."""

import json
import sys
from datetime import datetime, timezone

from flask import Flask, jsonify, request
from kafka import KafkaProducer

port, broker, topic = sys.argv[1:4]
app = Flask(__name__)
producer = KafkaProducer(bootstrap_servers=broker, value_serializer=lambda event: json.dumps(event).encode())


@app.route("/register_event", methods=["POST"])
def register_event():
    event = request.get_json()
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    event["timestamp"] = now.replace("+00:00", "Z")
    producer.send(topic, event)
    print(f"✅ Event sent to Kafka: {event}")
    return jsonify({"status": "ok"}), 200


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(port))
