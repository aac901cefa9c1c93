// Runs ONNX models in ONNX Runtime, for tests.   node run.mjs {MODEL IN OUT}...
// IN holds the inputs by name, OUT gets the outputs: f32 tensors in safetensors files.
import {readFileSync, writeFileSync} from "node:fs";
import {createRequire} from "node:module";

const ort = createRequire(new URL("../../../tools/peers/", import.meta.url))("onnxruntime-node");

function readTensors(path) {
  const file = readFileSync(path);
  const begin = 8 + Number(file.readBigUInt64LE(0));
  const feeds = {};
  for (const [name, {shape, data_offsets: [from, to]}] of Object.entries(JSON.parse(file.toString("utf8", 8, begin)))) {
    if (name === "__metadata__") continue;
    const values = new Float32Array(new Uint8Array(file.subarray(begin + from, begin + to)).buffer);
    feeds[name] = new ort.Tensor("float32", values, shape);
  }
  return feeds;
}

function writeTensors(path, tensors) {
  const header = {};
  let end = 0;
  for (const [name, {data, dims}] of Object.entries(tensors)) {
    header[name] = {dtype: "F32", shape: [...dims], data_offsets: [end, (end += data.byteLength)]};
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const values = Object.values(tensors).map(({data}) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  writeFileSync(path, Buffer.concat([length, text, ...values]));
}

const [...paths] = process.argv.slice(2);
for (let i = 0; i < paths.length; i += 3) {
  const session = await ort.InferenceSession.create(paths[i], {intraOpNumThreads: 1, logSeverityLevel: 3});
  writeTensors(paths[i + 2], await session.run(readTensors(paths[i + 1])));
}
