// The table of utterances: filters, order, pages of rows, and the details of one.
"use strict";

(function (page) {
  const { el } = page;
  const ROWS = 25;  // on one page
  let open = null;  // the row whose details are shown

  page.tableSection = function (data) {
    const filters = el("div", { className: "choices", id: "filters" });
    const status = el("p", { id: "status", attr: { role: "status" } });
    const head = el("thead"), body = el("tbody");
    const table = el("table", { id: "table" }, el("caption", {}, "Utterances"), head, body);
    const pages = el("div", { className: "choices", id: "pages" });
    const section = page.section("utterances", "Utterances", el("div", { className: "choices" }, page.choices(data, true)),
      filters, status, el("div", { className: "scroll", tabIndex: 0, attr: { role: "region", "aria-label": "Utterances" } }, table),
      pages);
    if (page.audioNote()) section.append(page.note(`Audio: ${page.audioNote()}.`));
    drawFilters(filters);
    page.watch(["filter", "system", "order"], () => {
      page.rows = page.shownRows();
      status.textContent = describe(page.rows.length);
    });
    page.watch(["filter", "system", "order", "tablePage"], () => draw(data, head, body, pages));
    page.watch(["playing"], () => mark(body));
  };

  function mark(body) {
    for (const row of body.children) row.classList.toggle("now", +row.dataset.row === page.chosen.playing);
  }

  function drawFilters(box) {
    const { classes, groups } = page.utterances;
    const hardest = classes.length ? "margin" : "off";
    const search = el("input", { type: "search", id: "search", placeholder: "id or transcript", attr: { "aria-label": "Search" } });
    let waiting = 0;
    search.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => page.filterBy({ search: search.value.trim().toLowerCase() }), 150);
    });
    page.watch(["filter", "order"], () => {
      const { filter, order } = page.chosen;
      if (document.activeElement !== search) search.value = filter.search;
      const any = [["", "any"], ...classes.map((name, c) => [String(c), name])];
      const code = (value) => (value === "" ? null : Number(value));
      const chosen = (value) => (value === null ? "" : String(value));
      const own = [
        ...(classes.length ? [page.select("Label", any, chosen(filter.label), (value) => page.filterBy({ label: code(value) })),
        page.select("Predicted", any, chosen(filter.predicted), (value) => page.filterBy({ predicted: code(value) }))] : []),
        ...Object.entries(groups).filter(([, each]) => each.values.length > 1).map(([name, each]) => page.select(name,
          [["", "any"], ...each.values.map((value, c) => [String(c), value])], chosen(filter.groups[name] ?? null), (value) => {
            const others = { ...filter.groups };
            delete others[name];
            page.filterBy({ groups: value === "" ? others : { ...others, [name]: Number(value) } });
          })),
        classes.length ? toggle("Errors alone", filter.errors, () => page.filterBy({ errors: !filter.errors })) : "",
        toggle("Hardest first", order.by === hardest && order.down, () => sort(hardest, true)),
      ];
      if (page.utterances.votes) {
        own.push(toggle("Annotators disagree first", order.by === "votes" && order.down, () => sort("votes", true)));
      }
      if (filter.points) own.push(toggle(`Region of the map (${page.count(filter.points.size)})`, true, () => page.filterBy({ points: null })));
      own.push(el("button", { type: "button", id: "clear", on: { click: () => {
        search.value = "";
        page.choose({ filter: page.noFilter(), order: { by: "row", down: false }, tablePage: 0 });
      } } }, "Clear"));
      page.refill(box, search, ...own);
    });
  }

  const sort = (by, down) => page.choose({ order: { by, down }, tablePage: 0 });

  function toggle(text, pressed, click) {
    return el("button", { type: "button", attr: { "aria-pressed": String(pressed) }, on: { click } }, text);
  }

  function describe(n) {
    const { filter } = page.chosen;
    const parts = [];
    if (filter.label !== null) parts.push(`label ${page.className(filter.label)}`);
    if (filter.predicted !== null) parts.push(`predicted ${page.className(filter.predicted)}`);
    if (filter.errors) parts.push("errors");
    for (const [name, code] of Object.entries(filter.groups)) parts.push(`${name} ${page.utterances.groups[name].values[code]}`);
    if (filter.points) parts.push("in the region of the map");
    if (filter.search) parts.push(`“${filter.search}”`);
    return `${page.count(n)} of ${page.counted(page.utterances.n, "utterance")}${parts.length ? `: ${parts.join(", ")}` : ""}`;
  }

  function columns() {
    const { utterances } = page;
    const own = utterances.systems[page.chosen.system].attributes;
    const found = [{ text: "utterance", by: "id", cell: (i) => utterances.ids[i], className: "wide" }];
    if (utterances.classes.length) found.push(
      { text: "label", by: "label", cell: (i) => page.className(utterances.labels[i]) },
      { text: "predicted", by: "predicted", cell: (i, system) => verdict(i, system) },
      { text: "confidence", by: "confidence", numeric: true, cell: (i, system) => page.number(page.confidence(system, i), 2) },
      { text: "wrong by", by: "margin", numeric: true, cell: (i, system) => page.number(page.margins(system)[i], 2) },
    );
    if (utterances.votes) found.push({ text: "votes", by: "votes", cell: votes });
    for (const name of Object.keys(utterances.groups)) found.push({ text: name, by: `group ${name}`, cell: (i) => page.groupName(name, i) });
    for (const [name, values] of Object.entries(utterances.attributes)) {
      found.push({ text: own[name] ? `${name} (predicted)` : name, by: `attribute ${name}`, numeric: true, cell: (i) =>
        page.number(values[i], 2) + (own[name] && page.known(own[name][i]) ? ` (${page.number(own[name][i], 2)})` : "") });
    }
    if (Object.keys(own).length) {
      found.push({ text: "off by", by: "off", numeric: true, cell: (i, system) => page.percent(page.deviations(system)[i]) });
    }
    if (utterances.durations.some(page.known)) {
      found.push({ text: "s", by: "duration", numeric: true, cell: (i) => page.number(utterances.durations[i], 2) });
    }
    if (utterances.texts) found.push({ text: "transcript", by: "text", className: "transcript", cell: (i) => utterances.texts[i] });
    return found;
  }

  function verdict(i, system) {
    const own = page.utterances.systems[system].predicted;
    if (!own || own[i] < 0) return "–";
    const label = page.utterances.labels[i];
    const sign = label < 0 ? "" : own[i] === label ? "✓\u00a0" : "✗\u00a0";
    return el("span", { className: sign.startsWith("✗") ? "wrong" : "" }, sign + page.className(own[i]));
  }

  function votes(i) {
    const { votes: all, classes } = page.utterances;
    return classes.map((name, c) => [name, all[i * classes.length + c]]).filter(([, n]) => n > 0)
      .sort((a, b) => b[1] - a[1]).map(([name, n]) => `${name} ${+n.toFixed(2)}`).join(", ");
  }

  function draw(data, head, body, pages) {
    const { system, order } = page.chosen;
    const all = columns();
    const heads = all.map((column) => {
      const made = el("th", { className: column.numeric ? "number" : "", scope: "col" });
      if (!column.by) { made.append(column.text); return made; }
      const mine = order.by === column.by;
      made.setAttribute("aria-sort", mine ? (order.down ? "descending" : "ascending") : "none");
      made.append(el("button", { type: "button", attr: { "data-sort": column.by }, on: { click: () =>
        sort(column.by, mine ? !order.down : ["margin", "off", "votes"].includes(column.by)) } },
      `${column.text}${mine ? (order.down ? " ▼" : " ▲") : ""}`));
      return made;
    });
    page.refill(head, el("tr", {}, page.hasAudio() ? el("th", { scope: "col" }, "▶") : null, heads));
    const n = page.rows.length, last = Math.max(0, Math.ceil(n / ROWS) - 1);
    const at = Math.min(page.chosen.tablePage, last);
    const shown = page.rows.slice(at * ROWS, (at + 1) * ROWS);
    body.replaceChildren(...shown.flatMap((i) => {
      const cells = all.map((column) => el("td", { dir: "auto", className: column.numeric ? "number" : column.className || "" }, column.cell(i, system)));
      const row = el("tr", { tabIndex: 0, attr: { "data-row": i, "aria-expanded": String(open === i) }, on: {
        click: () => expand(i, data, head, body, pages),
        keydown: (event) => keys(event, i, data, head, body, pages),
      } }, page.hasAudio() ? el("td", {}, page.playButton(i)) : null, cells);
      return open === i ? [row, el("tr", { className: "details" }, el("td", { colSpan: all.length + 1 }, details(i)))] : [row];
    }));
    mark(body);
    const step = (text, to, disabled) => el("button", { type: "button", disabled, on: { click: () => page.choose({ tablePage: to }) } }, text);
    page.refill(pages, step("« First", 0, at === 0), step("‹ Previous", at - 1, at === 0),
      el("span", {}, `page ${page.count(at + 1)} of ${page.count(last + 1)}`), step("Next ›", at + 1, at === last),
      step("Last »", last, at === last));
  }

  function expand(i, data, head, body, pages) {
    open = open === i ? null : i;
    draw(data, head, body, pages);
    const row = body.querySelector(`tr[data-row="${i}"]`);
    if (row) row.focus({ preventScroll: true });
    page.choose({ cursor: i });
  }

  function keys(event, i, data, head, body, pages) {
    if (event.target !== event.currentTarget) return;
    const row = event.currentTarget;
    const rows = [...body.querySelectorAll("tr[data-row]")];
    const next = rows[rows.indexOf(row) + (event.key === "ArrowDown" ? 1 : -1)];
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && next) next.focus();
    else if (event.key === "Enter") expand(i, data, head, body, pages);
    else if (event.key === " ") page.play(i);
    else return;
    event.preventDefault();
  }

  // What every system predicts of one utterance.
  function details(i) {
    const { classes, systems, attributes, texts, ids } = page.utterances;
    const own = Object.values(systems).filter((each) => each.predicted && each.predicted[i] >= 0);
    const lines = own.map((each) => [page.short(each.name), page.className(each.predicted[i]), ...classes.map((_, c) => {
      const p = page.probability(each.name, i, c);
      const cell = el("span", { className: "shade" }, page.number(p, 2));
      cell.style.setProperty("--share", page.known(p) ? p : 0);
      return cell;
    })]);
    const parts = [el("p", {}, el("strong", {}, ids[i]), texts && texts[i] ? ` — ${texts[i]}` : "")];
    if (lines.length) {
      parts.push(page.table("Probabilities", [{ text: "system", row: true }, { text: "predicted" },
        ...classes.map((text) => ({ text, numeric: true }))], lines, { className: "grid" }));
    }
    const names = Object.keys(attributes);
    const valued = Object.values(systems).filter((each) => names.some((name) => each.attributes[name] && page.known(each.attributes[name][i])));
    if (valued.length) {
      parts.push(page.table("Attributes", [{ text: "", row: true }, ...names.map((text) => ({ text, numeric: true }))],
        [["annotators", ...names.map((name) => page.number(attributes[name][i], 2))], ...valued.map((each) => [page.short(each.name),
          ...names.map((name) => page.number(each.attributes[name] ? each.attributes[name][i] : NaN, 2))])]));
    }
    return parts;
  }
})(Medusa);
