// What is known of the rows, by number of the row.
const loadRows = async () => {
  const data = JSON.parse(document.getElementById("rows").textContent);
  const columns = await unpackAll(data.columns);
  const texts = {};
  for (const [name, some] of Object.entries(data.texts)) texts[name] = await unpackSome(some);
  const of = (name, row) => (columns[name] ? columns[name][row] : undefined);
  const named = (name, row) => (columns[name] ? columns[name].names[columns[name].codes[row]] : null);
  const rows = {
    count: data.rows, cut: data.cut, all: data.all, columns, named, data,
    id: (row) => columns.id[row],
    kept: (row) => columns.kept[row] === 1,
    weight: (row) => columns.weight[row],
    text: (name, row) => (texts[name] ? texts[name].get(row) : undefined),
    reason: (row) => rows.text("explanation", row) || rows.text("reason", row) || rebuiltReason(row),
    number: of,
  };
  const similarity = (name, row) => {
    const nearest = named(`nearest_${name}`, row);
    const value = of(`${name}_similarity`, row);
    return nearest === null || Number.isNaN(value) ? "" : `${name} ${nearest} (similarity ${value.toFixed(2)})`;
  };
  const rebuiltReason = (row) => {
    const near = ["harmful", "safe"].map((name) => similarity(name, row)).filter(Boolean).join(", ");
    return `${rows.kept(row) ? "Kept" : "Removed"}: rank ${grouped(columns.rank[row])} of ${grouped(data.all)}, `
      + `${timesUniform(rows.weight(row))} times the uniform weight.${near ? ` Nearest rows: ${near}.` : ""}`;
  };
  return rows;
};
const grouped = (number) => number.toLocaleString("en-US");
const timesUniform = (log10) => {
  const weight = 10 ** log10;
  if (weight < 0.001) return weight < 1e-290 ? "0" : weight.toExponential(1);
  return weight < 99.5 ? weight.toPrecision(2) : grouped(Math.round(weight));
};
// Elements from text only: nothing that a row holds is ever read as markup.
const element = (tag, options = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined).map((child) =>
    (child instanceof Node ? child : document.createTextNode(String(child)))));
  return made;
};
