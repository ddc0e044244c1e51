// All that is known of one row, for the map and for the ledger.
const showDetails = (panel, rows, row, close) => {
  const facts = element("dl", { class: "facts" });
  const fact = (name, value) => {
    if (value === null || value === undefined || value === "") return;
    facts.append(element("div", {}, element("dt", {}, name), element("dd", {}, element("bdi", {}, value))));
  };
  const { columns, named } = rows;
  const nearest = (name) => {
    const id = named(`nearest_${name}`, row);
    const value = rows.number(`${name}_similarity`, row);
    if (!id) return null;
    return `${id}${Number.isFinite(value) ? `, similarity ${value.toFixed(3)}` : ""}`;
  };
  fact("Side of the cut", rows.kept(row) ? "kept" : "removed");
  fact("Weight", `${timesUniform(rows.weight(row))} × uniform`);
  fact("Rank", `${grouped(columns.rank[row])} of ${grouped(rows.all)}`);
  fact("Line", String(columns.line[row]));
  fact("Source id", columns.source ? columns.source[row] : null);
  fact("File", named("file", row));
  fact("Category", named("category", row));
  fact("Kind of harm", named("harmful_category", row));
  fact("Nearest harmful", nearest("harmful"));
  fact("Nearest safe", nearest("safe"));
  const p = rows.number("harmful_p_value", row);
  if (Number.isFinite(p)) fact("Held-out harm", `${(100 * p).toFixed(1)} % of it scores as high`);
  fact("Other methods that disagree", named("disagreeing", row));
  if (rows.number("far", row)) fact("Coverage", "far from both references");
  fact("Decision", named("decision", row));
  const parts = [element("h4", {}, element("bdi", {}, rows.id(row))), facts];
  parts.push(element("p", {}, element("bdi", {}, rows.reason(row))));
  for (const name of ["prompt", "response"]) {
    const text = rows.text(name, row);
    if (text === undefined) continue;
    parts.push(element("details", {}, element("summary", {}, `${name} (may be harmful text)`),
      element("pre", {}, element("bdi", {}, text))));
  }
  const button = element("button", { type: "button", class: "close" }, "Close");
  button.addEventListener("click", close);
  panel.replaceChildren(button, ...parts);
  panel.hidden = false;
};
