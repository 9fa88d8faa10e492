"""Teaches schemathesis what docs/openapi.yaml cannot say: how lines of events are made and sent."""

import json

import schemathesis
from hypothesis import strategies

NDJSON = "application/x-ndjson"

EVENTS = strategies.lists(
    strategies.dictionaries(strategies.text(max_size=8), strategies.integers() | strategies.text(max_size=20)),
    min_size=1,
    max_size=20,
)

schemathesis.openapi.media_type(
    NDJSON, EVENTS.map(lambda events: "\n".join(json.dumps(event) for event in events).encode())
)


@schemathesis.hook
def before_load_schema(_context, schema):
    """Makes bytes of the examples of lines, because a type with a strategy of its own may have no other."""
    lines = schema["paths"]["/register_event"]["post"]["requestBody"]["content"][NDJSON]
    for example in lines["examples"].values():
        example["value"] = example["value"].encode()
