// Custom rows as discs, coloured and sized by weight; safe rows as squares, harmful ones as crosses.
const NUM_SHADES = 11; // odd: the middle one is the cut
const parseColour = (text) => text.match(/[\d.]+/g).slice(0, 3).map(Number);
const mixed = (one, other, share) => one.map((part, i) => Math.round(part + (other[i] - part) * share));
const colourOf = (selector) => parseColour(getComputedStyle(document.querySelector(selector)).color);
const mapColours = () => {
  const [removed, middle, kept] = [".ink-removed", ".stage", ".ink-kept"].map(colourOf);
  const half = (NUM_SHADES - 1) / 2;
  const shades = Array.from({ length: NUM_SHADES }, (_, i) => {
    const share = Math.abs(i - half) / half;
    return `rgb(${mixed(middle, i < half ? removed : kept, 0.25 + 0.75 * share).join(" ")} / .85)`;
  });
  const plain = (selector) => `rgb(${colourOf(selector).join(" ")} / .8)`;
  return { shades, safe: plain(".ink-safe"), harmful: plain(".ink-harmful"), ink: getComputedStyle(document.body).color,
    soft: getComputedStyle(document.querySelector(".scale")).color };
};
const shadesOf = (rows) => {
  const sorted = Float32Array.from(rows.columns.weight).sort();
  const at = (share) => sorted[Math.floor(share * (sorted.length - 1))];
  const cut = rows.cut === null ? at(0) : rows.cut; // without a cut all have the colours of kept rows
  const [low, high] = [Math.min(at(0.01), cut - 0.05), Math.max(at(0.99), cut + 0.05)];
  const half = (NUM_SHADES - 1) / 2;
  const of = (weight) => {
    const share = weight < cut ? (weight - cut) / (cut - low) : (weight - cut) / (high - cut);
    return Math.round(half + half * Math.min(Math.max(share, -1), 1));
  };
  return { shade: Uint8Array.from(rows.columns.weight, of), low, high };
};
const radiusOf = (weight, base) => base * Math.min(Math.max(10 ** (weight / 4), 0.8), 1.7);
const drawDiscs = (context, view, points, rows, shade, shown, colours, base) => {
  const count = rows.count;
  for (let s = NUM_SHADES - 1; s >= 0; s -= 1) { // light rows on top: they are the news
    context.fillStyle = colours.shades[s];
    context.beginPath();
    for (let row = 0; row < count; row += 1) {
      if (shade[row] !== s || !(rows.kept(row) ? shown.kept : shown.removed)) continue;
      const [x, y] = view.toScreen(points[row], points[count + row]);
      if (x < -9 || y < -9 || x > view.width + 9 || y > view.height + 9) continue;
      const radius = radiusOf(rows.weight(row), base);
      if (radius < 1.4) context.rect(x - radius, y - radius, 2 * radius, 2 * radius);
      else { context.moveTo(x + radius, y); context.arc(x, y, radius, 0, 2 * Math.PI); }
    }
    context.fill();
  }
};
const drawMarks = (context, view, points, colour, size, cross) => {
  const count = points.length / 2;
  context.strokeStyle = colour;
  context.lineWidth = 1.2;
  context.beginPath();
  for (let i = 0; i < count; i += 1) {
    const [x, y] = view.toScreen(points[i], points[count + i]);
    if (x < -9 || y < -9 || x > view.width + 9 || y > view.height + 9) continue;
    if (!cross) { context.rect(x - size, y - size, 2 * size, 2 * size); continue; }
    context.moveTo(x - size, y - size); context.lineTo(x + size, y + size);
    context.moveTo(x + size, y - size); context.lineTo(x - size, y + size);
  }
  context.stroke();
};
const drawAxis = (context, view, zero, colours) => {
  const [x] = view.toScreen(zero, 0);
  context.strokeStyle = colours.soft;
  context.fillStyle = colours.soft;
  context.setLineDash([3, 4]);
  context.lineWidth = 1;
  context.beginPath(); context.moveTo(x, 0); context.lineTo(x, view.height); context.stroke();
  context.setLineDash([]);
  context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "bottom";
  context.textAlign = "left"; context.fillText("← towards safe", 8, view.height - 6);
  context.textAlign = "right"; context.fillText("towards harm →", view.width - 8, view.height - 6);
};
