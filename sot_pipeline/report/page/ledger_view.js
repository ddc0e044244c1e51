const startLedger = (rows) => {
  const byId = (id) => document.getElementById(id);
  const [scroll, table, query, side, category, matches, panel] = ["ledger-scroll", "ledger-table", "query", "side", "category", "matches", "ledger-detail"].map(byId);
  const [head, body] = [table.tHead.rows[0], table.tBodies[0]];
  const columns = ledgerColumns(rows);
  const sides = ledgerSides(rows);
  const haystack = haystacks(rows);
  let sort = { column: columns[0], falling: true };
  let order = sortedRows(rows, sort.column, true);
  let found = order;
  let active = -1; // place in `found`

  const heads = columns.map((column) => {
    const button = element("button", { type: "button" }, column.head);
    const cell = element("th", { scope: "col", class: `col-${column.kind}${column.kind === "number" ? " number" : ""}` }, button);
    button.addEventListener("click", () => {
      sort = { column, falling: sort.column === column ? !sort.falling : false };
      order = sortedRows(rows, column, sort.falling);
      search();
    });
    head.append(cell);
    return cell;
  });
  const option = ([value, label]) => element("option", { value }, label);
  side.append(...sides.map(option));
  if (rows.columns.category) {
    category.append(option(["", "all"]), ...rows.columns.category.names.slice(1).map((name, i) => option([String(i + 1), name])));
    byId("category-choice").hidden = false;
  }

  const search = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const accepted = sides.find(([value]) => value === side.value)[2];
    const code = Number(category.value || 0);
    found = order.filter((row) => accepted(row) && (!code || rows.columns.category.codes[row] === code)
      && (!words.length || words.every((word) => haystack(row).includes(word))));
    active = -1;
    heads.forEach((cell, i) => {
      if (columns[i] === sort.column) cell.setAttribute("aria-sort", sort.falling ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    matches.textContent = `${grouped(found.length)} of ${grouped(rows.all)} rows`;
    table.setAttribute("aria-rowcount", found.length + 1);
    scroll.scrollTop = 0;
    render();
  };
  const rowElement = (place) => {
    const row = found[place];
    const made = element("tr", { "aria-rowindex": place + 2, "data-place": place, ...(place === active ? { class: "active", "aria-current": "true" } : {}) });
    for (const column of columns) {
      const text = column.cell(row);
      const shown = column.kind === "side" ? element("span", { class: `side is-${text}` }, text) : element("bdi", {}, text ?? "–");
      made.append(element("td", { class: { number: "number", id: "mono" }[column.kind] || "", title: String(text ?? "") }, shown));
    }
    return made;
  };
  const spacer = (count) => {
    const cell = element("td", { colspan: columns.length });
    cell.style.height = `${count * ROW_HEIGHT}px`;
    return element("tr", { class: "spacer", "aria-hidden": "true" }, cell);
  };
  const render = () => {
    const first = Math.max(0, Math.floor(scroll.scrollTop / ROW_HEIGHT) - 10);
    const last = Math.min(found.length, first + Math.ceil(scroll.clientHeight / ROW_HEIGHT) + 21);
    const made = [];
    for (let place = first; place < last; place += 1) made.push(rowElement(place));
    body.replaceChildren(spacer(first), ...made, spacer(found.length - last));
  };
  const open = (place) => { activate(place); showDetails(panel, rows, found[place], () => { panel.hidden = true; scroll.focus(); }); };
  const activate = (place) => {
    active = Math.min(Math.max(place, 0), found.length - 1);
    const top = active * ROW_HEIGHT;
    const room = scroll.clientHeight - 2 * ROW_HEIGHT;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top > scroll.scrollTop + room) scroll.scrollTop = top - room;
    render();
  };
  let frame = 0;
  scroll.addEventListener("scroll", () => { cancelAnimationFrame(frame); frame = requestAnimationFrame(render); });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-place]");
    if (row) open(Number(row.dataset.place));
  });
  const PAGE = 10;
  scroll.addEventListener("keydown", (event) => {
    if (event.target !== scroll || !found.length) return;
    const places = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + PAGE, PageUp: active - PAGE, Home: 0, End: found.length - 1 };
    if (event.key in places) activate(places[event.key]);
    else if (event.key === "Enter" && active >= 0) open(active);
    else if (event.key === "Escape") panel.hidden = true;
    else return;
    event.preventDefault();
  });
  let pause = 0;
  query.addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(search, 80); });
  for (const choice of [side, category]) choice.addEventListener("change", search);
  search();
  // before the first search, in pieces, so that the page stays quick to answer
  let next = 0;
  const prepare = () => {
    const end = Math.min(next + 4000, rows.count);
    for (; next < end; next += 1) haystack(next);
    if (next < rows.count) setTimeout(prepare, 0);
  };
  setTimeout(prepare, 200);
};
