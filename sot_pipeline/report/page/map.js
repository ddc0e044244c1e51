const startMap = async (rows) => {
  const canvas = document.getElementById("map-canvas");
  if (!canvas || !rows.data.maps) return null;
  const points = {};
  for (const [name, map] of Object.entries(rows.data.maps)) {
    const unit = async (column) => Float32Array.from(await unpackNumbers(column), (value) => value / 65535);
    points[name] = { zero: map.zero, custom: await unit(map.custom), safe: await unit(map.safe), harmful: await unit(map.harmful) };
  }
  const references = {};
  for (const [role, { count, ...columns }] of Object.entries(rows.data.references)) references[role] = await unpackAll(columns);
  const context = canvas.getContext("2d");
  const view = mapView();
  const shown = { kept: true, removed: true, safe: true, harmful: true };
  const { shade, low, high } = shadesOf(rows);
  const order = Uint32Array.from(rows.columns.rank.keys()).sort((a, b) => rows.columns.rank[a] - rows.columns.rank[b]);
  let layout = Object.keys(points)[0];
  let colours = null;
  let chosen = null; // {role, row}
  let hovered = null;
  let waiting = false;

  const draw = () => {
    waiting = false;
    colours = colours || mapColours();
    const ratio = devicePixelRatio || 1;
    const { width, height } = canvas.getBoundingClientRect();
    if (!width) return;
    Object.assign(view, { width, height });
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const at = points[layout];
    const crowd = Math.min(Math.max(2700 / Math.sqrt(rows.count) / 22, 0.9), 4.2) * (width < 600 ? 0.75 : 1);
    const base = crowd * Math.min(view.scale ** 0.35, 4);
    if (layout === "harm") drawAxis(context, view, at.zero, colours);
    drawDiscs(context, view, at.custom, rows, shade, shown, colours, base);
    const size = Math.min(Math.max(base * 0.9, 2.2), 5);
    if (shown.safe) drawMarks(context, view, at.safe, colours.safe, size, false);
    if (shown.harmful) drawMarks(context, view, at.harmful, colours.harmful, size, true);
    for (const point of [hovered, chosen]) if (point) ring(point, at, point === chosen ? 2.4 : 1.4, base);
  };
  const ring = (point, at, width, base) => {
    const [x, y] = view.toScreen(...placeOf(point, at));
    context.strokeStyle = colours.ink;
    context.lineWidth = width;
    context.beginPath(); context.arc(x, y, base * 1.7 + 4, 0, 2 * Math.PI); context.stroke();
  };
  const placeOf = ({ role, row }, at) => [at[role][row], at[role][at[role].length / 2 + row]];
  const redraw = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };

  const nearest = (px, py) => {
    const at = points[layout];
    let best = null;
    let least = 14 ** 2;
    for (const role of ["custom", "safe", "harmful"]) {
      if (role !== "custom" && !shown[role]) continue;
      const count = at[role].length / 2;
      for (let row = 0; row < count; row += 1) {
        if (role === "custom" && !(rows.kept(row) ? shown.kept : shown.removed)) continue;
        const [x, y] = view.toScreen(at[role][row], at[role][count + row]);
        const apart = (x - px) ** 2 + (y - py) ** 2;
        if (apart < least) { least = apart; best = { role, row }; }
      }
    }
    return best;
  };
  const lines = ({ role, row }) => {
    if (role === "custom") {
      const category = rows.named("category", row);
      return [rows.id(row), `line ${rows.columns.line[row]}, rank ${grouped(rows.columns.rank[row])}, `
        + `${timesUniform(rows.weight(row))} × uniform, ${rows.kept(row) ? "kept" : "removed"}`, category];
    }
    const { id, line, category } = references[role];
    const group = category ? category.names[category.codes[row]] : null;
    return [id ? id[row] : `row ${row + 1}`, `${role} reference${line ? `, line ${line[row]}` : ""}`, group];
  };
  const tip = document.getElementById("map-tip");
  const hover = (point, px, py) => {
    const same = point && hovered && point.role === hovered.role && point.row === hovered.row;
    if (!same) { hovered = point; redraw(); }
    tip.hidden = !point;
    if (!point) return;
    const [id, what, category] = lines(point);
    if (!same) tip.replaceChildren(element("strong", {}, element("bdi", {}, id)), what, ...(category ? [element("br"), element("bdi", {}, category)] : []));
    tip.style.left = `${Math.min(px + 14, Math.max(0, view.width - tip.offsetWidth))}px`;
    tip.style.top = `${py + 16 + tip.offsetHeight > view.height ? Math.max(0, py - tip.offsetHeight - 10) : py + 16}px`;
  };
  const panel = document.getElementById("map-detail");
  const choose = (point) => {
    chosen = point;
    if (!point) panel.hidden = true;
    else if (point.role === "custom") showDetails(panel, rows, point.row, () => { choose(null); canvas.focus(); });
    else {
      const [id, what, category] = lines(point);
      panel.replaceChildren(element("h4", {}, element("bdi", {}, id)), element("p", {}, element("bdi", {}, [what, category].filter(Boolean).join(", "))));
      panel.hidden = false;
    }
    redraw();
  };
  const step = (by) => {
    const first = rows.columns.rank.length - 1;
    let place = chosen && chosen.role === "custom" ? order.indexOf(chosen.row) + by : order.findIndex((row) => !rows.kept(row));
    place = Math.min(Math.max(place < 0 ? first : place, 0), first);
    const point = { role: "custom", row: order[place] };
    view.show(...placeOf(point, points[layout]));
    choose(point);
  };
  const changed = () => { canvas.classList.toggle("zoomed", view.scale > 1); hover(null); redraw(); };
  document.getElementById("scale-low").textContent = timesUniform(low);
  document.getElementById("scale-high").textContent = timesUniform(high);
  for (const button of document.querySelectorAll(".legend button")) button.addEventListener("click", () => {
    const set = button.dataset.set;
    shown[set] = !shown[set];
    button.setAttribute("aria-pressed", String(shown[set]));
    redraw();
  });
  for (const input of document.querySelectorAll("input[name=layout]")) input.addEventListener("change", () => { layout = input.value; view.all(); changed(); });
  document.getElementById("zoom-in").addEventListener("click", () => { view.zoom(1.6); changed(); });
  document.getElementById("zoom-out").addEventListener("click", () => { view.zoom(1 / 1.6); changed(); });
  document.getElementById("zoom-all").addEventListener("click", () => { view.all(); changed(); });
  addEventListener("themechange", () => { colours = null; redraw(); });
  new ResizeObserver(redraw).observe(canvas);
  pointAndDrag(canvas, view, { changed, nearest, hover, choose });
  steerByKeys(canvas, view, { changed, step, choose });
  return { draw };
};
