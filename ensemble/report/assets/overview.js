// What was done and what came of it: warnings, corpus, features, members, scores, agreement, steps.
"use strict";

(function (page) {
  const { el, table, number, short } = page;
  const right = (text) => ({ text, numeric: true });
  const left = (text) => ({ text });

  page.head = function (data) {
    const findings = data.protocol.findings;
    const bad = data.warnings;
    const head = document.getElementById("head");
    const line = `${data.made.date} · medusa-ser ${data.made.version} · ${page.counted(data.utterances.n, "utterance")}, ` +
      page.counted(data.scores.length, "system");
    head.append(el("h1", {}, data.title), el("p", { className: "note" }, line));
    if (bad.length) {
      head.append(el("div", { className: "warning", id: "warnings", attr: { role: "alert" } },
        el("strong", {}, "⚠ Read the figures with this in mind"), el("ul", {}, bad.map((each) => el("li", {}, each)))));
    } else if (data.protocol.column) {
      head.append(el("p", { className: "good", id: "clean" }, `✓ No ${page.utterances.groups.speaker ? "speaker, " : ""}utterance or ` +
        `recording is in two parts of “${data.protocol.column}”` +
        `${page.utterances.classes.length ? ", and no part lacks a class" : ""}.`));
    }
    const notes = findings.filter((each) => each.severity === "note").map((each) => each.message).concat(data.notes);
    if (notes.length) head.append(el("ul", { className: "note" }, notes.map((each) => el("li", {}, each))));
    const dark = el("button", { type: "button", on: { click: () => {
      const now = document.documentElement.dataset.theme ||
        (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
      document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
      page.choose({ theme: document.documentElement.dataset.theme });
    } } }, "Light or dark");
    document.getElementById("sections").append(dark);
  };

  page.madeSection = function (data) {
    const parts = [table("Corpus", [{ text: "", row: true }, left("")], data.corpus)];
    if (data.features.length) {
      parts.push(table("Features", ["set", "encoder", "weights", "layers", "dim", "rate", "stored", "utterances",
        "fingerprint", "decoder", "made"].map((text, i) => ({ text, row: i === 0 })), data.features.map((own) => [
        own.name, own.encoder, own.weights, layerRanges(own.layers), String(own.dim),
        own.frame_rate_hz ? `${own.frame_rate_hz} Hz` : "–", [own.dtype, own.pool, own.window].filter((each) => each && each !== "none")
          .join(", "),
        own.in_store ? page.count(own.n) : "not in the store",
        own.other ? `${own.fingerprint} (members read another)` : own.fingerprint,
        (own.decoders || []).join(", ") || Object.entries(own.versions).filter(([name]) => ["soundfile", "av",
          "soxr"].includes(name)).map((pair) => pair.join(" ")).join(", ") || "–", own.date,
      ])));
    }
    parts.push(table("Systems", ["system", "kind", "reads", "folds", "predictions", "fingerprint"]
      .map((text, i) => ({ text, row: i === 0 })), data.members.map((own) => [
      short(own.name), own.kind, own.reads.join(", "), own.folds || "–",
      own.out_of_fold === "fold" ? "out of fold" : own.out_of_fold || "–", own.fingerprint || "–",
    ])));
    parts.push(el("details", {}, el("summary", {}, "Settings and run directories"),
      table("Settings", [{ text: "system", row: true }, left("directory"), left("settings")],
        data.members.map((own) => [short(own.name), own.directory, own.settings]))));
    parts.push(page.note(`Made on ${data.made.machine}.`));
    page.section("made", "What was done", parts);
  };

  // Names of layers, those that follow one another as a range: "0 to 6, 12".
  function layerRanges(names) {
    const numbers = names.map((name) => /^layer_(\d+)$/.exec(name));
    if (!numbers.every(Boolean)) return names.join(", ");
    const runs = [];
    for (const n of numbers.map((found) => Number(found[1]))) {
      const last = runs.at(-1);
      if (last && last[1] + 1 === n) last[1] = n;
      else runs.push([n, n]);
    }
    return runs.map(([low, high]) => (high > low + 1 ? `${low} to ${high}` : high > low ? `${low}, ${high}` : low)).join(", ");
  }

  page.scoresSection = function (data) {
    const box = el("div");
    page.section("scores", "Scores", el("div", { className: "choices" }, page.choices(data)), box);
    page.watch(["part"], () => box.replaceChildren(...scores(data), ...differences(data), ...votes(data)));
  };

  // The choices of part and system that stand in several sections.
  page.choices = function (data, withSystem = false) {
    const box = el("span", { className: "choices" });
    page.watch(["part", "system"], () => {
      const parts = page.parts(data);
      const own = [];
      if (parts.length > 1) {
        own.push(page.select("Part", parts.map((part) => [part, part]), page.chosen.part, (part) => page.choose({ part })));
      }
      if (withSystem && data.scores.length > 1) {
        own.push(page.select("System", data.scores.map((each) => [each.name, short(each.name)]), page.chosen.system,
          (system) => page.choose({ system, tablePage: 0 })));
      }
      page.refill(box, ...own);
    });
    return box;
  };

  page.parts = (data) => [...new Set(data.scores.flatMap((each) => Object.keys(each.parts)))];

  // What was found of a system on the chosen part; undefined where it is not judged there.
  page.found = (data, system, part) => data.scores.find((each) => each.name === system).parts[part];

  function onPart(data) {
    return data.scores.map((each) => [each.name, each.parts[page.chosen.part]]).filter(([, own]) => own);
  }

  function scores(data) {
    const rows = onPart(data);
    const names = ["macro_f1", "macro_f1_present", "accuracy", "uar", "mean_ccc"]
      .filter((name) => rows.some(([, own]) => name in own.assessment.intervals || pooled(own.assessment, name) !== null))
      .filter((name) => name !== "macro_f1_present" || rows.some(([, own]) =>
        Math.abs(pooled(own.assessment, "macro_f1") - pooled(own.assessment, name)) > 1e-9));
    const best = Object.fromEntries(names.map((name) =>
      [name, Math.max(...rows.map(([, own]) => pooled(own.assessment, name) ?? -Infinity))]));
    const heads = [{ text: "system", row: true }, ...names.flatMap((name) => [right(page.scoreName(name)), right("95 %")]),
      right("by fold"), right("ECE"), right("utterances")];
    const lines = rows.map(([name, { assessment }]) => {
      const cells = names.flatMap((score) => {
        const interval = assessment.intervals[score];
        const value = pooled(assessment, score);
        const shown = rows.length > 1 && value !== null && value === best[score] ? el("strong", {}, number(value)) : number(value);
        return [shown, interval ? page.interval(interval[1], interval[2]) : "–"];
      });
      const fold = assessment.folds.macro_f1 || assessment.folds.mean_ccc;
      const classes = assessment.classification;
      const n = classes ? classes.n : Math.max(0, ...Object.values(assessment.concordance.n));
      const deviation = fold && fold.std !== null ? ` ± ${number(fold.std)}` : "";
      return [short(name), ...cells, fold ? `${number(fold.mean)}${deviation}` : "–",
        number(assessment.calibration && assessment.calibration.given.ece), page.count(n)];
    });
    const notes = notesOf(rows);
    const clusters = rows.length ? rows[0][1].assessment.n_clusters : 0;
    const byFold = rows.some(([, { assessment }]) => assessment.folds.macro_f1 || assessment.folds.mean_ccc);
    const about = [
      data.resamples && clusters > 1 ? `Intervals: ${page.count(data.resamples)} resamples of ` +
        `${page.counted(clusters, page.utterances.groups.speaker ? "speaker" : "utterance")}.` : "",
      rows.length > 1 ? "The best of a column is bold." : "",
      byFold ? "By fold: mean and standard deviation of the first score over the folds." : "",
    ].filter(Boolean).join(" ");
    return [table(`Scores, ${page.chosen.part}`, heads, lines, { id: "score-table" }), page.note(about),
      ...notes.map((text) => page.note(`Note: ${text.replace(/\.$/, "")}.`))];
  }

  // Notes on the scores, each with the systems that it is on unless it is on all.
  function notesOf(rows) {
    const found = new Map();
    for (const [name, own] of rows) {
      for (const text of new Set([...own.assessment.notes, ...own.notes])) found.set(text, [...(found.get(text) || []), short(name)]);
    }
    return [...found].map(([text, names]) => (names.length < rows.length ? `${names.join(", ")}: ${text}` : text));
  }

  function pooled(assessment, name) {
    if (name === "mean_ccc") return assessment.concordance ? assessment.concordance.mean : null;
    return assessment.classification ? assessment.classification[name] : null;
  }

  function differences(data) {
    const rows = onPart(data).filter(([, own]) => own.assessment.against);
    if (!rows.length) return [];
    const names = ["macro_f1", "accuracy", "uar", "mean_ccc"].filter((name) =>
      rows.some(([, own]) => name in own.assessment.against.differences));
    const several = rows.length > 1;
    const pValue = (p) => (page.known(p) && p < 0.001 ? "< 0.001" : number(p));
    const heads = [{ text: "system", row: true },
      ...names.flatMap((name) => [page.scoreName(name), "95 %", "p", ...(several ? ["p, Holm"] : [])].map(right))];
    const lines = rows.map(([name, own]) => [short(name), ...names.flatMap((score) => {
      const each = own.assessment.against.differences[score];
      if (!each) return several ? ["–", "–", "–", "–"] : ["–", "–", "–"];
      return [page.signed(each.value), page.interval(each.low, each.high), pValue(each.p),
        ...(several ? [pValue(each.p_holm)] : [])];
    })]);
    return [table(`Differences: each system less ${short(data.reference)}, on the same utterances`, heads, lines, { id: "difference-table" }),
      page.note("Paired: both systems on the same resampled speakers; p from swapping their names by speaker." +
        (several ? ` “p, Holm” is corrected for the ${rows.length} systems that a score is compared in; the intervals are not corrected.` : ""))];
  }

  // What fit-meta found of votes and single seeds, which are no systems of the store.
  function votes(data) {
    return data.ensembles.flatMap((own) => Object.entries(own.parts || {}).map(([part, rows]) => el("details", {},
      el("summary", {}, `Members, votes and meta-classifier as ${short(own.system)} was fitted (${part})`),
      table(`${short(own.system)}: ${own.fitted_on}`, [{ text: "system", row: true }, right("macro-F1"), right("accuracy"),
        right("UAR"), right("mean CCC")], rows.map((row) => [row.name, number(row.scores.macro_f1), number(row.scores.accuracy),
        number(row.scores.uar), number(row.scores.mean_ccc)])),
      ...(own.notes || []).map((text) => page.note(`Note: ${text}`)))));
  }

  page.agreementSection = function (data) {
    const own = data.agreement;
    if (!own) return;
    const { annotators } = own;
    const lines = [["annotators", page.percent(own.pairs, 1), "", page.count(own.n)],
      ...own.systems.map((each) => [short(each.name), page.percent(each.share, 1), page.percent(each.pairs, 1), page.count(each.n)])];
    page.section("agreement", "Annotators and systems",
      table("Agreement with an annotator", [{ text: "", row: true }, right("agrees with an annotator"),
        right("annotators among themselves, same utterances"), right("utterances")], lines, { id: "agreement-table" }),
      page.note(`${page.count(annotators.n_ratings)} ratings; Fleiss' kappa ${number(annotators.fleiss_kappa)}, Krippendorff's ` +
        `alpha ${number(annotators.krippendorff_nominal)}; ${page.count(annotators.n_tied)} utterances are tied. Annotators: the ` +
        "share of equal labels among pairs of annotators of one utterance. A system: the share of annotators who gave the class " +
        "that it predicts. Utterances with two votes or more."),
      ...Object.entries(annotators.krippendorff_interval).map(([name, alpha]) =>
        page.note(`Krippendorff's alpha of ${name}: ${number(alpha)}.`)));
  };

  page.stepsSection = function (data) {
    if (!data.steps.length) return;
    const columns = [["time", (own) => page.seconds(own.seconds)], ["attempts", (own) => page.count(own.attempts)],
      ["bytes", (own) => page.bytes(own.bytes)]].filter(([, text]) => data.steps.some((own) => text(own) !== "–"));
    page.section("steps", "Time and bytes", table("Steps and what they take", [{ text: "step", row: true },
      ...columns.map(([name]) => right(name))], data.steps.map((own) => [short(own.name), ...columns.map(([, text]) => text(own))]),
    { id: "step-table" }), data.steps.some((own) => page.known(own.attempts)) ? page.note("Times are of the attempt that finished a step.") : null);
  };

  // A grid of numbers whose shade grows with the value from the least one, or from `base`; the largest is bold.
  page.grid = function (caption, corner, columns, rows, base = Infinity) {
    const values = rows.flatMap(([, line]) => line).filter(page.known);
    const low = Math.min(base, ...values), high = Math.max(...values);
    const lines = rows.map(([name, line]) => [name, ...line.map((value) => {
      if (!page.known(value)) return "";
      const cell = el("span", { className: value === high ? "heat most" : "heat" }, number(value));
      cell.style.setProperty("--share", high > low ? (value - low) / (high - low) : 0);
      return cell;
    })]);
    return table(caption, [{ text: corner, row: true }, ...columns.map(right)], lines, { className: "grid" });
  };

  // All probes' layers in one grid for each part, so that feature sets stand below one another.
  page.probeSection = function (data) {
    const kinds = new Map();
    for (const own of data.probes) {
      for (const [part, found] of Object.entries(own.parts)) {
        const key = `${page.scoreName(own.score)} of each layer, ${part}`;
        if (!kinds.has(key)) kinds.set(key, []);
        kinds.get(key).push([own.probe || own.file, found]);
      }
    }
    if (!kinds.size) return;
    page.section("probe", "Layers", [...kinds].flatMap(([caption, found]) => {
      const layers = [...new Set(found.flatMap(([, part]) => part.layers))].sort((a, b) => a - b || (a < b ? -1 : 1));
      const rows = found.flatMap(([, part]) => part.sets.map((set, i) =>
        [set, layers.map((layer) => (part.layers.includes(layer) ? part.values[i][part.layers.indexOf(layer)] : NaN))]));
      const nested = found.map(([name, part]) => `${name} ${number(part.nested)}`).join(", ");
      return [page.grid(caption, "features", layers, rows),
        page.note(`Chosen inside the training parts: ${nested}. Compare layers by the grid, but report these.`)];
    }));
  };

  page.weightsSection = function (data) {
    const learned = data.ensembles.filter((own) => own.learned);
    if (!learned.length) return;
    page.section("weights", "Weights of the meta-classifier", learned.flatMap((own) => {
      const { members, columns, weights, reliability } = own.learned;
      return [page.grid(`${short(own.system)}: weight of each member's class`, "member", columns,
        members.map((name, m) => [name, weights[m]]), 0),
      page.grid(`${short(own.system)}: each member's F1 (attributes: CCC) where it was fitted`, "member", columns,
        members.map((name, m) => [name, reliability[m]]), 0)];
    }));
  };
})(Medusa);
