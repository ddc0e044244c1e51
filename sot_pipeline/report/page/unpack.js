// Columns as packing.py leaves them: gzip in base64.
const unpackBytes = async (base64) => {
  const squeezed = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const stream = new Blob([squeezed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
};
const ARRAYS = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int16: Int16Array, float32: Float32Array,
  float64: Float64Array,
};
const MISSING = -32768; // of int16, as packing.py writes what is not known
const unpackNumbers = async (column) => {
  if (column.type === "bool") column = { ...column, type: "uint8" };
  const found = new ARRAYS[column.type](await unpackBytes(column.data));
  if (column.scale === 1) return found;
  return Float32Array.from(found, (value) => (value === MISSING ? NaN : value * column.scale));
};
const unpackTexts = async (column) => JSON.parse(new TextDecoder().decode(await unpackBytes(column.data)));
const unpack = async (column) => {
  if (column.type === "text") return unpackTexts(column);
  if (column.type !== "names") return unpackNumbers(column);
  const [codes, names] = await Promise.all([unpackNumbers(column.codes), unpackTexts(column.names)]);
  return { codes, names: [null, ...names] };
};
const unpackAll = async (columns) => {
  const names = Object.keys(columns);
  const found = await Promise.all(names.map((name) => unpack(columns[name])));
  return Object.fromEntries(names.map((name, i) => [name, found[i]]));
};
// texts that only some rows have: row -> text
const unpackSome = async (some) => {
  const [rows, texts] = await Promise.all([unpackNumbers(some.rows), unpackTexts(some.texts)]);
  const byRow = new Map();
  texts.forEach((text, i) => byRow.set(rows[i], text));
  return byRow;
};
