// The map of utterances on a canvas: hover for one, click to play it, draw around some to see them in the table.
"use strict";

(function (page) {
  const { el } = page;
  const PAD = 14, CELL = 24;  // pixels: of the margin, and of the grid that finds the nearest point
  const SHAPED = 20000;  // points up to which categories differ in shape too
  const SPAN = 65535;  // of the coordinates, as the page's projection packs them
  const STEPS = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#e0c800"];  // of a scale, dark to light
  const shapes = [circle, square, triangle, diamond, cross, plus, star, ring];

  page.mapSection = function (data) {
    if (!data.maps.length) return;
    const view = { canvas: el("canvas", { id: "map-canvas", tabIndex: 0, attr: { role: "application",
      "aria-label": "Map of utterances. Arrow keys go through the utterances of the table, Enter plays one, A takes all that are shown." } }),
    base: document.createElement("canvas"), caption: el("p", { id: "map-caption", attr: { "aria-live": "polite" } }, help()),
    tip: el("div", { className: "tip", hidden: true, attr: { "aria-hidden": "true" } }),
    legend: el("div", { className: "legend" }), lasso: null, cursor: -1, hidden: new Set() };
    const box = el("div", { className: "choices" });
    const note = page.note("");
    page.section("map", "Map", el("div", { className: "choices" }, page.choices(data, true), box),
      el("div", { className: "map" }, view.canvas, view.tip), view.caption, view.legend, note);
    page.map = view;
    const { classes, attributes, groups } = page.utterances;
    const colours = [...(classes.length ? ["label", "error", "predicted"] : []), ...Object.keys(attributes), ...Object.keys(groups)];
    if (!colours.length) colours.push("error");
    page.choose({ map: 0, colour: colours[0] });
    page.watch(["map", "colour"], () => {
      const { map, colour } = page.chosen;
      page.refill(box,
        page.select("Points", data.maps.map((own, i) => [String(i), `${page.short(own.name)}, ${own.method}`]), String(map),
          (value) => page.choose({ map: Number(value) })),
        page.select("Colour", colours.map((each) => [each, each]), colour, (value) => page.choose({ colour: value })));
      const about = data.maps[map].note;
      note.textContent = `${about.slice(0, 1).toUpperCase()}${about.slice(1)}.`;
      view.hidden.clear();
    });
    listen(view);
    page.watch(["map"], () => {
      view.x = page.unpack(data.maps[page.chosen.map].x);
      view.y = page.unpack(data.maps[page.chosen.map].y);
    });
    page.watch(["map", "colour", "system", "filter", "theme"], () => redraw(view));
    new ResizeObserver(() => redraw(view)).observe(view.canvas.parentElement);
    addEventListener("beforeprint", () => redraw(view));
    page.watch(["cursor"], () => { if (page.chosen.cursor !== null) { view.cursor = page.chosen.cursor; overlay(view); } });
  };

  // The category of each utterance and the categories' names, the most frequent first.
  function categories() {
    const { colour, system } = page.chosen;
    const { n, labels, classes, groups, systems, attributes, ranges } = page.utterances;
    const predicted = systems[system].predicted;
    if (colour === "label") return [labels, classes];
    if (colour === "predicted") return [predicted || new Int16Array(n).fill(-1), classes];
    if (colour === "error") {
      const codes = new Int16Array(n).fill(-1);
      for (let i = 0; predicted && i < n; i++) if (labels[i] >= 0 && predicted[i] >= 0) codes[i] = Number(labels[i] !== predicted[i]);
      return [codes, ["right", "wrong"]];
    }
    if (colour in attributes) return steps(attributes[colour], ...ranges[colour]);
    return [groups[colour].codes, groups[colour].values];
  }

  // Values as equal steps of their scale, and the steps' names.
  function steps(values, low, high) {
    const width = (high - low) / STEPS.length;
    const codes = Int16Array.from(values, (value) =>
      (Number.isNaN(value) ? -1 : Math.min(STEPS.length - 1, Math.max(0, Math.floor((value - low) / width)))));
    return [codes, STEPS.map((_, s) => `${(low + s * width).toFixed(1)}–${(low + (s + 1) * width).toFixed(1)}`)];
  }

  function palette(count) {
    if (page.chosen.colour in page.utterances.attributes) return STEPS;
    if (count <= page.COLOURS.length) return page.COLOURS.slice(0, count);
    return Array.from({ length: count }, (_, i) => `hsl(${((i * 137.5) % 360).toFixed(0)} 65% ${45 + 12 * (i % 3)}%)`);
  }

  function redraw(view) {
    const width = view.canvas.parentElement.clientWidth;
    if (!width || !view.x) return;
    const height = Math.round(Math.min(620, Math.max(320, width * 0.6)));
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [view.canvas, view.base]) {
      canvas.width = width * ratio;
      canvas.height = height * ratio;
    }
    view.canvas.style.height = `${height}px`;
    view.ratio = ratio;
    place(view, width, height);
    const [codes, names] = categories();
    const colours = palette(names.length);
    const context = view.base.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const n = view.px.length;
    const size = n > 50000 ? 1.4 : n > 5000 ? 2.2 : n > 800 ? 3.2 : 4.5;
    const { filter, system } = page.chosen;
    const filtered = JSON.stringify({ ...filter, points: null }) !== JSON.stringify(page.noFilter()) || filter.points;
    view.drawn = 0;
    view.active = new Uint8Array(n);
    const muted = getComputedStyle(view.canvas).getPropertyValue("--muted");
    const byCode = new Map();
    for (let i = 0; i < n; i++) {
      if (view.hidden.has(codes[i])) continue;
      view.active[i] = 1;
      view.drawn += 1;
      const faint = filtered && !page.isShown(i, filter, system);
      const key = faint ? -2 : codes[i];
      if (!byCode.has(key)) byCode.set(key, []);
      byCode.get(key).push(i);
    }
    for (const [code, rows] of [...byCode].sort((a, b) => a[0] - b[0])) {
      context.fillStyle = context.strokeStyle = code < 0 ? muted : colours[code];
      context.globalAlpha = code === -2 ? 0.25 : n > 5000 ? 0.6 : 0.8;
      const draw = n > SHAPED ? square : shapes[code < 0 ? 0 : code % shapes.length];
      for (const i of rows) draw(context, view.px[i], view.py[i], size);
    }
    view.tip.hidden = true;
    view.canvas.dataset.points = String(view.drawn);
    legend(view, codes, names, colours);
    overlay(view);
  }

  // Pixels of each point, both axes in one scale, and the grid that finds them.
  function place(view, width, height) {
    const n = view.x.length;
    let right = 1, top = 1;
    for (let i = 0; i < n; i++) { right = Math.max(right, view.x[i]); top = Math.max(top, view.y[i]); }
    const scale = Math.min((width - 2 * PAD) / Math.max(right, 1), (height - 2 * PAD) / Math.max(top, 1), (width - 2 * PAD) / SPAN * 4);
    const left = (width - scale * right) / 2, low = (height + scale * top) / 2;
    view.px = Float32Array.from(view.x, (x) => left + scale * x);
    view.py = Float32Array.from(view.y, (y) => low - scale * y);
    view.grid = new Map();
    for (let i = 0; i < n; i++) {
      const key = `${Math.floor(view.px[i] / CELL)},${Math.floor(view.py[i] / CELL)}`;
      if (!view.grid.has(key)) view.grid.set(key, []);
      view.grid.get(key).push(i);
    }
  }

  function nearest(view, x, y) {
    let best = -1, distance = 12 ** 2;
    const column = Math.floor(x / CELL), line = Math.floor(y / CELL);
    for (let c = column - 1; c <= column + 1; c++) {
      for (let l = line - 1; l <= line + 1; l++) {
        for (const i of view.grid.get(`${c},${l}`) || []) {
          const apart = (view.px[i] - x) ** 2 + (view.py[i] - y) ** 2;
          if (view.active[i] && apart < distance) { best = i; distance = apart; }
        }
      }
    }
    return best;
  }

  // The points as drawn, and over them the line that is being drawn and the point at the cursor.
  function overlay(view) {
    if (!view.px) return;
    const context = view.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, view.canvas.width, view.canvas.height);
    context.drawImage(view.base, 0, 0);
    context.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
    context.strokeStyle = getComputedStyle(view.canvas).getPropertyValue("--ink");
    if (view.cursor >= 0) {
      context.lineWidth = 2;
      context.beginPath();
      context.arc(view.px[view.cursor], view.py[view.cursor], 9, 0, 2 * Math.PI);
      context.stroke();
      view.caption.textContent = caption(view.cursor);
    }
    if (view.lasso && view.lasso.length > 1) {
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.beginPath();
      for (const [x, y] of view.lasso) context.lineTo(x, y);
      context.closePath();
      context.stroke();
      context.setLineDash([]);
    }
  }

  const help = () => `Point at an utterance to read it${page.hasAudio() ? ", click to play it" : ""}; draw around some to see them in the table.`;

  // The utterance under the mouse beside its point, and how to play it.
  function point(view, i) {
    view.tip.hidden = i < 0;
    view.canvas.style.cursor = i < 0 ? "" : "pointer";
    if (i < 0) return;
    const plays = page.hasAudio() ? (page.audioSource(i) ? "Click to play." : "Its audio is not in this page.") : "";
    view.tip.replaceChildren(el("div", { dir: "auto" }, caption(i)), plays ? el("small", {}, plays) : "");
    const box = view.canvas.getBoundingClientRect();
    const right = view.px[i] > box.width / 2, below = view.py[i] < box.height / 2;
    Object.assign(view.tip.style, {
      left: right ? "" : `${view.px[i] + 14}px`, right: right ? `${box.width - view.px[i] + 14}px` : "",
      top: below ? `${view.py[i] + 14}px` : "", bottom: below ? "" : `${box.height - view.py[i] + 14}px`,
    });
  }

  function caption(i) {
    const { ids, labels, texts, systems } = page.utterances;
    const own = systems[page.chosen.system].predicted;
    const predicted = own && own[i] >= 0 ? `, predicted ${page.isolated(page.className(own[i]))} (${page.number(page.confidence(page.chosen.system, i), 2)})` : "";
    const label = labels[i] >= 0 ? `: label ${page.isolated(page.className(labels[i]))}` : "";
    return `${page.isolated(ids[i])}${label}${predicted}${texts && texts[i] ? ` — ${page.isolated(texts[i])}` : ""}`;
  }

  function listen(view) {
    const { canvas } = view;
    const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      view.lasso = [at(event)];
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!view.px) return;
      const spot = at(event);
      if (view.lasso) view.lasso.push(spot);
      else view.cursor = nearest(view, ...spot);
      point(view, view.lasso ? -1 : view.cursor);
      overlay(view);
    });
    canvas.addEventListener("pointerleave", () => point(view, -1));
    canvas.addEventListener("pointerup", (event) => {
      const line = view.lasso;
      view.lasso = null;
      if (!line || !view.px) return;
      const extent = Math.max(...[0, 1].map((axis) => Math.max(...line.map((p) => p[axis])) - Math.min(...line.map((p) => p[axis]))));
      if (extent < 6) {
        view.cursor = nearest(view, ...at(event));
        if (view.cursor >= 0) page.play(view.cursor);
        overlay(view);
      } else {
        take(view, (i) => inside(line, view.px[i], view.py[i]));
      }
    });
    canvas.addEventListener("pointercancel", () => { view.lasso = null; overlay(view); });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step && page.rows.length) {
        const now = page.rows.indexOf(view.cursor);
        view.cursor = page.rows[(now + step + page.rows.length) % page.rows.length];
        overlay(view);
      } else if (event.key === "Enter" && view.cursor >= 0) page.play(view.cursor);
      else if (event.key === "a") take(view, () => true);
      else if (event.key === "Escape") page.filterBy({ points: null });
      else return;
      event.preventDefault();
    });
  }

  function take(view, isTaken) {
    const points = new Set();
    for (let i = 0; i < view.px.length; i++) if (view.active[i] && isTaken(i)) points.add(i);
    page.filterBy({ points: points.size ? points : null });
  }

  // Is a point inside a closed line? Counts the sides that a ray to the right crosses.
  function inside(line, x, y) {
    let odd = false;
    for (let a = 0, b = line.length - 1; a < line.length; b = a++) {
      const [ax, ay] = line[a], [bx, by] = line[b];
      if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
    }
    return odd;
  }
  page.isInside = inside;

  function legend(view, codes, names, colours) {
    const counts = new Map();
    for (const code of codes) counts.set(code, (counts.get(code) || 0) + 1);
    const shown = [...counts.keys()].filter((code) => code >= 0).sort((a, b) => a - b).slice(0, 60);
    const buttons = shown.map((code) => {
      const mark = el("canvas", { width: 16, height: 16 });
      const context = mark.getContext("2d");
      context.fillStyle = context.strokeStyle = colours[code];
      (codes.length > SHAPED ? square : shapes[code % shapes.length])(context, 8, 8, 5);
      return el("button", { type: "button", attr: { "aria-pressed": String(!view.hidden.has(code)) }, on: { click: () => {
        if (!view.hidden.delete(code)) view.hidden.add(code);
        redraw(view);
      } } }, mark, ` ${names[code]} (${page.count(counts.get(code))})`);
    });
    if (counts.size > shown.length + 1) buttons.push(el("span", {}, ` and ${counts.size - shown.length} more`));
    view.legend.replaceChildren(...buttons);
  }

  function circle(context, x, y, r) { context.beginPath(); context.arc(x, y, r, 0, 2 * Math.PI); context.fill(); }
  function square(context, x, y, r) { context.fillRect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8); }
  function polygon(context, points) {
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x, y);
    context.closePath();
    context.fill();
  }
  function triangle(context, x, y, r) { polygon(context, [[x, y - 1.2 * r], [x + 1.1 * r, y + 0.8 * r], [x - 1.1 * r, y + 0.8 * r]]); }
  function diamond(context, x, y, r) { polygon(context, [[x, y - 1.3 * r], [x + 1.1 * r, y], [x, y + 1.3 * r], [x - 1.1 * r, y]]); }
  function star(context, x, y, r) { polygon(context, [[x - 1.1 * r, y - 0.8 * r], [x + 1.1 * r, y - 0.8 * r], [x, y + 1.2 * r]]); }
  function lines(context, ...sides) {
    context.lineWidth = 1.6;
    context.beginPath();
    for (const [ax, ay, bx, by] of sides) { context.moveTo(ax, ay); context.lineTo(bx, by); }
    context.stroke();
  }
  function cross(context, x, y, r) { lines(context, [x - r, y - r, x + r, y + r], [x - r, y + r, x + r, y - r]); }
  function plus(context, x, y, r) { lines(context, [x - 1.2 * r, y, x + 1.2 * r, y], [x, y - 1.2 * r, x, y + 1.2 * r]); }
  function ring(context, x, y, r) { context.lineWidth = 1.5; context.beginPath(); context.arc(x, y, r, 0, 2 * Math.PI); context.stroke(); }
})(Medusa);
