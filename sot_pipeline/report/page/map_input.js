// Mouse, fingers and keys on the map.
const pointAndDrag = (canvas, view, { changed, nearest, hover, choose }) => {
  const fingers = new Map();
  let moved = 0;
  let apart = 0;
  const spot = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, spot(event));
    moved = 0;
    apart = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = spot(event);
    const before = fingers.get(event.pointerId);
    if (!before) { hover(nearest(...now), ...now); return; }
    fingers.set(event.pointerId, now);
    if (fingers.size === 2) {
      const [[ax, ay], [bx, by]] = fingers.values();
      const distance = Math.hypot(ax - bx, ay - by);
      if (apart) { view.zoom(distance / apart, (ax + bx) / 2, (ay + by) / 2); changed(); }
      apart = distance;
      moved = 99;
      return;
    }
    moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (moved > 4 && view.scale > 1) { canvas.classList.add("dragged"); view.move(now[0] - before[0], now[1] - before[1]); changed(); }
  });
  const lifted = (event) => {
    canvas.classList.remove("dragged");
    if (fingers.delete(event.pointerId) && moved <= 4 && event.type === "pointerup") choose(nearest(...spot(event)));
  };
  canvas.addEventListener("pointerup", lifted);
  canvas.addEventListener("pointercancel", lifted);
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("dblclick", (event) => { view.zoom(2, ...spot(event)); changed(); });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // else the page scrolls
    event.preventDefault();
    view.zoom(Math.exp(-event.deltaY / 300), ...spot(event));
    changed();
  }, { passive: false });
};
const steerByKeys = (canvas, view, { changed, step, choose }) => {
  const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key;
    if (event.shiftKey && moves[key]) { view.move(...moves[key]); changed(); }
    else if (key === "ArrowLeft") step(-1);
    else if (key === "ArrowRight") step(1);
    else if (key === "+" || key === "=") { view.zoom(1.6); changed(); }
    else if (key === "-") { view.zoom(1 / 1.6); changed(); }
    else if (key === "0") { view.all(); changed(); }
    else if (key === "Escape") choose(null);
    else return;
    event.preventDefault();
  });
};
