// A page in headless Chromium, driven by lines on stdin; used by scripts/live-shots.sh and by the tests.
//
//   size WIDTH HEIGHT [mobile]   light | dark      how the page is shown
//   open URL                                       loads a page
//   shot FILE                                      writes a PNG
//   anything else                                  is JavaScript that runs in the page
//
// Each line is answered by one line of JSON: {"value": …} or {"error": …}. What the page itself reports as an error,
// such as a violation of its Content-Security-Policy, is in `problems` of the answer.
"use strict";
const {spawn} = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const readline = require("node:readline");

/** Longest time for one line; a page whose process has died never answers. */
const LIMIT_MS = 120000;

const profile = fs.mkdtempSync(path.join(os.tmpdir(), "browser-"));
// The debugging protocol over two pipes: no port, and nothing to find.
const chromium = spawn("chromium", ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
  "--hide-scrollbars", "--remote-debugging-pipe", `--user-data-dir=${profile}`], {
  stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
  env: {...process.env, HOME: profile},
});
const [, , , toBrowser, fromBrowser] = chromium.stdio;

const calls = new Map();
let problems = [], lastCall = 0, rest = "", loaded = () => {};

function send(method, params, sessionId) {
  return new Promise((resolve, reject) => {
    const id = ++lastCall;
    calls.set(id, {resolve, reject});
    toBrowser.write(`${JSON.stringify({id, method, params, sessionId})}\0`);
  });
}

fromBrowser.setEncoding("utf8");
fromBrowser.on("data", text => {
  const messages = (rest + text).split("\0");
  rest = messages.pop();
  for (const message of messages.map(text => JSON.parse(text))) {
    const call = calls.get(message.id);
    calls.delete(message.id);
    if (call && message.error) call.reject(new Error(message.error.message));
    else if (call) call.resolve(message.result);
    else if (message.method === "Page.loadEventFired") loaded(null);
    else if (message.method === "Runtime.exceptionThrown") problems.push(message.params.exceptionDetails.exception?.description || "an exception");
    else if (message.method === "Log.entryAdded" && message.params.entry.level === "error") problems.push(message.params.entry.text);
  }
});

function end(code) {
  chromium.kill("SIGKILL");
  fs.rmSync(profile, {recursive: true, force: true, maxRetries: 5});
  process.exit(code);
}
chromium.on("error", error => { console.log(JSON.stringify({error: `chromium: ${error.message}`})); end(1); });
chromium.on("exit", () => { console.log(JSON.stringify({error: "chromium has ended"})); end(1); });
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) process.on(signal, () => end(1));

async function run(line, session) {
  const [command, ...words] = line.split(" ");
  switch (command) {
    case "size":
      return send("Emulation.setDeviceMetricsOverride",
        {width: Number(words[0]), height: Number(words[1]), deviceScaleFactor: 1, mobile: words[2] === "mobile"}, session);
    case "light":
    case "dark":
      return send("Emulation.setEmulatedMedia", {features: [{name: "prefers-color-scheme", value: command}]}, session);
    case "open": {
      const isLoaded = new Promise(resolve => { loaded = resolve; });
      const {errorText} = await send("Page.navigate", {url: words[0]}, session);
      if (errorText) throw new Error(errorText);
      return isLoaded;
    }
    case "shot": {
      const {data} = await send("Page.captureScreenshot", {format: "png"}, session);
      fs.writeFileSync(words[0], Buffer.from(data, "base64"));
      return null;
    }
    default: {
      const {result, exceptionDetails} = await send("Runtime.evaluate",
        {expression: line, returnByValue: true, awaitPromise: true}, session);
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description || exceptionDetails.text);
      return result.value === undefined ? null : result.value;
    }
  }
}

(async () => {
  const {targetId} = await send("Target.createTarget", {url: "about:blank"});
  const {sessionId} = await send("Target.attachToTarget", {targetId, flatten: true});
  for (const domain of ["Page", "Runtime", "Log"]) await send(`${domain}.enable`, {}, sessionId);
  for await (const line of readline.createInterface({input: process.stdin})) {
    const answer = {};
    let timer;
    try {
      const tooLate = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`no answer within ${LIMIT_MS} ms`)), LIMIT_MS);
      });
      answer.value = await Promise.race([run(line, sessionId), tooLate]);
    } catch (error) {
      answer.error = error.message;
    }
    clearTimeout(timer);
    answer.problems = problems;
    problems = [];
    console.log(JSON.stringify(answer));
  }
  chromium.removeAllListeners("exit");
  end(0);
})();
