// Draws the charts: pure functions from points to paths, and the small part that puts them on the page.
"use strict";

/** Seconds that a chart shows. */
const SPAN = 300;
/** Size of the drawing, which is stretched to the place it has. */
const WIDTH = 300;
const HEIGHT = 100;
/** A longer time between two points is a gap, not a line. */
const GAP = 5;

/** The smallest of a few round numbers that is not below `value`. */
function niceMax(value) {
  if (!(value > 0) || !Number.isFinite(value)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  // Rounding errors must not lead to the next step.
  const step = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find(factor => factor * power >= value * (1 - 1e-9));
  return step * power;
}

/** The largest value, or 0. */
function peak(values) {
  return values.reduce((most, value) => (value !== null && value > most ? value : most), 0);
}

/** Where `time` is in the drawing: 0 at the left end, `WIDTH` at `now`. */
function xOf(time, now) {
  return WIDTH * (1 - (now - time) / SPAN);
}

/** Where `value` is in the drawing, downwards; what is above `max` is at the top. */
function yOf(value, max) {
  return HEIGHT * (1 - Math.min(value / max, 1));
}

/** Points without gaps, as lists of `[x, y]`; those before the left end are left out. */
function segments(times, values, now, max) {
  const found = [];
  let current = null, before = null;
  times.forEach((time, index) => {
    const value = values[index];
    if (value === null || value === undefined || time < now - SPAN) {
      current = null;
      return;
    }
    if (current === null || time - before > GAP) {
      current = [];
      found.push(current);
    }
    current.push([xOf(time, now), yOf(value, max)]);
    before = time;
  });
  return found;
}

const short = number => String(Math.round(number * 10) / 10);

/** A line through each segment; a single point is a dot, thanks to its round end. */
function linePath(segments) {
  return segments.map(points => {
    const text = points.map(([x, y]) => `${short(x)} ${short(y)}`);
    return `M${text.join("L")}${points.length === 1 ? "h0.1" : ""}`;
  }).join("");
}

/** The area below each segment. */
function areaPath(segments) {
  return segments.filter(points => points.length > 1).map(points => {
    const text = points.map(([x, y]) => `${short(x)} ${short(y)}`);
    const [first, last] = [points[0][0], points[points.length - 1][0]];
    return `M${short(first)} ${HEIGHT}L${text.join("L")}L${short(last)} ${HEIGHT}Z`;
  }).join("");
}

/** The index of the point nearest to `time`; `times` rise. -1 if there is none. */
function nearest(times, time) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1; else high = middle;
  }
  if (low === times.length) return times.length - 1;
  if (low > 0 && time - times[low - 1] <= times[low] - time) return low - 1;
  return low;
}

/** One chart on the page. `series` are names of columns; `format` makes words of a value. */
class Chart {
  constructor(figure, title, series, format) {
    Object.assign(this, {figure, title, series, format});
    const svg = this.add(figure, "svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true"});
    for (let minute = 1; minute < SPAN / 60; minute++) {
      const x = WIDTH - minute * 60 * WIDTH / SPAN;
      this.add(svg, "path", {class: "grid", d: `M${x} 0V${HEIGHT}`});
    }
    this.lines = series.map(name => ({
      name,
      area: this.add(svg, "path", {class: `area ${name}`}),
      line: this.add(svg, "path", {class: `line ${name}`}),
    }));
    this.cursor = this.add(svg, "path", {class: "cursor"});
    this.caption = document.createElement("figcaption");
    figure.append(this.caption);
    if (!figure.classList.contains("small")) {
      const axis = document.createElement("div");
      axis.className = "axis";
      axis.setAttribute("aria-hidden", "true");
      for (const label of ["5 min", "4", "3", "2", "1", "now"]) {
        const mark = Object.assign(document.createElement("span"), {textContent: label});
        mark.style.left = `${100 * axis.children.length / (SPAN / 60)}%`;
        axis.append(mark);
      }
      figure.append(axis);
    }
    figure.setAttribute("role", "img");
    figure.tabIndex = 0;
  }

  add(parent, name, attributes) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    parent.append(node);
    return node;
  }

  /** The largest value that it shows. */
  peak(points) {
    return Math.max(...this.series.map(name => peak(points[name])));
  }

  /** Draws `points` up to the height `max`; `at` is the time under the cursor, or null. */
  draw(points, max, at) {
    const now = points.time[points.time.length - 1];
    for (const {name, area, line} of this.lines) {
      const found = segments(points.time, points[name], now, max);
      area.setAttribute("d", areaPath(found));
      line.setAttribute("d", linePath(found));
    }
    const index = at === null ? -1 : nearest(points.time, at);
    const values = position => this.series.map(name => this.format(points[name][position])).join(" · ");
    if (index >= 0) {
      this.cursor.setAttribute("d", `M${short(xOf(points.time[index], now))} 0V${HEIGHT}`);
      const time = new Date(points.time[index] * 1000).toLocaleTimeString("en-GB");
      this.caption.textContent = `${time}  ${values(index)}`;
    } else {
      this.cursor.setAttribute("d", "");
      this.caption.textContent = `at most ${this.format(this.peak(points))}`;
    }
    const words = `${this.title}: ${values(points.time.length - 1)} now, at most ${this.format(this.peak(points))} in five minutes`;
    this.figure.setAttribute("aria-label", words);
  }
}

if (typeof module === "object") {
  module.exports = {SPAN, WIDTH, HEIGHT, niceMax, peak, xOf, yOf, segments, linePath, areaPath, nearest};
}
