
"use strict";
// The scan of a report: slices are unpacked when they are looked at; `html_voxels.py` says how they are packed.
(() => {
  const byId = (name) => document.getElementById(name);
  const scan = JSON.parse(byId("scan").textContent);
  const [slices, rows, columns] = scan.shape;
  const [top, bottom, left, right] = scan.box;
  const [height, width] = [bottom - top, right - left];
  const marks = scan.marks; // nodules, then candidates
  const canvas = byId("canvas"), slider = byId("slice"), where = byId("where"), reading = byId("reading");
  const windows = [...document.querySelectorAll("[data-window]")];
  const jumps = [...document.querySelectorAll("[data-mark]")];
  const picture = new OffscreenCanvas(width, height);
  const state = { slice: -1, window: 0, contours: true, mark: -1, zoom: 1, centre: [rows / 2, columns / 2] };
  const kept = new Map(); // slice -> promise of its voxels and mask; the least lately used first
  const KEPT = 300;
  let drawn = null; // what the canvas shows

  async function unpack(name) {
    const element = byId(name);
    if (!element) return null;
    const packed = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function read(slice) {
    const [folded, mask] = await Promise.all([unpack(`v${slice}`), unpack(`m${slice}`)]);
    const size = width * height;
    const values = new Uint16Array(size); // HU less the lowest
    for (let i = 0, row = 0; row < height; row++) {
      for (let column = 0; column < width; column++, i++) {
        const a = column ? values[i - 1] : 0, b = row ? values[i - width] : 0;
        const c = row && column ? values[i - width - 1] : 0;
        const low = Math.min(a, b), high = Math.max(a, b);
        const z = folded[i] | (folded[i + size] << 8);
        values[i] = Math.min(Math.max(a + b - c, low), high) + ((z >>> 1) ^ -(z & 1));
      }
    }
    return { slice, values, mask, edges: mask && outline(mask) };
  }

  // The sides of pixels between one number and another, by number: straight pieces, in pixels.
  function outline(mask) {
    const edges = new Map();
    const add = (number, ...line) => number && (edges.get(number) ?? edges.set(number, []).get(number)).push(line);
    for (let row = 0; row <= rows; row++) {
      for (let column = 0; column <= columns; column++) {
        const here = row < rows && column < columns ? mask[row * columns + column] : 0;
        const above = row && column < columns ? mask[(row - 1) * columns + column] : 0;
        const before = column && row < rows ? mask[row * columns + column - 1] : 0;
        if (here !== above) for (const n of [here, above]) add(n, column, row, column + 1, row);
        if (here !== before) for (const n of [here, before]) add(n, column, row, column, row + 1);
      }
    }
    return edges;
  }

  function get(slice) {
    const found = kept.get(slice) ?? read(slice);
    kept.delete(slice);
    kept.set(slice, found);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    return found;
  }

  async function show(slice) {
    slice = Math.min(Math.max(slice, 0), slices - 1);
    const step = Math.sign(slice - state.slice) || 1;
    state.slice = slice;
    slider.value = slice + 1;
    where.textContent = `Slice ${slice + 1} of ${slices}`;
    slider.setAttribute("aria-valuetext", where.textContent);
    try {
      const content = await get(slice);
      if (state.slice !== slice) return; // The reader has gone on.
      drawn = content;
      draw();
      const next = slice + step;
      if (next >= 0 && next < slices) get(next).catch(() => {});
    } catch (error) {
      where.textContent = `Slice ${slice + 1} cannot be shown: ${error.message}. This page needs a browser of 2023 or later.`;
    }
  }

  // Where the scan lies on the canvas: canvas pixels of a scan's pixel, and of its first one.
  function place() {
    const [, tall, wide] = scan.spacing;
    const scale = Math.min(canvas.width / (columns * wide), canvas.height / (rows * tall)) * state.zoom;
    const [sx, sy] = [scale * wide, scale * tall];
    const at = (size, all, centre, one) =>
      all * one <= size ? (size - all * one) / 2 : Math.min(0, Math.max(size - all * one, size / 2 - centre * one));
    return { sx, sy, x: at(canvas.width, columns, state.centre[1], sx), y: at(canvas.height, rows, state.centre[0], sy) };
  }

  function draw() {
    if (!drawn) return;
    const [low, high] = scan.windows[state.window];
    const shades = new Uint32Array(4096);
    const grey = new Uint8ClampedArray(1);
    for (let value = 0; value < 4096; value++) {
      grey[0] = (255 * (value + scan.low_hu - low)) / (high - low);
      shades[value] = 0xff000000 | (grey[0] * 0x010101);
    }
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = shades[drawn.values[i]];
    picture.getContext("2d").putImageData(image, 0, 0);
    const pen = canvas.getContext("2d");
    const { sx, sy, x, y } = place();
    pen.fillStyle = pen.shadowColor = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = `rgb(${Array(3).fill(shades[0] & 255)})`; // Beyond the box: air.
    pen.fillRect(x, y, columns * sx, rows * sy);
    pen.imageSmoothingEnabled = sx < 4;
    pen.drawImage(picture, x + left * sx, y + top * sy, width * sx, height * sy);
    if (state.contours) drawMarks(pen, sx, sy, x, y);
    drawSides(pen);
    canvas.dataset.slice = drawn.slice + 1;
    const seen = marks.filter((mark) => !mark.candidate && mark.first <= drawn.slice && drawn.slice <= mark.last);
    const names = seen.length ? `; nodule ${seen.map((mark) => mark.number).join(", ")}` : "";
    canvas.setAttribute("aria-label", `CT ${where.textContent}, ${windows[state.window].textContent} window${names}`);
  }

  function drawMarks(pen, sx, sy, x, y) {
    const unit = canvas.width / canvas.clientWidth || 1; // of a CSS pixel
    pen.font = `${13 * unit}px system-ui, sans-serif`;
    for (const [index, mark] of marks.entries()) {
      if (drawn.slice < mark.first || drawn.slice > mark.last) continue;
      const edges = mark.candidate ? null : drawn.edges?.get(mark.number);
      const chosen = index === state.mark;
      if (!edges && !(mark.candidate && (chosen || byId("below").open))) continue;
      pen.strokeStyle = pen.fillStyle = chosen ? "#ffd84d" : mark.candidate ? "#c9a7ff" : "#56b4e9";
      pen.lineWidth = (chosen ? 2.5 : 1.75) * unit;
      pen.setLineDash(mark.candidate ? [4 * unit, 4 * unit] : []);
      pen.beginPath();
      let [edge, base] = [x + mark.column * sx, y + mark.row * sy];
      if (edges) {
        for (const [x0, y0, x1, y1] of edges) {
          pen.moveTo(x + x0 * sx, y + y0 * sy);
          pen.lineTo(x + x1 * sx, y + y1 * sy);
        }
        edge = x + Math.max(...edges.map((line) => line[2])) * sx;
      } else {
        const radius = Math.max((mark.longest_mm / 2 / scan.spacing[2]) * sx, 6 * unit);
        pen.arc(edge + sx / 2, base + sy / 2, radius, 0, 7);
        edge += radius;
      }
      pen.stroke();
      pen.setLineDash([]);
      pen.shadowBlur = 3 * unit; // Readable on bright tissue.
      pen.fillText(mark.candidate ? `(${mark.number})` : mark.number, edge + 4 * unit, base + 4 * unit);
      pen.shadowBlur = 0;
    }
  }

  function drawSides(pen) {
    if (!scan.sides) return;
    const unit = canvas.width / canvas.clientWidth || 1, gap = 12 * unit;
    const [middle, centre] = [canvas.height / 2, canvas.width / 2];
    pen.save();
    [pen.fillStyle, pen.shadowBlur, pen.textAlign, pen.textBaseline] = ["#fff", 3 * unit, "center", "middle"];
    pen.font = `${14 * unit}px system-ui, sans-serif`;
    const at = [[gap, middle], [canvas.width - gap, middle], [centre, gap], [centre, canvas.height - gap]];
    scan.sides.forEach((side, index) => pen.fillText(side, ...at[index]));
    pen.restore();
  }

  function resize() {
    const [, tall, wide] = scan.spacing;
    canvas.style.aspectRatio = `${columns * wide} / ${rows * tall}`;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    draw();
  }

  function choose(number) {
    state.window = number;
    windows.forEach((button, index) => button.setAttribute("aria-pressed", index === number));
    draw();
  }

  function contours() {
    state.contours = !state.contours;
    byId("contours").setAttribute("aria-pressed", state.contours);
    draw();
  }

  function zoom() {
    state.zoom = state.zoom < 4 ? state.zoom * 2 : 1;
    byId("zoom").textContent = `Zoom ${state.zoom}x`;
    draw();
  }

  function jump(index) {
    const mark = marks[index];
    if (!mark) return;
    state.mark = index;
    state.centre = [mark.row, mark.column];
    for (const button of jumps) button.closest("tr").classList.toggle("chosen", Number(button.dataset.mark) === index);
    show(mark.slice);
  }

  // The nodule after or before the chosen one; candidates have their own table.
  function step(by) {
    const count = marks.filter((mark) => !mark.candidate).length;
    if (count) jump(state.mark < 0 || state.mark >= count ? (by > 0 ? 0 : count - 1) : (state.mark + by + count) % count);
  }

  function voxel(event) {
    const bounds = canvas.getBoundingClientRect();
    const { sx, sy, x, y } = place();
    const column = Math.floor((((event.clientX - bounds.left) * canvas.width) / bounds.width - x) / sx);
    const row = Math.floor((((event.clientY - bounds.top) * canvas.height) / bounds.height - y) / sy);
    return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
  }

  function point(event) {
    const at = drawn && voxel(event);
    if (!at) return void (reading.textContent = "");
    const [row, column] = at;
    const inside = row >= top && row < bottom && column >= left && column < right;
    const value = inside ? drawn.values[(row - top) * width + column - left] + scan.low_hu : null;
    const sign = value === scan.low_hu ? "≤ " : value === scan.high_hu ? "≥ " : "";
    reading.textContent = `row ${row}, column ${column}: ${inside ? `${sign}${value} HU` : "air, not stored"}`;
  }

  const moves = {
    ArrowUp: () => show(state.slice + 1), ArrowRight: () => show(state.slice + 1),
    ArrowDown: () => show(state.slice - 1), ArrowLeft: () => show(state.slice - 1),
    PageUp: () => show(state.slice + 10), PageDown: () => show(state.slice - 10),
    Home: () => show(0), End: () => show(slices - 1),
  };
  const letters = {
    1: () => choose(0), 2: () => choose(1), 3: () => choose(2), c: contours, z: zoom, n: () => step(1), p: () => step(-1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const here = event.target === document.body || event.target.closest("#viewer, .tools");
    const action = (here && moves[event.key]) || letters[event.key.toLowerCase()];
    if (action) {
      action();
      event.preventDefault();
    }
  });

  let turned = 0;
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey) return; // The browser's own zoom.
    event.preventDefault();
    turned += event.deltaMode ? Math.sign(event.deltaY) * 40 : Math.max(-40, Math.min(40, event.deltaY));
    if (Math.abs(turned) >= 40) {
      show(state.slice - Math.sign(turned));
      turned = 0;
    }
  }, { passive: false });

  let from = null; // where a drag began, and at which slice
  canvas.addEventListener("pointerdown", (event) => {
    from = event.isPrimary ? { y: event.clientY, slice: state.slice } : null; // Two fingers zoom the page.
    if (event.isPrimary) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    point(event);
    if (!from) return;
    const slice = from.slice + Math.round((from.y - event.clientY) / Math.max(3, canvas.clientHeight / slices));
    if (slice !== state.slice) show(slice);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (from = null));
  canvas.addEventListener("pointerleave", () => (reading.textContent = ""));
  canvas.addEventListener("dblclick", (event) => {
    state.centre = voxel(event) ?? state.centre;
    zoom();
  });

  windows.forEach((button, index) => button.addEventListener("click", () => choose(index)));
  for (const button of jumps) button.addEventListener("click", () => {
    jump(Number(button.dataset.mark));
    byId("viewer").focus({ preventScroll: true }); // Where arrow keys go on from here.
    byId("viewer").scrollIntoView({ block: "nearest" });
  });
  slider.addEventListener("input", () => show(slider.valueAsNumber - 1));
  byId("contours").addEventListener("click", contours);
  byId("zoom").addEventListener("click", zoom);
  byId("next").addEventListener("click", () => step(1));
  byId("previous").addEventListener("click", () => step(-1));
  byId("below")?.addEventListener("toggle", draw);
  new ResizeObserver(resize).observe(canvas);
  choose(0);
  resize();
  byId("viewer").focus({ preventScroll: true });
  if (marks.length && !marks[0].candidate) jump(0);
  else show(Math.floor(slices / 2));
})();
