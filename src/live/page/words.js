// Turns snapshots into words: numbers, health, and what the page keeps. Pure; the page only shows what these return.

/** Points and events that the page keeps. */
const MAX_POINTS = 300;
const MAX_EVENTS = 200;
/** Without a snapshot for so many seconds, the figures are old. */
const STALE_AFTER = 3.5;

const whole = new Intl.NumberFormat("en-US", {maximumFractionDigits: 0});
const compact = new Intl.NumberFormat("en-US", {notation: "compact", maximumSignificantDigits: 4});

/** A count, in full as long as it is short. */
function count(value) {
  if (value === null || value === undefined) return "–";
  return value < 1e7 ? whole.format(value) : compact.format(value);
}

/** A number per second. */
function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 0.05) return "< 0.1";
  return value > 0 && value < 9.95 ? value.toFixed(1) : whole.format(value);
}

/** A time in seconds. */
function duration(seconds, isAbove) {
  if (seconds === null || seconds === undefined) return "–";
  const sign = isAbove ? "> " : "";
  if (seconds < 0.00995) return `${sign}${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${sign}${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${sign}${seconds.toFixed(1)} s`;
  return sign + age(seconds);
}

/** A longer time. */
function age(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

/** A number of bytes. */
function bytes(value) {
  for (const unit of ["bytes", "KiB", "MiB"]) {
    if (value < 1024) return `${unit === "bytes" || value >= 9.95 ? Math.round(value) : value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} GiB`;
}

/** What a percentile of the snapshot is in words. */
function percentile(found) {
  return found ? duration(found.seconds, found.is_above) : "–";
}

const KINDS = {
  event: "event rejected",
  request: "request refused",
  client: "client refused",
  unacknowledged: "not acknowledged",
  record: "record set aside",
};

/** The cells of a row of refusals. */
function refusalCells({what, reason, client, total, recent}) {
  return [KINDS[what] || what, reason.replaceAll("_", " "), client || "", count(recent), count(total)];
}

const STATES = {
  ready: ["●", "ready"],
  unready: ["▲", "not ready"],
  silent: ["✕", "does not answer"],
  unknown: ["○", "not asked yet"],
};

/** Sign and word of a program's state; the sign differs in shape, not only in colour. */
function stateOf(program) {
  return STATES[program.state] || STATES.unknown;
}

/** What is wrong with a program, one sentence each. */
function troubles(program) {
  if (program.state === "silent") {
    const since = program.silent_seconds > 0 ? ` for ${age(program.silent_seconds)}` : "";
    return [`no answer${since}${program.failure ? `: ${program.failure}` : ""}`];
  }
  return program.state === "unready" ? program.problems.map(({what, message}) => `${what}: ${message}`) : [];
}

/** How the pipeline is, in one sentence, with a level: `good`, `warn`, `bad` or `unknown`. */
function health(snapshot) {
  const bad = snapshot.programs.filter(program => program.state === "silent" || program.state === "unready");
  if (bad.length > 0) {
    const program = bad[0];
    // The time of silence changes every second; only the list of programs shows it.
    const why = program.state === "silent" ? "does not answer" : `is not ready: ${troubles(program)[0] || ""}`;
    const others = bad.length > 1 ? `, and ${bad.length - 1} more` : "";
    return {level: "bad", words: `The ${program.role} ${program.name} ${why}${others}`};
  }
  if (snapshot.programs.some(program => program.state === "unknown")) {
    return {level: "unknown", words: "Waiting for the first answer of every program"};
  }
  const lost = snapshot.refused.filter(row => row.what === "unacknowledged" && row.recent > 0);
  if (lost.length > 0) return {level: "warn", words: "Events were not acknowledged in the last minute"};
  const {received, logged} = snapshot.points;
  const last = column => column[column.length - 1] || 0;
  const isIdle = last(received) === 0 && last(logged) === 0;
  return {level: "good", words: isIdle ? "All is well; nothing arrives at the moment" : "All is well"};
}

/** Adds a snapshot to what the page keeps. */
function merge(state, snapshot) {
  const list = snapshot.events.list;
  if (snapshot.is_whole) {
    return {number: snapshot.number, points: snapshot.points, events: list.slice(-MAX_EVENTS), fresh: list};
  }
  if (state === null) return null;
  const points = {};
  for (const [name, column] of Object.entries(snapshot.points)) {
    points[name] = [...(state.points[name] || []), ...column].slice(-MAX_POINTS);
  }
  const events = [...state.events, ...list].slice(-MAX_EVENTS);
  return {number: snapshot.number, points, events, fresh: list};
}

/** True if an event contains every word of `filter`, in any case. */
function matches(event, filter) {
  const text = event.text.toLowerCase();
  return filter.toLowerCase().split(/\s+/).every(word => text.includes(word));
}

/** Wait before the next attempt to connect, in milliseconds; `random` is from 0 to 1. */
function retryWait(failures, random) {
  return Math.min(1000 * 2 ** Math.min(failures, 10), 10000) * (0.5 + random / 2);
}

if (typeof module === "object") {
  module.exports = {
    MAX_POINTS, MAX_EVENTS, count, rate, duration, age, bytes, percentile, refusalCells, stateOf, troubles, health, merge,
    matches, retryWait,
  };
}
