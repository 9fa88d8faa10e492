"""The original's load, 10,000 requests from 200 threads: `simulate_requests.py URL [REQUESTS [THREADS]]`."""

import random
import sys
import threading
import time

import requests

url = sys.argv[1]
total = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
threads = int(sys.argv[3]) if len(sys.argv) > 3 else 200
failures = []


def send(count):
    for _ in range(count):
        event = {"event": random.choice(["login", "purchase", "logout"]), "user_id": random.randint(1, 1000)}
        try:
            requests.post(url, json=event, timeout=60).raise_for_status()
        except requests.RequestException as error:
            failures.append(error)


print(f"🚀 Sending {total} requests with {threads} threads...", flush=True)
began = time.time()
senders = [threading.Thread(target=send, args=(total // threads,)) for _ in range(threads)]
for sender in senders:
    sender.start()
for sender in senders:
    sender.join()
print(f"✅ Finished in {time.time() - began:.1f} seconds.")
if failures:
    sys.exit(f"{len(failures)} of {total} requests failed, the first one: {failures[0]}")
