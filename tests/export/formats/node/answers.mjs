// Scores of an ONNX file by ONNX Runtime for the web, in Node: MODEL PIXELS HEIGHT WIDTH, and
// prints them as JSON, a row for each picture. PIXELS: raw bytes, N * HEIGHT * WIDTH * 3.
import fs from "node:fs";
import { createRequire } from "node:module";

const ort = createRequire(process.cwd() + "/")("onnxruntime-web");
const [model, file, height, width] = process.argv.slice(2);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(fs.readFileSync(model));
const pixels = new Uint8Array(fs.readFileSync(file));
const shape = [pixels.length / (height * width * 3), Number(height), Number(width), 3];
const image = new ort.Tensor("uint8", pixels, shape);
const result = await session.run({ [session.inputNames[0]]: image });
const scores = result[session.outputNames[0]];
const classes = scores.dims[1];
const rows = [];
for (let start = 0; start < scores.data.length; start += classes) {
  rows.push(Array.from(scores.data.slice(start, start + classes)));
}
console.log(JSON.stringify(rows));
