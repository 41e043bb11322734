// The confusion matrix: counts and shares, and each cell a button that shows its utterances.
"use strict";

(function (page) {
  const { el } = page;

  page.matrixSection = function (data) {
    if (!data.scores.some((each) => Object.values(each.parts).some((own) => own.assessment.classification))) return;
    const box = el("div");
    page.section("confusion", "Confusion", el("div", { className: "choices" }, page.choices(data, true)), box,
      page.note("Row: the label. Column: the prediction. The share is of the row. A cell shows its utterances in the table below."));
    page.watch(["part", "system"], () => box.replaceChildren(...matrix(data)));
    page.watch(["filter", "system"], () => {
      const { label, predicted } = page.chosen.filter;
      for (const button of box.querySelectorAll("button.cell")) {
        button.setAttribute("aria-pressed", String(+button.dataset.label === label && +button.dataset.predicted === predicted));
      }
    });
  };

  function matrix(data) {
    const own = page.found(data, page.chosen.system, page.chosen.part);
    if (!own || !own.assessment.classification) {
      return [page.note(`${page.short(page.chosen.system)} predicts no classes on ${page.chosen.part}.`)];
    }
    const result = own.assessment.classification;
    const cells = result.confusion.map((row, label) => {
      const total = row.reduce((sum, n) => sum + n, 0);
      return [result.classes[label], ...row.map((n, predicted) => cell(data, result, n, total, label, predicted)),
        page.count(total), page.percent(total ? row[label] / total : NaN, 1)];
    });
    const heads = [{ text: "label \\ prediction", row: true }, ...result.classes.map((text) => ({ text, numeric: true })),
      { text: "utterances", numeric: true }, { text: "recall", numeric: true }];
    return [page.table(`Confusion, ${page.short(page.chosen.system)}, ${page.chosen.part}`, heads, cells,
      { id: "matrix", className: result.classes.length > 10 ? "grid many" : "grid" })];
  }

  function cell(data, result, n, total, label, predicted) {
    const share = total ? n / total : 0;
    const button = el("button", {
      type: "button", className: label === predicted ? "cell right" : "cell",
      title: `${n} of ${total} ${result.classes[label]} predicted as ${result.classes[predicted]}`,
      attr: { "aria-pressed": "false", "data-label": label, "data-predicted": predicted },
      on: { click: () => show(data, label, predicted) },
    }, el("span", {}, page.count(n)), el("small", {}, total ? `${(100 * share).toFixed(0)} %` : "–"));
    button.style.setProperty("--share", share);
    return button;
  }

  function show(data, label, predicted) {
    const { filter, part } = page.chosen;
    const again = filter.label === label && filter.predicted === predicted;
    page.choose({ filter: again ? page.noFilter() : { ...page.noFilter(), label, predicted, groups: partGroup(part) },
      tablePage: 0 });
    if (!again) document.getElementById("utterances").scrollIntoView({ block: "start" });
  }

  // The group that a part is: a split or a corpus by its name; all folds are everything, or where utterances are
  // outside them the part of that name.
  function partGroup(part) {
    for (const column of ["part", "split", "corpus"]) {
      const own = page.utterances.groups[column];
      const code = own ? own.values.indexOf(part) : -1;
      if (code >= 0) return { [column]: code };
    }
    return {};
  }
  page.partGroup = partGroup;
})(Medusa);
