// Connects, and shows each snapshot. Texts of events and programs are foreign: they become text nodes, never markup.
(() => {
  const byId = id => document.getElementById(id);
  /** A change that is none must not reach the browser's layout or a screen reader. */
  const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const set = (id, text) => put(byId(id), text);
  const make = (name, className, text) => Object.assign(document.createElement(name), {className, textContent: text || ""});

  const charts = new Map();
  for (const [id, title, series, format] of [
    ["received", "Received", ["received"], value => `${rate(value)}/s`],
    ["in_flight", "In flight", ["in_flight"], count],
    ["acknowledged", "Acknowledged", ["acknowledged"], value => `${rate(value)}/s`],
    ["lag", "Lag", ["lag"], count],
    ["logged", "Logged", ["logged"], value => `${rate(value)}/s`],
    ["latency", "p99 of request to answer and of event to log", ["answer_p99", "end_to_end_p99"], value => duration(value)],
  ]) {
    charts.set(id, new Chart(document.querySelector(`[data-chart="${id}"]`), title, series, format));
  }
  /** These have one height, so that they can be compared. */
  const RATES = ["received", "acknowledged", "logged"];

  let state = null, latest = null, arrived = 0, cursor = null, isPaused = false, missedWhilePaused = 0;

  // --- Figures ---

  function show(snapshot) {
    const last = name => state.points[name][state.points[name].length - 1];
    for (const name of RATES) {
      set(name, rate(last(name)));
      set(`${name}-total`, count(snapshot.totals[name]));
    }
    const isAsked = last("in_flight") !== null;
    set("connections", isAsked ? count(snapshot.connections) : "–");
    set("failed-total", count(snapshot.totals.failed));
    set("duplicates", count(snapshot.totals.duplicates));
    const errors = snapshot.totals.write_errors;
    set("write-errors", errors > 0 ? `, ${count(errors)} write errors` : "");
    set("in-flight", count(last("in_flight")));
    set("capacity", isAsked ? `of ${count(snapshot.capacity)}` : "");
    set("queue-bytes", isAsked ? bytes(snapshot.queue_bytes) : "");
    set("lag", count(last("lag")));
    const share = snapshot.capacity > 0 ? snapshot.in_flight / snapshot.capacity : 0;
    byId("in-flight-bar").style.width = `${Math.min(share * 100, 100)}%`;
    byId("flying").classList.toggle("flowing", last("received") > 0);
    byId("waiting").classList.toggle("flowing", last("logged") > 0);
    set("answer-p50", percentile(snapshot.answer.p50));
    set("answer-p99", percentile(snapshot.answer.p99));
    set("end-p50", percentile(snapshot.end_to_end.p50));
    set("end-p99", percentile(snapshot.end_to_end.p99));
    const hasClient = name => snapshot.programs.some(program => program.role === "consumer" && program.kafka_client === name);
    set("latency-note", !snapshot.end_to_end.p99 && hasClient("crate")
      ? "The kafka crate does not know when an event was written; KAFKA_CLIENT=wire does." : "");
    showLag(snapshot.lag);
    showRefusals(snapshot.refused);
    showPrograms(snapshot);
  }

  function showLag(rows) {
    const most = niceMax(Math.max(1, ...rows.map(row => row.records)));
    const names = new Set(rows.map(row => row.consumer));
    sync(byId("partitions"), rows, () => {
      const item = make("li", "");
      item.append(make("span", "name"), make("span", "track"), make("span", "value"));
      item.children[1].append(make("i", ""));
      return item;
    }, (item, {consumer, partition, records}) => {
      put(item.children[0], names.size > 1 ? `${consumer} / ${partition}` : `p${partition}`);
      item.children[1].firstChild.style.width = `${100 * records / most}%`;
      put(item.children[2], count(records));
    });
  }

  function showRefusals(rows) {
    byId("nothing-refused").hidden = rows.length > 0;
    sync(byId("refused"), rows, () => {
      const line = make("tr", "");
      for (const className of ["", "", "", "figure", "figure"]) line.append(make("td", className));
      return line;
    }, (line, row) => {
      refusalCells(row).forEach((text, index) => put(line.children[index], text));
      line.classList.toggle("now", row.recent > 0);
    });
  }

  function showPrograms(snapshot) {
    sync(byId("program-list"), snapshot.programs, () => {
      const item = make("li", "program");
      const head = make("p", "head");
      head.append(make("span", "sign"), make("b", ""), make("span", "name"), make("span", "word"));
      head.firstChild.setAttribute("aria-hidden", "true");
      item.append(head, make("p", "sub facts"), make("div", "troubles"));
      return item;
    }, (item, program) => {
      const [sign, word] = stateOf(program);
      const [head, facts, list] = item.children;
      item.dataset.state = program.state;
      [sign, program.role, program.name, word].forEach((text, index) => put(head.children[index], text));
      const about = [];
      if (program.http_server) about.push(`HTTP by ${program.http_server}`);
      if (program.kafka_client) about.push(`Kafka by ${program.kafka_client === "crate" ? "the kafka crate" : program.kafka_client}`);
      if (program.memory_bytes > 0) about.push(bytes(program.memory_bytes));
      if (program.started > 0) about.push(`up ${age(Math.max(snapshot.time / 1000 - program.started, 0))}`);
      if (program.version) about.push(`v${program.version}`);
      put(facts, about.join(" · "));
      sync(list, troubles(program), () => make("p", "trouble"), put);
    });
  }

  /** Gives `parent` one child per item: made once, then only filled. */
  function sync(parent, items, create, fill) {
    while (parent.children.length > items.length) parent.lastElementChild.remove();
    while (parent.children.length < items.length) parent.append(create());
    items.forEach((item, index) => fill(parent.children[index], item));
  }

  function draw() {
    if (state === null || state.points.time.length === 0) return;
    const together = niceMax(Math.max(...RATES.map(name => charts.get(name).peak(state.points))));
    for (const [id, chart] of charts) {
      chart.draw(state.points, RATES.includes(id) ? together : niceMax(chart.peak(state.points)), cursor);
    }
  }

  // --- Events ---

  function row(event) {
    const item = make("li", "event");
    const time = event.time === null ? "" : new Date(event.time).toLocaleTimeString("en-GB");
    const cut = event.is_cut ? `… ${count(event.bytes)} bytes` : "";
    item.append(make("span", "when", time), make("span", "where", `${event.partition}:${event.offset}`));
    item.append(make("code", "", event.text), make("span", "cut", cut));
    item.event = event;
    return item;
  }

  function addEvents(events) {
    const list = byId("event-list"), filter = byId("filter").value.trim();
    for (const event of events) {
      const item = row(event);
      item.hidden = !matches(event, filter);
      list.prepend(item);
    }
    while (list.children.length > MAX_EVENTS) list.lastElementChild.remove();
  }

  function rebuildEvents() {
    byId("event-list").replaceChildren();
    missedWhilePaused = 0;
    if (state !== null) addEvents(state.events);
  }

  function showEvents(snapshot) {
    const {is_on, problem, seen, list} = snapshot.events;
    if (isPaused) {
      missedWhilePaused += seen;
    } else if (snapshot.is_whole) {
      rebuildEvents();
    } else {
      addEvents(list);
    }
    noteEvents(snapshot);
    const empty = byId("no-events");
    empty.hidden = is_on && byId("event-list").children.length > 0;
    put(empty, !is_on ? "Events are not shown (LIVE_EVENTS=off)." : problem ? "" : "No event yet.");
  }

  function noteEvents({events: {is_on, problem, seen, list}, is_whole}) {
    const shown = is_whole ? Math.min(list.length, seen) : list.length;
    let note = "";
    if (problem) note = `cannot read the topic: ${problem}`;
    else if (isPaused) note = `paused; ${count(missedWhilePaused)} came since`;
    else if (is_on && seen > shown) note = `${shown} of ${count(seen)} in this second`;
    set("events-note", note);
    byId("events-note").classList.toggle("trouble", Boolean(problem));
  }

  byId("event-list").addEventListener("click", event => {
    const item = event.target.closest("li");
    if (item !== null) item.classList.toggle("open");
  });
  byId("filter").addEventListener("input", () => {
    const filter = byId("filter").value.trim();
    for (const item of byId("event-list").children) item.hidden = !matches(item.event, filter);
  });
  byId("pause").addEventListener("click", () => {
    isPaused = !isPaused;
    byId("pause").setAttribute("aria-pressed", String(isPaused));
    put(byId("pause"), isPaused ? "Go on" : "Pause");
    if (!isPaused) rebuildEvents();
    if (latest !== null) noteEvents(latest);
  });
  document.addEventListener("keydown", event => {
    if (event.key === "/" && document.activeElement !== byId("filter")) {
      event.preventDefault();
      byId("filter").focus();
    }
  });

  // --- One cursor for all charts ---

  function moveCursor(time) {
    cursor = time;
    draw();
  }
  for (const {figure} of charts.values()) {
    const now = () => state.points.time[state.points.time.length - 1];
    figure.addEventListener("pointermove", event => {
      if (state === null) return;
      const box = figure.querySelector("svg").getBoundingClientRect();
      moveCursor(now() - SPAN * (1 - (event.clientX - box.left) / box.width));
    });
    for (const end of ["pointerleave", "pointercancel", "blur"]) figure.addEventListener(end, () => moveCursor(null));
    figure.addEventListener("keydown", event => {
      const step = {ArrowLeft: -5, ArrowRight: 5, Home: -SPAN, End: SPAN}[event.key];
      if (event.key === "Escape") moveCursor(null);
      if (step === undefined || state === null) return;
      event.preventDefault();
      moveCursor(Math.min(Math.max((cursor === null ? now() : cursor) + step, state.points.time[0]), now()));
    });
  }

  // --- Health and connection ---

  const SIGNS = {good: "●", warn: "▲", bad: "✕", unknown: "○", stale: "○"};
  const SECOND = 1000;

  function showHealth() {
    const seconds = (performance.now() - arrived) / SECOND;
    const isStale = latest === null || seconds > STALE_AFTER;
    const {level, words} = isStale
      ? {level: latest === null ? "unknown" : "stale", words: latest === null ? "Connecting …" : "These figures are old: the live page does not answer"}
      : health(latest);
    byId("health").dataset.level = level;
    put(byId("sign"), SIGNS[level]);
    set("words", words);
    document.body.classList.toggle("stale", isStale);
    byId("link").dataset.state = isStale ? "stale" : "live";
    set("age", latest === null ? "connecting" : isStale ? `no data for ${age(seconds)}` : "live");
    set("since", latest === null ? "" : new Date(latest.time).toLocaleTimeString("en-GB"));
    const title = {good: "", unknown: "", stale: "○ ", warn: "▲ ", bad: "✕ "}[level];
    document.title = `${title}event-pipeline`;
  }

  let failures = 0;

  function connect() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    let heard = performance.now();
    // A connection that says nothing may be dead without an end.
    const watch = setInterval(() => { if (performance.now() - heard > 10 * SECOND) socket.close(); }, SECOND);
    socket.onmessage = message => {
      heard = arrived = performance.now();
      failures = 0;
      latest = JSON.parse(message.data);
      state = merge(state, latest);
      if (state === null) return socket.close();
      show(latest);
      showEvents(latest);
      draw();
      showHealth();
    };
    socket.onclose = () => {
      clearInterval(watch);
      setTimeout(retry, retryWait(failures++, Math.random()));
    };
  }

  /** Connects again, or loads the page again if the token is no longer accepted. */
  async function retry() {
    try {
      const answer = await fetch("/", {cache: "no-store"});
      if (answer.status === 401) return location.reload();
    } catch {
      // There is no answer; the next attempt finds out.
    }
    connect();
  }

  setInterval(showHealth, SECOND);
  connect();
})();
