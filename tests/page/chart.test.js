// Unit tests of the charts' pure functions: `node --test tests/page/`.
"use strict";
const test = require("node:test");
const assert = require("node:assert/strict");
const {HEIGHT, WIDTH, areaPath, linePath, nearest, niceMax, peak, segments, xOf, yOf} = require("../../src/live/page/chart.js");

test("the height of a chart is a round number that is not much larger than it must be", () => {
  for (const [value, max] of [[0, 1], [-3, 1], [NaN, 1], [Infinity, 1], [1, 1], [1.01, 1.5], [2, 2], [2764, 3000], [5, 5], [5.1, 6],
    [8.1, 10], [999, 1000], [1000, 1000], [1001, 1500], [0.0004, 0.0004], [0.002, 0.002], [0.31, 0.4], [8.4e6, 1e7]]) {
    assert.ok(Math.abs(niceMax(value) - max) < max * 1e-9, `${value}: ${niceMax(value)}`);
  }
});

test("the largest value ignores gaps", () => {
  assert.equal(peak([null, 3, 7, null, 2]), 7);
  assert.equal(peak([]), 0);
  assert.equal(peak([null]), 0);
});

test("now is at the right end, and five minutes ago at the left one", () => {
  assert.deepEqual([xOf(1000, 1000), xOf(700, 1000), xOf(850, 1000)], [WIDTH, 0, WIDTH / 2]);
  assert.deepEqual([yOf(0, 10), yOf(10, 10), yOf(5, 10), yOf(50, 10)], [HEIGHT, 0, HEIGHT / 2, 0]);
});

test("a missing value, a missing time and what is too old end a line", () => {
  const times = [600, 991, 992, 993, 994, 1000];
  const found = segments(times, [1, 1, null, 1, 1, 1], 1000, 1);
  assert.deepEqual(found.map(points => points.length), [1, 2, 1]);
  assert.equal(found[2][0][0], WIDTH);
});

test("paths have a line per segment, a dot for a single point, and closed areas", () => {
  const found = [[[0, 100], [1, 50.04]], [[300, 0]]];
  assert.equal(linePath(found), "M0 100L1 50M300 0h0.1");
  assert.equal(areaPath(found), "M0 100L0 100L1 50L1 100Z");
  assert.equal(linePath([]), "");
});

test("the nearest point is found at both ends and between", () => {
  const times = [10, 20, 30];
  for (const [time, index] of [[0, 0], [10, 0], [14, 0], [16, 1], [26, 2], [99, 2]]) {
    assert.equal(nearest(times, time), index, String(time));
  }
  assert.equal(nearest([], 5), -1);
});
