#!/usr/bin/env node
// A page in headless Chromium talks to the real broker over WebSocket: by MQTT.js, and by hand where a browser
// shows what no other client does (which pages may connect, and how an end looks from inside).
//
//   node tests/browser/run.mjs BROKER MODULES
//
// BROKER is the program, MODULES the folder that `npm ci` has made. CHROMIUM names another browser than
// /usr/bin/chromium. Ends with 0 only if everything was as it should be. Nothing leaves this machine.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const [program, modules] = process.argv.slice(2).map((path) => resolve(path));
const { chromium } = createRequire(join(modules, "/"))("playwright-core");

/** No case takes longer, unless something is broken. */
const PATIENCE_MS = 60_000;
/** A name that is not of this machine; the browser is told otherwise, as by whoever owns a name. */
const STRANGER = "stranger.example";

/** Serves the page and MQTT.js, and nothing else. */
async function serve() {
  const files = {
    "/": ["text/html", new URL("page.html", import.meta.url)],
    "/mqtt.min.js": ["text/javascript", join(modules, "mqtt/dist/mqtt.min.js")],
  };
  const server = createServer(async (request, response) => {
    const file = files[request.url];
    response.writeHead(file ? 200 : 404, { "content-type": file?.[0] ?? "text/plain" });
    response.end(file && (await readFile(file[1])));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

/** Starts the broker in a folder of its own; gives its WebSocket addresses in the order of the listeners. */
async function startBroker(folder, listed) {
  const listener = '[[listeners]]\naddress = "127.0.0.1:0"\n[listeners.websocket]\n';
  const tls = '[listeners.tls]\ncertificate = "certs/server.pem"\nkey = "certs/server.key"\n';
  const rest = "[admin]\nenabled = false\n";
  const config = `${listener}${listener}origins = ["${listed}"]\n${listener}${tls}${rest}`;
  await writeFile(join(folder, "causeway.toml"), config);
  const broker = spawn(program, ["--config", "causeway.toml"], { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
  const urls = [];
  for await (const line of createInterface({ input: broker.stdout })) {
    urls.push(...(line.match(/wss?:\/\/\S+/) ?? []));
    if (line.trim().startsWith("data ")) return { broker, urls };
  }
  throw new Error("the broker did not start");
}

/** What is checked, by name; `at` opens a page and asks one of its functions. */
function cases({ plain, open, secure }, here, there) {
  const port = new URL(plain).port;
  const messages = (version) => [
    ...[0, 1, 2].map((qos) => ({ at: `browser/${version}/${qos}`, qos, text: `QoS ${qos} – ✓` })),
    { at: `browser/${version}/large`, qos: 1, text: "large" },
  ];
  const exchange = (page, url, version) => async (at) =>
    assert.deepEqual(await at(page, "exchange", url, version), { granted: 2, messages: messages(version) });
  const raw = (page, url, protocols, data, expected) => async (at) =>
    assert.deepEqual(await at(page, "raw", url, protocols, data), expected);
  const refused = { opened: false, code: 1006, wasClean: false, protocol: "" };
  const closed = (code) => ({ opened: true, code, wasClean: true, protocol: "mqtt" });
  return {
    "MQTT.js 3.1.1 over ws": exchange(here, plain, 4),
    "MQTT.js 5.0 over ws": exchange(here, plain, 5),
    "MQTT.js 3.1.1 over wss": exchange(here, secure, 4),
    "MQTT.js 5.0 over wss": exchange(here, secure, 5),
    "a session goes on": async (at) => assert.equal(await at(here, "resume", plain), "0 1 2 3 4 5 6 7 8 9"),
    "20,000 messages of QoS 0": async (at) => `${await at(here, "flood", plain, 0, 20_000)} ms`,
    "20,000 messages of QoS 1": async (at) => `${await at(here, "flood", plain, 1, 20_000)} ms`,
    "a text frame is closed with 1003": raw(here, plain, ["mqtt"], "text", closed(1003)),
    "what is no MQTT is closed with 1008": raw(here, plain, ["chat", "mqtt"], new Array(9).fill(0), closed(1008)),
    "without the subprotocol nothing opens": raw(here, plain, [], "", refused),
    "a page from elsewhere may not connect": raw(there, plain, ["mqtt"], "", refused),
    "nor by a name of its own for this machine": raw(there, `ws://${STRANGER}:${port}/mqtt`, ["mqtt"], "", refused),
    "unless its origin is listed": exchange(there, open, 5),
  };
}

async function main() {
  const folder = await mkdtemp(join(tmpdir(), "causeway-browser-"));
  const server = await serve();
  const { port } = server.address();
  const [here, there] = [`http://localhost:${port}/`, `http://${STRANGER}:${port}/`];
  const { broker, urls } = await startBroker(folder, there.slice(0, -1));
  const ended = once(broker, "exit");
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
      ...["--disable-component-update", "--disable-sync", "--ignore-certificate-errors"],
      `--host-resolver-rules=MAP ${STRANGER} 127.0.0.1`,
    ],
  });
  let failed = 0;
  const at = async (address, name, url, ...rest) => {
    const page = await browser.newPage();
    try {
      await page.goto(address);
      // Bytes travel as a list of numbers.
      const ask = ([name, ...given]) =>
        window[name](...given.map((it, index) => (index === 2 && Array.isArray(it) ? new Uint8Array(it) : it)));
      const late = new Promise((_, reject) => setTimeout(reject, PATIENCE_MS, new Error("no answer")).unref());
      return await Promise.race([page.evaluate(ask, [name, url, ...rest]), late]);
    } finally {
      await page.close();
    }
  };
  try {
    const [plain, open, secure] = urls;
    for (const [name, check] of Object.entries(cases({ plain, open, secure }, here, there))) {
      const outcome = await check(at).then((said) => `ok      ${name}${said ? `: ${said}` : ""}`, (error) => {
        failed += 1;
        return `FAILED  ${name}\n${error.stack}`;
      });
      console.log(outcome);
    }
  } finally {
    await browser.close();
    broker.kill("SIGTERM");
    await ended;
    server.close();
    await rm(folder, { recursive: true });
  }
  console.log(failed ? `${failed} failed` : "all passed");
  process.exitCode = failed ? 1 : 0;
}

await main();
