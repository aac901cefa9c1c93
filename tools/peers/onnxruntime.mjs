// ONNX Runtime on the CPU, as a peer of `weft bench`.
//
//   node onnxruntime.mjs --version
//   node onnxruntime.mjs MODEL.onnx THREADS SPIN FACTS
//
// THREADS compute; SPIN is 1 when they wait for work by spinning, 0 when they sleep. FACTS is a JSON object, given back
// in the first answer, once the model is loaded and has run once. Then each line on the standard input is a request:
// "run" is answered with {"seconds"} of one run, "memory" with {"peak"} resident bytes. What fails is {"error"}, and
// the end. The package onnxruntime-node is looked for beside this file and in NODE_PATH.
import {readFileSync} from "node:fs";
import {createRequire} from "node:module";
import {createInterface} from "node:readline";
import {fileURLToPath} from "node:url";

const say = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");

function giveUp(error) {
  process.stdout.write(JSON.stringify({error}) + "\n", () => process.exit(0));
}

function load() {
  try {
    return createRequire(import.meta.url)("onnxruntime-node");
  } catch (error) {
    const folder = fileURLToPath(new URL(".", import.meta.url));
    const missing = error.code === "MODULE_NOT_FOUND" && String(error.message).includes("onnxruntime-node'");
    throw new Error(missing ? "the npm package onnxruntime-node is missing; install it with `npm install "
      + `--ignore-scripts onnxruntime-node' in a folder, and name its node_modules in NODE_PATH, or in ${folder}`
      : `onnxruntime-node cannot be loaded: ${error.message}`);
  }
}

// Deterministic standard normal values (mulberry32, Box and Muller).
function randomInput(ort, shape) {
  let state = 1;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const values = new Float32Array(shape.reduce((product, extent) => product * extent, 1));
  for (let i = 0; i < values.length; ++i) {
    values[i] = Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }
  return new ort.Tensor("float32", values, shape);
}

function peakBytes() {
  return 1024 * Number(/^VmHWM:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))[1]);
}

async function serve([model, threads, spin, facts]) {
  const ort = load();
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ["cpu"],
    intraOpNumThreads: Number(threads),
    interOpNumThreads: 1,
    executionMode: "sequential",
    graphOptimizationLevel: "all",
    logSeverityLevel: 4,
    // Threads that spin do so during a run only: others are measured in between.
    extra: {session: {intra_op: {allow_spinning: spin}, force_spinning_stop: "1"}},
  });
  const {shape, ...known} = JSON.parse(facts);
  const feeds = {[session.inputNames[0]]: randomInput(ort, shape)};
  await session.run(feeds);
  say(known);
  for await (const request of createInterface({input: process.stdin})) {
    if (request === "memory") {
      say({peak: peakBytes()});
      continue;
    }
    const start = process.hrtime.bigint();
    await session.run(feeds);
    say({seconds: Number(process.hrtime.bigint() - start) / 1e9});
  }
}

try {
  const [...args] = process.argv.slice(2);
  if (args[0] === "--version") {
    say({version: load().env.versions.node ?? load().env.versions.common});
  } else {
    await serve(args);
  }
} catch (error) {
  giveUp(String(error.message).split("\n")[0]);
}
