// Charts by Plotly, which lies in the page compressed and is unpacked after the tables are there.
"use strict";

/* global Plotly */
(function (page) {
  const { el, number } = page;
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down"];
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8860b"];
  const MOST_POINTS = 3000;  // drawn one by one; more are counted in a grid
  const SHEET = 980;  // pixels: of A4 across, without its margins
  const pending = [];
  let ready = false;

  page.COLOURS = COLOURS;

  page.loadPlotly = async function () {
    const holder = document.getElementById("plotly");
    const bytes = Uint8Array.from(atob(holder.textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = el("script");
    script.textContent = await new Response(stream).text();
    document.body.append(script);  // runs it; its digest is in the page's policy
    holder.remove();
    ready = true;
    for (const draw of pending.splice(0)) draw();
  };

  // A printed sheet is narrower than most windows, and tells no element of its own that it is.
  const fit = (size) => {
    for (const plot of ready ? document.querySelectorAll(".plot") : []) if (plot.data) Plotly.relayout(plot, size);
  };
  addEventListener("beforeprint", () => fit({ autosize: false, width: SHEET }));
  addEventListener("afterprint", () => fit({ autosize: true, width: null }));

  const whenReady = (draw) => (ready ? draw() : pending.push(draw));

  // Plotly reads some markup in its texts: a label is shown as it is written.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function chart(caption, height = 340) {
    const plot = el("div", { className: "plot" });
    plot.style.height = `${height}px`;
    const figure = el("figure", {}, plot, el("figcaption", {}, caption));
    figure.draw = (traces, layout) => whenReady(() => Plotly.react(plot, traces, {
      margin: { l: 55, r: 15, t: 10, b: 45 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12 }, hovermode: "closest", colorway: COLOURS, autosize: true,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, ...layout,
    }, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] }));
    return figure;
  }

  // An axis of names at 0, 1, 2, ...; names that look like numbers stay names, equal ones stay apart.
  const names = (list) => ({ tickvals: list.map((_, i) => i), ticktext: list.map(plain), automargin: true, zeroline: false });

  function errors(values, lows, highs) {
    const apart = (ends, sign) => ends.map((end, i) => (page.known(end) && page.known(values[i]) ? sign * (end - values[i]) : null));
    return { type: "data", symmetric: false, array: apart(highs, 1), arrayminus: apart(lows, -1), thickness: 1.2, width: 4 };
  }

  function details(caption, heads, rows) {
    return el("details", {}, el("summary", {}, "The same as a table"), page.table(caption, heads, rows));
  }

  page.scoreChart = function (data) {
    const figure = chart("Value and 95 % interval of each system.");
    let score = null;
    const box = el("div"), place = el("div");
    page.watch(["part"], () => {
      const rows = data.scores.map((each) => [each.name, each.parts[page.chosen.part]]).filter(([, own]) => own);
      const all = ["macro_f1", "accuracy", "uar", "mean_ccc"].filter((name) =>
        rows.some(([, own]) => name in own.assessment.intervals));
      if (!all.length) { box.replaceChildren(); figure.remove(); return; }
      if (!all.includes(score)) score = all[0];
      const draw = () => {
        const own = rows.map(([, each]) => each.assessment.intervals[score] || [null, null, null]);
        const values = own.map((each) => each[0]);
        figure.draw([{
          x: values, y: values.map((_, i) => i), mode: "markers", type: "scatter", marker: { size: 9 },
          error_x: errors(values, own.map((each) => each[1]), own.map((each) => each[2])),
          hovertext: rows.map(([name], i) => plain(`${page.short(name)}: ${number(values[i])} (${page.interval(own[i][1], own[i][2])})`)),
          hoverinfo: "text",
        }], { yaxis: { ...names(rows.map(([name]) => page.short(name))), autorange: "reversed" },
          xaxis: { title: { text: page.scoreName(score) } }, height: 90 + 30 * rows.length });
        figure.firstChild.style.height = `${90 + 30 * rows.length}px`;
      };
      if (figure.parentElement !== place) place.append(figure);
      page.refill(box, page.select("Score", all.map((name) => [name, page.scoreName(name)]), score, (value) => {
        score = value;
        draw();
      }));
      draw();
    });
    document.getElementById("scores").append(box, place);
  };

  page.groupSection = function (data) {
    const figure = chart("Bars: the score; lines: its 95 % interval.");
    const box = el("span", { className: "choices" }), below = el("div");
    let column = "class", score = "accuracy";
    page.section("groups", "By class and group", el("div", { className: "choices" },
      page.choices(data, true), box), figure, below);
    const show = () => {
      const own = page.found(data, page.chosen.system, page.chosen.part);
      const groups = own ? own.groups : {};
      const columns = [...(own && own.assessment.classification ? ["class"] : []), ...Object.keys(groups)];
      if (!columns.length) { box.replaceChildren(); figure.draw([], {}); below.replaceChildren(); return; }
      if (!columns.includes(column)) column = columns[0];
      const scores = column === "class" ? ["f1"] : Object.keys(groups[column].rows[0].scores);
      if (!scores.includes(score)) score = scores[0];
      page.refill(box,
        page.select("By", columns.map((each) => [each, each]), column, (value) => { column = value; show(); }),
        page.select("Score", scores.map((each) => [each, each === "f1" ? "F1" : page.scoreName(each)]), score,
          (value) => { score = value; show(); }));
      const rows = column === "class" ? classRows(own.assessment) : groups[column].rows.map((row) => ({
        name: row.name, n: row.n, speakers: row.n_clusters, ...row.scores[score] }));
      const values = rows.map((row) => row.value);
      drawBars(figure, rows, values, score === "f1" ? "F1" : page.scoreName(score));
      below.replaceChildren(...groupText(groups[column], column, score),
        details(`${page.scoreName(score)} by ${column}`, [{ text: column, row: true }, { text: "value", numeric: true },
          { text: "95 %", numeric: true }, { text: "utterances", numeric: true }, { text: "speakers", numeric: true }],
        rows.map((row) => [row.name, number(row.value), page.interval(row.low, row.high), page.count(row.n), page.count(row.speakers)])));
    };
    page.watch(["part", "system"], show);
  };

  // Bars from left to right, or below one another where their names would not fit.
  function drawBars(figure, rows, values, scoreTitle) {
    const places = rows.map((_, i) => i), longest = Math.max(0, ...rows.map((row) => row.name.length));
    const isLying = rows.length <= 40 && longest > 6 && longest * rows.length * 7.5 > figure.clientWidth - 60;
    const shown = rows.map((row) => (row.name.length > 40 ? `${row.name.slice(0, 39)}…` : row.name));
    const ends = errors(values, rows.map((row) => row.low), rows.map((row) => row.high));
    const bars = { type: "bar", marker: { color: COLOURS[0], opacity: 0.75 }, hoverinfo: "text", hovertext: rows.map((row) =>
      plain(`${row.name}: ${number(row.value)} (${page.interval(row.low, row.high)}), ${page.counted(row.n, "utterance")}`)) };
    const scale = { title: { text: scoreTitle }, rangemode: "tozero" };
    const height = isLying ? 90 + 24 * rows.length : 340;
    figure.firstChild.style.height = `${height}px`;
    figure.draw([isLying ? { ...bars, orientation: "h", x: values, y: places, error_x: ends }
      : { ...bars, x: places, y: values, error_y: ends }],
    { height, ...(isLying ? { xaxis: scale, yaxis: { ...names(shown), autorange: "reversed" } }
      : { xaxis: rows.length > 40 ? { showticklabels: false, zeroline: false } : names(shown), yaxis: scale }) });
  }

  function classRows(assessment) {
    return Object.entries(assessment.classification.per_class).map(([name, own]) => {
      const interval = assessment.intervals[`f1_${name}`] || [own.f1, null, null];
      return { name, n: own.support, speakers: null, value: own.f1, low: interval[1], high: interval[2] };
    });
  }

  function groupText(table, column, score) {
    if (!table) return [];
    const texts = [];
    const gap = table.gaps[score];
    if (gap) {
      const { value, low, high } = gap.interval;
      texts.push(`Gap: ${number(value)} (${page.interval(low, high)}), ${gap.upper} less ${gap.lower}.`);
    }
    if (table.left_out.length) {
      texts.push(`Not every ${column} has ${table.left_out.join(", ")}: these utterances are left out of class scores.`);
    }
    if (table.left_out_attributes.length) {
      texts.push(`Not every ${column} with ratings has ${table.left_out_attributes.join(", ")}: left out of the groups' CCC.`);
    }
    if (table.n_without) texts.push(`${page.count(table.n_without)} utterances have no ${column}.`);
    if (column === "speaker") {
      texts.push("A speaker's interval is Wilson's of the accuracy, utterances taken as independent; other scores of one " +
        "speaker have none. The lowest accuracy comes first.");
    }
    return texts.map(page.note);
  }

  page.reliabilitySection = function (data) {
    const has = (each) => Object.values(each.parts).some((own) => own.assessment.calibration);
    if (!data.scores.some(has)) return;
    const figure = chart("Above: accuracy of the utterances of like confidence; the diagonal is calibrated. Below: how many they are.", 420);
    const below = el("div");
    page.section("reliability", "Reliability", el("div", { className: "choices" }, page.choices(data, true)), figure, below);
    page.watch(["part", "system"], () => {
      const own = page.found(data, page.chosen.system, page.chosen.part);
      const calibration = own && own.assessment.calibration;
      if (!calibration) { figure.draw([], {}); below.replaceChildren(page.note("No probabilities here.")); return; }
      const kinds = [["as given", calibration.given], ["temperature-scaled", calibration.scaled]];
      const traces = kinds.flatMap(([name, each], n) => [{
        x: each.bins.map((bin) => bin.confidence), y: each.bins.map((bin) => bin.accuracy), name,
        mode: "lines+markers", line: { dash: DASHES[n] }, marker: { symbol: SYMBOLS[n], size: 8, color: COLOURS[n] },
        hovertext: each.bins.map((bin) => `confidence ${number(bin.confidence)}, accuracy ${number(bin.accuracy)}, ${bin.n} utterances`),
        hoverinfo: "text",
      }, {
        type: "bar", x: each.bins.map((bin) => (bin.low + bin.high) / 2), y: each.bins.map((bin) => bin.n), yaxis: "y2",
        width: each.bins.map((bin) => (bin.high - bin.low) * (n ? 0.5 : 0.95)), showlegend: false, opacity: 0.6,
        marker: { color: COLOURS[n] }, hovertext: each.bins.map((bin) => `${name}: ${bin.n} utterances`), hoverinfo: "text",
      }]);
      traces.push({ x: [0, 1], y: [0, 1], mode: "lines", line: { dash: "dot", color: "#888" }, hoverinfo: "skip", showlegend: false });
      for (const trace of traces) trace.cliponaxis = false;
      figure.draw(traces, { barmode: "overlay", xaxis: { title: { text: "confidence" }, range: [0, 1], anchor: "y2" },
        yaxis: { title: { text: "accuracy" }, range: [0, 1], domain: [0.36, 1] },
        yaxis2: { title: { text: "utterances" }, domain: [0, 0.26], rangemode: "tozero" } });
      below.replaceChildren(page.table("Calibration", [{ text: "probabilities", row: true }, ...["ECE", "MCE", "NLL", "Brier",
        "confidence", "accuracy"].map((text) => ({ text, numeric: true }))], kinds.map(([name, each]) => [name,
        ...["ece", "mce", "nll", "brier", "confidence", "accuracy"].map((key) => number(each[key]))])),
      page.note(`Temperature ${Object.values(calibration.temperatures).map((t) => number(t)).join(", ")}, fitted on ${calibration.fitted_on}.`));
    });
  };

  page.attributeSection = function (data) {
    const all = Object.keys(page.utterances.ranges);
    const predicted = all.filter((name) => Object.values(page.utterances.systems).some((own) => own.attributes[name]));
    if (!predicted.length) return;
    let name = predicted[0];
    const figure = chart("Each point is an utterance (many: counts in a grid); the line is where both are equal.", 440);
    const box = el("span", { className: "choices" }), below = el("div");
    page.section("attributes", "Attributes", el("div", { className: "choices" }, page.choices(data, true), box), figure, below);
    const show = () => {
      const found = page.found(data, page.chosen.system, page.chosen.part);
      const values = page.utterances.systems[page.chosen.system].attributes[name];
      page.refill(box, page.select("Attribute", predicted.map((each) => [each, each]), name, (value) => { name = value; show(); }));
      if (!values || !found) { figure.draw([], {}); below.replaceChildren(page.note(`No predictions of ${name} here.`)); return; }
      const [low, high] = page.utterances.ranges[name];
      const truth = page.utterances.attributes[name];
      const rows = [];
      const part = Object.entries(page.partGroup(page.chosen.part));
      const isHere = (i) => part.every(([column, code]) => page.utterances.groups[column].codes[i] === code);
      for (let i = 0; i < page.utterances.n; i++) {
        if (page.known(truth[i]) && page.known(values[i]) && isHere(i)) rows.push(i);
      }
      const [bottom, top] = rows.reduce(([least, most], i) => [Math.min(least, values[i]), Math.max(most, values[i])], [low, high]);
      const beyond = rows.filter((i) => values[i] < low || values[i] > high).length; // of the scale: a regression may
      const line = { x: [low, high], y: [low, high], mode: "lines", line: { dash: "dot", color: "#888" }, hoverinfo: "skip", showlegend: false };
      const points = rows.length <= MOST_POINTS ? {
        x: rows.map((i) => truth[i]), y: rows.map((i) => values[i]), mode: "markers", type: "scatter", showlegend: false,
        marker: { size: 5, opacity: 0.5 }, hoverinfo: "text",
        hovertext: rows.map((i) => plain(`${page.utterances.ids[i]}: ${truth[i].toFixed(2)}, predicted ${values[i].toFixed(2)}`)),
      } : counted(rows, truth, values, [low, high], [bottom, top]);
      figure.draw([points, line], { xaxis: { title: { text: `${plain(name)}, annotators` }, range: [low, high] },
        yaxis: { title: { text: `${plain(name)}, predicted` }, range: [bottom, top] } });
      const bins = found.assessment.bins[name];
      const ccc = found.assessment.intervals[`ccc_${name}`] || [found.assessment.concordance.ccc[name], null, null];
      below.replaceChildren(page.note(`CCC ${number(ccc[0])} (${page.interval(ccc[1], ccc[2])}), ${page.count(rows.length)} utterances` +
        (beyond ? `; predictions beyond the scale, ${low} to ${high}: ${page.count(beyond)}.` : ".")),
        bins ? page.table(`${name}: row the annotators' bin, column the predicted one`, [{ text: "", row: true },
          ...bins.edges.slice(1).map((edge, i) => ({ text: `${bins.edges[i].toFixed(1)}–${edge.toFixed(1)}`, numeric: true })),
          { text: "mean of predicted less true", numeric: true }], bins.confusion.map((row, i) =>
          [`${bins.edges[i].toFixed(1)}–${bins.edges[i + 1].toFixed(1)}`, ...row.map(page.count), page.signed(bins.bias[i])]),
        { className: "grid" }) : "");
    };
    page.watch(["part", "system"], show);
  };

  function counted(rows, truth, values, scale, predicted, n = 40) {
    const z = Array.from({ length: n }, () => new Array(n).fill(0));
    const cell = (value, [low, high]) => Math.min(n - 1, Math.max(0, Math.floor(((value - low) / (high - low)) * n)));
    for (const i of rows) z[cell(values[i], predicted)][cell(truth[i], scale)] += 1;
    const centres = ([low, high]) => Array.from({ length: n }, (_, i) => low + ((i + 0.5) * (high - low)) / n);
    return { type: "heatmap", x: centres(scale), y: centres(predicted), z: z.map((row) => row.map((each) => each || null)), colorscale: "Blues",
      reversescale: true, hoverongaps: false };
  }

  page.curveSection = function (data) {
    if (!data.curves.length) return;
    let system = data.curves[0].system;
    const figure = chart("", 380);
    const box = el("span", { className: "choices" }), below = el("div");
    page.section("curves", "Training", box, figure, below);
    const show = () => {
      const own = data.curves.find((each) => each.system === system);
      const folds = Object.entries(own.folds);
      const scored = folds.some(([, fold]) => fold.score.some(page.known));
      figure.lastChild.textContent = (scored ? "Loss (left axis) and score of the held-out part (right axis)" : "Loss") +
        " over epochs, a line per fold; stages follow one another.";
      const traces = folds.flatMap(([name, fold], n) => {
        const epochs = fold.loss.map((_, i) => i + 1);
        const look = { color: COLOURS[n % COLOURS.length], dash: DASHES[n % DASHES.length] };
        const loss = { x: epochs, y: fold.loss, name: plain(`fold ${name}: loss`), mode: "lines+markers", line: look,
          marker: { symbol: SYMBOLS[n % SYMBOLS.length], size: 5 }, text: fold.stage.map(plain), hovertemplate: "%{text}, epoch %{x}: %{y:.4f}" };
        const score = { ...loss, y: fold.score, name: plain(`fold ${name}: ${fold.score_name}`), yaxis: "y2",
          marker: { symbol: `${SYMBOLS[n % SYMBOLS.length]}-open`, size: 6 } };
        return fold.score.some(page.known) ? [loss, score] : [loss];
      });
      const longest = folds.map(([, fold]) => fold.stage).sort((a, b) => b.length - a.length)[0];
      const turns = longest.map((_, i) => i).filter((i) => i && longest[i] !== longest[i - 1]);
      figure.draw(traces, { xaxis: { title: { text: "epoch" }, zeroline: false }, yaxis: { title: { text: "loss" } },
        yaxis2: { title: { text: scored ? plain(folds[0][1].score_name) : "" }, overlaying: "y", side: "right", showgrid: false },
        margin: { l: 55, r: 55, t: 10, b: 45 },
        shapes: turns.map((i) => ({ type: "line", x0: i + 0.5, x1: i + 0.5, y0: 0, y1: 1, yref: "paper", line: { dash: "dash", width: 1, color: "#888" } })) });
      page.refill(box, page.select("Member", data.curves.map((each) => [each.system, page.short(each.system)]), system, (value) => {
        system = value;
        show();
      }));
      below.replaceChildren(page.note(`Stages: ${[...new Set(longest)].join(", ")}.`), page.table("Training", [{ text: "fold", row: true },
        ...["epochs", "last loss", ...(scored ? ["last score"] : []), "time"].map((text) => ({ text, numeric: true }))],
      folds.map(([name, fold]) => [name, String(fold.loss.length), number(fold.loss.at(-1)),
        ...(scored ? [number(fold.score.at(-1))] : []), page.seconds(fold.seconds)])));
    };
    show();
  };
})(Medusa);
