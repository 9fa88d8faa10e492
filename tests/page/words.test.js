// Unit tests of the words and figures on the page: `node --test tests/page/`.
"use strict";
const test = require("node:test");
const assert = require("node:assert/strict");
const words = require("../../src/live/page/words.js");

const program = more => ({role: "producer", name: "a:1", state: "ready", problems: [], failure: "", silent_seconds: 0, ...more});
const snapshot = more => ({
  number: 7, is_whole: true, programs: [program()], refused: [],
  points: {time: [1], received: [3], logged: [3]}, events: {list: []}, ...more,
});

test("figures have few digits and no jumps", () => {
  assert.deepEqual([0, 0.01, 0.3, 9.94, 9.96, 1234.4, null].map(words.rate), ["0", "< 0.1", "0.3", "9.9", "10", "1,234", "–"]);
  assert.deepEqual([0, 1234567, 12345678, undefined].map(words.count), ["0", "1,234,567", "12.35M", "–"]);
  assert.deepEqual([0, 1000, 2048, 1.5 * 2 ** 20, 20 * 2 ** 20, 3 * 2 ** 30].map(words.bytes),
    ["0 bytes", "1000 bytes", "2.0 KiB", "1.5 MiB", "20 MiB", "3.0 GiB"]);
});

test("a time has the unit that people would use", () => {
  const pairs = [[0, "0.0 ms"], [0.00084, "0.8 ms"], [0.0123, "12 ms"], [0.5, "500 ms"], [1.24, "1.2 s"], [42, "42 s"], [600, "10 min"],
    [10800, "3 h"], [864000, "10 days"], [null, "–"]];
  for (const [seconds, text] of pairs) assert.equal(words.duration(seconds), text);
  assert.equal(words.duration(10, true), "> 10 s");
  assert.equal(words.percentile({seconds: 0.05, is_above: false}), "50 ms");
  assert.equal(words.percentile(null), "–");
});

test("health is a sentence that names the program and its problem as it is", () => {
  assert.deepEqual(words.health(snapshot()), {level: "good", words: "All is well"});
  const idle = snapshot({points: {time: [1], received: [0], logged: [null]}});
  assert.match(words.health(idle).words, /nothing arrives/);
  const unready = program({state: "unready", problems: [{what: "kafka", message: "timed out"}]});
  assert.deepEqual(words.health(snapshot({programs: [program(), unready]})),
    {level: "bad", words: "The producer a:1 is not ready: kafka: timed out"});
  const silent = program({role: "consumer", state: "silent", silent_seconds: 9, failure: "refused"});
  assert.match(words.health(snapshot({programs: [silent, unready]})).words, /^The consumer a:1 does not answer, and 1 more$/);
  assert.equal(words.health(snapshot({programs: [program({state: "unknown"})]})).level, "unknown");
  const lost = [{what: "unacknowledged", reason: "timeout", client: "", recent: 1, total: 1}];
  assert.equal(words.health(snapshot({refused: lost})).level, "warn");
  assert.equal(words.health(snapshot({refused: [{...lost[0], recent: 0}]})).level, "good");
});

test("troubles of a program are its own words", () => {
  assert.deepEqual(words.troubles(program()), []);
  assert.deepEqual(words.troubles(program({state: "silent", silent_seconds: 130, failure: "Connection refused"})),
    ["no answer for 2 min: Connection refused"]);
  const problems = [{what: "kafka", message: "a"}, {what: "log", message: "b"}];
  assert.deepEqual(words.troubles(program({state: "unready", problems})), ["kafka: a", "log: b"]);
  assert.deepEqual(words.stateOf(program({state: "something new"})), words.stateOf(program({state: "unknown"})));
});

test("refusals are words", () => {
  const row = {what: "client", reason: "rate_limited", client: "shop", total: 1200, recent: 3};
  assert.deepEqual(words.refusalCells(row), ["client refused", "rate limited", "shop", "3", "1,200"]);
});

test("what the page keeps is bounded, and a whole snapshot replaces it", () => {
  const change = (number, offset) => snapshot({
    number, is_whole: false, points: {time: [number], received: [1], logged: [1]}, events: {list: [{offset, text: "{}"}]},
  });
  assert.equal(words.merge(null, change(1, 1)), null, "nothing to add it to");
  let state = words.merge(null, snapshot({events: {list: [{offset: 0, text: "{}"}]}}));
  for (let number = 8; number < 1000; number++) state = words.merge(state, change(number, number));
  assert.equal(state.points.time.length, words.MAX_POINTS);
  assert.equal(state.points.time[words.MAX_POINTS - 1], 999);
  assert.deepEqual([state.events.length, state.events[words.MAX_EVENTS - 1].offset], [words.MAX_EVENTS, 999]);
  state = words.merge(state, snapshot());
  assert.deepEqual([state.points.time, state.events], [[1], []]);
});

test("a filter is all of its words in any case", () => {
  const event = {text: '{"event": "Purchase", "user_id": 203}'};
  for (const [filter, found] of [["", true], ["purchase", true], ["203 PURCHASE", true], ["purchase 204", false]]) {
    assert.equal(words.matches(event, filter), found, filter);
  }
});

test("attempts to connect become rare, but not more than one in ten seconds", () => {
  assert.deepEqual([words.retryWait(0, 1), words.retryWait(2, 1), words.retryWait(99, 1), words.retryWait(99, 0)], [1000, 4000, 10000, 5000]);
});
