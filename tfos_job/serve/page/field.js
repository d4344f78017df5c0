// The drawing field: strokes and pictures, kept in units of the field, so that its size on the screen never matters.

/** The field's side, in the whole numbers in which strokes are kept and sent. */
export const SIDE = 4096;

const NEAR = 12; // nearer points are one: finer than a network can see
const PEN = SIDE / 45; // width of the ink on the screen
const GUIDES = [
  [0, 0, 1, 1],
  [1, 0, 0, 1],
  [0.5, 0, 0.5, 1],
  [0, 0.5, 1, 0.5],
];

const NOTHING = Object.freeze({ strokes: Object.freeze([]), picture: null });

export class Field {
  #canvas;
  #states = [NOTHING]; // the last one is shown; `undo` takes it away
  #stroke = null; // the points so far of the one that is being drawn
  #pointer = null; // that draws it
  #box = null; // of the ink found in the picture, in its pixels

  /** Takes the canvas, and what is called when a stroke begins and when there is something else to answer about. */
  constructor(canvas, { onBegin, onChange }) {
    this.#canvas = canvas;
    this.onBegin = onBegin;
    this.onChange = onChange;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#go(event));
    // What a phone takes away, as when a message covers the page, has been drawn, too.
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#end(event));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    new ResizeObserver(() => this.draw()).observe(canvas);
    window.addEventListener("resize", () => this.draw()); // also at another devicePixelRatio
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** What is in the field: `strokes`, lists of points, and `picture`, {blob, name, bitmap} or null. */
  get shown() {
    return this.#states.at(-1);
  }

  get isEmpty() {
    return !this.shown.strokes.length && !this.shown.picture;
  }

  get canUndo() {
    return this.#states.length > 1;
  }

  undo() {
    if (!this.canUndo) return;
    this.#states.pop();
    this.#changed();
  }

  clear() {
    if (!this.isEmpty) this.#show(NOTHING);
  }

  /** Shows a picture instead of strokes; one that the browser cannot show is asked about all the same. */
  async open(blob, name) {
    let bitmap = null;
    try {
      bitmap = await createImageBitmap(blob);
    } catch {
      // The server says what is wrong with it.
    }
    this.#show({ strokes: [], picture: { blob, name, bitmap } });
  }

  /** Frames the ink that the server found in the picture: left, top, right and bottom in its pixels. */
  frame(box) {
    this.#box = box;
    this.draw();
  }

  #show(state) {
    this.#states.push(state);
    this.#changed();
  }

  #changed() {
    this.#box = null;
    this.draw();
    this.onChange();
  }

  #begin(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    if (this.#stroke) {
      if (event.pointerType !== "pen") return; // a second finger, or the hand beside the pen
      this.#stroke = null; // the pen's hand came first
      this.draw();
    }
    this.#pointer = event.pointerId;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#stroke = [];
    if (this.shown.picture) this.draw(); // it makes room
    this.#add(event);
    this.onBegin();
  }

  #go(event) {
    if (!this.#stroke || event.pointerId !== this.#pointer) return;
    const between = event.getCoalescedEvents?.() ?? [];
    for (const one of between.length ? between : [event]) this.#add(one);
  }

  #end(event) {
    if (!this.#stroke || event.pointerId !== this.#pointer) return;
    const stroke = this.#stroke;
    this.#stroke = this.#pointer = null;
    this.#show({ strokes: [...this.shown.strokes, stroke], picture: null });
  }

  #add(event) {
    const field = this.#canvas.getBoundingClientRect();
    const within = (share) => Math.round(Math.min(Math.max(share, 0), 1) * SIDE);
    const point = [
      within((event.clientX - field.left) / field.width),
      within((event.clientY - field.top) / field.height),
    ];
    const last = this.#stroke.at(-1);
    if (last && Math.hypot(point[0] - last[0], point[1] - last[1]) < NEAR) return;
    this.#stroke.push(point);
    this.#inScale((context) => this.#line(context, last ? [last, point] : [point]));
  }

  /** Draws all again, in as many pixels as the screen has. */
  draw() {
    const pixels = Math.max(1, Math.round(this.#canvas.clientWidth * devicePixelRatio));
    if (this.#canvas.width !== pixels || this.#canvas.height !== pixels) {
      this.#canvas.width = this.#canvas.height = pixels;
    }
    this.#inScale((context) => {
      context.clearRect(0, 0, SIDE, SIDE);
      const { strokes, picture } = this.shown;
      if (picture && !this.#stroke) {
        this.#picture(context, picture);
        return;
      }
      this.#guides(context);
      for (const stroke of strokes) this.#line(context, stroke);
      if (this.#stroke?.length) this.#line(context, this.#stroke);
    });
  }

  #inScale(paint) {
    const context = this.#canvas.getContext("2d");
    const scale = this.#canvas.width / SIDE;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    paint(context);
  }

  #colour(name) {
    return getComputedStyle(this.#canvas).getPropertyValue(name).trim();
  }

  #guides(context) {
    context.save();
    context.strokeStyle = this.#colour("--guide");
    context.lineWidth = SIDE / Math.max(this.#canvas.clientWidth, 1);
    context.setLineDash([SIDE / 60, SIDE / 60]);
    for (const ends of GUIDES) {
      const [left, top, right, bottom] = ends.map((share) => share * SIDE);
      context.beginPath();
      context.moveTo(left, top);
      context.lineTo(right, bottom);
      context.stroke();
    }
    context.restore();
  }

  #line(context, points) {
    context.strokeStyle = this.#colour("--ink");
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(...points[0]);
    for (const point of points.length > 1 ? points.slice(1) : points) context.lineTo(...point);
    context.stroke();
  }

  #picture(context, { bitmap }) {
    if (!bitmap) return;
    const scale = SIDE / Math.max(bitmap.width, bitmap.height);
    const left = (SIDE - bitmap.width * scale) / 2;
    const top = (SIDE - bitmap.height * scale) / 2;
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, left, top, bitmap.width * scale, bitmap.height * scale);
    if (!this.#box) return;
    const [x, y, right, bottom] = this.#box.map((length) => length * scale);
    context.strokeStyle = this.#colour("--blue");
    context.lineWidth = SIDE / 150;
    context.strokeRect(left + x, top + y, right - x, bottom - y);
  }
}
