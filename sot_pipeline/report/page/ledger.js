// Every row, searched, filtered and sorted; only the rows in view are elements.
const ROW_HEIGHT = 36;
const ledgerColumns = (rows) => [
  { name: "rank", head: "Rank", kind: "number", cell: (row) => grouped(rows.columns.rank[row]), key: rows.columns.rank },
  { name: "weight", head: "× uniform", kind: "number", cell: (row) => timesUniform(rows.weight(row)), key: rows.columns.weight },
  { name: "line", head: "Line", kind: "number", cell: (row) => String(rows.columns.line[row]), key: rows.columns.line },
  { name: "id", head: "Row", kind: "id", cell: rows.id, text: rows.id },
  ...(rows.columns.source ? [{ name: "source", head: "Source id", kind: "text", cell: (row) => rows.columns.source[row], text: (row) => rows.columns.source[row] || "" }] : []),
  ...(rows.columns.category ? [{ name: "category", head: "Category", kind: "text", cell: (row) => rows.named("category", row), text: (row) => rows.named("category", row) || "" }] : []),
  { name: "side", head: "Side", kind: "side", cell: (row) => (rows.kept(row) ? "kept" : "removed"), key: rows.columns.kept },
  ...(rows.columns.harmful_similarity ? [{ name: "harmful", head: "Harmful sim.", kind: "number", cell: (row) => similarityText(rows.columns.harmful_similarity[row]), key: rows.columns.harmful_similarity }] : []),
  ...(rows.columns.safe_similarity ? [{ name: "safe", head: "Safe sim.", kind: "number", cell: (row) => similarityText(rows.columns.safe_similarity[row]), key: rows.columns.safe_similarity }] : []),
];
const similarityText = (value) => (Number.isFinite(value) ? value.toFixed(3) : "–");
const ledgerSides = (rows) => [
  ["all", "all rows", () => true],
  ["removed", "removed", (row) => !rows.kept(row)],
  ["kept", "kept", rows.kept],
  ...(rows.cut === null ? [] : [["borderline", "borderline", (row) => rows.columns.borderline[row] === 1]]),
  ...(rows.columns.decision ? [["decided", "decided by a reviewer", (row) => rows.columns.decision.codes[row] > 0]] : []),
  ...(rows.columns.far ? [["far", "far from both references", (row) => rows.columns.far[row] === 1]] : []),
];
// what the search looks in, made once per row
const haystacks = (rows) => {
  const made = new Array(rows.count);
  const { columns } = rows;
  return (row) => {
    made[row] ??= [rows.id(row), columns.source && columns.source[row], `line ${columns.line[row]}`, rows.named("file", row), rows.named("category", row),
      rows.named("harmful_category", row), rows.named("decision", row), rows.reason(row)].filter(Boolean).join(" ").toLowerCase();
    return made[row];
  };
};
const sortedRows = (rows, column, falling) => {
  const order = Uint32Array.from({ length: rows.count }, (_, row) => row);
  const { key, text } = column;
  const sign = falling ? -1 : 1;
  if (key) return order.sort((a, b) => sign * (key[a] - key[b]) || a - b);
  const texts = Array.from(order, (row) => text(row).toLowerCase());
  return order.sort((a, b) => (texts[a] < texts[b] ? -sign : texts[a] > texts[b] ? sign : a - b));
};
