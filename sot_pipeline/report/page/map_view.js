// The part of the map that is in view: map coordinates are [0, 1] both ways, y upwards.
const mapView = () => {
  const MARGIN = 0.03;
  const view = { scale: 1, x: 0.5, y: 0.5, width: 1, height: 1 };
  const side = () => 1 - 2 * MARGIN;
  view.toScreen = (x, y) => [
    view.width * (0.5 + (x - view.x) * view.scale * side()),
    view.height * (0.5 - (y - view.y) * view.scale * side()),
  ];
  view.toMap = (px, py) => [
    view.x + (px / view.width - 0.5) / (view.scale * side()),
    view.y - (py / view.height - 0.5) / (view.scale * side()),
  ];
  const inside = () => {
    const most = 0.5 + MARGIN;
    const half = 0.5 / view.scale;
    for (const axis of ["x", "y"]) view[axis] = Math.min(Math.max(view[axis], half - (most - 0.5)), 1 - half + (most - 0.5));
    if (view.scale <= 1) { view.x = 0.5; view.y = 0.5; }
  };
  view.zoom = (factor, px = view.width / 2, py = view.height / 2) => {
    const [x, y] = view.toMap(px, py);
    view.scale = Math.min(Math.max(view.scale * factor, 1), 200);
    const [nowX, nowY] = view.toMap(px, py);
    view.x += x - nowX;
    view.y += y - nowY;
    inside();
  };
  view.move = (dx, dy) => {
    view.x -= dx / (view.width * view.scale * side());
    view.y += dy / (view.height * view.scale * side());
    inside();
  };
  view.show = (x, y) => {
    const [px, py] = view.toScreen(x, y);
    if (px < 20 || py < 20 || px > view.width - 20 || py > view.height - 20) { view.x = x; view.y = y; inside(); }
  };
  view.all = () => { view.scale = 1; inside(); };
  return view;
};
