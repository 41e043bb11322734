// What every part of the page uses: elements, packed arrays, numbers as text, and one place for what is chosen.
"use strict";

const Medusa = {};

(function (page) {
  const TYPES = { u1: Uint8Array, u2: Uint16Array, i2: Int16Array, i4: Int32Array, f4: Float32Array };
  const SHORT = 12;  // characters of a cell that is not broken into lines: a date, a rate, a short name
  const SCORES = {
    macro_f1: "macro-F1", macro_f1_present: "macro-F1 of present", accuracy: "accuracy", uar: "UAR",
    mean_ccc: "mean CCC", cross_entropy: "cross-entropy", jensen_shannon: "Jensen-Shannon",
  };

  // An element with properties, listeners (on: {...}), attributes (attr: {...}) and children. Strings become text.
  page.el = function (tag, properties, ...children) {
    const made = document.createElement(tag);
    const { on = {}, attr = {}, ...rest } = properties || {};
    Object.assign(made, rest);
    for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
    for (const [name, value] of Object.entries(attr)) made.setAttribute(name, value);
    made.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return made;
  };

  // Put children into a box, and the focus where it was: on what has the same name there.
  page.refill = function (box, ...children) {
    const name = (each) => `${each.tagName} ${each.dataset.sort || each.getAttribute("aria-label") ||
      (each.tagName === "SELECT" ? each.parentElement.firstChild : each).textContent}`;
    const focused = box.contains(document.activeElement) && box !== document.activeElement ? name(document.activeElement) : null;
    box.replaceChildren(...children);
    const again = focused && [...box.querySelectorAll("button, select, input")].find((each) => name(each) === focused);
    if (again) again.focus({ preventScroll: true });
  };

  page.json = (id) => JSON.parse(document.getElementById(id).textContent);

  // The typed array that the page's `pack` wrote; null stays null.
  page.unpack = function (packed) {
    if (!packed) return null;
    const text = atob(packed.base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new TYPES[packed.type](bytes.buffer);
  };

  const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);
  page.known = known;
  page.number = (value, digits = 3) => (known(value) ? value.toFixed(digits).replace("-", "−") : "–");
  page.count = (value) => (known(value) ? value.toLocaleString("en") : "–");
  page.counted = (n, noun) => `${page.count(n)} ${noun}${n === 1 ? "" : "s"}`;
  // A text of either direction inside a sentence of ours, which keeps its order.
  page.isolated = (text) => `\u2068${text}\u2069`;
  page.percent = (value, digits = 0) => (known(value) ? `${(100 * value).toFixed(digits)} %` : "–");
  page.signed = (value) => (known(value) ? (value >= 0 ? "+" : "−") + Math.abs(value).toFixed(3) : "–");
  const minus = (value) => value.toFixed(3).replace("-", "−");
  page.interval = (low, high) => (known(low) && known(high) ? `${minus(low)} to ${minus(high)}` : "–");
  // A system's name without "posteriors/"; a file's without its directory, where no two are alike.
  let shortNames = new Map();
  page.short = (name) => shortNames.get(name) ?? name.replace(/^posteriors\//, "");
  page.nameSystems = function (systems) {
    const base = (name) => name.replace(/^posteriors\//, "").replace(/^.*[\\/](?=[^\\/]+\.(csv|tsv|parquet|jsonl)$)/i, "");
    const names = systems.map(base);
    shortNames = new Map(systems.filter((_, i) => names.indexOf(names[i]) === names.lastIndexOf(names[i])).map((name) => [name, base(name)]));
  };
  page.bytes = function (n) {
    if (!known(n)) return "–";
    const units = ["B", "kB", "MB", "GB", "TB"];
    let at = 0;
    for (; n >= 1000 && at < units.length - 1; at++) n /= 1000;
    return `${n.toFixed(at ? 1 : 0)} ${units[at]}`;
  };
  page.seconds = function (s) {
    if (!known(s)) return "–";
    if (s < 90) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
    return s < 5400 ? `${(s / 60).toFixed(0)} min` : `${(s / 3600).toFixed(1)} h`;
  };
  page.scoreName = function (name) {
    if (name in SCORES) return SCORES[name];
    return name.startsWith("f1_") ? `F1 ${name.slice(3)}` : name.startsWith("ccc_") ? `CCC ${name.slice(4)}` : name;
  };

  // What is chosen, by name; `watch` calls a listener now and after each change.
  const chosen = {};
  const watchers = {};
  page.chosen = chosen;
  page.choose = function (values) {
    const changed = Object.keys(values).filter((name) => chosen[name] !== values[name]);
    Object.assign(chosen, values);
    const due = new Set(changed.flatMap((name) => watchers[name] || []));
    for (const listener of due) listener();
  };
  page.watch = function (names, listener) {
    for (const name of names) (watchers[name] = watchers[name] || []).push(listener);
    listener();
  };

  // A table: heads of {text, numeric}, rows of cells that are text or elements. Columns in which nothing stands are left out.
  page.table = function (caption, allHeads, allRows, properties = {}) {
    const isEmpty = (value) => value === null || value === undefined || value === "" || value === "–";
    const kept = allHeads.map((_, i) => i).filter((i) => i === 0 || !allRows.length || !allRows.every((row) => isEmpty(row[i])));
    const heads = kept.map((i) => allHeads[i]), rows = allRows.map((row) => kept.map((i) => row[i]));
    const cell = (value, i, tag = "td") => {
      const isShort = typeof value === "string" && value.length <= SHORT;
      const made = page.el(tag, { className: heads[i] && heads[i].numeric ? "number" : isShort ? "short" : "", dir: "auto" });
      made.append(value === null || value === undefined ? "" : value);
      return made;
    };
    const body = rows.map((row) => page.el("tr", {}, row.map((value, i) => {
      const made = cell(value, i, i === 0 && heads[0].row ? "th" : "td");
      if (made.tagName === "TH") made.scope = "row";
      return made;
    })));
    const head = page.el("tr", {}, heads.map((each, i) => {
      const made = cell(each.text, i, "th");
      made.scope = "col";
      return made;
    }));
    const table = page.el("table", properties, page.el("caption", {}, caption),
      heads.some((each) => each.text) ? page.el("thead", {}, head) : null,
      page.el("tbody", {}, body));
    return page.el("div", { className: "scroll", tabIndex: 0, attr: { role: "region", "aria-label": caption } }, table);
  };

  // A choice of one of several: options of [value, text].
  page.select = function (label, options, value, change) {
    const box = page.el("select", { on: { change: () => change(box.value) } },
      options.map(([each, text]) => page.el("option", { value: each, selected: each === value }, text)));
    return page.el("label", { className: "choice" }, `${label} `, box);
  };

  // A section of the page, with its link in the navigation.
  page.section = function (id, title, ...children) {
    const section = page.el("section", { id, attr: { "aria-labelledby": `${id}-title` } },
      page.el("h2", { id: `${id}-title` }, title), ...children);
    document.getElementById("main").append(section);
    document.getElementById("sections").append(page.el("a", { href: `#${id}` }, title));
    return section;
  };

  page.note = (text) => page.el("p", { className: "note" }, text);
})(Medusa);
